"""Whether other weights, whichever, would make a population's recorded sums of its inputs.

The sums come from recorded currents. They fit when they are a linear function of what arrived,
for every neuron, where more numbers were recorded than the weights could fit by chance.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.interpret import Int64
from stformer.network import Conv, Dense, Lif, Operand
from stformer.replay import delayed, integrate
from stformer.single import windows
from stformer.suspects import Case

TWICE = 2  # numbers recorded per free weight, at least
COLUMNS = 2000  # weights onto a neuron, at most


def weights_explain(case: Case) -> str:
    """How many neurons or channels have other weights, in words; empty where that fits not."""
    p = case.population
    incoming = [q for q in case.network.incoming(case.name) if not isinstance(q, Operand)]
    if not isinstance(p, Lif) or case.name not in case.trace.u or case.name not in case.trace.v:
        return ""
    if not all(isinstance(q, (Dense, Conv)) for q in incoming):
        return ""
    found = _sums(case, p)
    if found is None:
        return ""
    off = found - case.arriving()
    conv = any(isinstance(q, Conv) for q in incoming)
    if conv and any(isinstance(q, Dense) for q in incoming):
        return ""
    units = p.shape[0] if conv else off[0, 0].size
    rows = off.reshape(*off.shape[:2], units, -1)
    wrong = [k for k in range(units) if rows[:, :, k].any()]
    for unit in wrong:
        columns = [
            delayed(w, q.delay).ravel()
            for q in incoming
            if isinstance(q, (Dense, Conv))
            for _, w in windows(q, case.sources[q.name] << q.weight_exp, unit)
        ]
        if len(columns) > COLUMNS or not _spans(np.array(columns), rows[:, :, unit].ravel()):
            return ""
    what = "channels" if conv else "neurons"
    return f"the weights onto {len(wrong)} of its {units} {what} differ; their currents say so"


def _sums(case: Case, p: Lif) -> Int64 | None:
    """The arriving sums that make the recorded currents, if these make the record; else None."""
    u = case.trace.u[case.name][case.samples].astype(np.int64)
    zero = np.zeros_like(u[:, :1])
    kept = np.concatenate([zero, fx.decay(u[:, :-1], p.du + 1)], axis=1)
    sums: Int64 = fx.wrap(u - kept)
    if (sums & ((1 << fx.SHIFT) - 1)).any():
        return None
    sums >>= fx.SHIFT
    again = integrate(p, sums)
    right = np.array_equal(again.v, case.trace.v[case.name][case.samples])  # type: ignore[arg-type]
    fired = np.array_equal(again.spikes, case.trace.spikes[case.name][case.samples])
    return sums if right and fired else None


def _spans(columns: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> bool:
    """Whether a sum of the columns [k, n] is `wanted` [n], and could have failed to be."""
    distinct = np.unique(columns, axis=1)
    rank = int(np.linalg.matrix_rank(distinct.astype(np.float64)))
    if distinct.shape[1] < TWICE * rank:
        return False
    x = np.linalg.lstsq(columns.T.astype(np.float64), wanted.astype(np.float64), rcond=None)[0]
    return bool(np.abs(columns.T @ x - wanted).max() < 1e-6)
