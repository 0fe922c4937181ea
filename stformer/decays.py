"""Other decays, any of the 4096 values of du or dv, that would explain a record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np

from stformer import fixedpoint as fx
from stformer.interpret import Int64
from stformer.network import Lif, bias_of
from stformer.replay import integrate
from stformer.suspects import Case, is_record

LANES = 64  # neurons of samples that all values are tried on, before a few on all of them
MOST = 3  # values that are tried on all


def other_decays(case: Case) -> Iterator[tuple[str, str]]:
    """(class, explanation) of the nearest dv, and the nearest du, that would do all recorded."""
    p = case.population
    if not isinstance(p, Lif):
        return
    a = case.arriving()
    for field in ("dv", "du"):
        old = getattr(p, field)
        near = sorted(_candidates(case, p, a, field), key=lambda n: abs(n - old))
        for value in near[:MOST]:
            changed = replace(p, dv=value) if field == "dv" else replace(p, du=value)
            if is_record(integrate(changed, a), case.name, case.trace, case.samples):
                yield "decay", f"its {field} is {value}, not {old}"
                break


def _candidates(case: Case, p: Lif, a: Int64, field: Literal["dv", "du"]) -> list[int]:
    """Values that make the spikes of some lanes, those that differ first."""
    record = case.trace.spikes[case.name][case.samples]

    def lanes(x: Int64) -> Int64:  # [T, S * neurons]
        return x.swapaxes(0, 1).reshape(x.shape[1], -1)

    wanted, arriving = lanes(record.astype(np.int64)), lanes(a)
    off = (wanted != lanes(integrate(p, a).spikes)).any(axis=0)
    chosen = np.argsort(~off, kind="stable")[:LANES]
    bias = np.broadcast_to(bias_of(p), (len(case.samples), *p.shape)).reshape(-1)[chosen]
    values = np.arange(fx.DECAY_ONE)[:, None]
    registers = {"du": np.array([[p.du]]), "dv": np.array([[p.dv]]), field: values}
    u = v = np.zeros((len(values), len(chosen)), np.int64)
    alike = np.ones(len(values), np.bool_)
    for t in range(len(wanted)):
        spikes, u, v = fx.lif_step(
            u,
            v,
            arriving[t, chosen],
            du=registers["du"],  # type: ignore[arg-type]
            dv=registers["dv"],  # type: ignore[arg-type]
            vth=p.vth,
            bias=bias,
        )
        alike &= (spikes == wanted[t, chosen]).all(axis=1)
    return [int(n) for n in np.flatnonzero(alike)]
