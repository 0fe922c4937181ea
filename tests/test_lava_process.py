"""Nothing is left of a run, however it ends: no process, no shared memory, no folder."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stformer import interpret
from stformer.deploy.lava import LavaSim
from stformer.deploy.lava_child import LavaFailed
from stformer.network import Dense, Input, Lif, Network, no_bias
from stformer.passes import assign_latency, replace_network
from stformer.testing import assert_traces_equal
from stformer.trace import Probe

REASON = LavaSim().missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")
psutil = pytest.importorskip("psutil")

TOKEN = "7e57"  # in the names of shared memory of this test's runs
GONE_SECONDS = 10.0


def small(latency: int = 1) -> Network:
    network = assign_latency(
        Network(
            name="small",
            steps=4,
            populations=(
                Input(name="x", shape=(3,)),
                Lif(name="a", shape=(5,), vth=3, dv=0, bias_mant=no_bias((5,))),
            ),
            projections=(Dense(name="x>a", pre="x", post="a", weight=np.ones((5, 3), np.int8)),),
        )
    )
    a = network["a"]
    assert isinstance(a, Lif)
    late = Lif(name="a", shape=(5,), vth=3, dv=0, bias_mant=a.bias_mant, latency=latency)
    return replace_network(network, populations=(network["x"], late))


def frames(samples: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.random.default_rng(0).integers(0, 2, (samples, 4, 3))


class Room:
    """A folder and a name of our own, so that others' runs do not disturb."""

    def __init__(self, folder: Path, token: str) -> None:
        self.folder, self.token = folder, token

    def processes(self) -> list[psutil.Process]:
        """Every process of a run in this room; a worker's argument or folder gives it away."""
        found = []
        for process in psutil.process_iter():
            try:
                where = [*process.cmdline(), process.cwd()]
            except psutil.Error:  # zombies and other people's
                continue
            if any(str(self.folder / "stformer-lava-") in text for text in where):
                found.append(process)
        return found

    def left(self) -> list[str]:
        memory = [str(p) for p in Path("/dev/shm").glob(f"stf{self.token}*")]
        return [*map(str, self.processes()), *memory, *map(str, self.folder.iterdir())]

    def worker(self) -> psutil.Process:
        (worker,) = [p for p in self.processes() if p.ppid() == os.getpid()]
        return worker


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    token = TOKEN + secrets.token_hex(2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("stformer.deploy.lava_child.secrets.token_hex", lambda n: token)
    room = Room(tmp_path, token)
    yield room
    assert room.left() == []


def at_step(action: Callable[[], object], step: int = 1) -> Callable[[int, int], None]:
    """A progress callback that acts once, when Lava runs."""
    done: list[int] = []

    def progress(now: int, total: int) -> None:
        if now >= step and not done:
            done.append(now)
            action()

    return progress


def test_success_leaves_nothing(room: Room) -> None:
    seen: list[str] = []
    sim = LavaSim(progress=at_step(lambda: seen.extend(room.left()), step=0))
    trace = sim.run(small(), frames(3), probe=Probe(states=True))
    assert_traces_equal(interpret.run(small(), frames(3), probe=Probe(states=True)), trace)
    assert any("/dev/shm" in text for text in seen), "what we look for is there during a run"
    assert any("stformer-lava-" in text for text in seen)
    assert any("Process" in text for text in seen)


def test_torch_in_the_caller_does_not_matter(room: Room) -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(2)
    torch.ones(64, 64) @ torch.ones(64, 64)  # starts its threads
    trace = LavaSim().run(small(), frames(2), probe=Probe())
    assert_traces_equal(interpret.run(small(), frames(2)), trace)


def test_an_error_in_a_lava_process(room: Room) -> None:
    with pytest.raises(LavaFailed, match="0 and 63 for Loihi") as caught:
        LavaSim().run(small(latency=70), frames(2), probe=Probe())
    assert "Lava process 'x>a' raised ValueError" in str(caught.value)
    assert "in run_spk" in caught.value.last_lines, "Lava's own traceback"
    assert isinstance(caught.value.exit_code, int)


def test_an_error_while_building(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stformer.deploy.lava_child.to_plain", lambda network: ({}, {}))
    with pytest.raises(LavaFailed, match="InputError: the network: missing"):
        LavaSim().run(small(), frames(2), probe=Probe())


def test_the_worker_is_killed(room: Room) -> None:
    sim = LavaSim(progress=at_step(lambda: room.worker().kill()))
    with pytest.raises(LavaFailed, match=r"was killed|ended before"):
        sim.run(small(), frames(3000), probe=Probe())


def test_a_lava_process_is_killed(room: Room) -> None:
    def kill_one() -> None:
        worker = room.worker()
        lava = [p for p in room.processes() if p.ppid() == worker.pid]
        assert len(lava) > 3
        lava[len(lava) // 2].kill()

    with pytest.raises(LavaFailed, match="ended early, by signal 9"):
        LavaSim(progress=at_step(kill_one)).run(small(), frames(30000), probe=Probe())


def test_a_stalled_run_is_given_up(room: Room) -> None:
    sim = LavaSim(progress=at_step(lambda: room.worker().suspend()), stall_seconds=2.0)
    with pytest.raises(LavaFailed, match="no progress for 2 seconds"):
        sim.run(small(), frames(30000), probe=Probe())


def test_an_interrupt_inside_the_run(room: Room) -> None:
    sim = LavaSim(progress=at_step(lambda: signal.raise_signal(signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        sim.run(small(), frames(30000), probe=Probe())


SCRIPT = """
import sys, tempfile
sys.path.insert(0, {root!r})
tempfile.tempdir = {folder!r}
import stformer.deploy.lava_child as child
child.secrets.token_hex = lambda n: {token!r}
import tests_of_lava as t
from stformer.deploy.lava import LavaSim
from stformer.trace import Probe
def progress(now, total):
    if now:
        print("runs", flush=True)
LavaSim(progress=progress).run(t.small(), t.frames(100000), probe=Probe())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_caller(room: Room, tmp_path: Path, number: signal.Signals) -> None:
    root = str(Path(__file__).resolve().parent.parent)
    script = SCRIPT.format(root=root, folder=str(room.folder), token=room.token).replace(
        "import tests_of_lava as t",
        f"import importlib.util as u; s = u.spec_from_file_location('t', {__file__!r}); "
        "t = u.module_from_spec(s); s.loader.exec_module(t)",
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as caller:
        assert caller.stdout is not None
        assert caller.stderr is not None
        first = caller.stdout.readline()
        if first != "runs\n":
            caller.kill()
            pytest.fail(caller.stderr.read()[-2000:])
        assert len(room.left()) > 5
        caller.send_signal(number)
        errors = caller.communicate(timeout=30)[1]
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in errors
    until = time.monotonic() + GONE_SECONDS
    while room.left() and time.monotonic() < until:
        time.sleep(0.1)
    assert room.left() == []
