"""Sample networks of what the preset `paper` needs: graded streams, products, look-ahead."""

from __future__ import annotations

import numpy as np

from stformer.network import (
    Conv,
    Dense,
    Graded,
    Input,
    Network,
    OneToOne,
    Operand,
    Product,
    Readout,
    SumTokens,
    no_bias,
)
from stformer.samples_base import lif, link, scheduled, weights


def stream() -> Network:
    """A multi-bit residual stream, as a membrane shortcut makes it, and its average to read."""
    shape = (3, 2, 2)
    bias = np.array([-90, 0, 777]).reshape(3, 1, 1)
    return scheduled(
        "stream",
        [
            Input(name="in", shape=shape),
            Graded(name="x0", shape=shape, bias_mant=bias, bias_exp=2),
            lif("s0", shape, 14),
            Graded(name="x1", shape=shape, bias_mant=no_bias(shape)),
            lif("s1", shape, 25),
            Graded(name="mean", shape=(3, 1, 1), bias_mant=no_bias(shape), shift=2),
            Readout(name="out", shape=(2,), bias_mant=no_bias((2,))),
        ],
        [
            link(Conv, "in", "x0", weight=weights((3, 3, 1, 1), 22)),
            link(OneToOne, "x0", "s0", weight=1),
            link(OneToOne, "x0", "x1", weight=1),
            link(Conv, "s0", "x1", weight=weights((3, 3, 3, 3), 23), padding=(1, 1)),
            link(OneToOne, "x1", "s1", weight=1),
            link(SumTokens, "x1", "mean", weight=1),
            link(Dense, "mean", "out", weight=weights((2, 3), 24)),
            link(Dense, "s1", "out", weight=weights((2, 12), 25)),
        ],
    )


def product() -> Network:
    """SN((Q K^T) V) with two heads, as the preset `paper` has it."""
    shape = (4, 2, 3)
    one = [weights((4, 4, 1, 1), seed, -5, 12) for seed in (26, 27, 28)]
    return scheduled(
        "product",
        [
            Input(name="x", shape=shape),
            *(lif(name, shape, 3) for name in "qkv"),
            Product(name="scores", shape=(2, 6, 6), mode="scores", heads=2),
            Product(name="mix", shape=shape, mode="mix", heads=2),
            lif("a", shape, 16),
        ],
        [
            *(link(Conv, "x", name, weight=w) for name, w in zip("qkv", one, strict=True)),
            link(Operand, "q", "scores", port="left"),
            link(Operand, "k", "scores", port="right"),
            link(Operand, "scores", "mix", port="left"),
            link(Operand, "v", "mix", port="right"),
            link(OneToOne, "mix", "a", weight=2),
        ],
    )


def look_ahead() -> Network:
    """A centred convolution in time: delays -1, 0, 1; what runs beside it has to wait."""
    taps = [
        Conv(
            name=f"tap{d}",
            pre="in",
            post="a",
            weight=weights((3, 2, 3, 3), 30 + d, -8, 15),
            padding=(1, 1),
            delay=d,
        )
        for d in (-1, 0, 1)
    ]
    return scheduled(
        "look-ahead",
        [Input(name="in", shape=(2, 3, 3)), lif("a", (3, 3, 3), 9), lif("b", (3,), 20)],
        [
            *taps,
            link(Dense, "a", "b", weight=weights((3, 27), 33, -9, 12)),
            link(Dense, "in", "b", weight=weights((3, 18), 34, -9, 12), delay=-2),
        ],
    )
