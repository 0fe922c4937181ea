"""A network as chains of netx layers: which populations can be layers, and in which files.

A layer of netx is one dense or convolutional projection and the CUBA neurons behind it. A chain
goes on while a population has one target and that target can be the next layer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod

import numpy as np
from typing_extensions import assert_never

from stformer import fixedpoint as fx
from stformer.bounds import bounds
from stformer.export.netx_weights import keeps
from stformer.network import (
    Conv,
    Dense,
    Graded,
    Input,
    IntArray,
    Lif,
    Network,
    Population,
    Product,
    Readout,
    Relay,
    Shape,
    bias_of,
)

INT8_MAX = 127  # of Lava's kernels (lava/proc/conv/models.py:24)
CONV_LIMIT = 2**23  # where sums of Lava's convolution wrap (conv/models.py:78)
BIAS_EXP = 6  # of every neuron that netx builds (netx/hdf5.py:159)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A population and what leads into it, as netx has them.

    Attributes:
        population, projection: of the network.
        kind: "dense" or "conv"; a dense projection whose weights netx would change is a conv
            with a kernel that covers the whole frame.
        shape: (C, H, W) of a conv, (n,) of a dense.
        weight: effective weights, int8 or int16; [n_post, n_pre], or [C_post, C_pre, h, w].
        bias: mantissas, (C,), (n,) or (W, H, C); None where all are zero.
        bias_exp: their exponent; netx's own is `BIAS_EXP`, any other must be set after loading.
    """

    population: Lif | Readout
    projection: Dense | Conv
    kind: str
    shape: Shape
    weight: IntArray
    bias: IntArray | None
    bias_exp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Layers that follow each other.

    Attributes:
        source: what is fed to the first.
        shape: of it, as the file says it: (C, H, W) or (n,).
        layers: at least one.
    """

    source: Population
    shape: Shape
    layers: tuple[Layer, ...]


def chains(network: Network) -> tuple[Chain, ...]:
    """The maximal chains of a network, in its order; every layer is in one of them."""
    targets = Counter(p.pre for p in network.projections)
    found: list[list[Layer]] = []
    last: dict[str, list[Layer]] = {}  # population -> the chain that ends with it
    for p in network.populations:
        if isinstance(p, Input) or why_not(network, p):
            continue
        layer = _layer(network, p)
        before = last.pop(layer.projection.pre, None)
        flat = before is not None and before[-1].kind == "dense" and layer.kind == "conv"
        if before is None or flat or targets[layer.projection.pre] > 1:
            before = []
            found.append(before)
        before.append(layer)
        last[p.name] = before
    return tuple(_chain(network, layers) for layers in found)


def _chain(network: Network, layers: list[Layer]) -> Chain:
    source = network[layers[0].projection.pre]
    shape = _frame(source.shape) if layers[0].kind == "conv" else source.shape
    return Chain(source=source, shape=shape, layers=tuple(layers))


def _frame(shape: Shape) -> Shape:
    """(C, H, W) of any population's shape."""
    return shape if len(shape) == 3 else (prod(shape), 1, 1)


def why_not(network: Network, p: Population) -> str:
    """Why a population cannot be a layer of netx; empty where it can, and for inputs."""
    match p:
        case Input():
            return ""
        case Relay() | Graded() | Product():
            return f"a {type(p).__name__}, and netx has CUBA neurons only"
        case Lif() | Readout():
            pass
        case _:
            assert_never(p)
    incoming = network.incoming(p.name)
    if len(incoming) != 1:
        return f"{len(incoming)} projections lead into it, and into a layer of netx leads one"
    (projection,) = incoming
    if not isinstance(projection, (Dense, Conv)):
        return f"{type(projection).__name__} synapses, and netx has dense and conv"
    if projection.delay < 0:
        return f"{projection.name} looks {-projection.delay} ahead"
    if projection.delay:
        return f"the delay of {projection.name} would carry spikes from one sample into the next"
    if isinstance(projection, Dense) and not keeps(effective(projection)):
        return _why_no_frame(network, projection)
    return ""


def _why_no_frame(network: Network, projection: Dense) -> str:
    """Why a dense projection cannot be a convolution over the whole frame."""
    frame = _frame(network[projection.pre].shape)
    change = f"netx would change the weights of {projection.name}, and as a convolution "
    if max(frame[1:]) > INT8_MAX:
        return f"{change}its kernel would be larger than {INT8_MAX}"
    worst = bounds(network).added[projection.name]
    return f"{change}its sums of up to {worst} could wrap" if worst >= CONV_LIMIT else ""


def _layer(network: Network, p: Population) -> Layer:
    assert isinstance(p, (Lif, Readout))
    (projection,) = network.incoming(p.name)
    assert isinstance(projection, (Dense, Conv))
    weight = effective(projection)
    kind = "conv"
    if isinstance(projection, Dense):
        if keeps(weight):
            kind = "dense"
        else:
            weight = weight.reshape(len(weight), *_frame(network[projection.pre].shape))
    shape = p.shape
    if isinstance(projection, Dense):
        shape = (prod(p.shape),) if kind == "dense" else (prod(p.shape), 1, 1)
    bias, exponent = _bias(p, shape)
    return Layer(
        population=p,
        projection=projection,
        kind=kind,
        shape=shape,
        weight=weight,
        bias=bias,
        bias_exp=exponent,
    )


def effective(projection: Dense | Conv) -> IntArray:
    """weight << weight_exp in the smallest type that always holds it: kernels can be large."""
    if not projection.weight_exp:
        return projection.weight
    return projection.weight.astype(np.int16) << projection.weight_exp


def _bias(p: Lif | Readout, shape: Shape) -> tuple[IntArray | None, int]:
    """(mantissas as netx wants them, exponent) for a layer of this shape."""
    whole, exponent = bias_of(p), p.bias_exp
    mantissa = whole >> BIAS_EXP
    low, high = fx.BIAS_MANT_RANGE
    fits = low <= int(mantissa.min()) and int(mantissa.max()) <= high
    if fits and (mantissa << BIAS_EXP == whole).all():
        exponent = BIAS_EXP
    mantissa = whole >> exponent
    if not mantissa.any() and mantissa.size <= shape[0]:
        return None, BIAS_EXP
    if len(shape) == 3 and mantissa.shape[1:] == (1, 1) and shape == p.shape:
        return np.ascontiguousarray(np.broadcast_to(mantissa[:, 0, 0], shape[:1])), exponent
    full = np.broadcast_to(mantissa, p.shape).reshape(shape)
    per_channel = len(shape) == 3 and shape[1:] == (1, 1)
    return np.ascontiguousarray(full.reshape(-1) if per_channel else full.T), exponent
