"""The part of a run on hardware that imports Lava; in the worker only (`lava_worker`).

Sources and sinks stay on the host, behind the adapters of Intel's extension
(`lava.proc.embedded_io`); everything between them is for Lava's hardware run configuration to
put on the chip. Never run on a chip by us: no Loihi was at hand. `tests/loihi` stands in for the
extension, so that all of it but the chip is run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.proc.io.sink import RingBuffer as Sink
from lava.utils import loihi, slurm

from stformer.deploy.lava_build import build
from stformer.deploy.lava_watch import Tell, Watch
from stformer.network import Input, IntArray, Network
from stformer.trace import spike_dtype

HOST_BINARY = "nxcore/bin/nx_driver_server"


def run(
    network: Network,
    frames: dict[str, IntArray],
    spikes: list[str],
    board: dict[str, Any],
    folder: Path,
    tell: Tell,
    watch: Watch,
) -> dict[str, float]:
    """Run all samples in one stream on a board; returns numbers for `Trace.info`.

    Args:
        network, frames, spikes, folder, tell, watch: as `stformer.deploy.lava_worker.run`.
        board: of `stformer.deploy.loihi2.Loihi2.board`.
    """
    adapters = import_module("lava.proc.embedded_io.spike")  # of the extension
    begun = time.perf_counter()
    _use_host()
    entries: list[Any] = []

    def enter(source: Any) -> Any:
        adapter = adapters.PyToNxAdapter(shape=source.s_out.shape)
        source.s_out.connect(adapter.inp)
        entries.append(adapter)
        return adapter.out

    built = build(network, frames, enter=enter, shift=board["input_delay"])
    samples = len(next(iter(frames.values()))) if frames else 1
    length = samples * network.steps
    late = board["input_delay"] + board["output_delay"]
    total = length + network.depth + late
    sinks: dict[str, Any] = {}
    for name in spikes:
        if not isinstance(network[name], Input):
            size = (prod(network[name].shape),)
            adapter, sink = adapters.NxToPyAdapter(shape=size), Sink(shape=size, buffer=total)
            built.populations[name].s_out.connect(adapter.inp)
            adapter.out.connect(sink.a_in)
            sinks[name] = sink
    measures = dict(_measures(board["measure"], total))
    module, _, name = board["config"].partition(":")
    config = getattr(import_module(module), name)(callback_fxs=list(measures.values()))
    process = built.processes[-1]
    process.create_runtime(run_cfg=config)
    actors = process.runtime._messaging_infrastructure.actors
    watch.start([("a process of Lava's", actor) for actor in actors])
    started = time.perf_counter()
    tell({"step": 0, "steps": total})
    process.run(condition=RunSteps(num_steps=total))
    ended = time.perf_counter()
    for i, p in enumerate(network.populations):
        if p.name in sinks:
            begin = p.latency + late
            rows = sinks[p.name].data.get()[:, begin : begin + length].T
        elif p.name in spikes:  # an input: the host's own
            rows = frames[p.name].reshape(length, -1)
        else:
            continue
        np.save(folder / f"s{i}.npy", rows.astype(spike_dtype(network, p.name)))
    tell({"step": total, "steps": total})
    watch.stop()
    process.stop()
    return {
        "lava_start_seconds": started - begun,
        "lava_run_seconds": ended - started,
        **{k: v for name, probe in measures.items() for k, v in _numbers(name, probe)},
    }


def _use_host() -> None:
    """Tell Lava where the board is, from the variables that Lava itself uses."""
    generation = loihi.ChipGeneration(os.environ.get("LOIHI_GEN", "N3B3"))
    if address := os.environ.get("NXSDKHOST"):
        binary = os.environ.get("HOST_BINARY", HOST_BINARY)
        loihi.use_ethernet_host(address, binary, generation)
        return
    # Lava 0.10.0 fails on the empty line after sinfo's last one (lava/utils/slurm.py:122, 182).
    plain = slurm.try_run_command
    slurm.try_run_command = lambda command: [line for line in plain(command) if line.strip()]
    where = {key: os.environ.get(key.upper()) for key in ("partition", "board")}
    loihi.use_slurm_host(**where, loihi_gen=generation)


def _measures(measure: str | None, steps: int) -> Iterator[tuple[str, Any]]:
    """The one profiler that a run may have."""
    if measure is None:
        return
    profiler = import_module("lava.utils.loihi2_profiler")
    makers: dict[str, Callable[[], Any]] = {
        "power": lambda: profiler.Loihi2Power(num_steps=steps),
        "time": lambda: profiler.Loihi2ExecutionTime(),
        "activity": lambda: profiler.Loihi2Activity(),
    }
    yield measure, makers[measure]()


def _numbers(measure: str, probe: Any) -> Iterator[tuple[str, float]]:
    """Every public number of a profiler, means of arrays; units are the profiler's."""
    for name in dir(probe):
        if name.startswith("_"):
            continue
        try:
            value = getattr(probe, name)
        except Exception:  # a property of what was not measured
            continue
        if isinstance(value, (int, float, np.number, np.ndarray)) and np.size(value):
            found = np.asarray(value)
            if found.dtype.kind in "iuf":
                yield f"{measure}.{name}", float(found.mean())
