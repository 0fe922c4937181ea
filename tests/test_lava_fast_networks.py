"""Networks on Lava with our process models: what stock Lava lacks, and equality with stock."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from stformer import deploy, interpret, passes
from stformer.deploy.lava import LavaSim, LavaSimFast
from stformer.network import (
    Conv,
    Dense,
    Graded,
    Input,
    Lif,
    Network,
    OneToOne,
    Operand,
    Product,
    Projection,
    Relay,
    no_bias,
)
from stformer.samples import side_by_side
from stformer.testing import (
    SAMPLES,
    assert_traces_equal,
    inputs_for,
    lif,
    networks,
    recurrent_network,
    sample_network,
)
from stformer.trace import Probe, Trace

REASON = LavaSim().missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")


def agree(network: Network, samples: int = 4, seed: int = 0) -> Trace:
    """Run both with states and compare; returns the trace."""
    assert LavaSimFast().problems(network) == []
    inputs = inputs_for(network, samples, np.random.default_rng(seed))
    probe = Probe(states=True)
    wanted = interpret.run(network, inputs, probe=probe)
    got = LavaSimFast().run(network, inputs, probe=probe)
    assert got.backend == "lava-sim-fast"
    assert_traces_equal(wanted, got)
    return got


def test_every_sample_network_runs_and_so_does_recurrence() -> None:
    parts = [*map(sample_network, SAMPLES), recurrent_network()]
    kinds = {type(p) for n in parts for p in (*n.populations, *n.projections)}
    assert {Graded, Product, Operand, Conv} <= kinds
    assert any(p.delay < 0 for n in parts for p in n.projections)
    assert any(n.recurrent for n in parts)
    trace = agree(side_by_side(parts, steps=5))
    silent = [name for name in trace.populations if not trace[name].any()]
    assert len(silent) <= 2, silent


def test_loops_of_every_synapse_stay_within_a_sample() -> None:
    """Populations that fire all the time, fed back late: nothing may reach the next sample."""
    rng = np.random.default_rng(2)

    def weight(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
        return rng.integers(-60, 61, shape).astype(np.int8)

    shape = (2, 3, 3)
    always = Lif(name="always", shape=shape, vth=1, dv=0, bias_mant=np.full((1, 1, 1), 4000))
    graded = Graded(name="graded", shape=shape, bias_mant=np.full((1, 1, 1), 90))
    populations = (Input(name="x", shape=shape), always, lif("a", shape, 90), graded)
    populations += (lif("b", shape, 150), lif("c", (5,), 40))
    projections: list[Projection] = [
        Conv(name="in", pre="x", post="always", weight=weight(2, 2, 1, 1)),
        OneToOne(name="1", pre="always", post="a", weight=40),
        OneToOne(name="2", pre="a", post="graded", weight=3),
        Dense(name="3", pre="graded", post="b", weight=weight(18, 18)),
        Dense(name="4", pre="b", post="c", weight=weight(5, 18), weight_exp=2),
    ]
    for delay in (1, 3):  # itself a step later; around the loop with the least delay and more
        projections += [
            OneToOne(name=f"self{delay}", pre="a", post="a", weight=-20, delay=delay),
            Conv(name=f"k{delay}", pre="b", post="a", weight=weight(2, 2, 1, 1), delay=delay + 3),
            Dense(name=f"d{delay}", pre="c", post="a", weight=weight(18, 5), delay=delay + 4),
            OneToOne(name=f"g{delay}", pre="graded", post="a", weight=1, delay=delay + 1),
            Dense(name=f"c{delay}", pre="c", post="c", weight=weight(5, 5), delay=delay),
        ]
    network = Network(
        name="loops", steps=6, populations=populations, projections=tuple(projections)
    )
    network = passes.schedule(network)
    assert {network.axon_delay(p) for p in network.recurrent} >= {0, 2}
    trace = agree(network, samples=6)
    for name in ("a", "b", "c"):
        assert 0 < trace[name].mean() < 1, name


def test_delays_without_relays() -> None:
    """An unscheduled network: its delays are the axons' business, a convolution's wait too."""
    shape = (2, 3, 3)
    bias = np.full((1, 1, 1), 500)
    rng = np.random.default_rng(3)
    network = passes.assign_latency(
        Network(
            name="delays",
            steps=4,
            populations=(
                Input(name="x", shape=shape, low=-5, high=9),
                lif("a", shape, 20),
                Lif(name="b", shape=shape, vth=30, dv=100, bias_mant=bias),
                lif("c", shape, 60),
            ),
            projections=(
                OneToOne(name="1", pre="x", post="a", weight=9),
                OneToOne(name="2", pre="a", post="b", weight=30, delay=2),
                OneToOne(name="3", pre="b", post="c", weight=70, delay=-1),
                *(
                    Conv(
                        name=f"k{delay}",
                        pre="x",
                        post="c",
                        weight=rng.integers(-9, 9, (2, 2, 3, 3)),
                        padding=(1, 1),
                        delay=delay,
                    )
                    for delay in (-2, 0, 3)
                ),
            ),
        )
    )
    assert not any(isinstance(p, Relay) for p in network.populations)
    trace = agree(network, samples=5)
    assert all(trace[name].any() for name in "abc")


def test_convolutions_beyond_int8() -> None:
    shapes = [
        ((128, 3, 3), (128, 1, 1, 1), {"groups": 128}),
        ((1, 120, 4), (1, 1, 9, 1), {"padding": (4, 0)}),
        ((1, 200, 1), (1, 1, 3, 1), {"padding": (64, 0)}),
        ((1, 300, 1), (1, 1, 1, 1), {"stride": (128, 1)}),
        ((1, 300, 1), (1, 1, 3, 1), {"dilation": (64, 1)}),
    ]
    parts = []
    for shape, weight, options in shapes:
        conv = Conv(name="c", pre="x", post="a", weight=np.full(weight, 9, np.int8), **options)  # type: ignore[arg-type]
        size = interpret.conv_output(conv, *shape[1:])
        post = lif("a", (weight[0], *size), 5)
        parts.append(
            Network(
                name="n",
                steps=2,
                populations=(Input(name="x", shape=shape), post),
                projections=(conv,),
            )
        )
    network = passes.schedule(side_by_side(parts, steps=2))
    assert len(LavaSim().problems(network)) == len(parts)
    assert any(agree(network)[p.name].any() for p in network.populations[1:])


@settings(max_examples=2, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.lists(networks() | networks(schedule_=False), min_size=1, max_size=5),
    st.sampled_from([1, 2, 5]),
)
def test_networks_that_chance_draws(drawn: list[Network], steps: int) -> None:
    runnable = [n for n in drawn if not LavaSimFast().problems(n)]
    assume(runnable)
    agree(side_by_side(runnable, steps), samples=3, seed=steps)


def test_stock_and_fast_give_one_trace() -> None:
    network = side_by_side([sample_network(n) for n in ("conv", "attention", "temporal")], steps=3)
    assert any(isinstance(p, Conv) for p in network.projections)
    assert any(network.axon_delay(p) for p in network.projections)
    inputs = inputs_for(network, 2, np.random.default_rng(1))
    probe = Probe(states=True)
    stock, fast = (
        deploy.run(n, network, inputs, probe=probe) for n in ("lava-sim", "lava-sim-fast")
    )
    assert_traces_equal(stock, fast, states=True)


def test_problems_that_remain() -> None:
    def why(network: Network) -> dict[str, str]:
        return {p.where: p.why for p in LavaSimFast().problems(network)}

    stream = sample_network("stream")
    assert "lava-sim-fast" in LavaSim().problems(stream)[0].why
    assert why(stream) == {}
    late = tuple(replace(p, latency=p.latency and p.latency + 99) for p in stream.populations)
    assert all(
        "62" in text for text in why(passes.replace_network(stream, populations=late)).values()
    )
    huge = Network(
        name="huge",
        steps=2,
        populations=(
            Input(name="x", shape=(4,), high=2**23 - 1),
            Graded(name="g", shape=(1,), bias_mant=no_bias((1,))),
        ),
        projections=(Dense(name="w", pre="x", post="g", weight=np.full((1, 4), 64, np.int8)),),
    )
    assert "smaller weights" in why(passes.schedule(huge))["population g"]


@pytest.mark.slow
def test_the_page_shows_what_runs() -> None:
    page = (Path(__file__).parent.parent / "docs" / "lava.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    exec(compile(block, "docs/lava.md", "exec"), {})
