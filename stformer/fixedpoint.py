"""Every integer rule of the chip, once: decay, wrap, clip, threshold, and the legal ranges.

The functions use only operators that NumPy and torch share, so that the training neuron
(`stformer.nn`) and the reference interpreter (`stformer.interpret`) run the same code.
All states are 64-bit integer arrays; the arithmetic is Lava 0.10.0's
(`lava/proc/lif/models.py`, `AbstractPyLifModelFixed.subthr_dynamics`, lines 127-186).
"""

from __future__ import annotations

from typing import Any, TypeAlias

Array: TypeAlias = Any  # an int64 NumPy array or torch tensor

STATE_BITS = 24
STATE_MAX: int = 2 ** (
    STATE_BITS - 1
)  # u lives in (-STATE_MAX, STATE_MAX], v in +-(STATE_MAX - 1)
DECAY_ONE = 4096  # decays are 12-bit fractions
SHIFT = 6  # arriving sums and thresholds are aligned 6 bits up
ACCUMULATOR_MAX = 32767  # |sum of weight * spike| per neuron and step that the chip can hold

DU_RANGE = (0, 4095)
DV_RANGE = (0, 4095)
VTH_RANGE = (1, 131071)
BIAS_MANT_RANGE = (-4096, 4095)
BIAS_EXP_RANGE = (0, 7)
WEIGHT_RANGE = (-128, 127)
WEIGHT_EXP_RANGE = (0, 7)
DELAY_RANGE = (-62, 62)  # of the computation; negative looks ahead, and costs latency
AXON_DELAY_RANGE = (0, 62)  # of a synapse
SHIFT_RANGE = (0, 23)  # of a graded message

NO_CURRENT = 4095  # du that keeps no current: the decay register counts one up, 4095 + 1 = 4096
MEMORYLESS = 4095  # dv that forgets |v| < 4096 from one step to the next: gates and relays


def truncate(x: Array, bits: int) -> Array:
    """x / 2^bits toward zero, for 0...62 bits.

    Adding 2^bits - 1 to a negative number before the arithmetic shift turns its floor into a
    truncation, which is what Lava's sign * (|x| >> bits) computes.
    """
    return (x + ((x >> 63) & ((1 << bits) - 1))) >> bits


def decay(x: Array, amount: int) -> Array:
    """Multiply by (4096 - amount)/4096 and round toward zero.

    Args:
        x: integer array, |x| < 2^24.
        amount: 0 (keep everything) ... 4096 (keep nothing).
    """
    return truncate(x * (DECAY_ONE - amount), 12)


def wrap(u: Array) -> Array:
    """One 24-bit wrap into (-2^23, 2^23], Lava's interval (two's complement has the other end)."""
    return u - (u > STATE_MAX) * (2 * STATE_MAX) + (u <= -STATE_MAX) * (2 * STATE_MAX)


def clip(v: Array) -> Array:
    """Saturate at +-(2^23 - 1), as the membrane does."""
    return v.clip(-(STATE_MAX - 1), STATE_MAX - 1)


def current_decay(du: int) -> int:
    """What a current loses a step, in 1/4096.

    The register holds du and the chip decays by du + 1: the off-by-one lives on this line
    and nowhere else.
    """
    return du + 1


def unwrapped(u: Array, a: Array, du: int) -> Array:
    """Synaptic current after one step, before the wrap; u and a are integer arrays."""
    return decay(u, current_decay(du)) + (a << SHIFT)


def current(u: Array, a: Array, du: int) -> Array:
    """Synaptic current after one step; u and a are integer arrays of one shape."""
    return wrap(unwrapped(u, a, du))


def unclipped(v: Array, u: Array, dv: int, bias: Array) -> Array:
    """Membrane after one step, before clip and threshold; `bias` is bias_mant << bias_exp."""
    return decay(v, dv) + u + bias


def membrane(v: Array, u: Array, dv: int, bias: Array) -> Array:
    """Membrane after one step, before threshold; `bias` is bias_mant << bias_exp."""
    return clip(unclipped(v, u, dv, bias))


def message(a: Array, bias: Array, shift: int) -> Array:
    """What a graded population would send if it held any number: see `graded`."""
    return truncate((a << SHIFT) + bias, SHIFT + shift)


def graded(a: Array, bias: Array, shift: int) -> Array:
    """What a graded population sends: its sum, biased and shifted right, toward zero.

    Args:
        a: arriving sum.
        bias: bias_mant << bias_exp, in units of 1/64 like a membrane's.
        shift: bits that the message leaves out, 0...23.
    """
    return clip(message(a, bias, shift))


def fire(v: Array, vth: int) -> tuple[Array, Array]:
    """(spikes as booleans, membrane after the reset): fires on v > vth << 6, strictly."""
    spikes = v > (vth << SHIFT)
    return spikes, v * ~spikes


def lif_step(
    u: Array, v: Array, a: Array, *, du: int, dv: int, vth: int, bias: Array
) -> tuple[Array, Array, Array]:
    """One step of Loihi's CUBA-LIF as Lava 0.10.0 executes it in fixed point.

    Args:
        u, v: current and membrane after the last step (zero at the start of a sample).
        a: arriving sum of weight * spike over all projections.
        du, dv, vth: registers, see the ranges above.
        bias: bias_mant << bias_exp, broadcastable to v.

    Returns:
        (spikes as booleans, u, v): v returns to 0 where it fired, u is kept.
    """
    u = current(u, a, du)
    spikes, v = fire(membrane(v, u, dv, bias), vth)
    return spikes, u, v
