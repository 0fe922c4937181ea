"""The neuron of the definition with its rules made variable, to see which one a run broke.

`Rules()` is `stformer.fixedpoint`; every other value is a mistake that a simulator, a converter or
a chip's driver can make. Nothing here is used to run a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from stformer import fixedpoint as fx
from stformer.network import Lif, Readout, bias_of

States: TypeAlias = npt.NDArray[Any]  # int64; float64 where decays are not rounded
Overflow: TypeAlias = Literal["wrap", "two's complement", "saturate", "none"]
Rounding: TypeAlias = Literal["zero", "down", "nearest", "none"]
Reset: TypeAlias = Literal["zero", "subtract", "none", "current too"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a neuron computes; the defaults are the definition.

    Attributes:
        tie: it fires at v >= vth << 6.
        current, membrane: what u and v do beyond 24 bits.
        rounding: of both decays; "none" keeps fractions, as floating point does.
        du_plus: what is added to du before the decay; 0 forgets that it counts one up.
        dv_plus: the same for dv.
        reset: what a spike does: v to 0, threshold off v, nothing, u and v to 0.
        carry: a sample starts with the states that the last one left.
        bias_from: first step in which the bias counts.
    """

    tie: bool = False
    current: Overflow = "wrap"
    membrane: Overflow = "saturate"
    rounding: Rounding = "zero"
    du_plus: int = 1
    dv_plus: int = 0
    reset: Reset = "zero"
    carry: bool = False
    bias_from: int = 0


DEFINITION = Rules()

# Mistakes that have no number to be chosen: what the neuron does, and its rules; by class.
BROKEN: dict[str, dict[str, Rules]] = {
    "threshold tie": {
        "it fires where the membrane meets the threshold exactly": Rules(tie=True),
    },
    "wrap": {
        "it does not wrap the current at 24 bits": Rules(current="none"),
        "it saturates the current at 24 bits and does not wrap it": Rules(current="saturate"),
        "it wraps a current of 2^23 to -2^23": Rules(current="two's complement"),
    },
    "clip": {
        "it does not clip the membrane at 24 bits": Rules(membrane="none"),
        "it wraps the membrane at 24 bits and does not clip it": Rules(membrane="wrap"),
        "it wraps the membrane as two's complement and does not clip it": Rules(
            membrane="two's complement"
        ),
    },
    "decay rounding": {
        "it rounds decays down, not toward zero": Rules(rounding="down"),
        "it rounds decays to the nearest number": Rules(rounding="nearest"),
        "it does not round decays, as floating point does": Rules(rounding="none"),
    },
    "decay": {
        "it decays the current by du, not du + 1": Rules(du_plus=0),
        "it decays the current by du + 2, not du + 1": Rules(du_plus=2),
        "it decays the membrane by dv + 1": Rules(dv_plus=1),
        "it decays the membrane by dv - 1": Rules(dv_plus=-1),
    },
    "reset": {
        "a spike takes the threshold off the membrane": Rules(reset="subtract"),
        "a spike leaves the membrane as it is": Rules(reset="none"),
        "a spike sets the current to 0 too": Rules(reset="current too"),
        "it starts a sample with the states that the last one left": Rules(carry=True),
    },
    "bias": {
        "its bias counts from the second step on": Rules(bias_from=1),
    },
}


def step(
    p: Lif | Readout, rules: Rules, u: States, v: States, a: States, t: int
) -> tuple[States, States, States, States]:
    """One step under given rules.

    Args:
        p: registers; a readout decays nothing and never fires.
        rules: what holds.
        u, v: after the last step.
        a: arriving sums, integers.
        t: the sample's step, from 0.

    Returns:
        (spikes, of a readout v; u; v; v before threshold and reset).
    """
    du, dv = (p.du, p.dv) if isinstance(p, Lif) else (fx.NO_CURRENT, 0)
    bias = bias_of(p) if t >= rules.bias_from else 0
    u = _decay(u, du + rules.du_plus, rules.rounding) + (a << fx.SHIFT)
    u = _bounded(u, rules.current)
    membrane = _decay(v, dv + rules.dv_plus, rules.rounding) + u + bias
    membrane = _bounded(membrane, rules.membrane)
    if isinstance(p, Readout):
        return membrane, u, membrane, membrane
    level = p.vth << fx.SHIFT
    fired = (membrane >= level) if rules.tie else (membrane > level)
    match rules.reset:
        case "zero" | "current too":
            v = membrane * ~fired
        case "subtract":
            v = membrane - level * fired
        case "none":
            v = membrane
        case _:
            assert_never(rules.reset)
    return fired.astype(np.int64), u * ~fired if rules.reset == "current too" else u, v, membrane


def _decay(x: States, amount: int, rounding: Rounding) -> States:
    kept = x * (fx.DECAY_ONE - amount)
    match rounding:
        case "zero":
            return np.asarray(fx.truncate(kept, 12))
        case "down":
            return np.asarray(kept >> 12)
        case "nearest":
            return np.asarray((kept + fx.DECAY_ONE // 2) >> 12)
        case "none":
            return np.asarray(kept / fx.DECAY_ONE)
        case _:
            assert_never(rounding)


def _bounded(x: States, overflow: Overflow) -> States:
    match overflow:
        case "wrap":
            return np.asarray(fx.wrap(x))
        case "two's complement":  # the interval's other end belongs to it
            return np.asarray((x + fx.STATE_MAX) % (2 * fx.STATE_MAX) - fx.STATE_MAX)
        case "saturate":
            return np.asarray(fx.clip(x))
        case "none":
            return x
        case _:
            assert_never(overflow)
