"""A projection as NIR nodes with weights, its weight back from them, and where a bias can go."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from stformer import fixedpoint as fx
from stformer.network import (
    BroadcastTokens,
    Conv,
    Dense,
    Graded,
    IntArray,
    Lif,
    Network,
    OneToOne,
    Operand,
    Population,
    Projection,
    Readout,
    Shape,
    SumTokens,
    Synapses,
    bias_of,
    effective_weight,
)

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One node on the way from a source to its target.

    Attributes:
        node: type and fields.
        what: what its name ends with.
        own: it holds the projection's weight, and is called as the projection is.
    """

    node: dict[str, Any]
    what: str = ""
    own: bool = False


def weights(q: Synapses, pre: Shape, post: Shape, bias: Array | None) -> list[Step]:
    """The nodes of a projection, first to last.

    Args:
        q: its delay is the caller's business.
        pre, post: shapes of source and target in the graph, (n,) or (C, H, W).
        bias: one number for each of the weight's outputs, or None.
    """
    w = effective_weight(q)
    flatten = [Step(_flatten(pre), "flatten")] if len(post) == 1 and len(pre) == 3 else []
    if len(post) == 1:
        assert isinstance(q, (Dense, OneToOne)), "the others have three axes"
        matrix = w if isinstance(q, Dense) else w * np.eye(prod(pre), dtype=np.int64)
        return [*flatten, Step(_linear(matrix, bias), own=True)]
    match q:
        case Dense():
            kernel = w.reshape(len(w), *pre)
            steps = [Step(_conv(kernel, pre[1:], bias), own=True)]
            if post[1:] != (1, 1):
                steps.append(Step(_unflatten(post), "unflatten"))
            return steps
        case Conv():
            kernel = _dense_groups(w, q.groups)
            return [
                Step(
                    _conv(kernel, pre[1:], bias, q.stride, q.padding, q.dilation),
                    own=True,
                )
            ]
        case OneToOne():
            return [Step(_conv(_diagonal(w, post[0], (1, 1)), pre[1:], bias), own=True)]
        case SumTokens():
            size = np.array(pre[1:])
            pool = {
                "type": "SumPool2d",
                "kernel_size": size,
                "stride": size,
                "padding": np.array([0, 0]),
            }
            kernel = _diagonal(w, post[0], (1, 1))
            return [Step(pool, "pool"), Step(_conv(kernel, (1, 1), bias), own=True)]
        case BroadcastTokens():
            kernel = _diagonal(w, post[0], post[1:])
            padding = (post[1] - 1, post[2] - 1)
            return [Step(_conv(kernel, (1, 1), bias, padding=padding), own=True)]
        case _:
            assert_never(q)


def weight_of(q: Synapses, stored: Array) -> IntArray:
    """The weight of a `Dense` or `Conv` from what its node stores.

    Args:
        q: with a weight of the right shape and any values.
        stored: the node's weight, integers.

    Raises:
        ValueError: it has another shape.
    """
    assert isinstance(q, (Dense, Conv))
    if isinstance(q, Dense):
        made = stored.reshape(q.weight.shape)
    else:
        c_out, c_in = len(q.weight) // q.groups, q.weight.shape[1]
        blocks = [
            stored[g * c_out : (g + 1) * c_out, g * c_in : (g + 1) * c_in] for g in range(q.groups)
        ]
        made = np.concatenate(blocks)
    out: IntArray = made.astype(np.int64) >> q.weight_exp
    return out


def weight_count(q: Projection, pre: Shape, post: Shape) -> int:
    """How many weights the nodes of a projection hold."""
    match q:
        case Operand():
            return 0
        case Dense():
            spread = prod(post) ** 2 if len(post) == 3 and post[1:] != (1, 1) else 0
            return prod(pre) * prod(post) + spread
        case Conv():
            return len(q.weight) * pre[0] * prod(q.weight.shape[2:])
        case OneToOne() | SumTokens():
            return int(post[0]) ** 2
        case BroadcastTokens():
            return int(post[0]) ** 2 * prod(post[1:])
        case _:
            assert_never(q)


def carried_bias(network: Network, p: Population) -> tuple[str, Array] | None:
    """The projection whose node adds a population's bias, and that node's bias.

    A bias on the way in is the same as one on the membrane where no current is kept. A `Conv2d`
    has one number for a channel, a fully connected node one for each neuron.

    Returns:
        None where there is no bias, or no incoming projection can bring it.
    """
    if not isinstance(p, (Lif, Readout, Graded)) or not p.bias_mant.any():
        return None
    if isinstance(p, Lif) and p.du != fx.NO_CURRENT:
        return None
    bias = (bias_of(p) / 2**fx.SHIFT).astype(np.float32)
    frames = len(p.shape) == 3
    uniform = not frames or bool((bias == bias[:, :1, :1]).all())
    for q in network.incoming(p.name):
        if isinstance(q, Dense) or (uniform and not frames and not isinstance(q, Operand)):
            return q.name, np.broadcast_to(bias, p.shape).ravel()
        if uniform and not isinstance(q, Operand):
            return q.name, np.broadcast_to(bias[:, 0, 0], p.shape[:1])
    return None


def _small(w: Array) -> Array:
    """The same integers as int8, or as int16 where shifted ones need it."""
    fits = not w.size or (w.min() >= -128 and w.max() <= 127)
    return w.astype(np.int8 if fits else np.int16)


def _linear(matrix: Array, bias: Array | None) -> dict[str, Any]:
    if bias is None:
        return {"type": "Linear", "weight": _small(matrix)}
    return {"type": "Affine", "weight": _small(matrix), "bias": bias}


def _conv(
    kernel: Array,
    size: Shape,
    bias: Array | None,
    stride: Shape = (1, 1),
    padding: Shape = (0, 0),
    dilation: Shape = (1, 1),
) -> dict[str, Any]:
    return {
        "type": "Conv2d",
        "input_shape": np.array(size),
        "weight": _small(kernel),
        "stride": np.array(stride),
        "padding": np.array(padding),
        "dilation": np.array(dilation),
        "groups": 1,
        "bias": np.zeros(len(kernel), np.float32) if bias is None else bias,
    }


def _flatten(pre: Shape) -> dict[str, Any]:
    """From axis 0: NIR's shapes have no batch."""
    return {"type": "Flatten", "start_dim": 0, "end_dim": -1, "input_type": np.array(pre)}


def _unflatten(post: Shape) -> dict[str, Any]:
    """(n, 1, 1) to (C, H, W): a kernel as large as the target, padded so that it meets the one
    pixel at each place with another of its own."""
    channels, height, width = post
    n = prod(post)
    kernel = np.zeros((channels, n, height, width), np.int8)
    c, i, j = (a.ravel() for a in np.indices(post))
    kernel[c, np.arange(n), height - 1 - i, width - 1 - j] = 1
    return _conv(kernel, (1, 1), None, padding=(height - 1, width - 1))


def _diagonal(w: Array, channels: int, size: Shape) -> Array:
    """Each channel to itself, with one weight all over the kernel."""
    eye = np.eye(channels, dtype=np.int64) * w
    return np.broadcast_to(eye[:, :, None, None], (channels, channels, *size))


def _dense_groups(w: Array, groups: int) -> Array:
    if groups == 1:
        return w
    c_out, c_in = len(w) // groups, w.shape[1]
    full = np.zeros((len(w), c_in * groups, *w.shape[2:]), w.dtype)
    for g in range(groups):
        rows = slice(g * c_out, (g + 1) * c_out)
        full[rows, g * c_in : (g + 1) * c_in] = w[rows]
    return full
