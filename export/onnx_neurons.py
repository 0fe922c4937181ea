"""Populations as ONNX nodes: one step of their states, as `stformer.fixedpoint` has it."""

from __future__ import annotations

from typing import Any

import numpy as np

from stformer import fixedpoint as fx
from stformer.export.onnx_graph import Graph, element
from stformer.export.onnx_plan import CLIP, TOP, Plan, kept, kept_current
from stformer.export.onnx_synapses import cut, truncated
from stformer.network import Graded, Lif, Readout


def drive(g: Graph, p: Lif | Readout | Graded, plan: Plan, sums: str | None, lanes: str) -> str:
    """What a step brings before any state: the wrapped current and the bias.

    Args:
        sums: arriving << 6, [lanes, *shape]; None for nothing.
        lanes: name of int64 [1], how many there are.

    Returns:
        [lanes, *shape] in the plan's type; only the sums where the current is kept.
    """
    biased = plan.bias and not plan.keeps_u
    if sums is None:
        shape = g.add("Concat", [lanes, g.constant(p.shape, np.int64)], f"{p.name}/shape", axis=0)
        start = bias(g, p, plan.dtype) if biased else g.constant(0, plan.dtype)
        return g.add("Expand", [start, shape], f"{p.name}/drive")
    if plan.wraps and not plan.keeps_u:
        sums = wrap(g, sums, plan.dtype, f"{p.name}/wrapped")
    return g.add("Add", [sums, bias(g, p, plan.dtype)], f"{p.name}/drive") if biased else sums


def bias(g: Graph, p: Lif | Readout | Graded, dtype: Any) -> str:
    """bias_mant << bias_exp, made of the int16 mantissas that the file holds."""
    stored = g.parameter(f"{p.name}/bias", p.bias_mant)
    wide = g.once("Cast", [stored], f"{p.name}/bias.number", to=element(dtype))
    if not p.bias_exp:
        return wide
    return g.once("Mul", [wide, g.constant(2**p.bias_exp, dtype)], f"{p.name}/bias.scaled")


def step(
    g: Graph,
    p: Lif | Readout,
    plan: Plan,
    drive_: str,
    u: str | None,
    v: str | None,
    label: str = "",
) -> tuple[str, str | None, str | None]:
    """One step of a population.

    Args:
        drive_: what `drive` returns, of this step.
        u, v: states before it, in the plan's type; None where the plan keeps none.
        label: name of the node that compares with the threshold.

    Returns:
        (spikes as booleans, or v of a readout; u; v after the reset), states None as before.
    """
    dtype, name = plan.dtype, p.name
    if u is not None:
        assert isinstance(p, Lif)
        u = decay(g, u, kept_current(p.du), plan, f"{name}/u")
        u = g.add("Add", [u, drive_], f"{name}/u.raised")
        u = wrap(g, u, dtype, f"{name}/u.wrapped") if plan.wraps else u
        drive_ = g.add("Add", [u, bias(g, p, dtype)], f"{name}/u.biased") if plan.bias else u
    if v is not None:
        left = decay(g, v, kept(p.dv), plan, f"{name}/v") if isinstance(p, Lif) else v
        drive_ = g.add("Add", [left, drive_], f"{name}/v.raised")
    membrane = clip(g, drive_, dtype, f"{name}/v.clipped") if plan.clips else drive_
    if isinstance(p, Readout):
        return membrane, u, None if v is None else membrane
    threshold = g.parameter(f"{name}/threshold", np.asarray(p.vth << fx.SHIFT, dtype))
    spikes = g.add("Greater", [membrane, threshold], f"{name}/fired", label=label)
    if v is not None:
        v = g.add("Where", [spikes, g.constant(0, dtype), membrane], f"{name}/v.reset")
    return spikes, u, v


def graded(g: Graph, p: Graded, plan: Plan, drive_: str) -> str:
    """What a graded population sends, float32; `drive_` is (a << 6) + bias, or a alone."""
    if plan.bias or p.shift:
        integer = np.int32 if plan.largest < 2**31 else np.int64
        bits = fx.SHIFT + p.shift
        drive_ = truncated(g, drive_, bits, plan.dtype, integer, f"{p.name}/message")
    return sent(g, drive_, plan, p.name)


def sent(g: Graph, x: str, plan: Plan, name: str) -> str:
    """A graded message: clipped, and then always small enough for float32."""
    if plan.clips:
        x = clip(g, x, plan.dtype, f"{name}/clipped")
    return x if plan.dtype is np.float32 else g.cast(x, np.float32, f"{name}/narrow")


def decay(g: Graph, x: str, keep: int, plan: Plan, name: str) -> str:
    """x * keep / 4096, cut toward zero."""
    if keep == fx.DECAY_ONE:
        return x
    factor = g.parameter(f"{name}.keep", np.asarray(keep / fx.DECAY_ONE, plan.dtype))
    exact = g.add("Mul", [x, factor], f"{name}.exact")
    integer = np.int32 if plan.current < 2**31 else np.int64
    return cut(g, exact, plan.dtype, integer, f"{name}.decayed")


def wrap(g: Graph, u: str, dtype: Any, name: str) -> str:
    """One 24-bit wrap into (-2^23, 2^23]."""
    for op, edge, turn in (("Greater", TOP, -2 * TOP), ("LessOrEqual", -TOP, 2 * TOP)):
        beyond = g.add(op, [u, g.constant(edge, dtype)], f"{name}.{op}")
        turned = g.add("Add", [u, g.constant(turn, dtype)], f"{name}.{op}.turned")
        u = g.add("Where", [beyond, turned, u], name)
    return u


def clip(g: Graph, x: str, dtype: Any, name: str) -> str:
    return g.add("Clip", [x, g.constant(-CLIP, dtype), g.constant(CLIP, dtype)], name)
