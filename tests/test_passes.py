"""Passes: latencies, relays, and that not a spike changes on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stformer import fixedpoint as fx
from stformer import interpret, passes, testing
from stformer.errors import InputError, Unsupported
from stformer.network import (
    Conv,
    Input,
    Network,
    OneToOne,
    Population,
    Projection,
    Relay,
)
from stformer.trace import Probe

STATES = Probe(states=True)
S = (1, 2, 2)


def chain(*projections: Projection, names: str = "abc", steps: int = 5) -> Network:
    populations: list[Population] = [Input(name="in", shape=S)]
    populations += [testing.lif(name, S, 1, dv=4095) for name in names]
    return Network(name="n", steps=steps, populations=tuple(populations), projections=projections)


def one(pre: str, post: str, delay: int = 0) -> OneToOne:
    return OneToOne(name=f"{pre}>{post}", pre=pre, post=post, weight=2, delay=delay)


def conv(pre: str, post: str, delay: int = 0) -> Conv:
    weight = np.array([[[[2]]]])
    return Conv(name=f"{pre}>{post}:c", pre=pre, post=post, weight=weight, delay=delay)


def latencies(network: Network) -> dict[str, int]:
    return {p.name: p.latency for p in network.populations}


def test_longest_path_decides() -> None:
    network = passes.assign_latency(
        chain(one("in", "a"), one("a", "b"), one("in", "c"), one("b", "c"))
    )
    assert latencies(network) == {"in": 0, "a": 1, "b": 2, "c": 3}
    assert network.depth == 3
    assert [network.axon_delay(p) for p in network.projections] == [0, 0, 2, 0]


def test_unconnected_populations_live_with_the_input() -> None:
    assert latencies(passes.assign_latency(chain())) == {"in": 0, "a": 0, "b": 0, "c": 0}


def test_a_delay_pays_for_nothing_outside_of_loops() -> None:
    network = passes.assign_latency(chain(one("in", "a", delay=3), names="a"))
    assert latencies(network) == {"in": 0, "a": 1}
    assert network.axon_delay(network.projections[0]) == 3


def test_loops_pay_with_their_delay() -> None:
    network = passes.assign_latency(
        chain(one("in", "a"), one("a", "b"), one("b", "a", delay=2), names="ab")
    )
    assert latencies(network) == {"in": 0, "a": 1, "b": 2}
    back = next(p for p in network.projections if p.name == "b>a")
    assert network.axon_delay(back) == 0
    short = chain(one("a", "b"), one("b", "a", delay=1), names="ab")
    with pytest.raises(InputError, match=r"network n: a loop with too little delay through b>a"):
        passes.assign_latency(short)


def test_assigning_twice_changes_nothing() -> None:
    for name in testing.SAMPLES:
        network = testing.sample_network(name)
        assert passes.assign_latency(network).digest() == network.digest(), name


def test_convolutions_wait_through_shared_relays() -> None:
    network = passes.schedule(
        chain(one("in", "a"), one("a", "b"), conv("in", "c"), one("b", "c"), names="abc")
    )
    assert [p.name for p in network.populations] == ["in", "in@0+1", "in@0+2", "a", "b", "c"]
    assert latencies(network) == {"in": 0, "in@0+1": 1, "in@0+2": 2, "a": 1, "b": 2, "c": 3}
    assert isinstance(network["in@0+1"], Relay)
    feeding = next(p for p in network.incoming("c") if isinstance(p, Conv))
    assert (feeding.pre, network.axon_delay(feeding)) == ("in@0+2", 0)
    two = passes.schedule(
        chain(
            one("in", "a"),
            one("a", "b"),
            conv("in", "c"),
            conv("in", "d"),
            one("b", "c"),
            one("b", "d"),
            names="abcd",
        )
    )
    assert sum(isinstance(p, Relay) for p in two.populations) == 2  # shared


def test_taps_become_a_shift_register() -> None:
    network = passes.schedule(chain(one("in", "a", delay=2), conv("in", "a", delay=1), names="a"))
    assert latencies(network) == {"in": 0, "in@1": 0, "in@2": 0, "a": 1}
    assert {p.name: (p.pre, p.delay) for p in network.projections} == {
        "in>in@1": ("in", 1),
        "in@1>in@2": ("in@1", 1),
        "in>a": ("in@2", 0),
        "in>a:c": ("in@1", 0),
    }
    assert all(network.axon_delay(p) == 0 for p in network.projections)


def test_a_delayed_tap_of_a_convolution_may_wait_too() -> None:
    network = passes.schedule(
        chain(one("in", "a"), one("a", "b"), conv("in", "b", delay=1), names="ab")
    )
    assert latencies(network) == {"in": 0, "in@1": 0, "in@1+1": 1, "a": 1, "b": 2}


def test_graded_inputs_cannot_wait() -> None:
    graded = Input(name="in", shape=S, high=7)
    network = chain(one("in", "a", delay=1), names="a")
    network = passes.replace_network(network, populations=(graded, *network.populations[1:]))
    with pytest.raises(Unsupported, match="graded 'in'"):
        passes.schedule(network)


def test_too_long_a_wait_is_refused_by_name() -> None:
    def wait(length: int) -> Network:
        names = [f"p{i}" for i in range(length)]
        populations = (Input(name="in", shape=S), *(testing.lif(n, S) for n in names))
        links = [one(a, b) for a, b in zip(["in", *names], names, strict=False)]
        return Network(
            name="n",
            steps=2,
            populations=populations,
            projections=(*links, replace(one("in", names[-1]), name="short")),
        )

    assert passes.schedule(wait(63)).depth == 63
    with pytest.raises(
        InputError, match=r"projection short: an axon delay of 63; allowed: 0...62"
    ):
        passes.schedule(wait(64))


def test_check_delays_wants_latencies() -> None:
    with pytest.raises(InputError, match=r"projection in>a: an axon delay of -1"):
        passes.check_delays(chain(one("in", "a"), names="a"))


def test_recurrent_projections_keep_their_delay() -> None:
    network = testing.recurrent_network()
    assert [p.delay for p in network.recurrent] == [1]
    assert not any(isinstance(p, Relay) for p in network.populations)


def test_source_is_kept() -> None:
    network = chain(one("in", "a", delay=1), names="a")
    network = passes.replace_network(network, source='{"a": 1}')
    assert passes.schedule(network).source == '{"a": 1}'


def check_postconditions(network: Network) -> None:
    recurrent = {p.name for p in network.recurrent}
    for p in network.projections:
        post = network[p.post]
        assert 0 <= network.axon_delay(p) <= fx.AXON_DELAY_RANGE[1]
        assert network[p.pre].latency + 1 - p.delay <= post.latency
        if p.name not in recurrent and not isinstance(post, Relay):
            assert p.delay <= 0
        if isinstance(p, Conv) and p.name not in recurrent:
            assert network.axon_delay(p) == 0
    for q in network.populations:
        if isinstance(q, Input):
            assert q.latency == 0
        if isinstance(q, Relay):
            (feed,) = network.incoming(q.name)
            assert network.axon_delay(feed) == 0


@pytest.mark.parametrize("name", testing.SAMPLES)
def test_postconditions_of_samples(name: str) -> None:
    check_postconditions(testing.sample_network(name))


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(testing.networks(schedule_=False), st.integers(0, 2**32 - 1))
def test_schedule_changes_no_spike(network: Network, seed: int) -> None:
    scheduled = passes.schedule(network)
    check_postconditions(scheduled)
    inputs = testing.inputs_for(network, 3, np.random.default_rng(seed))
    before = interpret.run(network, inputs, probe=STATES)
    probe = Probe(populations=before.populations, states=True)
    for stream in (False, True):
        after = interpret.run(scheduled, inputs, probe=probe, stream=stream)
        testing.assert_traces_equal(before, after, states=True)


# --- the helpers that other tests rest on ------------------------------------------------------


@pytest.mark.parametrize("name", testing.SAMPLES)
def test_samples_are_alive(name: str) -> None:
    """Every population of every sample both fires and rests, or nothing would be tested."""
    network = testing.sample_network(name)
    inputs = testing.inputs_for(network, 8, np.random.default_rng(0))
    for population, values in interpret.run(network, inputs).spikes.items():
        assert len(np.unique(values)) > 1, population


@pytest.mark.parametrize("name", testing.SAMPLES)
def test_mutants_first_differ_where_they_say(name: str) -> None:
    network = testing.sample_network(name)
    inputs = testing.inputs_for(network, 6, np.random.default_rng(0))
    expected = interpret.run(network, inputs, probe=STATES)
    kinds: set[str] = set()
    found = 0
    for what, first, mutant in testing.mutants(network):
        kinds.add(what.split(" of ")[0].split(" ")[-1])
        assert mutant.digest() != network.digest(), what
        trace = interpret.run(mutant, inputs, probe=STATES)
        wrong = [p for p in expected.populations if (trace[p] != expected[p]).any()]
        if wrong:
            found += 1
            assert wrong[0] in first, f"{what}: first wrong in {wrong[0]}, not {first}"
    assert found >= 2
    assert kinds >= {"weight", "delay", "dropped"}


def test_unknown_sample() -> None:
    with pytest.raises(InputError, match="'nobody'"):
        testing.sample_network("nobody")


def test_comparison_tells_the_first_difference() -> None:
    network = testing.sample_network("dense")
    inputs = testing.inputs_for(network, 3, np.random.default_rng(0))
    a = interpret.run(network, inputs, probe=STATES)
    spikes = {k: v.copy() for k, v in a.spikes.items()}
    for at in ((0, 3, 1), (2, 1, 4)):
        spikes["a"][at] ^= 1
    b = replace(a, spikes=spikes, backend="other")
    testing.assert_traces_equal(a, a, states=True)
    with pytest.raises(AssertionError, match=r"2 of 60 differ, first at sample 2, step 1.*\(4,\)"):
        testing.assert_traces_equal(a, b)
    with pytest.raises(AssertionError, match="populations"):
        testing.assert_traces_equal(a, replace(a, spikes={"in": a["in"]}))
    with pytest.raises(AssertionError, match="no states"):
        testing.assert_traces_equal(replace(a, u={}, v={}), replace(a, u={}, v={}), states=True)
    with pytest.raises(AssertionError, match="in one trace"):
        testing.assert_traces_equal(a, replace(a, v={}))
    with pytest.raises(AssertionError, match="nothing"):
        testing.assert_traces_equal(replace(a, spikes={}), replace(a, spikes={}))


def test_scheduling_again_changes_nothing_and_more_can_be_added() -> None:
    once = testing.sample_network("temporal")
    assert passes.schedule(once).digest() == once.digest()
    more = passes.replace_network(
        once,
        populations=(*once.populations, testing.lif("late", (3, 3, 3), 2)),
        projections=(
            *once.projections,
            OneToOne(name="a>late", pre="a", post="late", weight=2, delay=1),
            Conv(
                name="in>late",
                pre="in",
                post="late",
                weight=np.ones((3, 2, 1, 1), np.int8),
                delay=1,
            ),
        ),
    )
    again = passes.schedule(more)
    assert "in@1" in again
    assert "in@1#" in again
    assert "a@1" in again
    x = testing.inputs_for(once, 3, np.random.default_rng(0))
    before, after = interpret.run(once, x), interpret.run(again, x)
    for name in once.populations:
        np.testing.assert_array_equal(before[name.name], after[name.name])


def test_a_pass_that_breaks_its_promise_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    network = chain(one("in", "a"), one("a", "b"), conv("in", "b"), one("b", "c"))
    assert not passes.flushed(passes.assign_latency(network))

    def lazy(network: Network) -> Network:
        return network

    steps = (passes.STEPS[0], passes.Step(lazy, ensures=passes.flushed, requires=passes.timed))
    monkeypatch.setattr(passes, "STEPS", steps)
    with pytest.raises(AssertionError, match="lazy broke its promise"):
        passes.schedule(network)
    monkeypatch.setattr(passes, "STEPS", steps[1:])
    with pytest.raises(AssertionError, match="lazy was given what it cannot take"):
        passes.schedule(network)
