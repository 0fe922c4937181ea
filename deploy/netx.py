"""The chains that `stformer export --to netx` writes, each built and run by netx in Lava.

A chain is fed what the reference sends where the chain begins, so each is proven by itself. What
no chain holds is not computed here and not in the trace.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from stformer import export, interpret
from stformer import fixedpoint as fx
from stformer.deploy.lava import LavaSim
from stformer.deploy.lava_problems import find_problems
from stformer.errors import Problem
from stformer.hdf5 import read_tree
from stformer.network import Input, Network, Population, Projection, is_graded
from stformer.passes import assign_latency
from stformer.trace import Inputs, Probe, Trace, check_inputs, digest_inputs, spike_dtype

CHAINS = "chains.json"  # what the worker reads (`stformer.deploy.netx_build`)

Chain = dict[str, Any]  # an entry of "chains" in the manifest


class _Chains(LavaSim):
    """Runs files of netx instead of stock processes that we choose."""

    builder = "stformer.deploy.netx_build:MODELS"


class Netx:
    """Exact in every spike of the populations in chains. Records no states.

    Args:
        progress: called with (time steps done, time steps in all), a few times a second.
        stall_seconds: without a time step for that long, the run is given up.
    """

    name = "netx"

    def __init__(
        self,
        progress: Callable[[int, int], None] | None = None,
        stall_seconds: float = 600.0,
    ) -> None:
        self.progress, self.stall_seconds = progress, stall_seconds

    def missing(self) -> str | None:
        if reason := LavaSim().missing():
            return reason
        if not _has_netx():
            return "lava-dl is not installed; pip install 'stformer[netx]'"
        return export.load(self.name).missing()

    def problems(self, network: Network) -> list[Problem]:
        format_: Any = export.load(self.name)
        if found := format_.problems(network, export.Options()):
            return list(found)
        chains = format_.manifest(network)["chains"]
        return find_problems(side_by_side(network, chains))

    def run(self, network: Network, inputs: Inputs, *, probe: Probe) -> Trace:
        """Export, let netx build the files, feed and record; see `stformer.deploy.Backend`."""
        frames = check_inputs(network, inputs)
        begun = time.perf_counter()
        with export.exported(self.name, network) as path, TemporaryDirectory() as beside:
            chains = _manifest(path)["chains"]
            files = {chain["file"]: path / chain["file"] for chain in chains}
            if not path.is_dir():
                files = {chains[0]["file"]: path}
            names = _inputs(network, len(chains))
            said = [chain | {"input": name} for chain, name in zip(chains, names, strict=True)]
            (Path(beside) / CHAINS).write_text(json.dumps(said))
            lava = _Chains(self.progress, self.stall_seconds)
            lava.files = files | {CHAINS: Path(beside) / CHAINS}
            sources = tuple(dict.fromkeys(chain["source"] for chain in chains))
            sent = interpret.run(network, frames, probe=Probe(populations=sources))
            fed = {name: sent[c["source"]] for name, c in zip(names, chains, strict=True)}
            computed = [layer["population"] for c in chains for layer in c["layers"]]
            wanted = Probe(populations=tuple(n for n in computed if probe.wants(n)))
            found = lava.run(side_by_side(network, chains), fed, probe=wanted)
        return Trace(
            network=network.digest(),
            inputs=digest_inputs(frames),
            backend=self.name,
            spikes=_spikes(network, frames, found, probe),
            info={**found.info, "seconds": time.perf_counter() - begun, "chains": len(chains)},
        )


def side_by_side(network: Network, chains: list[Chain]) -> Network:
    """The chains of a network with an input each, and latencies counted from there."""
    populations: list[Population] = []
    projections: list[Projection] = []
    by_name = {p.name: p for p in network.projections}
    for name, chain in zip(_inputs(network, len(chains)), chains, strict=True):
        source = network[chain["source"]]
        low, high = 0, 1
        if is_graded(source):
            most = fx.STATE_MAX - 1
            low, high = (source.low, source.high) if isinstance(source, Input) else (-most, most)
        populations.append(Input(name=name, shape=source.shape, low=low, high=high))
        for layer in chain["layers"]:
            populations.append(replace(network[layer["population"]], latency=0))
            projection = by_name[layer["projection"]]
            projections.append(replace(projection, pre=name))
            name = layer["population"]
    return assign_latency(
        Network(
            name=network.name,
            steps=network.steps,
            populations=tuple(populations),
            projections=tuple(projections),
        )
    )


def _inputs(network: Network, count: int) -> list[str]:
    """Names for the inputs of the chains that no population has."""
    tail = "#"
    while any(p.name.endswith(tail) for p in network.populations):
        tail += "#"
    return [f"chain-{i}{tail}" for i in range(count)]


def _manifest(path: Path) -> dict[str, Any]:
    """Of an export that `export` has just checked."""
    if path.is_dir():
        text = (path / export.MANIFEST).read_text()
    else:
        extra: Any = read_tree(path)["stformer"]
        text = extra[export.MANIFEST]
    manifest: dict[str, Any] = json.loads(text)
    return manifest


def _spikes(
    network: Network, frames: Mapping[str, npt.NDArray[np.int32]], found: Trace, probe: Probe
) -> dict[str, npt.NDArray[Any]]:
    """In the network's order: its inputs as given, then what the chains computed."""
    spikes: dict[str, npt.NDArray[Any]] = {}
    for p in network.populations:
        if p.name in found.spikes:
            spikes[p.name] = found[p.name]
        elif isinstance(p, Input) and probe.wants(p.name):
            spikes[p.name] = frames[p.name].astype(spike_dtype(network, p.name))
    return spikes


def _has_netx() -> bool:
    """Whether lava-dl is there; asking for its modules by name would import torch."""
    lava = find_spec("lava")
    places = lava.submodule_search_locations if lava else None
    return any((Path(p) / "lib" / "dl" / "netx" / "hdf5.py").is_file() for p in places or ())
