"""What any input can do to a network, from its weights alone."""

from __future__ import annotations

from math import prod

import numpy as np
from typing_extensions import assert_never

from stformer.network import (
    BroadcastTokens,
    Conv,
    Dense,
    Input,
    Network,
    OneToOne,
    Projection,
    SumTokens,
    effective_weight,
)


def largest_value(network: Network, name: str) -> int:
    """The largest |value| a population can send in a step."""
    p = network[name]
    return max(abs(p.low), abs(p.high)) if isinstance(p, Input) else 1


def largest_sum(network: Network, projection: Projection) -> int:
    """A bound of every partial sum of a projection, over all of its targets."""
    w = np.abs(effective_weight(projection))
    match projection:
        case Dense() | Conv():
            total = int(w.reshape(len(w), -1).sum(axis=1).max())
        case OneToOne() | BroadcastTokens():
            total = int(w)
        case SumTokens():
            total = int(w) * prod(network[projection.pre].shape[1:])
        case _:
            assert_never(projection)
    return total * largest_value(network, projection.pre)
