"""Which numbers hold a population's integers exactly, and which of its rules can ever matter.

Every value is a whole number held in floating point, so that convolutions run fast; the bounds
of the weights say which type is exact. A rule that no input can make matter (a wrap that is
never reached, a memory that always decays to nothing) costs time and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from stformer import fixedpoint as fx
from stformer.bounds import FLOAT32_EXACT, bounds
from stformer.network import (
    Conv,
    Graded,
    Lif,
    Network,
    Operand,
    Population,
    Product,
    Projection,
    Readout,
    bias_of,
    effective_weight,
)

FLOAT64_EXACT = 2**53
TOP = fx.STATE_MAX  # largest |u|
CLIP = fx.STATE_MAX - 1  # largest |v|


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a population is computed.

    Attributes:
        largest: absolute value of anything on the way, in units of the last bit it uses.
        bias: the largest |bias|.
        current: largest |u|, 0 for kinds without it.
        keeps_u, keeps_v: whether the last step's state can matter.
        wraps, clips: whether a value can ever be that large.
    """

    largest: int
    bias: int = 0
    current: int = 0
    keeps_u: bool = False
    keeps_v: bool = False
    wraps: bool = False
    clips: bool = False

    @property
    def dtype(self) -> type[np.float32] | type[np.float64]:
        """The smaller type in which everything is exact."""
        return np.float32 if self.largest <= FLOAT32_EXACT else np.float64


@lru_cache(maxsize=4)
def plans(network: Network) -> dict[str, Plan]:
    """Population -> plan, for as many steps as one likes."""
    arriving = bounds(network).arriving
    return {p.name: _plan(p, arriving[p.name]) for p in network.populations}


def kept(dv: int) -> int:
    """What a step leaves of a membrane, in 1/4096."""
    return fx.DECAY_ONE - dv


def kept_current(du: int) -> int:
    """What a step leaves of a current, in 1/4096."""
    return fx.DECAY_ONE - fx.current_decay(du)


def _plan(p: Population, arriving: int) -> Plan:
    if isinstance(p, Product):
        return Plan(largest=arriving, clips=arriving > CLIP)
    if not isinstance(p, (Lif, Readout, Graded)):
        return Plan(largest=arriving)
    raised = arriving << fx.SHIFT
    bias = int(np.abs(bias_of(p)).max())
    if isinstance(p, Graded):
        largest = raised + bias if bias or p.shift else arriving
        sent = (raised + bias) >> (fx.SHIFT + p.shift)
        return Plan(largest=max(largest, sent), bias=bias, clips=sent > CLIP)
    keep_u = kept_current(p.du) if isinstance(p, Lif) else 0
    keep_v = kept(p.dv) if isinstance(p, Lif) else fx.DECAY_ONE
    parts = [arriving]
    keeps_u = keep_u * raised >= fx.DECAY_ONE
    if keeps_u:
        never_wrapped = _limit(raised, keep_u)
        wraps = never_wrapped is None or never_wrapped >= TOP
        u = never_wrapped if never_wrapped is not None else FLOAT64_EXACT
        if wraps and raised + _decayed(TOP, keep_u) <= 3 * TOP:  # one wrap always suffices
            u = TOP
        parts += [raised + _decayed(u, keep_u), u * _odd(keep_u)]
    else:
        wraps = raised >= TOP
        u = max(TOP, raised - 2 * TOP) if wraps else raised  # multiples of 64: exact like a
    into = u + bias
    keeps_v = keep_v * into >= fx.DECAY_ONE
    never_clipped = _limit(into, keep_v) if keeps_v else into
    clips = never_clipped is None or never_clipped > CLIP
    v = CLIP if clips or never_clipped is None else never_clipped
    if keeps_v:
        parts += [v * _odd(keep_v), _decayed(v, keep_v) + into]
    elif bias or u > TOP:
        parts.append(into)
    return Plan(
        largest=max(parts),
        bias=bias,
        current=u,
        keeps_u=keeps_u,
        keeps_v=keeps_v,
        wraps=wraps,
        clips=clips,
    )


def _decayed(x: int, keep: int) -> int:
    return (x * keep) >> 12


def _limit(into: int, keep: int) -> int | None:
    """The largest |x| of x[t] = x[t-1] * keep/4096 + into, ever; None where it grows on."""
    return None if keep == fx.DECAY_ONE else -(-into * fx.DECAY_ONE // (fx.DECAY_ONE - keep))


def _odd(keep: int) -> int:
    """A factor without its powers of two, which cost no bits."""
    return keep // (keep & -keep) if keep else 0


def digits(network: Network, p: Conv) -> int | None:
    """Bits of what a source sends that one float32 convolution takes exactly.

    None where it takes all of them, 0 where it takes none. Few runtimes have convolutions of
    float64.
    """
    if bounds(network).added[p.name] >> p.weight_exp < FLOAT32_EXACT:
        return None
    gain = int(np.abs(effective_weight(p)).reshape(len(p.weight), -1).sum(axis=1).max())
    return max(FLOAT32_EXACT // (gain >> p.weight_exp), 1).bit_length() - 1


def exact(network: Network, p: Projection) -> type[np.float32] | type[np.float64]:
    """Type in which the sums of a projection are exact; its weight's exponent costs no bits."""
    exponent = 0 if isinstance(p, Operand) else p.weight_exp
    added = bounds(network).added[p.name] >> exponent
    return np.float32 if added <= FLOAT32_EXACT else np.float64
