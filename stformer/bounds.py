"""What any input can do to a network, from its weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
from typing_extensions import assert_never

from stformer import fixedpoint as fx
from stformer.network import (
    BroadcastTokens,
    Conv,
    Dense,
    Graded,
    Input,
    Lif,
    Network,
    OneToOne,
    Operand,
    Population,
    Product,
    Projection,
    Readout,
    Relay,
    SumTokens,
    bias_of,
    effective_weight,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Largest absolute values over all inputs.

    Attributes:
        sent: population -> what it sends in a step.
        arriving: population -> its arriving sum, every partial sum included; for a product,
            every partial sum of it.
        added: projection -> what it adds to a sum, every partial sum included.
    """

    sent: dict[str, int]
    arriving: dict[str, int]
    added: dict[str, int]


@lru_cache(maxsize=4)  # networks are immutable, and several stages ask
def bounds(network: Network) -> Bounds:
    """Bounds of every population and projection, each from those before it."""
    sent: dict[str, int] = {}
    arriving: dict[str, int] = {}
    added: dict[str, int] = {}
    for p in network.populations:
        incoming = network.incoming(p.name)
        for projection in incoming:
            # A recurrent source comes later, and is no graded one unless it is its own cause.
            value = sent.get(projection.pre, _most(network[projection.pre]))
            added[projection.name] = _gain(network, projection) * value
        if isinstance(p, Product):
            arriving[p.name] = _terms(p, incoming, network) * prod(added[q.name] for q in incoming)
        else:
            arriving[p.name] = sum(added[q.name] for q in incoming)
        sent[p.name] = min(_most(p), _value(p, arriving[p.name]))
    return Bounds(sent=sent, arriving=arriving, added=added)


def _most(p: Population) -> int:
    """What the kind alone allows it to send."""
    match p:
        case Input():
            return max(abs(p.low), abs(p.high))
        case Lif() | Relay():
            return 1
        case Readout() | Graded() | Product():
            return fx.STATE_MAX - 1
        case _:
            assert_never(p)


def _value(p: Population, total: int) -> int:
    """What it sends at most where its arriving sum is at most `total`."""
    match p:
        case Graded():
            membrane = (total << fx.SHIFT) + int(np.abs(bias_of(p)).max())
            return membrane >> (fx.SHIFT + p.shift)
        case Product():
            return total
        case Input() | Lif() | Relay() | Readout():
            return _most(p)
        case _:
            assert_never(p)


def _gain(network: Network, projection: Projection) -> int:
    """The largest sum of |weight| onto one target neuron."""
    if isinstance(projection, Operand):
        return 1
    w = np.abs(effective_weight(projection))
    match projection:
        case Dense() | Conv():
            return int(w.reshape(len(w), -1).sum(axis=1).max())
        case OneToOne() | BroadcastTokens():
            return int(w)
        case SumTokens():
            return int(w) * prod(network[projection.pre].shape[1:])
        case _:
            assert_never(projection)


def _terms(p: Product, incoming: tuple[Projection, ...], network: Network) -> int:
    """How many products of two values an element of a product adds up."""
    right = next(q.pre for q in incoming if isinstance(q, Operand) and q.port == "right")
    channels, *size = network[right].shape
    return channels // p.heads if p.mode == "scores" else prod(size)
