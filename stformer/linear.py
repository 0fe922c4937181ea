"""Whether other weights, whichever, would make a population's recorded sums of its inputs.

The sums come from recorded currents. They fit when they are a linear function of what arrived,
for every neuron, where more numbers were recorded than the weights could fit by chance.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.interpret import Int64
from stformer.network import Conv, Dense, Graded, Lif, Readout, bias_of
from stformer.replay import delayed, integrate
from stformer.single import windows
from stformer.suspects import Case, is_record

SPARE = 8  # different sums recorded, at least, beyond those that some weights fit always
COLUMNS = 1000  # weights onto a neuron, at most
UNITS = 8  # neurons or channels that are looked at, the first that differ


def weights_explain(case: Case) -> str:
    """How many neurons or channels have other weights, in words; empty where that fits not.

    Projections without a matrix or kernel are taken to be right.
    """
    incoming = [q for q in case.network.incoming(case.name) if isinstance(q, (Dense, Conv))]
    convolved = {isinstance(q, Conv) for q in incoming}
    sums = _sums(case) if len(convolved) == 1 else None
    if sums is None:
        return ""
    off = sums - case.arriving()
    conv = convolved == {True}
    units = case.population.shape[0] if conv else off[0, 0].size
    rows = off.reshape(*off.shape[:2], units, -1)
    wrong = [k for k in range(units) if rows[:, :, k].any()]
    for unit in wrong[:UNITS]:
        columns = [
            delayed(w, q.delay).ravel()
            for q in incoming
            for _, w in windows(q, case.sources[q.name] << q.weight_exp, unit)
        ]
        if len(columns) > COLUMNS or not _spans(np.array(columns), rows[:, :, unit].ravel()):
            return ""
    what = "channels" if conv else "neurons"
    return f"the weights onto {len(wrong)} of its {units} {what} differ, as its sums say"


def _sums(case: Case) -> Int64 | None:
    """The arriving sums that make all that was recorded; None where none do, or many could."""
    p = case.population
    record = case.trace.spikes[case.name][case.samples].astype(np.int64)
    zero = np.zeros_like(record[:, :1])
    match p:
        case Lif():
            if case.name not in case.trace.u:
                return None
            u = case.trace.u[case.name][case.samples].astype(np.int64)
            kept = np.concatenate([zero, fx.decay(u[:, :-1], fx.current_decay(p.du))], axis=1)
            exact = np.asarray(fx.wrap(u - kept))
        case Readout():
            exact = np.diff(record, axis=1, prepend=zero) - bias_of(p)
        case Graded(shift=0):
            exact = (record << fx.SHIFT) - bias_of(p)
        case _:
            return None
    if (exact & ((1 << fx.SHIFT) - 1)).any():
        return None
    sums: Int64 = exact >> fx.SHIFT
    return sums if is_record(integrate(p, sums), case.name, case.trace, case.samples) else None


def _spans(columns: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> bool:
    """Whether a sum of the columns [k, n] is `wanted` [n], and could have failed to be."""
    distinct = np.unique(columns, axis=1)
    rank = int(np.linalg.matrix_rank(distinct.astype(np.float64)))
    if distinct.shape[1] < rank + SPARE:
        return False
    x = np.linalg.lstsq(columns.T.astype(np.float64), wanted.astype(np.float64), rcond=None)[0]
    return bool(np.abs(columns.T @ x - wanted).max() < 1e-6)
