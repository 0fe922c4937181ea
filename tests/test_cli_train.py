"""train, compile, eval, demo: what they answer, and what mistakes and interrupts leave behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stformer import deploy, storage
from stformer.cli import common
from stformer.testing_cli import Call

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    *("--set", "train.epochs=2", "--set", "train.batch_size=256", "--set", "model.width=16"),
    *("--set", "model.depth=1", "--set", "model.steps=2", "--set", "compile.finetune_epochs=1"),
]

needs_training = pytest.mark.skipif(
    deploy.load("torch").missing() is not None, reason="torch is not installed"
)


def process(*words: str, cwd: Path, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stformer", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


@needs_training
def test_train_compile_eval_and_verify_in_a_row(call: Call, tmp_path: Path) -> None:
    run, model = tmp_path / "run", tmp_path / "m.stf"
    trained = call.json("train", "digits", *TINY, "-o", run)
    assert trained["epochs"] == trained["trained_epochs"] == 2
    compiled = call.json("compile", run, "-o", model)
    assert compiled["digest"] == storage.load(model).digest()
    floating = call.json("eval", run)
    assert floating["accuracy"] == trained["test_accuracy"] == compiled["float_accuracy"]
    integer = call.json("eval", model)  # on the data it was trained for
    assert integer["accuracy"] == compiled["integer_accuracy"]
    assert integer["samples"] == 360
    assert sum(map(sum, integer["confusion"])) == 360
    diagonal = sum(row[i] for i, row in enumerate(integer["confusion"]))
    assert diagonal == integer["correct"]
    assert call.json("verify", model, "--backend", "cpu,torch", "--state", "--samples", 20)[
        "proven"
    ]
    again = call.json("train", "digits", *TINY, "-o", run, "--resume")
    assert again["trained_epochs"] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.stf", "run"]


@needs_training
def test_mistakes(call: Call, tmp_path: Path) -> None:
    assert "Did you mean 'epochs'?" in call.fails("train", "digits", "--set", "train.epoch=3")
    assert "digits" in call.fails("train", "nothing", "-o", tmp_path / "r")
    assert "no checkpoint.pt" in call.fails("compile", tmp_path, "-o", tmp_path / "m.stf")
    assert "no folder" in call.fails("compile", tmp_path, "-o", tmp_path / "gone" / "m.stf")
    message = call.fails("compile", tmp_path, "-o", tmp_path / "m.stf", "--finetune", -1)
    assert "0 or more" in message
    (tmp_path / "file").write_text("x")
    assert "cannot be made" in call.fails(
        "train", "digits", *TINY, "-o", tmp_path / "file" / "run"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_without_torch(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "find_spec", lambda name: None)
    for words in (
        ("train", "digits"),
        ("compile", tmp_path, "-o", tmp_path / "m.stf"),
        ("eval", tmp_path),
        ("demo", "-o", tmp_path / "demo"),
    ):
        message = call.fails(*words, code=3)
        assert "torch is not installed" in message
        assert "pip install 'stformer[train]'" in message
    assert not list(tmp_path.iterdir())


@needs_training
def test_the_demo_begins_nothing_without_its_backends(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lava = type(deploy.load("lava-sim"))
    monkeypatch.setattr(lava, "missing", lambda self: "no Lava; install it")
    message = call.fails("demo", "-o", tmp_path / "demo", code=3)
    assert "lava-sim" in message
    assert "To get it: install it" in message
    assert not (tmp_path / "demo").exists()


@needs_training
def test_a_dry_run_of_a_real_recipe(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digits recipe with all that the CIFAR ones ask for, on random frames."""
    monkeypatch.chdir(tmp_path)
    words = [*TINY, "--set", "train.batch_size=16", "--set", "train.amp=fp16", "--device", "cpu"]
    words += ["--set", "train.mixup=0.5", "--set", "train.channels_last=true"]
    speed = call.json("train", "digits", *words, "--data", "synthetic", "--steps", 2)
    assert (speed["steps"], speed["samples"], speed["processes"]) == (2, 32, 1)
    assert speed["samples_per_second"] > 0 and speed["peak_bytes"] > 2**26
    code, text, _ = call("train", "digits", *words, "--data", "synthetic", "--steps", 1)
    assert code == 0
    assert "samples/s on cpu" in text and "peak memory" in text
    assert "writes nothing" in call.fails(
        "train", "digits", *words, "--data", "synthetic", "-o", "r"
    )
    assert "--data synthetic" in call.fails("train", "digits", *words, "--steps", 3)
    assert not list(tmp_path.iterdir())


