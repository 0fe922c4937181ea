"""Helpers for tests, ours and other people's backends': sample networks, random ones, mutants.

Neither pytest nor hypothesis is imported with this module; `networks` imports hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.errors import InputError
from stformer.network import (
    BroadcastTokens,
    Conv,
    Dense,
    Input,
    IntArray,
    Lif,
    Network,
    OneToOne,
    Population,
    Projection,
    Readout,
    Relay,
    Shape,
    SumTokens,
    conv_output,
    no_bias,
)
from stformer.passes import assign_latency, replace_network, schedule
from stformer.trace import Trace

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Draw = Callable[..., Any]

# --- sample networks: each kind alone, then what transformers are made of -------------------


def lif(name: str, shape: Shape, vth: int = 1, dv: int = 2048, **more: Any) -> Lif:
    """A Lif with no bias unless `more` gives one."""
    return Lif(name=name, shape=shape, vth=vth, dv=dv, **{"bias_mant": no_bias(shape), **more})


def _weights(shape: Shape, seed: int, low: int = -20, high: int = 21) -> IntArray:
    return np.random.default_rng(seed).integers(low, high, shape)


def _link(kind: type[Any], pre: str, post: str, **more: Any) -> Any:
    return kind(name=f"{pre}>{post}", pre=pre, post=post, **more)


def _network(name: str, populations: list[Population], projections: list[Projection]) -> Network:
    network = Network(
        name=name, steps=4, populations=tuple(populations), projections=tuple(projections)
    )
    return schedule(network)


def _dense() -> Network:
    return _network(
        "dense",
        [Input(name="in", shape=(6,)), lif("a", (5,), 20), lif("b", (4,), 12, dv=300)],
        [
            _link(Dense, "in", "a", weight=_weights((5, 6), 1, -10)),
            _link(Dense, "a", "b", weight=_weights((4, 5), 2, -10), weight_exp=1),
        ],
    )


def _current() -> Network:
    """Neurons that keep their current from step to step."""
    return _network(
        "current",
        [
            Input(name="in", shape=(6,)),
            lif("a", (5,), 30, dv=1000, du=1500),
            lif("b", (3,), 9, du=0),
        ],
        [
            _link(Dense, "in", "a", weight=_weights((5, 6), 3, -15)),
            _link(Dense, "a", "b", weight=_weights((3, 5), 4)),
        ],
    )


def _conv() -> Network:
    """Stride, padding, dilation and groups, on frames that are not square."""
    return _network(
        "conv",
        [
            Input(name="in", shape=(2, 6, 5)),
            lif("a", (4, 6, 5), 18),
            lif("b", (4, 3, 2), 25),
            lif("c", (6, 1, 4), 10),
        ],
        [
            _link(Conv, "in", "a", weight=_weights((4, 2, 3, 3), 5), padding=(1, 1)),
            _link(Conv, "a", "b", weight=_weights((4, 2, 2, 3), 6), stride=(2, 2), groups=2),
            _link(
                Conv,
                *("b", "c"),
                weight=_weights((6, 4, 3, 1), 7),
                padding=(0, 1),
                dilation=(1, 2),
                weight_exp=2,
            ),
        ],
    )


def _one_to_one() -> Network:
    return _network(
        "one-to-one",
        [Input(name="in", shape=(3, 2, 2)), lif("a", (3, 2, 2), 5)],
        [_link(OneToOne, "in", "a", weight=4)],
    )


def _sum_tokens() -> Network:
    return _network(
        "sum-tokens",
        [Input(name="in", shape=(3, 2, 2)), lif("a", (3, 1, 1), 3)],
        [_link(SumTokens, "in", "a", weight=2)],
    )


def _broadcast_tokens() -> Network:
    return _network(
        "broadcast-tokens",
        [Input(name="in", shape=(3, 1, 1)), lif("a", (3, 2, 3), 3)],
        [_link(BroadcastTokens, "in", "a", weight=2)],
    )


def _relay() -> Network:
    """A short way waits for a long one at a convolution, which cannot delay."""
    shape = (2, 3, 3)
    return _network(
        "relay",
        [
            Input(name="in", shape=shape),
            lif("a", shape, 1),
            lif("b", shape, 1),
            lif("c", shape, 16),
        ],
        [
            _link(OneToOne, "in", "a", weight=2),
            _link(OneToOne, "a", "b", weight=2),
            _link(Conv, "in", "c", weight=_weights((2, 2, 3, 3), 8), padding=(1, 1)),
            _link(OneToOne, "b", "c", weight=9),
        ],
    )


def _graded() -> Network:
    """Graded frames into a convolution, as event counts or analogue images come."""
    return _network(
        "graded",
        [Input(name="in", shape=(2, 4, 4), low=-7, high=255), lif("a", (3, 4, 4), 900)],
        [_link(Conv, "in", "a", weight=_weights((3, 2, 3, 3), 9), padding=(1, 1))],
    )


def _readout() -> Network:
    out = Readout(name="out", shape=(3,), bias_mant=np.array([-300, 0, 4095]), bias_exp=2)
    return _network(
        "readout",
        [Input(name="in", shape=(2, 2, 2)), lif("a", (2, 2, 2), 3), out],
        [
            _link(OneToOne, "in", "a", weight=4),
            _link(Dense, "a", "out", weight=_weights((3, 8), 10)),
        ],
    )


def _and_gate() -> Network:
    """Both of two: 2 + 2 exceeds 3; the paths have different lengths."""
    return _network(
        "and",
        [
            Input(name="x", shape=(6,)),
            lif("y", (6,), 4),
            lif("and", (6,), 3, dv=fx.MEMORYLESS),
        ],
        [
            _link(Dense, "x", "y", weight=_weights((6, 6), 11, -6, 7)),
            _link(OneToOne, "x", "and", weight=2),
            _link(OneToOne, "y", "and", weight=2),
        ],
    )


def _iand() -> Network:
    """x and not r, which is the paper's spike-driven residual."""
    return _network(
        "iand",
        [
            Input(name="x", shape=(6,)),
            lif("r", (6,), 4),
            lif("iand", (6,), 1, dv=fx.MEMORYLESS),
        ],
        [
            _link(Dense, "x", "r", weight=_weights((6, 6), 12, -6, 7)),
            _link(OneToOne, "x", "iand", weight=2),
            _link(OneToOne, "r", "iand", weight=-2),
        ],
    )


