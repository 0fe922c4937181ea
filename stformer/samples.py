"""Small networks written by hand: each kind of object alone, then what transformers are made of.

All are scheduled, 4 steps long and of a few dozen neurons; `stformer.testing` has the rest of
the helpers for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.errors import InputError
from stformer.network import (
    BroadcastTokens,
    Conv,
    Dense,
    Graded,
    Input,
    Lif,
    Network,
    OneToOne,
    Operand,
    Population,
    Product,
    Projection,
    Readout,
    Relay,
    SumTokens,
    no_bias,
)
from stformer.samples_base import lif, link, scheduled, weights
from stformer.samples_graded import look_ahead, product, stream


def _dense() -> Network:
    return scheduled(
        "dense",
        [Input(name="in", shape=(6,)), lif("a", (5,), 20), lif("b", (4,), 12, dv=300)],
        [
            link(Dense, "in", "a", weight=weights((5, 6), 1, -10)),
            link(Dense, "a", "b", weight=weights((4, 5), 2, -10), weight_exp=1),
        ],
    )


def _current() -> Network:
    """Neurons that keep their current from step to step."""
    return scheduled(
        "current",
        [
            Input(name="in", shape=(6,)),
            lif("a", (5,), 30, dv=1000, du=1500),
            lif("b", (3,), 9, du=0),
        ],
        [
            link(Dense, "in", "a", weight=weights((5, 6), 3, -15)),
            link(Dense, "a", "b", weight=weights((3, 5), 4)),
        ],
    )


def _conv() -> Network:
    """Stride, padding, dilation and groups, on frames that are not square."""
    return scheduled(
        "conv",
        [
            Input(name="in", shape=(2, 6, 5)),
            lif("a", (4, 6, 5), 18),
            lif("b", (4, 3, 2), 25),
            lif("c", (6, 1, 4), 10),
        ],
        [
            link(Conv, "in", "a", weight=weights((4, 2, 3, 3), 5), padding=(1, 1)),
            link(Conv, "a", "b", weight=weights((4, 2, 2, 3), 6), stride=(2, 2), groups=2),
            link(
                Conv,
                *("b", "c"),
                weight=weights((6, 4, 3, 1), 7),
                padding=(0, 1),
                dilation=(1, 2),
                weight_exp=2,
            ),
        ],
    )


def _one_to_one() -> Network:
    return scheduled(
        "one-to-one",
        [Input(name="in", shape=(3, 2, 2)), lif("a", (3, 2, 2), 5)],
        [link(OneToOne, "in", "a", weight=4)],
    )


def _sum_tokens() -> Network:
    return scheduled(
        "sum-tokens",
        [Input(name="in", shape=(3, 2, 2)), lif("a", (3, 1, 1), 3)],
        [link(SumTokens, "in", "a", weight=2)],
    )


def _broadcast_tokens() -> Network:
    return scheduled(
        "broadcast-tokens",
        [Input(name="in", shape=(3, 1, 1)), lif("a", (3, 2, 3), 3)],
        [link(BroadcastTokens, "in", "a", weight=2)],
    )


def _relay() -> Network:
    """A short way waits for a long one at a convolution, which cannot delay."""
    shape = (2, 3, 3)
    return scheduled(
        "relay",
        [
            Input(name="in", shape=shape),
            lif("a", shape, 1),
            lif("b", shape, 1),
            lif("c", shape, 16),
        ],
        [
            link(OneToOne, "in", "a", weight=2),
            link(OneToOne, "a", "b", weight=2),
            link(Conv, "in", "c", weight=weights((2, 2, 3, 3), 8), padding=(1, 1)),
            link(OneToOne, "b", "c", weight=9),
        ],
    )


def _graded() -> Network:
    """Graded frames into a convolution, as event counts or analogue images come."""
    return scheduled(
        "graded",
        [Input(name="in", shape=(2, 4, 4), low=-7, high=255), lif("a", (3, 4, 4), 900)],
        [link(Conv, "in", "a", weight=weights((3, 2, 3, 3), 9), padding=(1, 1))],
    )


def _readout() -> Network:
    out = Readout(name="out", shape=(3,), bias_mant=np.array([-300, 0, 4095]), bias_exp=2)
    return scheduled(
        "readout",
        [Input(name="in", shape=(2, 2, 2)), lif("a", (2, 2, 2), 3), out],
        [
            link(OneToOne, "in", "a", weight=4),
            link(Dense, "a", "out", weight=weights((3, 8), 10)),
        ],
    )


def _and_gate() -> Network:
    """Both of two: 2 + 2 exceeds 3; the paths have different lengths."""
    return scheduled(
        "and",
        [
            Input(name="x", shape=(6,)),
            lif("y", (6,), 4),
            lif("and", (6,), 3, dv=fx.MEMORYLESS),
        ],
        [
            link(Dense, "x", "y", weight=weights((6, 6), 11, -6, 7)),
            link(OneToOne, "x", "and", weight=2),
            link(OneToOne, "y", "and", weight=2),
        ],
    )


def _iand() -> Network:
    """x and not r, which is the paper's spike-driven residual."""
    return scheduled(
        "iand",
        [
            Input(name="x", shape=(6,)),
            lif("r", (6,), 4),
            lif("iand", (6,), 1, dv=fx.MEMORYLESS),
        ],
        [
            link(Dense, "x", "r", weight=weights((6, 6), 12, -6, 7)),
            link(OneToOne, "x", "iand", weight=2),
            link(OneToOne, "r", "iand", weight=-2),
        ],
    )


