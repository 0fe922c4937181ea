"""What the sample networks are written with."""

from __future__ import annotations

from typing import Any

import numpy as np

from stformer.network import IntArray, Lif, Network, Population, Projection, Shape, no_bias
from stformer.passes import schedule


def lif(name: str, shape: Shape, vth: int = 1, dv: int = 2048, **more: Any) -> Lif:
    """A Lif with no bias unless `more` gives one."""
    return Lif(name=name, shape=shape, vth=vth, dv=dv, **{"bias_mant": no_bias(shape), **more})


def weights(shape: Shape, seed: int, low: int = -20, high: int = 21) -> IntArray:
    """Random integers, the same for the same seed."""
    return np.random.default_rng(seed).integers(low, high, shape)


def link(kind: type[Any], pre: str, post: str, **more: Any) -> Any:
    """A projection named after its two ends."""
    return kind(name=f"{pre}>{post}", pre=pre, post=post, **more)


def scheduled(name: str, populations: list[Population], projections: list[Projection]) -> Network:
    """A network of 4 steps, with latencies and relays."""
    network = Network(
        name=name, steps=4, populations=tuple(populations), projections=tuple(projections)
    )
    return schedule(network)
