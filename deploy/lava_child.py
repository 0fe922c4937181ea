"""Starting, watching and clearing away the child process that runs Lava.

Lava forks a process for every population and synapse, and torch, where the caller has loaded
it, hangs in such forks. So Lava runs in a fresh interpreter of its own session; whatever
happens, the session is killed, its shared memory unlinked and its folder removed.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import stformer
from stformer.deploy.lava_clean import remove
from stformer.errors import StformerError
from stformer.network import Input, IntArray, Lif, Network, Readout, to_plain
from stformer.trace import Probe

LAST_LINES = 30
POLL_SECONDS = 0.25
GONE_SECONDS = 2.0  # for killed processes to vanish


class LavaFailed(StformerError):
    """Lava ended, or stalled, before the run was done; not the user's mistake."""

    exit_code = 70

    def __init__(self, why: str, last_lines: str) -> None:
        self.why, self.last_lines = why, last_lines
        tail = f" Its last output:\n{last_lines}" if last_lines else ""
        super().__init__(why, last_lines)
        self.message = f"Lava: {why}.{tail}"


def run_child(
    network: Network,
    frames: Mapping[str, npt.NDArray[np.int32]],
    probe: Probe,
    *,
    builder: str,
    files: Mapping[str, Path],
    board: Mapping[str, Any],
    progress: Callable[[int, int], None] | None,
    stall_seconds: float,
) -> tuple[dict[str, dict[str, IntArray]], dict[str, float]]:
    """Run all samples of `frames` in one stream, in a child process.

    Args:
        builder: of the processes, "module:attribute"; see `stformer.deploy.lava_worker.run`.
        files: what it reads, by the name that it has for it, in the folder where it runs.
        board: what `stformer.deploy.lava_board` needs to know; empty for a simulation.

    Returns:
        ({"s": spikes, "u": u, "v": v}, each population -> [S, T, *shape]; numbers for
        `Trace.info`).

    Raises:
        LavaFailed: with the last lines that the child wrote.
    """
    folder = Path(tempfile.mkdtemp(prefix="stformer-lava-"))
    prefix = f"/stf{secrets.token_hex(4)}"
    child: subprocess.Popen[bytes] | None = None
    try:
        made = {"builder": builder, "board": dict(board)}
        wanted = _write_job(folder, network, frames, probe, made)
        for name, file in files.items():
            shutil.copyfile(file, folder / name)
        child = _start(folder, prefix)
        done = _follow(child, folder, progress, stall_seconds)
        samples = len(next(iter(frames.values()))) if frames else 1
        records: dict[str, dict[str, IntArray]] = {"s": {}, "u": {}, "v": {}}
        for kind, name in wanted:
            index = [p.name for p in network.populations].index(name)
            flat = np.load(folder / f"{kind}{index}.npy", allow_pickle=False)
            records[kind][name] = flat.reshape(samples, network.steps, *network[name].shape)
        return records, done
    finally:
        if child is not None:
            _end(child)
        remove(prefix, folder)


def _write_job(
    folder: Path,
    network: Network,
    frames: Mapping[str, npt.NDArray[np.int32]],
    probe: Probe,
    made: Mapping[str, object],
) -> list[tuple[str, str]]:
    """Write what the worker reads; returns the records it will make, as (kind, population)."""
    structure, arrays = to_plain(network)
    used = {p.pre for p in network.projections}
    spikes, states = [], []
    for p in network.populations:
        if not probe.wants(p.name):
            continue
        if isinstance(p, Readout):
            states.append((p.name, "v"))
        elif not isinstance(p, Input) or p.name in used:
            spikes.append(p.name)
        if probe.states and isinstance(p, Lif):
            states += [(p.name, "u"), (p.name, "v")]
    job = {"network": structure, "spikes": spikes, "states": states, **made}
    (folder / "job.json").write_text(json.dumps(job))
    with (folder / "network.npz").open("wb") as file:
        np.savez(file, **arrays)
    with (folder / "inputs.npz").open("wb") as file:
        np.savez(file, **{f"{name}/frames": a for name, a in frames.items()})
    return [("s", name) for name in spikes] + [(which, name) for name, which in states]


def _start(folder: Path, prefix: str) -> subprocess.Popen[bytes]:
    """The child: own session, our import path, its output in FOLDER, one thread a process."""
    root = str(Path(stformer.__file__).resolve().parent.parent)
    path = [root, *(os.path.abspath(p) for p in sys.path if p)]
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    env = {**os.environ, **one_thread, "PYTHONPATH": os.pathsep.join(path), "TMPDIR": str(folder)}
    command = [sys.executable, "-m", "stformer.deploy.lava_worker"]
    with (folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            [*command, str(folder), str(os.getpid()), prefix],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd=folder,
            env=env,
            start_new_session=True,
        )


def _follow(
    child: subprocess.Popen[bytes],
    folder: Path,
    progress: Callable[[int, int], None] | None,
    stall_seconds: float,
) -> dict[str, float]:
    """Read the child's messages until it is done."""
    assert child.stdout is not None
    heard, rest = time.monotonic(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if selector.select(POLL_SECONDS):
                data = os.read(child.stdout.fileno(), 2**16)
                if not data:
                    raise LavaFailed("its process ended before the run was done", _tail(folder))
                heard = time.monotonic()
                *lines, rest = (rest + data).split(b"\n")
                for message in map(json.loads, lines):
                    if "error" in message:
                        raise LavaFailed(message["error"], _tail(folder))
                    if "done" in message:
                        return dict(message["done"])
                    if progress is not None:
                        progress(message["step"], message["steps"])
            elif _has_exited(child):
                raise LavaFailed("its process was killed", _tail(folder))
            elif time.monotonic() - heard > stall_seconds:
                raise LavaFailed(f"no progress for {stall_seconds:.0f} seconds", _tail(folder))


def _has_exited(child: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended, without reaping it: its process group's number must stay taken."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child's session, of which nothing is needed any more, and see it vanish."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()
    until = time.monotonic() + GONE_SECONDS
    while _lives(child.pid) and time.monotonic() < until:
        time.sleep(0.01)


def _lives(group: int) -> bool:
    """Whether a process group has a member that is more than a zombie; False without /proc."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # gone meanwhile
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def _tail(folder: Path) -> str:
    try:
        lines = (folder / "output.txt").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-LAST_LINES:])
