"""The command line when something is wrong around it: files, backends, disks, pipes, Ctrl-C."""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stformer import deploy, storage
from stformer.cli.progress import Progress
from stformer.errors import Problem
from stformer.network import Network
from stformer.testing_cli import (
    Call,
    fake_backend,
)
from stformer.trace import Trace

ROOT = Path(__file__).resolve().parent.parent


def process(
    *words: object, cwd: Path, before: Callable[[], None] | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stformer", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=more.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        preexec_fn=before,
        **more,
    )


def raising(error: BaseException) -> Callable[..., Trace]:
    """What a backend does that fails in that way."""

    def run(*_: object) -> Trace:
        raise error

    return run


# --- models and backends ------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["info"], ["run", "--backend", "reference"]])
def test_files_that_are_no_models(command: list[str], call: Call, tmp_path: Path) -> None:
    gone, text, empty = (tmp_path / name for name in ("gone.stf", "text.stf", "empty.stf"))
    text.write_text("hello " * 100)
    empty.touch()
    for path in (gone, text, empty, tmp_path):
        assert str(path) in call.fails(*command, path)


def test_truncated_and_wrong_files(call: Call, tmp_path: Path, model: Path, data: Path) -> None:
    cut = tmp_path / "cut.stf"
    whole = model.read_bytes()
    for size in (len(whole) // 2, len(whole) - 1, 600):
        cut.write_bytes(whole[:size])
        assert str(cut) in call.fails("info", cut)
    trace = tmp_path / "t.trace"
    assert call("run", model, "--backend", "reference", "--data", data, "-o", trace)[0] == 0
    assert "a trace" in call.fails("info", trace)
    assert "a network" in call.fails("verify", "--traces", model, trace)


def test_unknown_backends_are_told_with_those_there_are(
    call: Call, model: Path, data: Path
) -> None:
    for words in (
        ["run", model, "--backend", "loihi9"],
        ["verify", model, "--backend", "reference,loihi9"],
        ["verify", model, "--backend", "reference", "--against", "loihi9"],
    ):
        message = call.fails(*words, "--data", data)
        assert "'loihi9'" in message
        assert ", ".join(deploy.backends()) in message


def test_a_backend_that_is_not_installed(
    call: Call, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = fake_backend(monkeypatch, missing="no chip on this desk; pip install chip")
    for words in (["run", "--backend", name], ["verify", "--backend", f"reference,{name}"]):
        message = call.fails(words[0], model, *words[1:], "--data", data, code=3)
        assert "'fake' is not available here: no chip on this desk" in message
        assert message.endswith("To get it: pip install chip")


def test_a_network_that_a_backend_cannot_run(
    call: Call, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem(where="population p", why="it has no such neurons")
    message = call.fails(
        "run", model, "--backend", fake_backend(monkeypatch, problems=(problem,)), "--data", data
    )
    assert "population p" in message
    assert "no such neurons" in message


def test_a_bug_is_told_as_one_and_is_not_exit_code_1(
    call: Call, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = call(
        "verify",
        model,
        "--backend",
        fake_backend(monkeypatch, raising(ZeroDivisionError("a bug"))),
        "--data",
        data,
    )
    assert (code, out) == (70, "")
    assert "ZeroDivisionError: a bug" in err
    assert "Traceback" in err
    assert "bug of stformer" in err


def test_no_memory(call: Call, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = call.fails(
        "run",
        model,
        "--backend",
        fake_backend(monkeypatch, raising(MemoryError())),
        "--data",
        data,
    )
    assert "out of memory" in message


# --- output: files, pipes, terminals ------------------------------------------------------------


def test_places_that_cannot_be_written(
    call: Call, tmp_path: Path, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("run", model, "--backend", "reference", "--data", data, "-o")
    assert "no folder" in call.fails(*run, tmp_path / "gone" / "t")
    assert "a folder" in call.fails(*run, tmp_path)
    before = model.read_bytes()
    assert "the same file" in call.fails(*run, model)
    assert "the same file" in call.fails(*run, data)
    assert model.read_bytes() == before
    # root may write anywhere, so the question is answered for it
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    assert "read-only" in call.fails(*run, tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_full_disk_leaves_the_old_trace(tmp_path: Path, model: Path, data: Path) -> None:
    """A limit on the size of files fails writes as a full disk does."""
    out = tmp_path / "t.trace"
    out.write_text("old")

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    words = ("run", model.name, "--backend", "reference", "--data", data.name, "-o", out.name)
    done = process(*words, cwd=tmp_path, before=limited)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("stformer: error: t.trace: ")
    assert out.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.stf", "t.trace", "x.npy"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
def test_a_full_device_behind_standard_output(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = process("targets", cwd=tmp_path, stdout=full)
    assert done.returncode == 2
    assert done.stderr == f"stformer: error: input or output: {os.strerror(errno.ENOSPC)}\n"


def test_a_reader_that_goes_away(tmp_path: Path, model: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = process("info", model.name, cwd=tmp_path, stdout=write)
    finally:
        os.close(write)
    assert done.returncode == 141
    assert done.stderr == ""


def test_an_interrupt_is_told_in_a_line(
    call: Call, tmp_path: Path, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t"
    words = (
        "run",
        model,
        "--backend",
        fake_backend(monkeypatch, raising(KeyboardInterrupt())),
        "--data",
        data,
        "-o",
        out,
    )
    assert call(*words) == (130, "", "stformer: interrupted\n")
    assert not out.exists()


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        (signal.SIGHUP, 129, "ended by SIGHUP"),
    ],
)
def test_a_real_interrupt(
    tmp_path: Path, model: Path, frames: Any, number: int, code: int, said: str
) -> None:
    np.save(tmp_path / "many.npy", np.repeat(frames, 20000, axis=0))
    (tmp_path / "t").write_text("old")
    words = ["run", "m.stf", "--backend", "reference", "--data", "many.npy", "-o", "t", "-v"]
    child = subprocess.Popen(
        [sys.executable, "-m", "stformer", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # nohup, say, ignores some
    )
    assert child.stderr is not None
    for line in child.stderr:
        if "samples of many.npy" in line:
            break
    time.sleep(0.3)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (code, "", f"stformer: {said}\n")
    assert (tmp_path / "t").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.stf", "many.npy", "t"]


def test_nowhere_to_say_it(tmp_path: Path, model: Path) -> None:
    """Exit codes are right where standard output or error was closed or is full."""
    done = process("info", model, cwd=tmp_path, stdout=None, before=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")

    def full() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 2)

    assert process("info", "gone.stf", cwd=tmp_path, before=full).returncode == 2


def test_verbose_says_where_an_error_came_from(call: Call, tmp_path: Path) -> None:
    code, _, err = call("info", tmp_path / "gone.stf", "-v")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("stformer: error: ")


def test_what_files_say_cannot_steer_a_terminal(
    call: Call, tmp_path: Path, network: Network, model: Path, data: Path
) -> None:
    evil = "\x1b[2J\x07evil"
    storage.save(tmp_path / "e.stf", network, provenance={"note": evil})
    out = call("info", tmp_path / "e.stf")[1]
    assert "evil" in out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\x1b" not in call.fails(f"ver{evil}")


def test_progress_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, shown in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress("work", total=4) as progress:
            progress.update(4, "loss 0.5")
        assert bool(stream.getvalue()) == shown
    written = stream.getvalue()
    assert "[########################] 4/4" in written
    assert "loss 0.5" in written
    assert written.endswith("\r\x1b[K")  # leaves an empty line


def test_progress_tells_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the pace since the first report; a slow start is no part of it."""
    now = 1000.0
    monkeypatch.setattr("stformer.cli.progress.time.monotonic", lambda: now)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("work") as progress:
        for seconds, done in ((50.0, 0), (2.0, 1), (2.0, 2), (400.0, 4), (1.0, 10)):
            now += seconds
            progress.of(done, 10)
    text = stream.getvalue()
    assert "52 s, about 18 s left" in text
    assert "54 s, about 16 s left" in text
    assert "454 s, about 10 min left" in text
    assert "455 s\r" in text
