"""Training in processes that are killed, and in several at once: the weights do not notice."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from stformer import recipe, train  # noqa: E402
from stformer.training import checkpoint  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    *("train.epochs=3", "train.batch_size=32", "train.mixup=0.5", "train.flip=0.5"),
    *("train.checkpoint_minutes=1e-9", "train.validation=0.2"),
    *("model.width=8", "model.depth=1", "model.steps=2"),
]
# What a process of torchrun does, and its weights at the end.
SCRIPT = """
import os, sys, torch
from pathlib import Path
from stformer import recipe, train
out, *overrides = sys.argv[1:]
run = train.train(recipe.load("digits", overrides), Path(out), resume=True, device="cpu")
torch.save(run.model.state_dict(), f"{out}.rank{os.environ.get('RANK', '0')}.pt")
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums of floats depend on the number of threads; torchrun gives every process one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(out: Path, overrides: list[str], processes: int = 1) -> list[subprocess.Popen[bytes]]:
    """The processes of one training, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    return [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SCRIPT, str(out), *overrides],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(processes)
    ]


def finish(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        _, err = child.communicate(timeout=200)
        assert child.returncode == 0, err.decode()[-2000:]


def kill_amid_an_epoch(out: Path, children: list[subprocess.Popen[bytes]]) -> dict[str, Any]:
    """SIGKILL, no warning, when the checkpoint is one of the middle of the second epoch."""
    end = time.monotonic() + 200
    while time.monotonic() < end:
        assert all(child.poll() is None for child in children), children[0].communicate()
        if (out / "checkpoint.pt").exists():
            for child in children:
                child.send_signal(signal.SIGSTOP)
            state = checkpoint.read(out)
            if state["epoch"] == 1 and state["step"] >= 3:
                for child in children:
                    child.kill()
                for child in children:
                    child.communicate()
                return state
            for child in children:
                child.send_signal(signal.SIGCONT)
        time.sleep(0.02)
    raise AssertionError("no checkpoint within an epoch")


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert list(one) == list(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(row["epoch"], row["loss"]) for row in map(json.loads, lines)]


def whole_run(out: Path, *more: str) -> dict[str, Any]:
    """Weights of the last epoch of a training that nothing disturbed, here in one process."""
    train.train(recipe.load("digits", [*SMALL, *more]), out, device="cpu")
    weights: dict[str, Any] = checkpoint.read(out)["model"]
    return weights


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_resumed_equals_never_killed(tmp_path: Path, processes: int) -> None:
    expected = whole_run(tmp_path / "whole", f"train.accumulate={processes}")
    children = start(tmp_path / "run", SMALL, processes)
    killed = kill_amid_an_epoch(tmp_path / "run", children)
    assert 0 < killed["step"] < 36  # of about 1,150 samples
    left = sorted(p.name for p in (tmp_path / "run").iterdir() if not p.name.startswith("."))
    assert left == ["checkpoint.pt", "metrics.jsonl", "recipe.json", "tensorboard"]
    finish(start(tmp_path / "run", SMALL, processes))
    state = checkpoint.read(tmp_path / "run")
    assert (state["epoch"], state["step"]) == (3, 0)
    # Two processes equal one with two parts, bit for bit: a sum of two has one order only.
    assert_same(state["model"], expected)
    assert dict(losses(tmp_path / "run")) == pytest.approx(dict(losses(tmp_path / "whole")))
    for rank in range(processes):
        ended = torch.load(f"{tmp_path / 'run'}.rank{rank}.pt", weights_only=True)
        assert_same(ended, dict(train.load_run(tmp_path / "run").model.state_dict()))


@pytest.mark.slow
def test_torchrun_trains_as_one_process_does(tmp_path: Path) -> None:
    overrides = [word for key in [*SMALL, "train.epochs=1"] for word in ("--set", key)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "stformer", "train", "digits", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--device", "cpu", "-o", "run", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)  # once, not by each process
    assert said["trained_epochs"] == 1
    expected = whole_run(tmp_path / "whole", "train.epochs=1", "train.accumulate=2")
    assert_same(checkpoint.read(tmp_path / "run")["model"], expected)
    # torchrun ends all of them where one has nothing to do with the others' batches
    bad = subprocess.run(
        [*command, "--set", "train.batch_size=33", "-o", "bad"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert bad.returncode == 1 and "33 for 2 processes" in bad.stderr
    assert not (tmp_path / "bad").exists()


@pytest.mark.slow
def test_a_process_that_is_left_alone_ends(tmp_path: Path) -> None:
    children = start(tmp_path / "run", [*SMALL, "train.epochs=500"], 2)
    end = time.monotonic() + 200
    while not (tmp_path / "run" / "checkpoint.pt").exists() and time.monotonic() < end:
        time.sleep(0.1)
    children[1].send_signal(signal.SIGINT)  # Ctrl-C reaches one only
    children[1].communicate(timeout=60)
    _, err = children[0].communicate(timeout=60)
    assert children[0].returncode != 0
    assert "another process of this training ended" in err.decode()
    checkpoint.read(tmp_path / "run")  # the old one or the whole new one
