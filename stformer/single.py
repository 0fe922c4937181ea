"""One weight or one bias that would explain a record: found from its first difference.

Until then a neuron's states are what the definition says, so what the wrong number adds to the
current or membrane there bounds it; what it does afterwards has to fit like any other suspect.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil, floor
from typing import Any

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.interpret import Int64
from stformer.network import (
    Conv,
    Dense,
    Graded,
    Lif,
    Operand,
    Readout,
    Synapses,
    bias_of,
    conv_output,
)
from stformer.replay import Replayed, delayed, integrate
from stformer.suspects import Case

MORE = 3  # values tried beyond the smallest that could do it
MOST = 2000  # weights of a target neuron that are looked at


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Slice:
    """The part of a population that shares a weight or bias, and where it first differs.

    Attributes:
        at: index into the population's shape.
        population: with the bias of that part.
        a: its arriving sums.
        right: what it should do.
        first: sample, step, and index within the part, of its first difference.
    """

    at: tuple[slice, ...]
    population: Lif | Readout | Graded
    a: Int64
    right: Replayed
    first: tuple[int, ...]


def shared_numbers(case: Case) -> Iterator[tuple[str, str]]:
    """(class, explanation) of each bias, or weight shared by a whole projection, that would do."""
    p = case.population
    off = _first_off(case)
    if off is None or not isinstance(p, (Lif, Readout, Graded)):
        return
    yield from _biases(case, p, off)
    for projection in case.network.incoming(case.name):
        if not isinstance(projection, (Operand, Dense, Conv)):
            yield from _weights(case, projection, off)


def single_weights(case: Case) -> Iterator[tuple[str, str]]:
    """(class, explanation) of one weight of each matrix or convolution that would do."""
    off = _first_off(case)
    for projection in case.network.incoming(case.name):
        if off is not None and isinstance(projection, (Dense, Conv)):
            yield from _weights(case, projection, off)


def _first_off(case: Case) -> npt.NDArray[np.bool_] | None:
    """Where the record is not what the population should do; None where that is nowhere."""
    p = case.population
    if not isinstance(p, (Lif, Readout, Graded)):
        return None
    off = _off(case, integrate(p, case.arriving()), (slice(None),) * len(p.shape))
    return off if off.any() else None


def _off(case: Case, again: Replayed, at: tuple[slice, ...]) -> npt.NDArray[np.bool_]:
    """Where a part's record is not what it does, [S, T, *part]."""
    off = np.zeros(again.spikes.shape, np.bool_)
    trace, whole = case.trace, (slice(None), slice(None), *at)
    for array, record in ((again.spikes, trace.spikes), (again.u, trace.u), (again.v, trace.v)):
        if array is not None and case.name in record:
            off |= array != record[case.name][case.samples][whole]
    return off


def _slice(case: Case, at: tuple[slice, ...], off: npt.NDArray[np.bool_]) -> _Slice | None:
    """None where something outside the part differs too."""
    inside = np.zeros_like(off)
    whole = (slice(None), slice(None), *at)
    inside[whole] = off[whole]
    if not np.array_equal(inside, off):
        return None
    a = case.arriving()[whole]
    p: Any = case.population
    shared = p.bias_mant.shape
    bias = p.bias_mant[tuple(s if n > 1 else slice(None) for s, n in zip(at, shared, strict=True))]
    part = replace(p, shape=a.shape[2:], bias_mant=bias)
    first = tuple(int(i) for i in np.argwhere(off[whole])[0])
    return _Slice(at=at, population=part, a=a, right=integrate(part, a), first=first)


def _does(case: Case, part: _Slice, again: Replayed) -> bool:
    return not _off(case, again, part.at).any()


