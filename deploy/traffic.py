"""What a run moves on a chip: synaptic events exactly, messages and hops from the placement."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from stformer.deploy.energy import Activity
from stformer.deploy.mapping import Mapped, Place
from stformer.network import (
    BroadcastTokens,
    Conv,
    Dense,
    Network,
    OneToOne,
    Operand,
    Projection,
    SumTokens,
    conv_output,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One projection's traffic, a sample.

    Attributes:
        projection, pre, post: names.
        synops: synaptic events: messages times the synapses that each meets, padding met none.
        messages: one for each core of the target that a message reaches; an estimate, for
            sources in the middle as at the edge.
        hops: routers that these pass, with cores where the placement has them.
    """

    projection: str
    pre: str
    post: str
    synops: float
    messages: float
    hops: float


def flows(network: Network, mapped: Mapped, seen: Activity) -> tuple[Flow, ...]:
    """Traffic of every projection over an average sample."""
    places = {p.demand.population: p for p in mapped.places}
    found = []
    for q in network.projections:
        sent = seen.sent[q.pre]
        events = float((sent * fan_out(network, q)).sum()) / seen.samples
        reached = _cores_reached(network, q, places[q.post])
        messages = float(sent.sum()) * reached / seen.samples
        hops = messages * _distance(mapped, places[q.pre], places[q.post])
        found.append(
            Flow(
                projection=q.name,
                pre=q.pre,
                post=q.post,
                synops=events,
                messages=messages,
                hops=hops,
            )
        )
    return tuple(found)


def fan_out(network: Network, q: Projection) -> npt.NDArray[np.int64]:
    """Synapses that a message of each source neuron meets; broadcasts to the source's shape.

    Weights of 0 count: a core steps over them like over others. Operands have none.
    """
    pre, post = network[q.pre], network[q.post]
    match q:
        case Dense():
            return np.array(len(q.weight))
        case OneToOne() | SumTokens():
            return np.array(1)
        case BroadcastTokens():
            return np.array(prod(post.shape[1:]))
        case Operand():
            return np.array(0)
        case Conv():
            counts = [
                np.array([len(t) for t in axis], np.int64) for axis in _targets(q, pre.shape)
            ]
            each: npt.NDArray[np.int64] = np.outer(counts[0], counts[1])
            return each * (q.weight.shape[0] // q.groups)
        case _:
            assert_never(q)


def _targets(q: Conv, shape: tuple[int, ...]) -> list[list[list[int]]]:
    """Along each axis, for every place of the source the places of the target that read it."""
    sizes = conv_output(q, shape[1], shape[2])
    found = []
    for axis in (0, 1):
        reads: list[list[int]] = [[] for _ in range(shape[1 + axis])]
        for out in range(sizes[axis]):
            for k in range(q.weight.shape[2 + axis]):
                at = out * q.stride[axis] - q.padding[axis] + k * q.dilation[axis]
                if 0 <= at < len(reads):
                    reads[at].append(out)
        found.append(reads)
    return found


def _cores_reached(network: Network, q: Projection, place: Place) -> float:
    """Cores of the target that an average source neuron has synapses on."""
    cores, tile = cores_of(place), place.cut.tile
    channels, height, width = place.demand.shape
    columns, rows = ceil(width / tile.x), ceil(height / tile.y)
    layers = ceil(channels / tile.c)
    if place.demand.flat or place.cut.cores is None:
        one = isinstance(q, OneToOne)
        return 1.0 if one else float(cores)
    match q:
        case Dense():
            return float(cores)
        case OneToOne() | SumTokens() | Operand():
            return 1.0
        case BroadcastTokens():
            return float(columns * rows)
        case Conv():
            pixels = [
                float(np.mean([len({t // size for t in reads}) for reads in axis]))
                for axis, size in zip(
                    _targets(q, network[q.pre].shape), (tile.y, tile.x), strict=True
                )
            ]
            return pixels[0] * pixels[1] * max(1, ceil(layers / q.groups))
        case _:
            assert_never(q)


def cores_of(place: Place) -> int:
    """Cores of a population; of one that fits on none, as many as its share asks for."""
    if place.cut.cores is not None:
        return place.cut.cores
    return ceil(place.demand.neurons * max(place.cut.share))


def _distance(mapped: Mapped, pre: Place, post: Place) -> float:
    """Mean number of hops between a core of one population and one of another."""
    xs, ys = _positions(mapped, pre)
    xt, yt = _positions(mapped, post)
    across = np.abs(xs[:, None] - xt[None]).mean()
    return float(across + np.abs(ys[:, None] - yt[None]).mean())


def _positions(
    mapped: Mapped, place: Place
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Tiles (x, y) of a population's cores: chips in a row, tiles filled row by row."""
    system = mapped.hardware.system
    assert system is not None
    first = mapped.cores if place.first is None else place.first
    index = first + np.arange(cores_of(place))
    chip, core = np.divmod(index, system.cores_per_chip_usable.value)
    y, x = np.divmod(core // system.cores_per_tile.value, system.mesh.value[0])
    return x + chip * system.mesh.value[0], y
