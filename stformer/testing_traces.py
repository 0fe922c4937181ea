"""Helpers for tests of traces and files: runs, traces with one thing changed, odd networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from stformer import interpret
from stformer.network import Conv, Dense, Input, IntArray, Lif, Network, Readout, no_bias
from stformer.testing import SAMPLES, inputs_for, recurrent_network
from stformer.trace import Probe, Trace

NETWORKS: dict[str, Callable[[], Network]] = {
    **SAMPLES,
    "recurrent": recurrent_network,
}


def run(network: Network, inputs: Any, *, states: bool = True) -> Trace:
    return interpret.run(network, inputs, probe=Probe(states=states))


def frames_for(network: Network, samples: int, seed: int) -> dict[str, Any]:
    return dict(inputs_for(network, samples, np.random.default_rng(seed)))


def posing(trace: Trace, as_: Trace, name: str = "mutant") -> Trace:
    """A mutant's trace that claims to be of the original network."""
    return replace(trace, network=as_.network, backend=name)


def without(trace: Trace, *names: str) -> Trace:
    def rest(arrays: Mapping[str, IntArray]) -> dict[str, IntArray]:
        return {k: a for k, a in arrays.items() if k not in names}

    return replace(trace, spikes=rest(trace.spikes), u=rest(trace.u), v=rest(trace.v))


def changed(trace: Trace, name: str, at: tuple[int, ...], kind: str = "spikes") -> Trace:
    """A trace with one value another: a spike flipped, a number one larger."""
    arrays = dict(getattr(trace, kind))
    array = arrays[name].copy()
    array[at] = 1 - array[at] if array.dtype == np.uint8 else array[at] + 1
    change: dict[str, Any] = {kind: {**arrays, name: array}}
    return replace(trace, **change)


def make(name: str = "n") -> Network:
    """Names, shapes and weights at their ends, for tests of files."""
    return Network(
        name=name,
        steps=3,
        populations=(
            Input(name="in", shape=(2, 4, 4)),
            Lif(
                name="a>b#1",
                shape=(3, 4, 4),
                vth=3,
                dv=2048,
                bias_mant=np.array([-4096, 0, 4095]).reshape(3, 1, 1),
                latency=1,
            ),
            Readout(name="out", shape=(5,), bias_mant=no_bias((5,)), latency=2),
        ),
        projections=(
            Conv(
                name="in>a",
                pre="in",
                post="a>b#1",
                weight=np.random.default_rng(1).integers(-128, 128, (3, 2, 3, 3)),
                padding=(1, 1),
            ),
            Dense(
                name="a>out",
                pre="a>b#1",
                post="out",
                weight=np.random.default_rng(2).integers(-128, 128, (5, 48)),
            ),
        ),
    )


def make_trace(*, states: bool = True) -> Trace:
    """Five samples of `make`."""
    frames = np.random.default_rng(7).integers(0, 2, (5, 3, 2, 4, 4))
    return interpret.run(make(), frames, probe=Probe(states=states))
