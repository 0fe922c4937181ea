"""Training and compiling: resuming is exact, folders are whole, mistakes are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from stformer import data, recipe, train  # noqa: E402
from stformer import fixedpoint as fx  # noqa: E402
from stformer.compile import calibrate, compile_run  # noqa: E402
from stformer.errors import InputError  # noqa: E402
from stformer.lower import lower_stformer  # noqa: E402
from stformer.model import quantise  # noqa: E402

SMALL = [
    "train.epochs=3",
    "train.batch_size=256",
    "model.width=16",
    "model.depth=1",
    "model.steps=2",
    "compile.finetune_epochs=1",
]


@pytest.fixture(scope="module")
def small() -> recipe.Recipe:
    return recipe.load("digits", SMALL)


def weights(run: train.Run) -> dict[str, Any]:
    return {k: v.numpy() for k, v in run.model.state_dict().items()}


def test_interrupted_and_resumed_equals_never_interrupted(
    small: recipe.Recipe, tmp_path: Path
) -> None:
    whole = train.train(small, tmp_path / "whole")

    def interrupt(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(small, tmp_path / "broken", report=interrupt)
    assert train.load_run(tmp_path / "broken").epochs_done == 2
    resumed = train.train(small, tmp_path / "broken", resume=True)
    expected = weights(whole)
    for name, value in weights(resumed).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    rows = [
        json.loads(line) for line in (tmp_path / "broken/metrics.jsonl").read_text().splitlines()
    ]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    again = train.train(small, tmp_path / "broken", resume=True)
    assert again.epochs_done == 3
    assert sorted(p.name for p in (tmp_path / "broken").iterdir()) == [
        "checkpoint.pt", "metrics.jsonl", "recipe.json", "result.json", "tensorboard",
    ]  # fmt: skip


@pytest.mark.slow
def test_training_learns_and_compiling_keeps_it(tmp_path: Path) -> None:
    chosen = recipe.load(
        "digits", [*SMALL, "train.epochs=8", "train.batch_size=64", "model.steps=3"]
    )
    run = train.train(chosen, tmp_path)
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < 0.8 * losses[0]
    compiled = compile_run(run)
    assert compiled.float_accuracy > 0.3
    assert abs(compiled.integer_accuracy - compiled.float_accuracy) < 0.25
    assert compiled.network.digest() == lower_stformer(compiled.model, "digits").digest()
    assert 0 < max(compiled.largest_sums.values()) <= fx.ACCUMULATOR_MAX


def test_calibration_halves_what_would_overflow(small: recipe.Recipe) -> None:
    model, splits = train.prepare(small)
    model.eval()
    quantise(model)
    few = data.Split(frames=splits["train"].frames[:64], labels=splits["train"].labels[:64])
    with torch.no_grad():  # as after a wild fine-tuning: the head sums far beyond 16 bits
        model.head.weight.fill_(127)
        model.stem.vth.fill_(1)
        for block in (model.spatial.layers[2], model.rpe):
            block.bias.fill_(500)
    before = model.head.scale.item()
    largest = calibrate(model, few)
    assert max(largest.values()) <= fx.ACCUMULATOR_MAX
    assert model.head.scale.item() <= before


def test_a_run_folder_is_not_overwritten(small: recipe.Recipe, tmp_path: Path) -> None:
    train.train(small, tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match="--resume"):
        train.train(small, tmp_path)
    other = recipe.load("digits", [*SMALL, "train.seed=5"])
    with pytest.raises(InputError, match="another train"):
        train.train(other, tmp_path, resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_broken_and_missing_checkpoints(small: recipe.Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no checkpoint\.pt"):
        train.load_run(tmp_path)
    for content in (b"", b"garbage", b"PK\x03\x04 cut off"):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(InputError, match="a file of `stformer train`"):
            train.load_run(tmp_path)


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"recipe": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="a file of `stformer train`"):
        train.load_run(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_data_and_model_must_fit() -> None:
    for override in (
        "model.size=16",
        "model.classes=3",
        "model.largest_input=255",
        "model.channels=2",
    ):
        with pytest.raises(InputError, match=override.split("=")[0]):
            train.prepare(recipe.load("digits", [override]))
