"""Event data from the command line: trained on, compiled, run and proven like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from stformer.testing_cli import Call
from stformer.testing_events import write_gesture

pytest.importorskip("torch", reason="torch is not installed")

TINY = [
    *("--set", "train.epochs=1", "--set", "train.batch_size=64", "--set", "model.steps=4"),
    *("--set", "model.width=8", "--set", "compile.finetune_epochs=1"),
]


def test_random_frames_stand_in_for_events() -> None:
    from stformer import recipe, train

    chosen = recipe.load("event-digits", ["data=synthetic:event-digits"])
    model, splits = train.prepare(chosen)
    x = train.to_tensor(model, splits["train"].frames[:64])
    y = splits["train"].labels[:64]
    assert x.shape == (16, 64, 2, 16, 16)
    assert (x.min(), x.max()) == (0, 3)
    assert y.shape == (64,)


@pytest.mark.slow
def test_event_digits_are_learnt_and_proven(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    run, model = tmp_path / "run", tmp_path / "m.stf"
    words = [
        *("--set", "model.width=16", "--set", "train.epochs=8", "--set", "train.warmup_epochs=0")
    ]
    trained = call.json("train", "event-digits", *TINY, *words, "-o", run)
    assert trained["test_accuracy"] > 0.2
    compiled = call.json("compile", run, "-o", model)
    assert call.json("eval", model)["accuracy"] == compiled["integer_accuracy"] > 0.2
    proven = call.json("verify", model, "--backend", "cpu,torch", "--state", "--samples", 20)
    assert proven["proven"]


def test_recordings_are_converted_and_trained_on(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STFORMER_DATA", str(tmp_path / "data"))
    words = [
        *("train", "event-digits", *TINY, "--set", "data=dvs128", "-o", tmp_path / "run"),
        *("--set", "model.size=128", "--set", "model.largest_input=15"),
        *("--set", "model.classes=11", "--set", "model.spatial_strides=[4,4,2]"),
    ]
    assert "trials_to_train.txt" in call.fails(*words, code=3)
    assert not (tmp_path / "run").exists()
    write_gesture(tmp_path / "data")
    assert call.json(*words)["trained_epochs"] == 1
    assert (tmp_path / "data" / "converted" / "dvs128-T4-count15-train.npy").exists()
    evaluated = call.json("eval", tmp_path / "run")  # frames mapped from the cache
    assert evaluated["samples"] == 1