def _or_pool() -> Network:
    """Max-pooling of spikes: a depth-wise convolution of twos and vth 1."""
    pool = np.full((3, 1, 2, 2), 2)
    return scheduled(
        "or-pool",
        [Input(name="in", shape=(3, 4, 4)), lif("or", (3, 2, 2), 1, dv=fx.MEMORYLESS)],
        [link(Conv, "in", "or", weight=pool, stride=(2, 2), groups=3)],
    )


def _attention() -> Network:
    """Q and SN(sum over tokens of K and V), with a residual around it."""
    shape, token = (4, 2, 2), (4, 1, 1)
    one = [weights((4, 4, 1, 1), seed, -5, 12) for seed in (13, 14, 15)]
    return scheduled(
        "attention",
        [
            Input(name="x", shape=shape),
            *(lif(name, shape, 3) for name in "qkv"),
            lif("kv", shape, 3, dv=fx.MEMORYLESS),
            lif("gate", token, 1),
            lif("qkv", shape, 3, dv=fx.MEMORYLESS),
            lif("res", shape, 1, dv=fx.MEMORYLESS),
        ],
        [
            *(link(Conv, "x", name, weight=w) for name, w in zip("qkv", one, strict=True)),
            link(OneToOne, "k", "kv", weight=2),
            link(OneToOne, "v", "kv", weight=2),
            link(SumTokens, "kv", "gate", weight=2),
            link(BroadcastTokens, "gate", "qkv", weight=2),
            link(OneToOne, "q", "qkv", weight=2),
            link(OneToOne, "x", "res", weight=2),
            link(OneToOne, "qkv", "res", weight=-2),
        ],
    )


def _temporal() -> Network:
    """A temporal convolution of three taps: delays 0, 1, 2, which become shift registers."""
    taps = [
        Conv(
            name=f"tap{d}",
            pre="in",
            post="a",
            weight=weights((3, 2, 1, 1), 16 + d, -8, 15),
            delay=d,
        )
        for d in range(3)
    ]
    return scheduled(
        "temporal", [Input(name="in", shape=(2, 3, 3)), lif("a", (3, 3, 3), 9)], [*taps]
    )


def _biased() -> Network:
    """Neurons that fire in silence, one channel each way, before anything arrives."""
    bias = np.array([-4096, 60, 4095]).reshape(3, 1, 1)
    return scheduled(
        "biased",
        [
            Input(name="in", shape=(3, 2, 2)),
            lif("a", (3, 2, 2), 2, bias_mant=bias, bias_exp=1),
            lif("b", (5,), 6, bias_mant=np.array([0, 100, 300, -50, 4000])),
        ],
        [
            link(OneToOne, "in", "a", weight=3),
            link(Dense, "a", "b", weight=weights((5, 12), 19, -5, 6)),
        ],
    )


SAMPLES: dict[str, Callable[[], Network]] = {
    "dense": _dense,
    "current": _current,
    "conv": _conv,
    "one-to-one": _one_to_one,
    "sum-tokens": _sum_tokens,
    "broadcast-tokens": _broadcast_tokens,
    "relay": _relay,
    "graded": _graded,
    "readout": _readout,
    "and": _and_gate,
    "iand": _iand,
    "or-pool": _or_pool,
    "attention": _attention,
    "temporal": _temporal,
    "biased": _biased,
    "stream": stream,
    "product": product,
    "look-ahead": look_ahead,
}


