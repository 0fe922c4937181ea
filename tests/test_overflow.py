"""Overflow ruled out: no run leaves the bounds, and the worst input reaches them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stformer import fixedpoint as fx
from stformer import interpret, storage, testing, testing_traces
from stformer.bounds import Interval, bounds
from stformer.bounds_states import Neuron, ever, within
from stformer.network import (
    Conv,
    Dense,
    Graded,
    Input,
    Lif,
    Network,
    OneToOne,
    Product,
    Projection,
    Readout,
    SumTokens,
    bias_of,
    no_bias,
)
from stformer.overflow import Claims, NotProven, merge, observe, prove
from stformer.passes import schedule
from stformer.replay import replay
from stformer.samples_base import lif, link
from stformer.trace import Probe, Trace

STATES = Probe(states=True)
LARGEST = fx.STATE_MAX - 1


def held(claims: Claims, name: str) -> dict[str, tuple[int, int]]:
    (claim,) = (c for c in claims.populations if c.name == name)
    return {r.what: (r.low, r.high) for r in claim.registers}


def check_inside(network: Network, trace: Trace) -> None:
    """Every value of a run is within the bounds; and within 24 bits no rule but decay bites."""
    seen = observe(network, trace)
    for claims in (prove(network), prove(network, any_steps=True)):
        for claim in claims.populations:
            p = network[claim.name]
            for r in claim.registers:
                low, high = seen[p.name][r.what]
                assert r.low <= low <= high <= r.high, (p.name, r, claims.steps)
            limits = {r.what: r for r in claim.registers}
            if isinstance(p, (Lif, Readout)):
                u, v = limits["u"], limits["v"]
                if u.fits and isinstance(p, Lif):
                    assert u.low <= trace.u[p.name].min() <= trace.u[p.name].max() <= u.high
                if v.fits:
                    assert v.low <= trace.v[p.name].min() <= trace.v[p.name].max() <= v.high
            if isinstance(p, (Graded, Product)) and limits["v"].fits:
                sent = trace[p.name]
                assert limits["v"].low <= sent.min() <= sent.max() <= limits["v"].high
    for name, x in bounds(network).sums.items():
        if not isinstance(network[name], Input):
            arriving = replay(network, name, trace).arriving
            assert (arriving >= x.low).all() and (arriving <= x.high).all(), name


@pytest.mark.parametrize("name", testing_traces.NETWORKS)
def test_no_sample_network_leaves_its_bounds(name: str) -> None:
    network = testing_traces.NETWORKS[name]()
    inputs = testing.inputs_for(network, 20, np.random.default_rng(2))
    check_inside(network, interpret.run(network, inputs, probe=STATES))


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(testing.networks() | testing.networks(schedule_=False), st.integers(0, 2**32 - 1))
def test_no_drawn_network_leaves_its_bounds(network: Network, seed: int) -> None:
    """Among them such that wrap and clip, and inputs that stay at one end for all steps."""
    rng = np.random.default_rng(seed)
    inputs = testing.inputs_for(network, 6, rng)
    for p in network.inputs:
        ends = np.where(rng.random((2, 1, *p.shape)) < 0.5, p.low, p.high)
        inputs[p.name][1:3] = ends
    check_inside(network, interpret.run(network, inputs, probe=STATES))


# --- the worst input reaches the bounds ---------------------------------------------------


def one_layer(projection: Projection, post: Any, steps: int, **source: Any) -> Network:
    """An input and one population."""
    made = Input(name="in", **source)
    return schedule(
        Network(name="one", steps=steps, populations=(made, post), projections=(projection,))
    )


def worst(network: Network, w: Any, *, up: bool) -> dict[str, Any]:
    """A sample a neuron of a dense layer: at every step all that raises (or lowers) its sum."""
    (p,) = network.inputs
    raises = (np.asarray(w) > 0) == up
    frames = np.where(raises, p.high, p.low)[:, None]
    return {"in": np.repeat(frames, network.steps, axis=1).reshape(-1, network.steps, *p.shape)}


@pytest.mark.parametrize("du", [4095, 3000, 100, 0])
@pytest.mark.parametrize("dv", [0, 1, 1229, 2048, 4095])
@pytest.mark.parametrize("source", [(0, 1), (-3, 5)])
def test_the_worst_input_of_a_layer_reaches_every_bound(
    du: int, dv: int, source: tuple[int, int]
) -> None:
    w = np.random.default_rng(du + dv).integers(-9, 10, (5, 8))
    bias = np.array([-70, 0, 3, 90, 0])
    post = Lif(name="a", shape=(5,), vth=131071, du=du, dv=dv, bias_mant=bias, bias_exp=1)
    network = one_layer(
        link(Dense, "in", "a", weight=w, weight_exp=1),
        post,
        6,
        shape=(8,),
        low=source[0],
        high=source[1],
    )
    claims = prove(network)
    assert claims.proven
    seen: dict[str, dict[str, tuple[int, int]]] = {}
    for up in (False, True):
        trace = interpret.run(network, worst(network, w, up=up), probe=STATES)
        seen = merge(seen, observe(network, trace))
    assert seen["a"] == held(claims, "a")


def test_the_last_step_below_the_threshold_counts() -> None:
    """A membrane stays at the threshold itself, and the next step comes on top."""
    network = one_layer(
        link(OneToOne, "in", "a", weight=1), lif("a", (1,), 10, 0), 3, shape=(1,), high=20
    )
    frames = np.array([10, 20, 0]).reshape(1, 3, 1)
    seen = observe(network, interpret.run(network, frames, probe=STATES))
    assert seen["a"]["v"] == held(prove(network), "a")["v"] == (0, (10 + 20) << fx.SHIFT)


def test_a_convolution_is_bound_channel_by_channel() -> None:
    w = np.array([[[[5, -7, 2]]], [[[-1, -1, 0]]]])
    network = one_layer(
        link(Conv, "in", "a", weight=w, padding=(0, 1)),
        lif("a", (2, 1, 4), 1),
        2,
        shape=(1, 1, 4),
    )
    x = bounds(network).sums["a"]
    assert (x.low.ravel().tolist(), x.high.ravel().tolist()) == ([-7, -2], [7, 0])


def test_groups_take_their_own_sources() -> None:
    bias = np.array([100, -200]).reshape(2, 1, 1)
    network = Network(
        name="groups",
        steps=2,
        populations=(
            Input(name="in", shape=(2, 1, 1)),
            Graded(name="x", shape=(2, 1, 1), bias_mant=bias << 4, bias_exp=2),
            lif("a", (2, 1, 1), 1),
            lif("b", (2, 1, 1), 1),
        ),
        projections=(
            link(OneToOne, "in", "x", weight=1),
            link(Conv, "x", "a", weight=np.full((2, 1, 1, 1), -2), groups=2),
            link(SumTokens, "x", "b", weight=3),
        ),
    )
    x = bounds(network).sums
    assert (x["a"].low.ravel().tolist(), x["a"].high.ravel().tolist()) == ([-202, 0], [0, 400])
    assert (x["b"].low.ravel().tolist(), x["b"].high.ravel().tolist()) == ([0, -600], [303, 0])


def test_a_channel_is_as_wide_as_its_widest_neuron() -> None:
    bias = np.array([-128, 64, 640]).reshape(1, 1, 3)
    network = Network(
        name="wide",
        steps=2,
        populations=(
            Input(name="in", shape=(1, 1, 3)),
            Graded(name="x", shape=(1, 1, 3), bias_mant=bias),
            lif("a", (1, 1, 3), 1),
        ),
        projections=(
            link(OneToOne, "in", "x", weight=1),
            link(Conv, "x", "a", weight=np.array([[[[1, -1, 0]]]]), padding=(0, 1)),
        ),
    )
    assert bounds(network).sums["a"].ends == (-2 - 11, 11 + 2)
    assert bounds(network).sums["a"].low.shape == (1, 1, 1)


def test_products_add_up_head_by_head() -> None:
    """Of spikes: as many terms as a head has channels, then as there are tokens."""
    claims = prove(testing.sample_network("product"))
    assert held(claims, "scores") == {"v": (0, 2)}
    assert held(claims, "mix") == {"v": (0, 6 * 2)}


def test_readouts_add_up_over_the_sample() -> None:
    kernel = np.full((1, 4), 127)
    for steps, proven in ((64, True), (65, True), (258, True), (259, False), (300, False)):
        out = Readout(name="out", shape=(1,), bias_mant=no_bias((1,)))
        network = one_layer(link(Dense, "in", "out", weight=kernel), out, steps, shape=(4,))
        claims = prove(network)
        assert held(claims, "out")["v"] == (0, min(steps * 508 << fx.SHIFT, LARGEST + 508 * 64))
        assert claims.proven == proven
    assert not prove(network, any_steps=True).proven


# --- limits ----------------------------------------------------------------------------------


def summing_to(total: int, **registers: Any) -> Network:
    """One neuron whose sum is at most `total`, and at least 0."""
    given: dict[str, Any] = {"vth": 100, "dv": 4095, "bias_mant": no_bias((1,))} | registers
    post = Lif(name="a", shape=(1,), **given)
    return one_layer(link(OneToOne, "in", "a", weight=1), post, 4, shape=(1,), high=total)


def test_the_16_bit_accumulator_has_its_own_limit() -> None:
    assert prove(summing_to(fx.ACCUMULATOR_MAX)).proven
    claims = prove(summing_to(fx.ACCUMULATOR_MAX + 1))
    (open_,) = claims.open
    assert [r.what for r in open_.exceeding] == ["sum"]  # u and v have room for 17 bits
    assert [(r.what, r.bits) for r in open_.registers] == [("sum", 17), ("u", 23), ("v", 23)]


def test_currents_that_pile_up_wrap_in_the_end() -> None:
    """Three steps of 32,767 with no decay fit 24 bits; four do not."""
    slow = {"du": 0, "dv": 4095}
    fits = replace(summing_to(fx.ACCUMULATOR_MAX, **slow), steps=3)
    assert prove(fits).proven
    claims = prove(replace(fits, steps=5))
    assert [r.what for c in claims.open for r in c.exceeding] == ["u", "v"]
    assert not prove(fits, any_steps=True).proven


def test_a_current_that_wraps_comes_back_from_the_other_end() -> None:
    network = replace(summing_to(fx.ACCUMULATOR_MAX, du=0), steps=9)
    trace = interpret.run(network, np.full((1, 9, 1), fx.ACCUMULATOR_MAX), probe=STATES)
    assert observe(network, trace)["a"]["u"][0] < 0  # though nothing inhibits
    check_inside(network, trace)


def test_a_negative_membrane_has_no_reset() -> None:
    """Inhibition piles up where excitation fires: 24 bits last for four steps of -32,767."""
    post = lif("a", (1,), 100, 0)
    network = one_layer(
        link(OneToOne, "in", "a", weight=-1), post, 4, shape=(1,), high=fx.ACCUMULATOR_MAX
    )
    assert held(prove(network), "a")["v"] == (-4 * fx.ACCUMULATOR_MAX << fx.SHIFT, 0)
    claims = prove(replace(network, steps=9))  # it clips at each step from the fifth
    assert [r.what for c in claims.open for r in c.exceeding] == ["v"]
    assert held(claims, "a")["v"] == (-LARGEST - (fx.ACCUMULATOR_MAX << fx.SHIFT), 0)


def test_sums_no_number_can_hold_are_not_proven() -> None:
    shape = (2**12,)
    network = Network(
        name="huge",
        steps=2,
        populations=(
            Input(name="in", shape=shape, high=2**23 - 1),
            lif("a", (1,), 1, 0, du=0),
            Graded(name="b", shape=(1,), bias_mant=no_bias((1,)), shift=23),
        ),
        projections=tuple(
            link(Dense, "in", post, weight=np.full((1, shape[0]), 127), weight_exp=7)
            for post in ("a", "b")
        ),
    )
    for any_steps in (False, True):
        claims = prove(network, any_steps=any_steps)
        assert {c.name for c in claims.open} == {"a", "b"}
    assert bounds(network).arriving["a"] == 127 * 128 * (2**23 - 1) * 2**12


def test_a_refusal_names_the_populations() -> None:
    error = NotProven("m.stf", prove(summing_to(40000)))
    assert str(error).startswith(
        "m.stf: not proven free of overflow: a: sum up to 40,000 of 32,767. Compile with "
    )
    assert error.exit_code == 1


def test_the_packaged_model_is_proven() -> None:
    network = storage.load()
    claims = prove(network)
    assert claims.proven
    assert len(claims.populations) == len(network.populations) - len(network.inputs)


def test_the_documented_code_runs() -> None:
    text = (Path(__file__).parent.parent / "docs" / "proof.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    exec(compile(block, "docs/proof.md", "exec"), {})


# --- any number of steps -----------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from([4095, 4094, 3000, 1000, 300]),
    st.sampled_from([4095, 2048, 1229, 300, 100]),
    st.integers(1, 131071),
    st.integers(-3000, 3000),
    st.integers(0, 400),
    st.integers(0, 400),
)
def test_the_limit_is_where_steps_lead(
    du: int, dv: int, vth: int, bias: int, low: int, high: int
) -> None:
    n = Neuron(du=du, dv=dv, top=vth << fx.SHIFT, bias=np.array([bias]))
    a = Interval(np.array([-low]), np.array([high]))
    limits, reached = ever(n, a), within(n, a, 400000 // min(du, dv))
    for limit, x in zip(limits, reached, strict=True):
        assert limit.ends[0] == x.ends[0]
        # A membrane that fires need not have met its threshold itself, which the limit takes.
        assert x.ends[1] <= limit.ends[1]
        assert x.ends[1] > n.top or limit.ends[1] == x.ends[1]


def test_observed_values_are_those_before_wrap_and_clip() -> None:
    network = summing_to(2**20)
    frames = np.full((1, 4, 1), 2**20)
    seen = observe(network, interpret.run(network, frames, probe=STATES))
    assert seen["a"]["u"] == (0, 2**26)
    network = summing_to(2**17 - 1, bias_mant=np.array([4095]), bias_exp=7)
    seen = observe(network, interpret.run(network, frames // 9, probe=STATES))
    bias = int(bias_of(network["a"])[0])  # type: ignore[arg-type]
    assert seen["a"]["v"] == (0, (2**20 // 9 << fx.SHIFT) + bias)
