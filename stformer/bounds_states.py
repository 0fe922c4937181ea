"""Currents and membranes over all inputs: intervals that go the chip's own steps.

No rule of a neuron falls where a state or a sum rises, but for wrap and reset; so the ends of an
interval go through the rules themselves (`stformer.fixedpoint`), and those two by cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from typing_extensions import assert_never

from stformer import fixedpoint as fx
from stformer.bounds import Int64, Interval
from stformer.network import Lif, Readout, Relay, bias_of

FAR = 2**48  # larger states count as this; times a decay it fits 64 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Neuron:
    """What the kinds with a membrane have in common.

    Attributes:
        du, dv: how current and membrane decay.
        top: the highest membrane that stays as it is: the threshold, or where it clips.
        bias: in the membrane's units.
    """

    du: int
    dv: int
    top: int
    bias: Int64


def neuron_of(p: Lif | Relay | Readout) -> Neuron:
    """A population's neuron; a relay is on the chip a Lif with vth 1 and dv 4095."""
    match p:
        case Lif():
            return Neuron(du=p.du, dv=p.dv, top=p.vth << fx.SHIFT, bias=bias_of(p))
        case Relay():
            zero = np.zeros((1,) * len(p.shape), np.int64)
            return Neuron(du=fx.NO_CURRENT, dv=fx.MEMORYLESS, top=1 << fx.SHIFT, bias=zero)
        case Readout():
            return Neuron(du=fx.NO_CURRENT, dv=0, top=fx.STATE_MAX - 1, bias=bias_of(p))
        case _:
            assert_never(p)


def within(n: Neuron, a: Interval, steps: int) -> tuple[Interval, Interval]:
    """Current before its wrap and membrane before clip and threshold, over steps from rest.

    Args:
        n: the neuron.
        a: what arrives in any step.
        steps: T.
    """
    a = near(a)
    zero = np.zeros_like(a.low + n.bias)
    u = v = most_u = most_v = Interval(zero, zero)
    for _ in range(steps):
        before = u, v
        raw_u = _each(lambda u, a: fx.unwrapped(u, a, n.du), u, a)
        u = _wrapped(near(raw_u, FAR))
        raw_v = _each(lambda v, u: fx.unclipped(v, u, n.dv, n.bias), v, u)
        v = _reset(_each(fx.clip, raw_v), n.top)
        most_u, most_v = _hull(most_u, raw_u), _hull(most_v, raw_v)
        if all(_same(x, y) for x, y in zip(before, (u, v), strict=True)):
            break  # so it goes on
    return most_u, most_v


def ever(n: Neuron, a: Interval) -> tuple[Interval, Interval]:
    """The same over any number of steps."""
    a = near(a)
    lost = fx.current_decay(n.du)
    u = Interval(-_limit(-a.low << fx.SHIFT, lost), _limit(a.high << fx.SHIFT, lost))
    # |wrap(u)| <= max(|u|, 2^23): where it may wrap, it is within these in any case.
    most = np.maximum(-u.low, u.high)
    wraps = most >= fx.STATE_MAX
    u = Interval(np.where(wraps, -most, u.low), np.where(wraps, most, u.high))
    low, high = u.low + n.bias, u.high + n.bias
    stays = np.minimum(_limit(np.maximum(high, 0), n.dv), n.top)
    lowest = -_limit(np.maximum(-low, 0), n.dv)
    return u, Interval(lowest, np.maximum(fx.decay(stays, n.dv) + high, 0))


def _limit(more: Int64, lost: int) -> Int64:
    """Where x[t] = x[t-1] * (4096 - lost)/4096 + more ends, rounded toward zero; more >= 0.

    The least x that a step does not raise: x - trunc(x * (4096 - lost) / 4096) is
    ceil(x * lost / 4096), which reaches `more` first beyond (more - 1) * 4096 / lost.
    """
    if not lost:
        return np.where(more > 0, np.int64(FAR), 0)
    least = np.maximum(more - 1, 0) * fx.DECAY_ONE // lost + 1
    return np.minimum(np.where(more > 0, least, 0), FAR)


def near(x: Interval, most: int = FAR >> fx.SHIFT) -> Interval:
    """The same no farther than `most` from 0, so that 64 bits hold what is made of it."""
    return Interval(np.maximum(x.low, -most), np.minimum(x.high, most))


def _each(rule: Callable[..., Int64], *given: Interval) -> Interval:
    """A rule that never falls where what it is given rises."""
    return Interval(rule(*(x.low for x in given)), rule(*(x.high for x in given)))


def _hull(x: Interval, y: Interval) -> Interval:
    return Interval(np.minimum(x.low, y.low), np.maximum(x.high, y.high))


def _same(x: Interval, y: Interval) -> bool:
    return np.array_equal(x.low, y.low) and np.array_equal(x.high, y.high)


def _wrapped(u: Interval) -> Interval:
    """Where one wrap can leave a current: what goes out at one end comes in at the other."""
    out = (u.high > fx.STATE_MAX) | (u.low <= -fx.STATE_MAX)
    low = np.minimum(1 - fx.STATE_MAX, u.low + 2 * fx.STATE_MAX)
    high = np.maximum(fx.STATE_MAX, u.high - 2 * fx.STATE_MAX)
    return Interval(np.where(out, low, u.low), np.where(out, high, u.high))


def _reset(v: Interval, top: int) -> Interval:
    """What stays of a membrane: what is above the top comes back as 0."""
    return Interval(np.minimum(v.low, 0), np.minimum(v.high, top))
