"""Helpers for tests, ours and other people's backends': sample networks, random ones, mutants.

Neither pytest nor hypothesis is imported with this module; `networks` imports hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from stformer import fixedpoint as fx
from stformer.network import (
    BroadcastTokens,
    Conv,
    Dense,
    Graded,
    Input,
    IntArray,
    Lif,
    Network,
    OneToOne,
    Operand,
    Population,
    Product,
    Projection,
    Readout,
    Relay,
    Shape,
    SumTokens,
    conv_output,
    effective_weight,
    is_graded,
)
from stformer.passes import assign_latency, replace_network, schedule
from stformer.samples import SAMPLES, inputs_for, recurrent_network, sample_network
from stformer.samples_base import lif
from stformer.trace import Trace

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = [
    "SAMPLES",
    "assert_traces_equal",
    "inputs_for",
    "lif",
    "mutants",
    "networks",
    "recurrent_network",
    "sample_network",
]

Draw = Callable[..., Any]

# --- random networks ------------------------------------------------------------------------


def networks(*, schedule_: bool = True, stock: bool = False) -> SearchStrategy[Network]:
    """Hypothesis strategy: small networks of all kinds, branches, delays and extreme registers.

    Args:
        schedule_: with relays put in; otherwise latencies only (`passes.assign_latency`).
        stock: only what stock Lava has: no graded populations, no products, no look-ahead.

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
            post, incoming = _draw_layer(draw, rng, f"p{i}", sources, stock)
            populations.append(post)
            projections += incoming
        cubes = [p for p in populations if len(p.shape) == 3]
        if cubes and not stock and draw(st.booleans()):
            more = _draw_attention(draw, cubes)
            populations += more[0]
            projections += more[1]
        if draw(st.booleans()):
            source = populations[-1]
            shape = (draw(st.integers(1, 3)),)
            bias, exp = _draw_bias(draw, rng, shape)
            populations.append(Readout(name="out", shape=shape, bias_mant=bias, bias_exp=exp))
            w = _draw_weight(draw, rng, (shape[0], prod(source.shape)))
            projections.append(
                Dense(name=f"{source.name}>out", pre=source.name, post="out", weight=w)
            )
        network = Network(
            name="drawn",
            steps=draw(st.integers(1, 4)),
            populations=tuple(populations),
            projections=tuple(projections),
        )
        return schedule(network) if schedule_ else assign_latency(network)

    return build()


def _draw_layer(
    draw: Draw, rng: np.random.Generator, name: str, sources: list[Population], stock: bool
) -> tuple[Lif | Graded, list[Projection]]:
    """A population and what leads into it; the first source's projection decides its shape."""
    from hypothesis import strategies as st

    shape: Shape | None = None if sources else draw(st.sampled_from([(2, 3, 3), (5,)]))
    projections: list[Projection] = []
    # What is graded cannot pass relays: no delays, and no convolution that has to wait.
    alone = all(s.name == "in" for s in sources)
    delays = [0, 0, 1, 2, 5] if stock else [0, 0, 1, 2, 5, -1, -3]
    for n, source in enumerate(sources):
        spikes = not is_graded(source)
        kinds = _fitting(source.shape, shape, conv=spikes or alone)
        kind = draw(st.sampled_from(kinds))
        more: dict[str, Any] = {
            "name": f"{source.name}>{name}.{n}",
            "pre": source.name,
            "post": name,
            "delay": draw(st.sampled_from(delays)) if spikes else 0,
            "weight_exp": draw(st.sampled_from([0, 0, 1, 7])),
        }
        if kind is Dense:
            if shape is None:
                shape = draw(st.sampled_from([(4,), (2, 3, 3), (3, 1, 1), (1, 2, 2)]))
            assert shape is not None
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
    if not stock and name != "p0" and draw(st.integers(0, 3)) == 0:  # one has states
        shift = draw(st.sampled_from([0, 0, 1, 5, 23]))
        graded = Graded(name=name, shape=shape, bias_mant=bias, bias_exp=exp, shift=shift)
        return graded, projections
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


