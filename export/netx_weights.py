"""What netx and Lava make of the weights of a dense layer.

netx shifts a matrix to fill 8 bits and tells Lava how many of them are used
(`lava/lib/dl/netx/utils.py`, `optimize_weight_bits`); Lava clips and truncates by the signs that
it finds (`lava/utils/weightutils.py`). Most matrices come out as they went in. Not so: weights
beyond 8 bits; all-negative ones whose smallest is a power of two; zeros alone. Convolutions
take neither way and keep any weight.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stformer.network import IntArray

MOST_BITS = 8
LOW, HIGH = -256, 254  # of weights with both signs; netx clips them


def loaded(weight: IntArray) -> npt.NDArray[np.int32] | None:
    """The weights that a dense layer multiplies with, once netx has loaded these.

    Args:
        weight: integers of any shape, at least one.

    Returns:
        An array of the same shape; None where netx fails on them or loses them all.
    """
    w = weight.astype(np.int32)
    most, least = int(w.max()), int(w.min())
    if most > HIGH and least < 0:
        w, most = w.clip(LOW, HIGH), HIGH
    if least < LOW and most > 0:
        w, least = w.clip(LOW, HIGH), LOW
    scale = _scale(most, least)
    signed = int(most >= 0 > least)
    shift = math.floor(math.log2(scale)) + signed if scale else -1
    if shift < 0:  # zeros alone, or a negative shift, which NumPy answers with zeros
        return None
    common = int(np.bitwise_or.reduce(w, axis=None))  # its lowest bits are zero in every weight
    free = next(n for n in range(MOST_BITS, -1, -1) if common % 2**n == 0)
    used = MOST_BITS - shift - (free - signed)
    return _truncated(w << shift, used) >> shift


def _scale(most: int, least: int) -> float:
    """netx's factor up to the ends of 8 bits; 0 for zeros alone."""
    if most < 0:
        return LOW / least
    if least >= 0:
        return 255 / most if most else 0.0
    return min(127 / most, -128 / least) if most else -128 / least


def _truncated(w: npt.NDArray[np.int32], used: int) -> npt.NDArray[np.int32]:
    """Lava's `clip_weights` and `truncate_weights` with the sign mode that it determines."""
    if w.min() >= 0:
        drop = MOST_BITS - used
        return (w.clip(0, 255) >> drop) << drop
    if w.max() <= 0:
        drop = MOST_BITS - used
        return -(((-w).clip(0, 255) >> drop) << drop)
    drop = MOST_BITS - used + 1
    return (w.clip(LOW, 255) >> drop) << drop


def keeps(weight: IntArray) -> bool:
    """Whether a dense layer of netx computes with these very weights."""
    found = loaded(weight) if weight.size else None
    return found is not None and bool(np.array_equal(found, weight))