@needs_training
def test_held_out_samples_and_unhealthy_populations_are_told(call: Call, tmp_path: Path) -> None:
    words = [*TINY, "--set", "train.validation=0.2", "--device", "cpu"]
    trained = call.json("train", "digits", *words, "-o", tmp_path / "run")
    assert trained["test_accuracy"] == trained["selected"]["test_accuracy"]
    assert trained["selected"]["epoch"] in (1, 2) and trained["last"]["epoch"] == 2
    _, text, _ = call("train", "digits", *words, "-o", tmp_path / "run", "--resume")
    assert "is best on held-out samples" in text and "trained 0 of 2 epochs" in text
    assert call.json("eval", tmp_path / "run")["accuracy"] == trained["test_accuracy"]
    assert "cpu, cuda, cuda:N" in call.fails(
        "train", "digits", *words, "-o", tmp_path / "r", "--device", "tpu"
    )


@needs_training
def test_durations() -> None:
    from stformer.cli import train

    assert [train._duration(s) for s in (3.2, 119, 150, 4790, 36000)] == [
        *("3 s", "2 min", "2 min", "1 h 20 min", "10 h 00 min"),
    ]
    assert train._health(["a"], []) == "populations 1 hardly spiking (a)"
    many = train._health(["a", "b", "c", "d"], ["e"])
    assert many == "populations 4 hardly spiking (a, b, c, …) and 1 always spiking (e)"
    assert train._health([], []) == "every population spikes again"


@pytest.mark.slow
@needs_training
def test_an_interrupted_training_goes_on_where_it_was(tmp_path: Path) -> None:
    words = ("train", "digits", *TINY, "--set", "train.epochs=400", "-o", "run", "-v")
    child = process(*words, cwd=tmp_path)
    assert child.stderr is not None
    for line in child.stderr:
        if "epoch 3 of 400" in line:
            break
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, ""), err
    assert err.endswith("stformer: interrupted\n")
    assert "Traceback" not in err
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "checkpoint.pt", "metrics.jsonl", "recipe.json", "tensorboard",
    ]  # fmt: skip
    again = process("compile", "run", "-o", "m.stf", "--finetune", "0", cwd=tmp_path)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err


@needs_training
def test_a_full_disk_during_training(tmp_path: Path) -> None:
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

    child = process("train", "digits", *TINY, "-o", "run", cwd=tmp_path, preexec_fn=limited)
    out, err = child.communicate(timeout=120)
    assert (child.returncode, out) == (2, ""), err
    assert err.startswith("stformer: error: run/checkpoint.pt: cannot be written")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "metrics.jsonl", "recipe.json", "tensorboard",
    ]  # fmt: skip


@pytest.mark.slow
@needs_training
def test_the_demo_proves_every_spike(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("lava", reason="Lava is not installed")
    plain = call.json("demo", "-o", tmp_path, *TINY, "--lava-samples", 4)
    assert plain["proven"]
    assert [r["other"] for r in plain["reports"]] == ["cpu", "torch", "lava-sim"]
    assert all(r["states_compared"] for r in plain["reports"])
    for path in plain["files"].values():
        assert Path(path).exists()
    page = (tmp_path / "report.html").read_text()
    assert "Every spike and every state is equal: cpu, torch, lava-sim against" in page
    assert plain["digest"] in page
    assert "://" not in page
    assert "<script" not in page
    # again: nothing to train, the same network
    assert (
        call.json("demo", "-o", tmp_path, *TINY, "--lava-samples", 1)["digest"] == plain["digest"]
    )