def _draw_attention(
    draw: Draw, cubes: list[Population]
) -> tuple[list[Population], list[Projection]]:
    """SN((x y^T) y) of two populations, which may be one."""
    from hypothesis import strategies as st

    right = draw(st.sampled_from(cubes))
    left = draw(st.sampled_from([p for p in cubes if p.shape == right.shape]))
    heads = draw(st.sampled_from([1, right.shape[0]]))
    tokens = prod(right.shape[1:])
    populations: list[Population] = [
        Product(name="scores", shape=(heads, tokens, tokens), mode="scores", heads=heads),
        Product(name="mix", shape=right.shape, mode="mix", heads=heads),
        lif("mixed", right.shape, draw(st.sampled_from([1, 2, 7, 100]))),
    ]
    projections: list[Projection] = [
        Operand(name="left", pre=left.name, post="scores", port="left"),
        Operand(name="right", pre=right.name, post="scores", port="right"),
        Operand(name="weights", pre="scores", post="mix", port="left"),
        Operand(name="values", pre=right.name, post="mix", port="right"),
        OneToOne(name="mix>mixed", pre="mix", post="mixed", weight=1),
    ]
    return populations, projections


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
    weight: IntArray = rng.integers(low, high, shape, endpoint=True, dtype=np.int64)
    return weight


def _draw_bias(draw: Draw, rng: np.random.Generator, shape: Shape) -> tuple[IntArray, int]:
    from hypothesis import strategies as st

    low, high = draw(
        st.sampled_from([(0, 0), (0, 0), (-4096, 4095), (4095, 4095), (-4096, -4096), (64, 128)])
    )
    wide = draw(st.booleans())
    size = shape if wide else (shape[0],) + (1,) * (len(shape) - 1)
    mant: IntArray = rng.integers(low, high, size, endpoint=True, dtype=np.int64)
    return mant, draw(st.sampled_from([0, 3, 7]))


def _sums(projections: list[Projection]) -> Iterator[int]:
    """Arriving sums that a threshold can meet exactly: single weights and rows of them."""
    for p in projections:
        if isinstance(p, Operand):
            continue
        w = effective_weight(p)
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
    recurrent = {p.name for p in network.recurrent}
    for p in network.projections:
        relayed = isinstance(network[p.post], Relay)
        for step in (1, -1):
            if not relayed and not isinstance(p, Operand):
                weight = _nudged(p.weight, step, fx.WEIGHT_RANGE, rng)
                what = f"one weight of {p.name} by {step:+d}"
                if weight is not None:
                    yield what, (p.post,), _with(network, replace(p, weight=weight))
            least = 1 if p.name in recurrent else min(p.delay, 0)
            if least <= p.delay + step <= (1 if relayed else fx.DELAY_RANGE[1]):
                what = f"delay of {p.name} by {step:+d}"
                yield what, (p.post,), _with(network, replace(p, delay=p.delay + step))
        if isinstance(p, (Dense, Conv)):
            turned = np.ascontiguousarray(p.weight.swapaxes(-1, -2))
            if turned.shape == p.weight.shape and (turned != p.weight).any():
                what = f"weight of {p.name} transposed"
                yield what, (p.post,), _with(network, replace(p, weight=turned))
        if not relayed and not isinstance(p, Operand):
            rest = tuple(q for q in network.projections if q.name != p.name)
            dropped = assign_latency(replace_network(network, projections=rest))
            yield f"{p.name} dropped", (p.post,), dropped
    for q in network.populations:
        for step in (1, -1):
            if isinstance(q, Lif) and fx.VTH_RANGE[0] <= q.vth + step <= fx.VTH_RANGE[1]:
                what = f"threshold of {q.name} by {step:+d}"
                yield what, (q.name,), _with(network, replace(q, vth=q.vth + step))
            if isinstance(q, (Lif, Readout, Graded)):
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