def _biases(
    case: Case, p: Lif | Readout | Graded, off: npt.NDArray[np.bool_]
) -> Iterator[tuple[str, str]]:
    """One entry of bias_mant, which may serve a whole channel."""
    where = np.argwhere(off)[0][2:]
    index = tuple(int(i) if n > 1 else 0 for i, n in zip(where, p.bias_mant.shape, strict=True))
    shared = p.bias_mant.shape
    at = tuple(
        slice(i, i + 1) if n > 1 else slice(None) for i, n in zip(index, shared, strict=True)
    )
    part = _slice(case, at, off)
    if part is None:
        return
    drive = np.full(part.a.shape, 1 << p.bias_exp, np.int64)
    old = int(p.bias_mant[index])
    for d in _candidates(case, part, drive, through_current=False):
        if not fx.BIAS_MANT_RANGE[0] <= old + d <= fx.BIAS_MANT_RANGE[1]:
            continue
        changed = replace(part.population, bias_mant=part.population.bias_mant + d)
        if _does(case, part, integrate(changed, part.a)):
            place = ", ".join(map(str, index))
            yield "bias", f"its bias [{place}] is {old + d}, not {old}"
            return


def _weights(
    case: Case, projection: Synapses, off: npt.NDArray[np.bool_]
) -> Iterator[tuple[str, str]]:
    """One weight, with the place of which the population's difference has to agree."""
    shape = case.population.shape
    neuron = np.argwhere(off)[0][2:]
    match projection:
        case Dense():
            unit = int(np.ravel_multi_index(tuple(neuron), shape))
            at = tuple(slice(int(i), int(i) + 1) for i in neuron)
        case Conv():
            unit = int(neuron[0])
            at = (slice(unit, unit + 1), slice(None), slice(None))
        case _:
            unit, at = 0, (slice(None),) * len(shape)
    part = _slice(case, at, off)
    if part is None:
        return
    for index, old, drive in _drives(case, projection, unit, part):
        for d in _candidates(case, part, drive, through_current=True):
            if not fx.WEIGHT_RANGE[0] <= old + d <= fx.WEIGHT_RANGE[1]:
                continue
            if _does(case, part, integrate(part.population, part.a + d * drive)):
                place = f"weight [{', '.join(map(str, index))}]" if index else "the weight"
                detail = f"{place} of {projection.name} is {old + d}, not {old}"
                yield "weight difference", detail
                return


def _drives(
    case: Case, p: Synapses, unit: int, part: _Slice
) -> Iterator[tuple[tuple[int, ...], int, Int64]]:
    """(index, weight, what a unit of it adds to the arriving sum) of each weight onto a part."""
    match p:
        case Dense() | Conv():
            x = delayed(case.sources[p.name], p.delay) << p.weight_exp
            for index, drive in islice(windows(p, x, unit), MOST):
                if drive.any():
                    place = (unit, *index)
                    yield place, int(p.weight[place]), drive.reshape(part.a.shape)
        case _:
            old = int(p.weight)
            if old and case.parts[p.name].any():
                yield (), old, delayed(case.parts[p.name], p.delay) // old


def windows(p: Dense | Conv, x: Int64, unit: int) -> Iterator[tuple[tuple[int, ...], Int64]]:
    """What each weight onto a neuron (of a convolution, a channel) is multiplied with.

    Args:
        p: the projection.
        x: what its source sends, [S, T, *pre.shape].
        unit: first index into the weights.

    Yields:
        (the weight's other indices, [S, T], of a convolution [S, T, H, W]).
    """
    if isinstance(p, Dense):
        flat = x.reshape(*x.shape[:2], -1)
        yield from (((j,), flat[:, :, j]) for j in range(flat.shape[2]))
        return
    per_in = p.weight.shape[1]
    group = unit // (p.weight.shape[0] // p.groups)
    pad = ((0, 0), (0, 0), (0, 0), (p.padding[0],) * 2, (p.padding[1],) * 2)
    source = np.pad(x[:, :, group * per_in : (group + 1) * per_in], pad)
    out_h, out_w = conv_output(p, x.shape[3], x.shape[4])
    (sh, sw), (dh, dw) = p.stride, p.dilation
    for c, i, j in np.ndindex(p.weight.shape[1:]):
        rows = slice(i * dh, i * dh + (out_h - 1) * sh + 1, sh)
        columns = slice(j * dw, j * dw + (out_w - 1) * sw + 1, sw)
        yield (c, i, j), source[:, :, c, rows, columns]


