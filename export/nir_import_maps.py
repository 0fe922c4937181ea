"""Linear maps between what a population sends and what arrives at another, composed exactly.

A chain of stateless NIR nodes is one linear map. It stays a convolution as long as it is one;
otherwise it becomes a matrix. All in float64, before any rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from stformer.errors import InputError, Unsupported
from stformer.export.nir_import_tree import STAGE
from stformer.network import MAX_NEURONS, Shape

MAX_ENTRIES = 2**24  # of a matrix or kernel that a chain of nodes makes

Array = npt.NDArray[np.float64]
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Diagonal:
    """y = scale * x, element by element; scale has no axes or those of x."""

    scale: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kernel:
    """A cross-correlation, as `stformer.network.Conv` with float weights."""

    weight: Array
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matrix:
    """y = weight @ x, over flattened elements; weight [n_out, n_in]."""

    weight: Array


Linear = Diagonal | Kernel | Matrix


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Map:
    """What reaches a node from one population.

    Attributes:
        pre: the population.
        pre_shape, shape: of what it sends and of what arrives; 1 or 3 axes.
        linear: from one to the other.
        delay: time steps.
        via: the last node with weights on the way; empty for none.
    """

    pre: str
    pre_shape: Shape
    shape: Shape
    linear: Linear
    delay: int = 0
    via: str = ""


def three_axes(shape: Shape) -> Shape:
    """(C, L), of a one-dimensional convolution, as (C, 1, L); leading ones of four axes go."""
    if len(shape) == 2:
        return (shape[0], 1, shape[1])
    return shape[1:] if len(shape) == 4 and shape[0] == 1 else shape


def scaled(name: str, m: Map, scale: Array) -> Map:
    """`Scale` after a map; scale has no axes or those of what arrives."""
    linear = m.linear
    if isinstance(linear, Diagonal):
        return replace(m, linear=Diagonal(scale=linear.scale * scale), via=name)
    if isinstance(linear, Kernel):
        channel = per_channel(scale, m.shape)
        if channel is not None:
            kernel = replace(linear, weight=linear.weight * channel.reshape(-1, 1, 1, 1))
            return replace(m, linear=kernel, via=name)
    rows = np.broadcast_to(scale, m.shape).reshape(-1, 1)
    return replace(m, linear=Matrix(weight=matrix(name, m) * rows), via=name)


def multiplied(name: str, m: Map, weight: Array) -> Map:
    """`Linear` after a map; weight [n_out, n_in]."""
    if isinstance(m.linear, Diagonal):
        product = weight * np.broadcast_to(m.linear.scale, m.shape).reshape(1, -1)
    else:
        product = weight @ matrix(name, m)
    return replace(m, shape=(len(weight),), linear=Matrix(weight=product), via=name)


def convolved(name: str, m: Map, kernel: Kernel, *, own: bool = True) -> Map:
    """`Conv2d` or a pool after a map; `own`: the node holds weights."""
    shape = kernel_output(name, kernel, m.shape)
    via = name if own else m.via
    linear: Linear | None = None
    if isinstance(m.linear, Diagonal) and m.pre_shape == m.shape:
        channel = per_channel(m.linear.scale, m.shape)
        if channel is not None:
            per_group = channel.reshape(kernel.groups, 1, -1, 1, 1)
            grouped = kernel.weight.reshape(kernel.groups, -1, *kernel.weight.shape[1:])
            linear = replace(kernel, weight=(grouped * per_group).reshape(kernel.weight.shape))
    elif isinstance(m.linear, Kernel):
        linear = _compose(m.linear, kernel, m.pre_shape, m.shape)
    if linear is None:
        linear = Matrix(weight=_kernel_matrix(name, kernel, m.shape, shape) @ matrix(name, m))
    return replace(m, shape=shape, linear=linear, via=via)


def kernel_output(name: str, kernel: Kernel, shape: Shape) -> Shape:
    """(C, H, W) that a convolution makes of `shape`.

    Raises:
        InputError: it does not fit.
    """
    where, weight = f"node {name}", kernel.weight
    if weight.ndim != 4 or min(weight.shape) < 1 or len(shape) != 3:
        raise InputError(where, f"weight {weight.shape} for {shape}", "4 axes, for (C, H, W)")
    if weight.shape[1] * kernel.groups != shape[0] or weight.shape[0] % kernel.groups:
        found = f"weight {weight.shape} with groups {kernel.groups} for {shape}"
        raise InputError(where, found, f"{shape[0]} channels in")
    out = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(
            shape[1:],
            weight.shape[2:],
            kernel.stride,
            kernel.padding,
            kernel.dilation,
            strict=True,
        )
    ]
    if min(out) < 1 or weight.shape[0] * prod(out) > MAX_NEURONS:
        found = f"a result of {weight.shape[0]} x {out[0]} x {out[1]}"
        raise InputError(where, found, f"1 to {MAX_NEURONS} elements")
    return (weight.shape[0], out[0], out[1])


def per_channel(values: Array, shape: Shape) -> Array | None:
    """One value for each channel of (C, H, W); None where they differ within one."""
    if len(shape) != 3:
        return None
    wide = np.broadcast_to(values, shape).reshape(shape[0], -1)
    return wide[:, 0].copy() if (wide == wide[:, :1]).all() else None


def matrix(name: str, m: Map) -> Array:
    """The map as a matrix [n_out, n_in].

    Raises:
        Unsupported: more than 2^24 entries.
    """
    match m.linear:
        case Matrix(weight=weight):
            return weight
        case Diagonal(scale=scale):
            _check_entries(name, prod(m.shape) ** 2)
            return np.diag(np.broadcast_to(scale, m.shape).reshape(-1))
        case Kernel():
            return _kernel_matrix(name, m.linear, m.pre_shape, m.shape)
        case _:
            assert_never(m.linear)


def apply(linear: Kernel, name: str, values: Array, shape: Shape) -> Array:
    """A convolution of one frame [C, H, W], for the biases before it."""
    frame = np.broadcast_to(values, shape)
    (ph, pw), (sh, sw), (dh, dw) = linear.padding, linear.stride, linear.dilation
    channels, out_h, out_w = kernel_output(name, linear, shape)
    _check_entries(name, shape[0] * (shape[1] + 2 * ph) * (shape[2] + 2 * pw))
    padded = np.pad(frame, ((0, 0), (ph, ph), (pw, pw)))
    out = np.zeros((channels, out_h, out_w))
    per_out, per_in = channels // linear.groups, linear.weight.shape[1]
    for g in range(linear.groups):
        rows = slice(g * per_out, (g + 1) * per_out)
        source = padded[g * per_in : (g + 1) * per_in]
        for i, j in np.ndindex(*linear.weight.shape[2:]):
            tap = source[
                :,
                i * dh : i * dh + (out_h - 1) * sh + 1 : sh,
                j * dw : j * dw + (out_w - 1) * sw + 1 : sw,
            ]
            out[rows] += np.einsum("oc,chw->ohw", linear.weight[rows, :, i, j], tap)
    return out


def _compose(first: Kernel, then: Kernel, before: Shape, between: Shape) -> Kernel | None:
    """One convolution that does both; None where padding between them forbids it."""
    size, reach = [], []
    for i in range(2):
        (s1, p1, d1), (p2, d2) = (
            (first.stride[i], first.padding[i], first.dilation[i]),
            (
                then.padding[i],
                then.dilation[i],
            ),
        )
        k1, k2 = first.weight.shape[2 + i], then.weight.shape[2 + i]
        reach.append(d1 * (k1 - 1) + 1)
        size.append(d2 * s1 * (k2 - 1) + reach[i])
        # The zeros that `then` pads with must be what `first` would give outside its frame.
        if p2 and (reach[i] > s1 + p1 or between[1 + i] * s1 - p1 < before[1 + i]):
            return None
    a, b = _ungrouped(first), _ungrouped(then)
    entries = b.shape[0] * a.shape[1] * size[0] * size[1]
    if max(a.size, b.size, entries) > MAX_ENTRIES:
        return None
    weight = np.zeros((b.shape[0], a.shape[1], *size))
    (sh, sw), (ah, aw), (bh, bw) = first.stride, first.dilation, then.dilation
    for i, j in np.ndindex(*b.shape[2:]):
        block = np.einsum("om,mchw->ochw", b[:, :, i, j], a)
        y, x = i * bh * sh, j * bw * sw
        weight[:, :, y : y + reach[0] : ah, x : x + reach[1] : aw] += block
    return Kernel(
        weight=weight,
        stride=(sh * then.stride[0], sw * then.stride[1]),
        padding=(
            first.padding[0] + then.padding[0] * sh,
            first.padding[1] + then.padding[1] * sw,
        ),
        dilation=(1, 1),
        groups=1,
    )


def _ungrouped(kernel: Kernel) -> Array:
    """Its weight with the zeros that groups leave out."""
    out, per_in, *size = kernel.weight.shape
    if kernel.groups == 1:
        return kernel.weight
    if out * per_in * kernel.groups * prod(size) > MAX_ENTRIES:
        return np.broadcast_to(0.0, (out, per_in * kernel.groups, *size))  # refused by its size
    weight = np.zeros((out, per_in * kernel.groups, *size))
    per_out = out // kernel.groups
    for g in range(kernel.groups):
        rows = slice(g * per_out, (g + 1) * per_out)
        weight[rows, g * per_in : (g + 1) * per_in] = kernel.weight[rows]
    return weight


def _kernel_matrix(name: str, kernel: Kernel, before: Shape, after: Shape) -> Array:
    _check_entries(name, prod(before) * prod(after))
    (ph, pw), (sh, sw), (dh, dw) = kernel.padding, kernel.stride, kernel.dilation
    out = np.zeros((*after, *before))
    per_out, per_in = after[0] // kernel.groups, kernel.weight.shape[1]
    for y, x in np.ndindex(*after[1:]):
        for i, j in np.ndindex(*kernel.weight.shape[2:]):
            h, w = y * sh + i * dh - ph, x * sw + j * dw - pw
            if not (0 <= h < before[1] and 0 <= w < before[2]):
                continue
            for g in range(kernel.groups):
                rows = slice(g * per_out, (g + 1) * per_out)
                columns = slice(g * per_in, (g + 1) * per_in)
                out[rows, y, x, columns, h, w] += kernel.weight[rows, :, i, j]
    return out.reshape(prod(after), prod(before))


def _check_entries(name: str, entries: int) -> None:
    if entries > MAX_ENTRIES:
        why = f"written out, it is a matrix of {entries} weights; up to {MAX_ENTRIES} can be made"
        raise Unsupported(STAGE, f"node {name}", why)
