"""Weights, thresholds and biases of one population as whole numbers of one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from stformer import fixedpoint as fx
from stformer.errors import Unsupported
from stformer.export.nir_import_maps import Diagonal, Kernel, Linear, Map, Matrix
from stformer.export.nir_import_tree import STAGE
from stformer.network import Conv, Dense, IntArray, OneToOne, Shape, Synapses

Array = npt.NDArray[np.float64]

MEMBRANE = (fx.STATE_MAX - 1) >> fx.SHIFT  # the largest membrane, in units of the arriving sum
LARGEST_BIAS = (fx.BIAS_MANT_RANGE[1] << fx.BIAS_EXP_RANGE[1]) / 2**fx.SHIFT
CLOSE = 1e-5  # float32 files hold whole numbers no closer, once scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds the scale of a population.

    Attributes:
        threshold: in the file's units, the same for all neurons; 0 where there is no one.
        kept: how often a current of one step adds up at most, 4096 / (du + 1).
        adds: steps over which the membrane adds up without a threshold; 0 for spiking.
        bias: largest absolute bias, in units of the threshold.
    """

    threshold: float
    kept: float
    adds: int
    bias: float


def scale_of(name: str, maps: Sequence[Map], limits: Limits) -> float:
    """Integers per unit of the threshold: exact where the file holds integers, else as fine as
    int8 weights and sums of 16 bits allow, for the worst input of spikes.

    Raises:
        Unsupported: no scale keeps a threshold of 1 or more.
    """
    total = sum(_row_sum(m.linear) for m in maps)
    largest = max((float(np.abs(_weights(m.linear)).max()) for m in maps), default=0.0)
    most = float(MEMBRANE)
    if total:
        most = min(most, fx.ACCUMULATOR_MAX / total, MEMBRANE / (total * limits.kept))
    if limits.adds and total + limits.bias:
        most = min(most, MEMBRANE / (limits.adds * (total + limits.bias)))
    if limits.bias:
        most = min(most, LARGEST_BIAS / limits.bias)
    for k in range(7):
        exact = float(limits.threshold * 2**k)
        if 1 <= exact <= most and _is_whole(exact) and all(_fits(m.linear, exact) for m in maps):
            return exact
    low, high = fx.WEIGHT_EXP_RANGE
    exps = range(low, high + 1) if largest else ()
    fine = [float(fx.WEIGHT_RANGE[1] * 2**e / largest) for e in exps]
    scale: float = max((s for s in fine if s <= most), default=most)
    if round(scale) < 1 and not limits.adds:
        why = "its weights are so large beside its threshold that no threshold of 1 is left"
        raise Unsupported(STAGE, f"node {name}", why)
    return scale


def projection_of(name: str, m: Map, post: str, scale: float) -> tuple[Synapses, float]:
    """A projection with rounded weights, and the largest rounding as a part of the largest."""
    weights = _weights(m.linear) * scale
    exp = _exponent(weights)
    low, high = fx.WEIGHT_RANGE
    whole = np.clip(np.rint(weights / 2**exp), low, high).astype(np.int8)
    largest = float(np.abs(weights).max()) or 1.0
    error = float(np.abs(whole * 2.0**exp - weights).max()) / largest
    synapses: Synapses
    match m.linear:
        case Kernel(stride=stride, padding=padding, dilation=dilation, groups=groups):
            synapses = Conv(
                name=name,
                pre=m.pre,
                post=post,
                weight=whole,
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
                weight_exp=exp,
                delay=m.delay,
            )
        case Matrix():
            synapses = Dense(
                name=name, pre=m.pre, post=post, weight=whole, weight_exp=exp, delay=m.delay
            )
        case Diagonal():
            synapses = OneToOne(
                name=name,
                pre=m.pre,
                post=post,
                weight=int(whole.reshape(-1)[0]),
                weight_exp=exp,
                delay=m.delay,
            )
        case _:
            assert_never(m.linear)
    return synapses, error


def bias_numbers(bias: Array, scale: float, shape: Shape) -> tuple[IntArray, int, float]:
    """(bias_mant, bias_exp, largest rounding in units of the threshold) of a bias per step."""
    wanted = np.asarray(bias * scale * 2**fx.SHIFT)
    largest = float(np.abs(wanted).max(initial=0.0))
    exps = range(fx.BIAS_EXP_RANGE[0], fx.BIAS_EXP_RANGE[1] + 1)
    exp = next((e for e in exps if largest <= fx.BIAS_MANT_RANGE[1] << e), exps[-1])
    mant = np.clip(np.rint(wanted / 2**exp), *fx.BIAS_MANT_RANGE).astype(np.int16)
    error = float(np.abs(mant * 2.0**exp - wanted).max(initial=0.0)) / (scale * 2**fx.SHIFT)
    if mant.size == 1:
        return mant.reshape((1,) * len(shape)), exp, error
    wide = mant.reshape(shape)
    if len(shape) == 3 and (wide == wide[:, :1, :1]).all():
        wide = wide[:, :1, :1]
    return wide, exp, error


def _weights(linear: Linear) -> Array:
    return linear.scale if isinstance(linear, Diagonal) else linear.weight


def _row_sum(linear: Linear) -> float:
    """The largest sum of |weight| onto one neuron."""
    weights = np.abs(_weights(linear))
    if isinstance(linear, Diagonal):
        return float(weights.max())
    return float(weights.reshape(len(weights), -1).sum(axis=1).max())


def _exponent(weights: Array) -> int:
    """The smallest exponent with which rounded mantissas are int8."""
    low, high = fx.WEIGHT_RANGE
    for exp in range(fx.WEIGHT_EXP_RANGE[0], fx.WEIGHT_EXP_RANGE[1]):
        if weights.max() < (high + 0.5) * 2**exp and weights.min() > (low - 0.5) * 2**exp:
            return exp
    return fx.WEIGHT_EXP_RANGE[1]


def _fits(linear: Linear, scale: float) -> bool:
    """Whether int8 weights with an exponent hold the map exactly at that scale."""
    weights = _weights(linear) * scale
    mantissas = weights / 2 ** _exponent(weights)
    low, high = fx.WEIGHT_RANGE
    inside = mantissas.min() > low - 0.5 and mantissas.max() < high + 0.5
    return bool(inside and (np.abs(mantissas - np.rint(mantissas)) < CLOSE).all())


def _is_whole(x: float) -> bool:
    return abs(x - round(x)) < CLOSE * x


def is_plain(m: Map, shape: Shape) -> bool:
    """Whether a projection can hold the map as it is."""
    if isinstance(m.linear, Diagonal):
        return m.linear.scale.size == 1 and m.pre_shape == shape
    return isinstance(m.linear, Matrix) or (m.shape == shape and len(m.pre_shape) == 3)