def _candidates(case: Case, part: _Slice, drive: Int64, *, through_current: bool) -> list[int]:
    """Changes of the number that could make the first difference, the smallest first.

    Args:
        drive: what a unit of change adds to the arriving sum, or to the membrane of a bias.
        through_current: it is the sum.
    """
    sample, step, *place = part.first
    here = (sample, step, *place)
    scale = 1 << fx.SHIFT if through_current else 1
    p = part.population
    record = {
        kind: int(_recorded(case, part, kind)[here])
        for kind in ("spikes", "u", "v")
        if case.name in getattr(case.trace, kind)
    }
    if isinstance(p, Graded):
        exact = (part.a[here] << fx.SHIFT) + np.broadcast_to(bias_of(p), p.shape)[tuple(place)]
        return _reaching(p, record["spikes"], int(exact), int(drive[here]) * scale)
    if isinstance(p, Readout):
        return _near((record["spikes"] - int(part.right.spikes[here])) / scale, int(drive[here]))
    assert isinstance(p, Lif)
    assert part.right.u is not None
    assert part.right.membrane is not None
    if "u" in record and through_current:
        return _near((record["u"] - int(part.right.u[here])) / scale, int(drive[here]))
    if "v" in record and not record["spikes"] and not part.right.spikes[here]:
        return _near((record["v"] - int(part.right.membrane[here])) / scale, int(drive[here]))
    return _crossing(p, part, drive, here, scale, fires=bool(record["spikes"]))


def _recorded(case: Case, part: _Slice, kind: str) -> Int64:
    record = getattr(case.trace, kind)[case.name][case.samples]
    whole = (slice(None), slice(None), *part.at)
    out: Int64 = record[whole].astype(np.int64)
    return out


def _reaching(p: Graded, wanted: int, exact: int, gain: int) -> list[int]:
    """Changes that turn a sum into one of those that are sent as the wanted message."""
    if not gain:
        return []
    unit = 1 << (fx.SHIFT + p.shift)
    low = wanted * unit - (unit - 1 if wanted <= 0 else 0)
    high = wanted * unit + (unit - 1 if wanted >= 0 else 0)
    ends = sorted(((low - exact) / gain, (high - exact) / gain))
    between = range(ceil(ends[0]), floor(ends[1]) + 1)
    nearest = between[: MORE + 1] if ends[0] > 0 else between[-MORE - 1 :][::-1]
    return [n for n in nearest if n]


def _near(wanted: float, drive: int) -> list[int]:
    """Whole changes with about the wanted effect."""
    if not drive:
        return []
    d = wanted / drive
    return [n for n in dict.fromkeys((round(d), floor(d), ceil(d))) if n]


def _crossing(
    p: Lif, part: _Slice, drive: Int64, here: tuple[int, ...], scale: int, *, fires: bool
) -> list[int]:
    """Changes that take a membrane just across its threshold at a place."""
    sample, step, *place = here
    current = gain = 0.0
    for t in range(step + 1):
        at = (sample, t, *place)
        add = int(drive[at]) * scale
        if scale > 1:
            current = current * (fx.DECAY_ONE - fx.current_decay(p.du)) / fx.DECAY_ONE + add
            add_v = current
        else:
            add_v = add
        gain = gain * (fx.DECAY_ONE - p.dv) / fx.DECAY_ONE + add_v
        if t < step and part.right.spikes[at]:
            gain = 0.0
    if not gain:
        return []
    assert part.right.membrane is not None
    d = ((p.vth << fx.SHIFT) - int(part.right.membrane[here])) / gain
    sign = 1 if fires == (gain > 0) else -1
    least = floor(d) + 1 if sign > 0 else ceil(d)
    least = least if least * sign > 0 else sign
    tries = (least - sign, *(least + sign * n for n in range(MORE + 1)))
    return [n for n in tries if n * sign > 0]