def sample_network(name: str) -> Network:
    """A small scheduled network, by its name in `SAMPLES`; 4 steps, a few dozen neurons.

    Raises:
        InputError: no sample of that name.
    """
    if name not in SAMPLES:
        raise InputError("sample network", f"'{name}'", ", ".join(SAMPLES))
    return SAMPLES[name]()


def recurrent_network() -> Network:
    """Neurons that inhibit themselves a step later; apart from SAMPLES, as few backends can."""
    return scheduled(
        "recurrent",
        [Input(name="in", shape=(4,)), lif("a", (4,), 10)],
        [
            link(Dense, "in", "a", weight=weights((4, 4), 20, 0, 12)),
            link(Dense, "a", "a", weight=weights((4, 4), 21, -15, 1), delay=1),
        ],
    )


def inputs_for(
    network: Network, samples: int, rng: np.random.Generator
) -> dict[str, npt.NDArray[np.int32]]:
    """Random frames for every input, [samples, T, *shape]; the first sample at the high end,
    the last (of three or more) silent or at the low end, the others at rates of their own."""
    out: dict[str, npt.NDArray[np.int32]] = {}
    for p in network.inputs:
        shape = (samples, network.steps, *p.shape)
        frames = rng.integers(p.low, p.high, shape, endpoint=True)
        rest = min(max(0, p.low), p.high)
        rate = rng.uniform(0.1, 0.9, (samples,) + (1,) * (len(shape) - 1))
        frames = np.where(rng.random(shape) < rate, frames, rest)
        if (p.low, p.high) == (0, 1):
            frames = (rng.random(shape) < rate).astype(np.int64)
        frames[0] = p.high
        if samples > 2:
            frames[-1] = rest
        out[p.name] = frames.astype(np.int32)
    return out


def one_of_each(**changes: dict[str, Any]) -> Network:
    """One object of each kind, legal; `changes` maps an object to values of its fields."""
    shape, token = (1, 2, 2), (1, 1, 1)
    items: list[Any] = [
        Input(name="in", shape=shape),
        Relay(name="relay", shape=shape),
        Lif(name="lif", shape=shape, vth=3, dv=2048, bias_mant=no_bias(shape)),
        Lif(name="token", shape=token, vth=3, dv=2048, bias_mant=no_bias(token)),
        Lif(name="wide", shape=shape, vth=3, dv=2048, bias_mant=no_bias(shape)),
        Lif(name="conv", shape=(2, 1, 1), vth=3, dv=2048, bias_mant=no_bias(shape)),
        Readout(name="out", shape=(2,), bias_mant=no_bias((2,))),
        Graded(name="graded", shape=shape, bias_mant=no_bias(shape)),
        Product(name="scores", shape=(1, 4, 4), mode="scores", heads=1),
        OneToOne(name="feed", pre="in", post="relay", weight=2),
        OneToOne(name="one", pre="relay", post="lif", weight=4),
        SumTokens(name="sum", pre="lif", post="token", weight=1),
        BroadcastTokens(name="broadcast", pre="token", post="wide", weight=2),
        Conv(name="kernel", pre="wide", post="conv", weight=np.ones((2, 1, 2, 2), np.int8)),
        Dense(name="dense", pre="wide", post="out", weight=np.ones((2, 4), np.int8)),
        OneToOne(name="stream", pre="lif", post="graded", weight=1),
        Operand(name="left", pre="graded", post="scores", port="left"),
        Operand(name="right", pre="lif", post="scores", port="right"),
    ]
    assert set(changes) <= {i.name for i in items}
    items = [replace(i, **changes.get(i.name, {})) for i in items]
    return Network(name="n", steps=4, populations=tuple(items[:9]), projections=tuple(items[9:]))


def side_by_side(networks: list[Network], steps: int) -> Network:
    """One network of many that have nothing to do with each other: a backend starts once."""
    populations: list[Population] = []
    projections: list[Projection] = []
    for i, network in enumerate(networks):
        populations += [replace(p, name=f"{i}.{p.name}") for p in network.populations]
        projections += [
            replace(p, name=f"{i}.{p.name}", pre=f"{i}.{p.pre}", post=f"{i}.{p.post}")
            for p in network.projections
        ]
    return Network(
        name="many",
        steps=steps,
        populations=tuple(populations),
        projections=tuple(projections),
    )
