"""The network as real Lava processes on this machine's CPU, in fixed point.

`lava-sim` computes everything with stock processes and stock process models of Lava 0.10.0
(`stformer.deploy.lava_build` says which), `lava-sim-fast` with process models of ours
(`stformer.deploy.lava_fast`), chosen through Lava's run configuration. Both run in a child
process; neither Lava nor torch is imported here, so the caller may have torch loaded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from importlib.util import find_spec
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from stformer.deploy.lava_child import run_child
from stformer.deploy.lava_problems import find_problems
from stformer.errors import Problem
from stformer.network import Input, IntArray, Network
from stformer.trace import Inputs, Probe, Trace, check_inputs, digest_inputs, spike_dtype

INPUT_VALUES = 2**26  # of 4 bytes, held by one stream; Lava keeps two copies


class LavaSim:
    """Runs networks as Lava processes, all samples in one stream, as hardware does.

    Args:
        progress: called with (time steps done, time steps in all), a few times a second.
        stall_seconds: without a time step for that long, the run is given up.
    """

    name = "lava-sim"
    models = "stock"
    builder = "stformer.deploy.lava_build:STOCK"
    files: Mapping[str, Path] = MappingProxyType({})
    board: Mapping[str, Any] = MappingProxyType({})  # of hardware, see `stformer.deploy.loihi2`

    def __init__(
        self,
        progress: Callable[[int, int], None] | None = None,
        stall_seconds: float = 600.0,
    ) -> None:
        self.progress, self.stall_seconds = progress, stall_seconds

    def missing(self) -> str | None:
        found = ".".join(map(str, sys.version_info[:2]))
        if sys.platform == "win32":
            return "Lava starts its processes with fork, which Windows lacks; use Linux"
        if _has_lava():
            return None
        if sys.version_info[:2] != (3, 10):
            return (
                f"lava-nc is not installed and needs Python 3.10 (this is {found}); "
                "make a Python 3.10 environment and pip install 'stformer[lava]' there"
            )
        return "lava-nc is not installed; pip install 'stformer[lava]'"

    def problems(self, network: Network) -> list[Problem]:
        return find_problems(network, self.models)

    def run(self, network: Network, inputs: Inputs, *, probe: Probe) -> Trace:
        frames = check_inputs(network, inputs)
        begun = time.perf_counter()
        samples = len(next(iter(frames.values()))) if frames else 1
        values = network.steps * sum(prod(p.shape) for p in network.inputs)
        at_once = max(1, INPUT_VALUES // max(1, values))
        parts: list[dict[str, dict[str, IntArray]]] = []
        info: dict[str, float] = {}
        starts = range(0, samples, at_once)
        total = samples * network.steps + len(starts) * network.depth
        before = 0
        for start in starts:
            part = {k: a[start : start + at_once] for k, a in frames.items()}
            if all(isinstance(p, Input) for p in network.populations):
                parts.append({"s": {}, "u": {}, "v": {}})
                continue
            records, numbers = run_child(
                network,
                part,
                probe,
                builder=self.builder,
                files=self.files,
                board=self.board,
                progress=self._after(before, total),
                stall_seconds=self.stall_seconds,
            )
            before += min(at_once, samples - start) * network.steps + network.depth
            parts.append(records)
            for key, value in numbers.items():
                more = info.get(key, 0.0)
                info[key] = more + value if key.endswith("seconds") else max(more, value)
        info["seconds"] = time.perf_counter() - begun
        return _trace(self.name, network, frames, probe, parts, info)

    def _after(self, before: int, total: int) -> Callable[[int, int], None] | None:
        """Progress of one stream, told as progress of them all."""
        if (progress := self.progress) is None:
            return None
        return lambda done, _: progress(before + done, total)


class LavaSimFast(LavaSim):
    """The same with our process models, which are bit-identical to the stock ones."""

    name = "lava-sim-fast"
    models = "fast"
    builder = "stformer.deploy.lava_build:FAST"


def _has_lava() -> bool:
    """Whether lava-nc is there; lava-dl alone also makes a package of the name `lava`."""
    found = find_spec("lava")
    if found is None:
        return False
    return PathFinder.find_spec("magma", found.submodule_search_locations) is not None


def _trace(
    backend: str,
    network: Network,
    frames: dict[str, npt.NDArray[np.int32]],
    probe: Probe,
    parts: list[dict[str, dict[str, IntArray]]],
    info: dict[str, float],
) -> Trace:
    def of(kind: str) -> dict[str, IntArray]:
        return {k: np.concatenate([part[kind][k] for part in parts]) for k in parts[0][kind]}

    sent, u, v = of("s"), of("u"), of("v")
    spikes: dict[str, IntArray] = {}
    for p in network.populations:
        if p.name in sent:
            spikes[p.name] = sent[p.name]
        elif isinstance(p, Input) and probe.wants(p.name):  # one that feeds nothing
            spikes[p.name] = frames[p.name].astype(spike_dtype(network, p.name))
        elif probe.wants(p.name):
            spikes[p.name] = v[p.name]
    if not probe.states:
        v = {}
    order = [p.name for p in network.populations]
    return Trace(
        network=network.digest(),
        inputs=digest_inputs(frames),
        backend=backend,
        spikes=spikes,
        u={k: u[k] for k in order if k in u},
        v={k: v[k] for k in order if k in v},
        info=info,
    )
