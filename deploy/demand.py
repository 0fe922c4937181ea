"""What a core's memory has to know of a network: shapes and fan-in, without a weight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, prod

from typing_extensions import assert_never

from stformer.network import (
    BroadcastTokens,
    Conv,
    Dense,
    Input,
    Network,
    OneToOne,
    Operand,
    Population,
    Projection,
    Readout,
    Shape,
    SumTokens,
)

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fan:
    """The synapses that one projection puts into a core.

    Attributes:
        projection, pre: names.
        dense: every synapse is stored; else a kernel, once a core for all its pixels. One-to-one
            synapses and sums over tokens are kernels too, of one channel.
        taps: kernel elements, h * w.
        channels: of the source that one target channel reads.
        depthwise: they do not become more with the network's width.
        sources: neurons of the source.
        size: (H, W) of the source.
        reach, stride: (h, w) pixels that a target pixel reads, and between two of them.
        from_input: the source is the host's.
    """

    projection: str
    pre: str
    dense: bool = False
    taps: int = 1
    channels: int = 1
    depthwise: bool = False
    sources: int
    size: Pair = (1, 1)
    reach: Pair = (1, 1)
    stride: Pair = (1, 1)
    from_input: bool = False

    @property
    def whole_frame(self) -> bool:
        """Whether one target pixel reads every pixel of a source that has several."""
        return self.reach == self.size != (1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A population as cores see it.

    Attributes:
        population, kind: its name and class.
        shape: (C, H, W); (n, 1, 1) for one that has no pixels.
        flat: it has no pixels, or synapses that ignore them: cores take equal shares of neurons.
        fans: one for each incoming projection.
    """

    population: str
    kind: str
    shape: tuple[int, int, int]
    flat: bool
    fans: tuple[Fan, ...]

    @property
    def neurons(self) -> int:
        return prod(self.shape)


def demands(network: Network) -> tuple[Demand, ...]:
    """One for each population, in the network's order."""
    return tuple(_demand(network, p) for p in network.populations)


def _demand(network: Network, p: Population) -> Demand:
    fans = tuple(_fan(network[q.pre], q) for q in network.incoming(p.name))
    flat = len(p.shape) != 3 or any(f.dense for f in fans)
    shape = (prod(p.shape), 1, 1) if flat else _chw(p.shape)
    return Demand(population=p.name, kind=type(p).__name__, shape=shape, flat=flat, fans=fans)


def _chw(shape: Shape) -> tuple[int, int, int]:
    c, h, w = shape if len(shape) == 3 else (prod(shape), 1, 1)
    return c, h, w


def _fan(pre: Population, p: Projection) -> Fan:
    channels, height, width = _chw(pre.shape)
    fan = Fan(
        projection=p.name,
        pre=pre.name,
        sources=prod(pre.shape),
        size=(height, width),
        from_input=isinstance(pre, Input),
    )
    match p:
        case Dense():
            return replace(fan, dense=True)
        case Conv():
            kernel = p.weight.shape[2], p.weight.shape[3]
            return replace(
                fan,
                taps=prod(kernel),
                channels=channels // p.groups,
                depthwise=p.groups == channels > 1,
                reach=_reach(kernel, p.dilation),
                stride=p.stride,
            )
        case SumTokens():
            return replace(fan, taps=height * width, depthwise=True, reach=(height, width))
        case BroadcastTokens():
            return replace(fan, depthwise=True, stride=(0, 0))
        case OneToOne() | Operand():
            return replace(fan, depthwise=True)
        case _:
            assert_never(p)


def _reach(kernel: Pair, dilation: Pair) -> Pair:
    return dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1


def scaled(
    found: Iterable[Demand], *, width: Fraction = Fraction(1), side: Fraction = Fraction(1)
) -> tuple[Demand, ...]:
    """The demands of the same network with other widths and frames, classes and inputs kept.

    Args:
        found: of the network as it is.
        width: factor of all channel counts but the input's and the readout's.
        side: factor of H and W everywhere; tokens go with its square.
    """
    return tuple(_scaled(d, width, side) for d in found)


def _scaled(d: Demand, width: Fraction, side: Fraction) -> Demand:
    def more(n: int, factor: Fraction) -> int:
        return max(1, ceil(n * factor))

    def fan(f: Fan) -> Fan:
        size = more(f.size[0], side), more(f.size[1], side)
        shares = f.whole_frame or f.stride == f.reach != (1, 1)  # it cuts the frame into parts
        reach = tuple(
            new if r == old else min(r, new)
            for r, old, new in zip(f.reach, f.size, size, strict=True)
        )
        kept = f.depthwise or f.from_input
        pixels = Fraction(prod(size), prod(f.size))
        return replace(
            f,
            taps=prod(reach) if shares else f.taps,
            reach=(reach[0], reach[1]) if shares else f.reach,
            stride=(reach[0], reach[1]) if shares and f.stride == f.reach else f.stride,
            size=size,
            channels=f.channels if kept else more(f.channels, width),
            sources=more(f.sources, pixels * (1 if f.from_input else width)),
        )

    c, h, w = d.shape
    wide = c if d.kind in (Input.__name__, Readout.__name__) else more(c, width)
    shape = (wide, 1, 1) if d.flat else (wide, more(h, side), more(w, side))
    return replace(d, shape=shape, fans=tuple(fan(f) for f in d.fans))
