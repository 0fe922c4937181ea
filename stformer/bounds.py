"""What any input can do to a network's sums, from its weights alone.

Interval arithmetic, population after population. Every interval contains 0, since a projection
brings nothing before its delay has passed, beyond a convolution's border, or from a silent
source; so it holds every partial sum too, in whatever order a machine adds.
`stformer.bounds_states` goes on from here to currents and membranes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import numpy.typing as npt
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
    Readout,
    Relay,
    Shape,
    SumTokens,
    Synapses,
    bias_of,
    effective_weight,
)

Int64 = npt.NDArray[np.int64]

FLOAT32_EXACT = 2**24  # float32 holds all integers up to here: sums are exact in any order
FAR = 2**56  # beyond every limit there is; larger sums count as this


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """low <= x <= high for every neuron of a population.

    Attributes:
        low, high: int64 arrays that broadcast to the population's shape without adding axes,
            as a bias does: a convolution has one entry a channel.
    """

    low: Int64
    high: Int64

    def __add__(self, other: Interval) -> Interval:
        low = np.maximum(self.low + other.low, -FAR)
        return Interval(low, np.minimum(self.high + other.high, FAR))

    @property
    def ends(self) -> tuple[int, int]:
        """The lowest and the highest value of any neuron."""
        return int(self.low.min()), int(self.high.max())

    @property
    def largest(self) -> int:
        """The largest absolute value of any neuron."""
        low, high = self.ends
        return max(-low, high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds over all inputs.

    Attributes:
        sent: population -> the largest absolute value it sends in a step.
        arriving: population -> that of its arriving sum, every partial sum included; for a
            product, every partial sum of it.
        added: projection -> that of what it adds to a sum, every partial sum included.
        sums: population -> its arriving sum, neuron by neuron or channel by channel.
    """

    sent: dict[str, int]
    arriving: dict[str, int]
    added: dict[str, int]
    sums: dict[str, Interval]


@lru_cache(maxsize=4)  # networks are immutable, and several stages ask
def bounds(network: Network) -> Bounds:
    """Bounds of every population and projection, each from those before it."""
    sent: dict[str, Interval] = {}
    sums: dict[str, Interval] = {}
    added: dict[str, int] = {}
    for p in network.populations:
        total = _nothing(p.shape)
        factors: dict[str, Interval] = {}
        for q in network.incoming(p.name):
            pre = network[q.pre]
            # A recurrent source comes later, and is no graded one unless it is its own cause.
            value = sent[q.pre] if q.pre in sent else _most(pre)
            if isinstance(q, Operand):
                factors[q.port] = value
                added[q.name] = value.largest
            else:
                part = _added(q, value, pre.shape, p.shape)
                added[q.name] = part.largest
                total += part
        if isinstance(p, Product):
            total = _product(factors["left"], factors["right"], _terms(network, p), p.shape)
        sums[p.name] = total
        sent[p.name] = _sent(p, total)
    return Bounds(
        sent={name: x.largest for name, x in sent.items()},
        arriving={name: x.largest for name, x in sums.items()},
        added=added,
        sums=sums,
    )


def _nothing(shape: Shape) -> Interval:
    return _everywhere(0, 0, shape)


def _everywhere(low: int, high: int, shape: Shape) -> Interval:
    """The same for all neurons, and 0."""
    one = (1,) * len(shape)
    low, high = max(min(low, 0), -FAR), min(max(high, 0), FAR)
    return Interval(np.full(one, low, np.int64), np.full(one, high, np.int64))


def _most(p: Population) -> Interval:
    """What the kind alone allows it to send."""
    match p:
        case Input():
            return _everywhere(p.low, p.high, p.shape)
        case Lif() | Relay():
            return _everywhere(0, 1, p.shape)
        case Readout() | Graded() | Product():
            return _everywhere(1 - fx.STATE_MAX, fx.STATE_MAX - 1, p.shape)
        case _:
            assert_never(p)


def _sent(p: Population, total: Interval) -> Interval:
    """What it sends where its arriving sum is within `total`."""
    match p:
        case Graded():  # never falls where the sum rises
            low, high = (fx.graded(end, bias_of(p), p.shift) for end in (total.low, total.high))
            return Interval(np.minimum(low, 0), np.maximum(high, 0))
        case Product():
            return Interval(fx.clip(total.low), fx.clip(total.high))
        case Input() | Lif() | Relay() | Readout():
            return _most(p)
        case _:
            assert_never(p)


def _added(p: Synapses, sent: Interval, pre: Shape, post: Shape) -> Interval:
    """What a projection adds where its source sends values within `sent`."""
    w = effective_weight(p)
    match p:
        case Dense():
            w = w.reshape(1, len(w), -1)
            ends = (np.broadcast_to(end, pre).reshape(1, -1) for end in (sent.low, sent.high))
            return _weighted(w, *ends, shape=post)
        case Conv():
            channels = np.broadcast_to(sent.low, (pre[0], *sent.low.shape[1:]))
            low = channels.reshape(pre[0], -1).min(axis=1).reshape(p.groups, -1, 1)
            channels = np.broadcast_to(sent.high, (pre[0], *sent.high.shape[1:]))
            high = channels.reshape(pre[0], -1).max(axis=1).reshape(p.groups, -1, 1)
            taps = (p.groups, w.shape[1], prod(w.shape[2:]))
            ends = (np.broadcast_to(end, taps).reshape(p.groups, -1) for end in (low, high))
            w = w.reshape(p.groups, w.shape[0] // p.groups, -1)
            return _weighted(w, *ends, shape=(post[0], 1, 1))
        case OneToOne() | BroadcastTokens():
            return _scaled(sent, int(w))
        case SumTokens():
            low, high = (
                np.broadcast_to(end, pre).sum(axis=(1, 2), keepdims=True)
                for end in (sent.low, sent.high)
            )
            return _scaled(Interval(low, high), int(w))
        case _:
            assert_never(p)


def _scaled(x: Interval, weight: int) -> Interval:
    low, high = weight * x.low, weight * x.high
    return _capped(low, high) if weight >= 0 else _capped(high, low)


def _capped(low: Int64, high: Int64) -> Interval:
    return Interval(np.maximum(low, -FAR), np.minimum(high, FAR))


def _weighted(w_GOI: Int64, low_GI: Int64, high_GI: Int64, *, shape: Shape) -> Interval:
    """Sums of weight * value, group by group, where each value takes its worst end.

    In float64: all terms of an end have one sign, so it is exact below 2^53, and no less than
    2^53 beyond.
    """
    up, down = (np.clip(w_GOI, *to).astype(np.float64) for to in ((0, None), (None, 0)))
    low, high = low_GI.astype(np.float64)[..., None], high_GI.astype(np.float64)[..., None]
    lowest, highest = up @ low + down @ high, up @ high + down @ low
    capped = np.maximum(lowest, -FAR), np.minimum(highest, FAR)
    return Interval(*(end.astype(np.int64).reshape(shape) for end in capped))


def _product(left: Interval, right: Interval, terms: int, shape: Shape) -> Interval:
    """Sums of so many products of two values, each with the worst of its corners."""
    corners = [a * b for a in left.ends for b in right.ends]
    return _everywhere(terms * min(corners), terms * max(corners), shape)


def _terms(network: Network, p: Product) -> int:
    """How many products of two values an element of a product adds up."""
    right = next(
        q.pre for q in network.incoming(p.name) if isinstance(q, Operand) and q.port == "right"
    )
    channels, *size = network[right].shape
    return channels // p.heads if p.mode == "scores" else prod(size)
