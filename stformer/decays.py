"""Other decays, any of the 4096 values of du or dv, that would explain a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.interpret import Int64
from stformer.network import Lif, bias_of
from stformer.replay import integrate
from stformer.suspects import Case

SIZE = 2**18  # values times neurons that are tried at a time


def other_decays(case: Case) -> Iterator[tuple[str, str]]:
    """(class, explanation) of the nearest dv, and the nearest du, that would do all recorded."""
    p = case.population
    if not isinstance(p, Lif):
        return
    for field in ("dv", "du"):
        old = getattr(p, field)
        found = _fitting(case, p, field)
        if found.size:
            value = int(found[np.abs(found - old).argmin()])
            span = f", or another of {found.min()}...{found.max()}" if found.size > 1 else ""
            yield "decay", f"its {field} is {value}, not {old}{span}"


def _fitting(case: Case, p: Lif, field: str) -> Int64:
    """All values that make the whole record, narrowed by a few neurons after the other."""
    a = _lanes(case.arriving())
    trace = case.trace
    records = {
        kind: _lanes(record[case.name][case.samples].astype(np.int64))
        for kind, record in (("spikes", trace.spikes), ("u", trace.u), ("v", trace.v))
        if case.name in record
    }
    bias = np.broadcast_to(bias_of(p), (len(case.samples), *p.shape)).reshape(-1)
    off = (records["spikes"] != _lanes(integrate(p, case.arriving()).spikes)).any(axis=0)
    order = np.argsort(~off, kind="stable")  # what differs tells most
    values, done = np.arange(fx.DECAY_ONE), 0
    while done < len(order) and values.size:
        chosen = order[done : done + max(SIZE // len(values), 1)]
        done += len(chosen)
        some = {kind: record[:, chosen] for kind, record in records.items()}
        values = values[_alike(p, field, values[:, None], a[:, chosen], bias[chosen], some)]
    return values


def _lanes(x: Int64) -> Int64:
    """[S, T, *shape] as [T, S * neurons]."""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)


def _alike(
    p: Lif, field: str, values: Int64, a: Int64, bias: Int64, records: Mapping[str, Int64]
) -> npt.NDArray[np.bool_]:
    """Which values [n, 1] of a register make the records [T, lanes] of sums [T, lanes]."""
    registers: dict[str, Any] = {"du": p.du, "dv": p.dv, field: values}
    u = v = np.zeros((len(values), a.shape[1]), np.int64)
    alike = np.ones(len(values), np.bool_)
    for t in range(len(a)):
        spikes, u, v = fx.lif_step(u, v, a[t], vth=p.vth, bias=bias, **registers)
        for kind, made in (("spikes", spikes), ("u", u), ("v", v)):
            if kind in records:
                alike &= (made == records[kind][t]).all(axis=1)
    return alike
