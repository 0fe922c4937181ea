"""Which rule makes a population of Norse's differ: it is replayed with the spikes it was fed."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.network import Input, Lif, Network, Readout, bias_of
from stformer.replay import arriving_parts, delays, integrate, total
from stformer.trace import Trace

Array: TypeAlias = npt.NDArray[Any]


def causes(network: Network, trace: Trace, resting: Set[str]) -> Iterator[str]:
    """A sentence for each population that sends what the chip would not, fed the same spikes.

    Three rules are told apart: NIR's equations in real numbers (no rounding of decays, no wrap,
    no clip) send the same; or Norse adds the resting membrane to the current too; or float32
    rounds where real numbers would not.

    Args:
        network: what ran.
        trace: with every population.
        resting: populations whose bias stands in v_leak.
    """
    everything = np.arange(trace.samples)
    for p in network.populations:
        if isinstance(p, Input):
            continue
        parts = arriving_parts(network, p.name, trace, everything)
        assert parts is not None
        shape = (trace.samples, trace.steps, *p.shape)
        arriving = total(network, p.name, parts, delays(network, p.name), shape)
        found = trace[p.name]
        own = integrate(p, arriving).spikes != found
        count = int(np.count_nonzero(own))
        if not count:
            continue
        real = np.zeros_like(own)
        if isinstance(p, (Lif, Readout)):
            real = own & (real_numbers(p, arriving) == found)
        unrounded = int(np.count_nonzero(real))
        why = []
        if unrounded:
            why.append(f"{unrounded} in real numbers too (no rounded decay, wrap or clip)")
        if count - unrounded and p.name in resting:
            why.append(f"{count - unrounded} as Norse adds v_leak to the current, too")
        elif count - unrounded:
            why.append(f"{count - unrounded} by float32")
        yield (
            f"{p.name} differs by itself in {count} of {own.size} values, given the spikes it was "
            f"fed: {', '.join(why)}"
        )


def real_numbers(p: Lif | Readout, arriving: npt.NDArray[np.int64]) -> Array:
    """What a population sends by NIR's equations, exactly but for float64, [S, T, *shape]."""
    du, dv = (p.du, p.dv) if isinstance(p, Lif) else (fx.NO_CURRENT, 0)
    a = arriving.astype(np.float64)
    bias = bias_of(p) / 2**fx.SHIFT
    u = np.zeros((len(a), *a.shape[2:]))
    v, rows = u, []
    for t in range(a.shape[1]):
        u = u * (1 - fx.current_decay(du) / fx.DECAY_ONE) + a[:, t]
        v = v * (1 - dv / fx.DECAY_ONE) + u + bias
        if isinstance(p, Lif):
            fired = v > p.vth
            v = v * ~fired
            rows.append(fired.astype(np.int64))
        else:
            rows.append(np.rint(v * 2**fx.SHIFT).astype(np.int64))
    return np.stack(rows, axis=1)
