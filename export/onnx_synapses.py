"""Projections as ONNX nodes: what arrives at a population, all lanes at once.

A lane is one sample at one step, so a whole run of a population without recurrence is one
convolution. Tensors are [lanes, *shape].
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from typing_extensions import assert_never

from stformer.bounds import bounds
from stformer.export.onnx_graph import Graph, only_shape
from stformer.export.onnx_plan import digits, exact, plans
from stformer.network import (
    BroadcastTokens,
    Conv,
    Dense,
    Network,
    OneToOne,
    Operand,
    Population,
    Product,
    Projection,
    SumTokens,
    Synapses,
)

# What a projection's source sent, when it arrives: float32 [lanes, *pre.shape]; None: nothing.
Sources = Callable[[Projection], str | None]


def arriving(
    g: Graph, network: Network, post: Population, sources: Sources, shift: int
) -> str | None:
    """Arriving sums << shift [lanes, *post.shape], in the plan's type; None for nothing."""
    dtype = plans(network)[post.name].dtype
    total: str | None = None
    spread = True
    for p in network.incoming(post.name):
        assert not isinstance(p, Operand)
        x = sources(p)
        if x is None:
            continue
        made, made_dtype = _synapse(g, network, p, x, shift)
        if made_dtype is not dtype:
            made = g.cast(made, dtype, f"{p.name}/{np.dtype(dtype).name}")
        spread = spread and isinstance(p, BroadcastTokens)
        total = made if total is None else g.add("Add", [total, made], f"{post.name}/sum")
    if total is not None and spread:
        shape = g.constant((1, *post.shape), np.int64)
        total = g.add("Expand", [total, shape], f"{post.name}/spread")
    return total


def _synapse(g: Graph, network: Network, p: Synapses, x: str, shift: int) -> tuple[str, Any]:
    """(what a projection adds << shift, its type); broadcast sums keep one token."""
    post = network[p.post].shape
    if isinstance(p, Conv):
        return _convolution(g, network, p, x, shift)
    dtype = exact(network, p)
    if dtype is not np.float32:
        x = g.cast(x, dtype, f"{p.name}/wide")
    w = weight(g, p, dtype, shift)
    match p:
        case Dense():
            flat = g.reshape(x, only_shape((p.weight.shape[1],)), f"{p.name}/flat")
            made = g.add("Gemm", [flat, w], p.name, transB=1)
            return g.reshape(made, only_shape(post), f"{p.name}/shaped"), dtype
        case OneToOne() | BroadcastTokens():
            return g.add("Mul", [x, w], p.name), dtype
        case SumTokens():
            axes = g.constant((2, 3), np.int64)
            summed = g.add("ReduceSum", [x, axes], f"{p.name}/tokens", keepdims=1)
            return g.add("Mul", [summed, w], p.name), dtype
        case _:
            assert_never(p)


def weight(g: Graph, p: Synapses, dtype: Any, shift: int) -> str:
    """weight << (weight_exp + shift), made of the int8 weight that the file holds."""
    stored = g.parameter(f"{p.name}/weight", np.asarray(p.weight, np.int8))
    number = g.cast(stored, dtype, f"{p.name}/weight.{np.dtype(dtype).name}")
    factor = 1 << (p.weight_exp + shift)
    if factor == 1:
        return number
    return g.add("Mul", [number, g.constant(factor, dtype)], f"{p.name}/weight.scaled")


def _convolution(g: Graph, network: Network, p: Conv, x: str, shift: int) -> tuple[str, Any]:
    geometry: dict[str, Any] = {
        "kernel_shape": p.weight.shape[2:],
        "strides": p.stride,
        "pads": (*p.padding, *p.padding),
        "dilations": p.dilation,
        "group": p.groups,
    }
    w = weight(g, p, np.float32, shift)
    bits = digits(network, p)
    if bits is None:
        return g.add("Conv", [x, w], p.name, **geometry), np.float32
    # Low digit first; a digit has its number's sign, so that sums of digits are the number.
    total: str | None = None
    count = -(-bounds(network).sent[p.pre].bit_length() // bits)
    for i in range(count):
        rest = None
        digit = x
        if i + 1 < count:
            rest = truncated(g, x, bits, np.float32, np.int32, f"{p.name}/rest.{i}")
            back = g.add("Mul", [rest, g.constant(2**bits, np.float32)], f"{p.name}/back.{i}")
            digit = g.add("Sub", [x, back], f"{p.name}/digit.{i}")
        made = g.add("Conv", [digit, w], f"{p.name}/part.{i}", **geometry)
        made = g.cast(made, np.float64, f"{p.name}/part.{i}.float64")
        if i:
            factor = g.constant(2 ** (bits * i), np.float64)
            made = g.add("Mul", [made, factor], f"{p.name}/part.{i}.scaled")
        total = made if total is None else g.add("Add", [total, made], p.name)
        x = rest or x
    assert total is not None
    return total, np.float64


def truncated(g: Graph, x: str, bits: int, dtype: Any, integer: Any, name: str) -> str:
    """x / 2^bits toward zero: ONNX's casts to integers cut."""
    scaled = g.add("Mul", [x, g.constant(2.0**-bits, dtype)], f"{name}.exact")
    return cut(g, scaled, dtype, integer, name)


def cut(g: Graph, x: str, dtype: Any, integer: Any, name: str) -> str:
    return g.cast(g.cast(x, integer, f"{name}.integer"), dtype, name)


def product(g: Graph, network: Network, p: Product, sources: Sources) -> str | None:
    """A product's sums before the clip [lanes, *p.shape], in the plan's type; None for zeros."""
    dtype = plans(network)[p.name].dtype
    right_shape = next(
        network[q.pre].shape
        for q in network.incoming(p.name)
        if isinstance(q, Operand) and q.port == "right"
    )
    d, n = right_shape[0] // p.heads, prod(right_shape[1:])
    factors: dict[str, str] = {}
    for q in network.incoming(p.name):
        assert isinstance(q, Operand)
        x = sources(q)
        if x is None:
            return None
        if dtype is not np.float32:
            x = g.cast(x, dtype, f"{q.name}/float64")
        rows = (n, n) if q.port == "left" and p.mode == "mix" else (d, n)
        x = g.reshape(x, only_shape((p.heads, *rows)), f"{q.name}/heads")
        if q.port == "left" and dtype is np.float32:
            x = g.add("Transpose", [x], q.name, perm=(0, 1, 3, 2))
        factors[q.port] = x
    order = ("left", "right") if p.mode == "scores" else ("right", "left")
    inputs, name = [factors[port] for port in order], f"{p.name}/product"
    if dtype is np.float32:
        made = g.add("MatMul", inputs, name)
    else:  # onnxruntime fuses a transpose with MatMul, and has no such kernel for float64
        equation = "bhdn,bhdm->bhnm" if p.mode == "scores" else "bhdm,bhnm->bhdn"
        made = g.add("Einsum", inputs, name, equation=equation)
    return g.reshape(made, only_shape(p.shape), f"{p.name}/sum")