def _or_pool() -> Network:
    """Max-pooling of spikes: a depth-wise convolution of twos and vth 1."""
    pool = np.full((3, 1, 2, 2), 2)
    return _network(
        "or-pool",
        [Input(name="in", shape=(3, 4, 4)), lif("or", (3, 2, 2), 1, dv=fx.MEMORYLESS)],
        [_link(Conv, "in", "or", weight=pool, stride=(2, 2), groups=3)],
    )


def _attention() -> Network:
    """Q and SN(sum over tokens of K and V), with a residual around it."""
    shape, token = (4, 2, 2), (4, 1, 1)
    one = [_weights((4, 4, 1, 1), seed, -5, 12) for seed in (13, 14, 15)]
    return _network(
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
            *(_link(Conv, "x", name, weight=w) for name, w in zip("qkv", one, strict=True)),
            _link(OneToOne, "k", "kv", weight=2),
            _link(OneToOne, "v", "kv", weight=2),
            _link(SumTokens, "kv", "gate", weight=2),
            _link(BroadcastTokens, "gate", "qkv", weight=2),
            _link(OneToOne, "q", "qkv", weight=2),
            _link(OneToOne, "x", "res", weight=2),
            _link(OneToOne, "qkv", "res", weight=-2),
        ],
    )


def _temporal() -> Network:
    """A temporal convolution of three taps: delays 0, 1, 2, which become shift registers."""
    taps = [
        Conv(
            name=f"tap{d}",
            pre="in",
            post="a",
            weight=_weights((3, 2, 1, 1), 16 + d, -8, 15),
            delay=d,
        )
        for d in range(3)
    ]
    return _network(
        "temporal", [Input(name="in", shape=(2, 3, 3)), lif("a", (3, 3, 3), 9)], [*taps]
    )


