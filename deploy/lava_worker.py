"""The child process that runs Lava: `python -m stformer.deploy.lava_worker FOLDER PARENT PREFIX`.

Reads a job from FOLDER (`stformer.deploy.lava_child` wrote it), leaves one array file for each
record there, and says what it does as JSON lines on its standard output. What Lava prints goes
to standard error. It ends itself, and everything it started, when a Lava process dies or the
parent does.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from itertools import zip_longest
from math import prod
from multiprocessing import current_process, resource_tracker, shared_memory
from pathlib import Path
from typing import Any

import numpy as np

from stformer.deploy.lava_watch import Tell, Watch
from stformer.network import IntArray, Network, from_plain
from stformer.trace import spike_dtype

TOLD_SECONDS = 0.1  # least time between two reports of progress
# Frames that a channel between two Lava processes holds, all of them in memory; Lava takes 64,
# and no process is ever more than a step ahead of another.
CHANNEL_FRAMES = 4
PIPE_BYTES = 2**22  # held in one channel to this process, at least a frame, at most 64
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    folder, parent, prefix = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    tell = _divert_output()
    watch = Watch(folder, parent, prefix, tell)
    try:
        _prepare(prefix)
        job = json.loads((folder / "job.json").read_text())
        with np.load(folder / "network.npz", allow_pickle=False) as arrays:
            network = from_plain("the network", job["network"], dict(arrays))
        with np.load(folder / "inputs.npz", allow_pickle=False) as arrays:
            frames = {key.removesuffix("/frames"): a for key, a in arrays.items()}
        if job["board"]:
            from stformer.deploy import lava_board

            wanted = job["spikes"], job["board"]
            done = lava_board.run(network, frames, *wanted, folder, tell, watch)
        else:
            built = job["builder"], job["spikes"], job["states"]
            done = run(network, frames, *built, folder, tell, watch)
        assert "torch" not in sys.modules, "torch hangs in Lava processes"
        resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined] # or a zombie
        tell({"done": done})
    except BaseException as error:
        traceback.print_exc()
        watch.fail(f"{type(error).__name__}: {error}")
    os._exit(0)  # Lava's finalisers have nothing left to do and may wait for ever


def run(
    network: Network,
    frames: dict[str, IntArray],
    builder: str,
    spikes: list[str],
    states: list[tuple[str, str]],
    folder: Path,
    tell: Tell,
    watch: Watch,
) -> dict[str, float]:
    """Run all samples in one stream; returns numbers for `Trace.info`.

    `builder` is "module:attribute": a module with `build` and `tap`, as
    `stformer.deploy.lava_build` has them, and of it the table of process models to run.
    """
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg

    module, _, table = builder.partition(":")
    make = import_module(module)
    models = getattr(make, table)
    begun = time.perf_counter()
    samples = len(next(iter(frames.values()))) if frames else 1
    length = samples * network.steps
    built = make.build(network, frames)
    model_of = {process: models[type(process)] for process in built.processes}
    pipes = []  # (port at this end, what to do with what arrives)
    if tapped := make.tap(built, [(name, which) for name, which in states]):
        process, model = tapped
        model_of[process] = model
        if states:
            pipes.append((process.out, _store_states(network, states, length, folder)))
    for name in spikes:
        if name in built.populations:
            store = _store_spikes(network, name, length, folder)
            pipes.append((built.populations[name].s_out, store))
    if not pipes:  # something must tell how far it is
        pipes.append((next(iter(built.populations.values())).s_out, _drop))
    for port, _ in pipes:
        frame_bytes = 4 * prod(port.shape)
        port.flag_external_pipe(buffer_size=min(64, 1 + PIPE_BYTES // frame_bytes))

    process = built.processes[-1]
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=model_of)
    process.create_runtime(run_cfg=config, compile_config={"pypy_channel_size": CHANNEL_FRAMES})
    actors = process.runtime._messaging_infrastructure.actors
    names = [f"Lava process '{p.name}'" for p in process.runtime._executable.proc_builders]
    watch.start(list(zip_longest(names, actors, fillvalue="Lava's runtime service")))
    started = time.perf_counter()
    total = length + network.depth
    tell({"step": 0, "steps": total})
    process.run(condition=RunSteps(num_steps=total, blocking=False))
    receivers = [(port.external_pipe_csp_recv_port.recv, store) for port, store in pipes]
    told = started
    for step in range(total):
        for receive, store in receivers:
            store(step, receive())
        if step + 1 == total or time.perf_counter() - told > TOLD_SECONDS:
            told = time.perf_counter()
            tell({"step": step + 1, "steps": total})
    process.wait()
    ended = time.perf_counter()
    watch.stop()
    process.stop()
    return {
        "lava_start_seconds": started - begun,
        "lava_run_seconds": ended - started,
        "lava_processes": len(actors),
        "peak_memory_mib": watch.peak_mib,
    }


Store = Callable[[int, IntArray], None]


def _drop(step: int, values: IntArray) -> None:
    """Store nothing."""


def _store_spikes(network: Network, name: str, length: int, folder: Path) -> Store:
    """Writes what a population sends to its file, in its own time."""
    population = network[name]
    index = [p.name for p in network.populations].index(name)
    file = _file(folder, f"s{index}", length, prod(population.shape), spike_dtype(network, name))

    def store(step: int, values: IntArray) -> None:
        if 0 <= step - population.latency < length:
            file[step - population.latency] = values.T.ravel()  # frames are W, H, C in netx

    return store


def _store_states(
    network: Network, states: list[tuple[str, str]], length: int, folder: Path
) -> Store:
    """Writes each state of a tap's vector to its file, in its population's time."""
    parts = []
    start = 0
    order = [p.name for p in network.populations]
    for name, which in states:
        size = prod(network[name].shape)
        file = _file(folder, f"{which}{order.index(name)}", length, size, np.int32)
        parts.append((file, network[name].latency, slice(start, start + size)))
        start += size

    def store(step: int, values: IntArray) -> None:
        for file, latency, where in parts:
            if 0 <= step - latency < length:
                file[step - latency] = values[where]

    return store


def _file(
    folder: Path, name: str, length: int, size: int, dtype: type[np.integer[Any]]
) -> IntArray:
    """An array [length, size] that lives in FOLDER/name.npy, all zero."""
    path = folder / f"{name}.npy"
    open_: Callable[..., IntArray] = np.lib.format.open_memmap
    return open_(path, mode="w+", dtype=dtype, shape=(length, size))


def _divert_output() -> Tell:
    """Keep standard output for messages; whatever is printed goes to standard error."""
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    lock = threading.Lock()

    def tell(message: dict[str, object]) -> None:
        with lock, suppress(BrokenPipeError):  # if the parent is gone, the watch will notice
            pipe.write(json.dumps(message) + "\n")

    return tell


def _prepare(prefix: str) -> None:
    """Room for many channels, names by which shared memory is found, children that die with us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Lava's memory manager listens on a socket in this folder, which is the current one. Its
    # full path may be longer than the 107 characters that a socket's may have.
    current_process()._config["tempdir"] = "."  # type: ignore[attr-defined]
    sys.setrecursionlimit(100_000)  # lava.magma.compiler.compiler_graphs.find_processes
    shared_memory._SHM_NAME_PREFIX = prefix  # type: ignore[attr-defined]
    shared_memory._SHM_SAFE_NAME_LENGTH = len(prefix) + 12  # type: ignore[attr-defined]
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        os.register_at_fork(after_in_child=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL))


if __name__ == "__main__":
    main()