def _biased() -> Network:
    """Neurons that fire in silence, one channel each way, before anything arrives."""
    bias = np.array([-4096, 60, 4095]).reshape(3, 1, 1)
    return _network(
        "biased",
        [
            Input(name="in", shape=(3, 2, 2)),
            lif("a", (3, 2, 2), 2, bias_mant=bias, bias_exp=1),
            lif("b", (5,), 6, bias_mant=np.array([0, 100, 300, -50, 4000])),
        ],
        [
            _link(OneToOne, "in", "a", weight=3),
            _link(Dense, "a", "b", weight=_weights((5, 12), 19, -5, 6)),
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
    return _network(
        "recurrent",
        [Input(name="in", shape=(4,)), lif("a", (4,), 10)],
        [
            _link(Dense, "in", "a", weight=_weights((4, 4), 20, 0, 12)),
            _link(Dense, "a", "a", weight=_weights((4, 4), 21, -15, 1), delay=1),
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


# --- random networks ------------------------------------------------------------------------


def networks(*, schedule_: bool = True) -> SearchStrategy[Network]:
    """Hypothesis strategy: small networks of all kinds, branches, delays and extreme registers.

    Args:
        schedule_: with relays put in; otherwise latencies only (`passes.assign_latency`).

    Weights are all negative, all zero, of both signs or at the ends, shifted by up to 7, so
    that currents cross the 24-bit wrap and membranes the clip; thresholds are often sums that
    arrive exactly. No recurrence.
    """
    from hypothesis import strategies as st

    @st.composite
    def build(draw: Draw) -> Network:
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        shapes = [(2, 3, 3), (3, 1, 1), (1, 4, 2), (5,)]
        graded = draw(st.sampled_from([(0, 1), (0, 1), (0, 1), (-3, 3), (0, 100), (1, 2)]))
        low, high = graded
        populations: list[Population] = [
            Input(name="in", shape=draw(st.sampled_from(shapes)), low=low, high=high)
        ]
        if draw(st.booleans()):
            populations.append(Input(name="in2", shape=draw(st.sampled_from(shapes))))
        projections: list[Projection] = []
        for i in range(draw(st.integers(1, 4))):
            sources = draw(
                st.lists(st.sampled_from(populations), min_size=0 if i else 1, max_size=3)
            )
            post, incoming = _draw_layer(draw, rng, f"p{i}", sources)
            populations.append(post)
            projections += incoming
        if draw(st.booleans()):
            source = populations[-1]
            shape = (draw(st.integers(1, 3)),)
            bias, exp = _draw_bias(draw, rng, shape)
            populations.append(Readout(name="out", shape=shape, bias_mant=bias, bias_exp=exp))
            w = _draw_weight(draw, rng, (shape[0], prod(source.shape)))
            projections.append(_link(Dense, source.name, "out", weight=w))
        network = Network(
            name="drawn",
            steps=draw(st.integers(1, 4)),
            populations=tuple(populations),
            projections=tuple(projections),
        )
        return schedule(network) if schedule_ else assign_latency(network)

    return build()


def _draw_layer(
    draw: Draw, rng: np.random.Generator, name: str, sources: list[Population]
) -> tuple[Lif, list[Projection]]:
    """A population and what leads into it; the first source's projection decides its shape."""
    from hypothesis import strategies as st

    shape: Shape | None = None if sources else draw(st.sampled_from([(2, 3, 3), (5,)]))
    projections: list[Projection] = []
    # A graded input cannot pass relays: no delays, and no convolution that has to wait.
    alone = all(s.name == "in" for s in sources)
    for n, source in enumerate(sources):
        spikes = not isinstance(source, Input) or (source.low, source.high) == (0, 1)
        kinds = _fitting(source.shape, shape, conv=spikes or alone)
        kind = draw(st.sampled_from(kinds))
        more: dict[str, Any] = {
            "name": f"{source.name}>{name}.{n}",
            "pre": source.name,
            "post": name,
            "delay": draw(st.sampled_from([0, 0, 1, 2, 5])) if spikes else 0,
            "weight_exp": draw(st.sampled_from([0, 0, 1, 7])),
        }
        if kind is Dense:
            shape = shape or draw(st.sampled_from([(4,), (2, 3, 3), (3, 1, 1), (1, 2, 2)]))
            more["weight"] = _draw_weight(draw, rng, (prod(shape), prod(source.shape)))
        elif kind is Conv:
            more |= _draw_conv(draw, rng, source.shape, shape)
            if shape is None:
                probe = Conv(**more)
                out = conv_output(probe, source.shape[1], source.shape[2])
                shape = (len(probe.weight), *out)
        else:
            more["weight"] = draw(st.sampled_from([2, 1, -2, 127, -128, 0]))
            if shape is None:
                token = (source.shape[0], 1, 1)
                wide = (source.shape[0], 2, 2)
                shape = {OneToOne: source.shape, SumTokens: token, BroadcastTokens: wide}[kind]
        projections.append(kind(**more))
    assert shape is not None
    bias, exp = _draw_bias(draw, rng, shape)
    sums = sorted({1, 3, *_sums(projections)})
    vth = draw(st.sampled_from(sums) | st.sampled_from([1, 2, 100, 2000, 131071]))
    post = Lif(
        name=name,
        shape=shape,
        vth=vth,
        dv=draw(st.sampled_from([2048, 4095, 0, 1, 1229, 3072, 4094])),
        du=draw(st.sampled_from([4095, 4095, 4095, 0, 1, 2047, 3000, 4094])),
        bias_mant=bias,
        bias_exp=exp,
    )
    return post, projections


def _fitting(pre: Shape, post: Shape | None, *, conv: bool) -> list[type[Projection]]:
    out: list[type[Projection]] = [Dense]
    if post in (None, pre):
        out.append(OneToOne)
    if len(pre) == 3:
        if post in (None, (pre[0], 1, 1)):
            out.append(SumTokens)
        if pre[1:] == (1, 1) and (post is None or (len(post) == 3 and post[0] == pre[0])):
            out.append(BroadcastTokens)
        if conv and (post is None or (len(post) == 3 and post[1:] == pre[1:])):
            out.append(Conv)
    return out


def _draw_conv(
    draw: Draw, rng: np.random.Generator, pre: Shape, post: Shape | None
) -> dict[str, Any]:
    """Kernel and geometry; any where `post` is open, else one that keeps height and width."""
    from hypothesis import strategies as st

    if post is not None:
        kernel = draw(st.sampled_from([(1, 1), (3, 1), (3, 3)]))
        shape = (post[0], pre[0], *kernel)
        padding = (kernel[0] // 2, kernel[1] // 2)
        return {"weight": _draw_weight(draw, rng, shape), "padding": padding}
    groups = draw(st.sampled_from([1, pre[0]]))
    kernel = (draw(st.integers(1, min(3, pre[1] + 2))), draw(st.integers(1, min(3, pre[2] + 2))))
    shape = (groups * draw(st.integers(1, 2)), pre[0] // groups, *kernel)
    return {
        "weight": _draw_weight(draw, rng, shape),
        "groups": groups,
        "stride": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        # Dilation 2 of a kernel of 3 reaches 5: padded by 2 it fits any frame.
        "padding": (2, 2),
        "dilation": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
    }


def _draw_weight(draw: Draw, rng: np.random.Generator, shape: Shape) -> IntArray:
    from hypothesis import strategies as st

    low, high = draw(
        st.sampled_from(
            [(-128, 127), (-6, 6), (1, 9), (-128, -1), (0, 0), (127, 127), (-128, -128)]
        )
    )
    return rng.integers(low, high, shape, endpoint=True)


def _draw_bias(draw: Draw, rng: np.random.Generator, shape: Shape) -> tuple[IntArray, int]:
    from hypothesis import strategies as st

    low, high = draw(
        st.sampled_from([(0, 0), (0, 0), (-4096, 4095), (4095, 4095), (-4096, -4096), (64, 128)])
    )
    wide = draw(st.booleans())
    size = shape if wide else (shape[0],) + (1,) * (len(shape) - 1)
    return rng.integers(low, high, size, endpoint=True), draw(st.sampled_from([0, 3, 7]))


def _sums(projections: list[Projection]) -> Iterator[int]:
    """Arriving sums that a threshold can meet exactly: single weights and rows of them."""
    for p in projections:
        w = np.asarray(p.weight, np.int64) << p.weight_exp
        rows = w.reshape(len(w), -1).sum(axis=1) if w.ndim else w.reshape(1)
        yield from (int(x) for x in {*w.flat[:3], *rows[:3]} if 1 <= x <= fx.VTH_RANGE[1])


# --- mutants --------------------------------------------------------------------------------

Mutant = tuple[str, tuple[str, ...], Network]


def mutants(network: Network, seed: int = 0) -> Iterator[Mutant]:
    """Every way to break a network a little, once per object.

    Yields:
        (what was done, populations that it may affect first, the mutant), latencies assigned
        anew: one weight, one delay, one threshold or one bias up or down by one, one kernel or
        square matrix transposed, one projection dropped. A mutant may be without effect on
        given inputs; compare its reference trace to know.
    """
    rng = np.random.default_rng(seed)
    for p in network.projections:
        relayed = isinstance(network[p.post], Relay)
        for step in (1, -1):
            if (
                not relayed
                and (weight := _nudged(p.weight, step, fx.WEIGHT_RANGE, rng)) is not None
            ):
                what = f"one weight of {p.name} by {step:+d}"
                yield what, (p.post,), _with(network, replace(p, weight=weight))
            if 0 <= p.delay + step <= (1 if relayed else fx.DELAY_RANGE[1]):
                what = f"delay of {p.name} by {step:+d}"
                yield what, (p.post,), _with(network, replace(p, delay=p.delay + step))
        if isinstance(p, (Dense, Conv)):
            turned = np.ascontiguousarray(p.weight.swapaxes(-1, -2))
            if turned.shape == p.weight.shape and (turned != p.weight).any():
                what = f"weight of {p.name} transposed"
                yield what, (p.post,), _with(network, replace(p, weight=turned))
        if not relayed:
            rest = tuple(q for q in network.projections if q.name != p.name)
            dropped = assign_latency(replace_network(network, projections=rest))
            yield f"{p.name} dropped", (p.post,), dropped
    for q in network.populations:
        for step in (1, -1):
            if isinstance(q, Lif) and fx.VTH_RANGE[0] <= q.vth + step <= fx.VTH_RANGE[1]:
                what = f"threshold of {q.name} by {step:+d}"
                yield what, (q.name,), _with(network, replace(q, vth=q.vth + step))
            if isinstance(q, (Lif, Readout)):
                bias = _nudged(q.bias_mant, step, fx.BIAS_MANT_RANGE, rng)
                if bias is not None:
                    what = f"one bias of {q.name} by {step:+d}"
                    yield what, (q.name,), _with(network, replace(q, bias_mant=bias))


def _nudged(
    values: IntArray | int, step: int, allowed: tuple[int, int], rng: np.random.Generator
) -> Any:
    """The same with one entry changed by `step`, or None where none can be."""
    array = np.array(values, np.int64)
    free = np.argwhere((array + step >= allowed[0]) & (array + step <= allowed[1]))
    if not len(free):
        return None
    array[tuple(free[rng.integers(len(free))])] += step
    return array if isinstance(values, np.ndarray) else int(array)


def _with(network: Network, item: Population | Projection) -> Network:
    def swap(old: Any) -> Any:
        return item if type(old) is type(item) and old.name == item.name else old

    changed = replace_network(
        network,
        populations=tuple(swap(p) for p in network.populations),
        projections=tuple(swap(p) for p in network.projections),
    )
    return assign_latency(changed)


# --- comparing ------------------------------------------------------------------------------


def assert_traces_equal(a: Trace, b: Trace, *, states: bool | None = None) -> None:
    """Raise AssertionError unless both traces record the same, telling the first difference.

    Args:
        a, b: traces; `a` counts as the expected one.
        states: whether u and v must be there and equal; by default they are compared if either
            trace has some.
    """
    assert a.inputs == b.inputs, "the traces are of different inputs"
    assert list(a.spikes) == list(b.spikes), f"populations {list(a.spikes)} and {list(b.spikes)}"
    assert a.spikes, "nothing was recorded"
    _assert_equal("spikes", a, b, a.spikes, b.spikes)
    if states or (states is None and (a.v or b.v)):
        assert a.v, "no states were recorded"
        _assert_equal("u", a, b, a.u, b.u)
        _assert_equal("v", a, b, a.v, b.v)


def _assert_equal(
    what: str, a: Trace, b: Trace, mine: Mapping[str, IntArray], theirs: Mapping[str, IntArray]
) -> None:
    assert set(mine) == set(theirs), f"{what} of {sorted(set(mine) ^ set(theirs))} in one trace"
    for name, x in mine.items():
        y = theirs[name]
        assert x.shape == y.shape, f"{what} of {name}: shapes {x.shape} and {y.shape}"
        assert x.dtype == y.dtype, f"{what} of {name}: types {x.dtype} and {y.dtype}"
        if np.array_equal(x, y):
            continue
        wrong = np.argwhere(x != y)
        first = tuple(int(i) for i in wrong[np.lexsort((wrong[:, 0], wrong[:, 1]))[0]])
        raise AssertionError(
            f"{what} of {name}: {len(wrong)} of {x.size} differ, first at sample {first[0]}, "
            f"step {first[1]}, neuron {first[2:]}: {x[first]} in {a.backend}, "
            f"{y[first]} in {b.backend}"
        )
