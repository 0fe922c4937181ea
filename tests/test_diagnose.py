"""Replays are the definition, and a known fault gets its own class."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stformer.diagnose import classify, is_itself_wrong
from stformer.errors import InputError
from stformer.network import (
    Dense,
    Input,
    IntArray,
    Lif,
    Network,
    OneToOne,
    Readout,
    Relay,
    no_bias,
)
from stformer.passes import replace_network, schedule
from stformer.replay import integrate, replay
from stformer.rules import BROKEN
from stformer.testing import mutants, sample_network
from stformer.testing_traces import NETWORKS, changed, frames_for, posing, run, without
from stformer.trace import Trace
from stformer.verify import compare


@pytest.mark.parametrize("name", ["temporal", "attention"])
def test_dropped_projections_and_delays_are_classified(name: str) -> None:
    network = sample_network(name)
    inputs = frames_for(network, 4, seed=2)
    reference = run(network, inputs)
    seen = set()
    for what, _, mutant in mutants(network, seed=3):
        if not what.endswith("dropped") and not what.startswith("delay"):
            continue
        first = compare(reference, posing(run(mutant, inputs), reference), network).first
        if first is not None:
            seen.add(first.kind)
            assert first.kind in ("missing projection", "delay offset"), f"{what}: {first}"
    assert seen == {"missing projection", "delay offset"}


# --- replay -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("relays", [True, False])
def test_a_replay_is_the_recording(name: str, relays: bool) -> None:
    network = NETWORKS[name]()
    full = run(network, frames_for(network, 3, seed=4))
    lacking = [] if relays else [p.name for p in network.populations if isinstance(p, Relay)]
    trace = without(full, *lacking)
    for p in network.populations:
        if isinstance(p, Input):
            continue
        again = replay(network, p.name, trace)
        assert np.array_equal(again.spikes, full[p.name])
        for mine, record in ((again.u, full.u), (again.v, full.v)):
            assert (mine is None) == (p.name not in record)
            assert mine is None or np.array_equal(mine, record[p.name])


def test_replay_says_what_it_lacks(attention: tuple[Network, Trace]) -> None:
    network, trace = attention
    target = next(p for p in network.projections if isinstance(network[p.pre], Lif))
    with pytest.raises(InputError, match=f"no record of .*{target.pre}"):
        replay(network, target.post, without(trace, target.pre))
    with pytest.raises(InputError, match="an input"):
        replay(network, network.inputs[0].name, trace)
    assert is_itself_wrong(network, target.post, without(trace, target.pre), np.array([0])) is None


# --- classes --------------------------------------------------------------------------------


RULES = {
    (kind, detail): rules for kind, group in BROKEN.items() for detail, rules in group.items()
}


def _sensitive(kind: str) -> tuple[Network, IntArray]:
    """A network whose inputs make the rules of a class matter, and its inputs [S, T, n]."""
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 2, (12, 40, 12))
    weight, exp = rng.integers(-9, 10, (80, 12)).astype(np.int8), 0
    more: dict[str, Any] = {"vth": 7, "dv": 300, "du": 700}
    match kind:
        case "decay":  # one part in 4096 shows in large numbers
            weight, more, exp = weight + 2, {"vth": 1500, "dv": 100, "du": 400}, 4
        case "threshold tie":
            weight, more = np.full_like(weight, 2), {"vth": 12, "dv": 4095}
        case "wrap":
            weight, more, exp = np.full_like(weight, 127), {"vth": 100000, "dv": 4095}, 7
            weight[40:] = -128  # eight of them are 2^23 exactly
        case "clip":  # v falls over the edge, and from there climbs to another place
            weight, more, exp = np.full_like(weight, 127), {"vth": 131071, "dv": 0}, 6
            weight[:, :6] *= -1
            inputs[:, :4], inputs[:, 4:] = np.arange(12) < 6, np.arange(12) >= 6
        case "reset" | "bias":
            more = {"vth": 10, "dv": 100, "du": 2000}
    bias = np.full(80, 300) if kind == "bias" else no_bias((80,))
    populations = (
        Input(name="x", shape=(12,)),
        Lif(name="p", shape=(80,), bias_mant=bias, **more),
        Readout(name="out", shape=(80,), bias_mant=no_bias((80,))),
    )
    projections = (
        Dense(name="x>p", pre="x", post="p", weight=weight, weight_exp=exp),
        OneToOne(name="p>out", pre="p", post="out", weight=1),
    )
    network = Network(name="n", steps=40, populations=populations, projections=projections)
    return schedule(network), inputs


@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize(("kind", "detail"), RULES, ids=lambda x: x.replace(" ", "-"))
def test_a_broken_rule_is_recognised(kind: str, detail: str, states: bool) -> None:
    rules = RULES[kind, detail]
    network, inputs = _sensitive(kind)
    trace = run(network, inputs)
    p = network["p"]
    broken = integrate(p, replay(network, "p", trace).arriving, rules)
    other = replace(
        trace,
        backend="broken",
        spikes={**trace.spikes, "p": broken.spikes.astype(np.uint8)},
        u={} if broken.u is None else {**trace.u, "p": broken.u.astype(np.int32)},
        v={} if broken.v is None else {**trace.v, "p": broken.v.astype(np.int32)},
    )
    if not states:
        trace, other = replace(trace, u={}, v={}), replace(other, u={}, v={})
    first = compare(trace, other, network).first
    assert first is not None
    assert first.population == "p"
    assert (first.kind, detail in first.detail) == (kind, True), first.detail


def test_an_unbroken_rule_changes_nothing(attention: tuple[Network, Trace]) -> None:
    network, trace = attention
    for p in network.populations:
        if isinstance(p, Lif):
            again = integrate(p, replay(network, p.name, trace).arriving)
            assert np.array_equal(again.spikes, trace[p.name])


@pytest.mark.parametrize("shift", [1, -1])
def test_a_shifted_population_is_a_delay_offset(
    attention: tuple[Network, Trace], shift: int
) -> None:
    network, trace = attention
    name = next(p.name for p in network.populations if isinstance(p, Lif) and trace[p.name].any())
    moved = np.roll(trace[name], shift, axis=1)
    moved[:, 0 if shift > 0 else -1] = 0
    other = replace(trace, spikes={**trace.spikes, name: moved}, u={}, v={})
    first = compare(replace(trace, u={}, v={}), other, network).first
    assert first is not None
    assert (first.population, first.kind) == (name, "delay offset")
    assert ("late" if shift > 0 else "early") in first.detail


def test_a_weight_shows_in_the_current(attention: tuple[Network, Trace]) -> None:
    network, _ = attention
    inputs = frames_for(network, 3, seed=1)
    reference = run(network, inputs)
    seen = blind = 0
    for what, _, mutant in mutants(network):
        other = posing(run(mutant, inputs), reference)
        if not what.startswith("one weight") or compare(reference, other, network).equivalent:
            continue
        for states in (True, False):
            first = compare(reference, other, network, states=states).first
            assert first is not None, what
            if first.kind == "weight difference":  # a weight of 1 that becomes 0 is "missing"
                seen += 1
                old, new = map(int, re.findall(r" is (-?\d+), not (-?\d+)$", first.detail)[0])
                assert (old > new) == ("+1" in what), what
                assert first.reference.arriving == first.other.arriving
        bare, bare_other = (replace(trace, u={}, v={}) for trace in (reference, other))
        first = compare(bare, bare_other, network).first
        assert first is not None
        if first.kind == "weight difference":
            blind += 1  # from spikes alone
            assert re.search(r" is -?\d+, not -?\d+$", first.detail)
    assert seen
    assert blind


def test_every_weight_exponent_is_tried() -> None:
    network, inputs = _sensitive("any")
    reference = run(network, inputs)
    for exp in range(2, 8):  # with 1 it counts twice
        (synapse,) = network.incoming("p")
        wrong = tuple(
            replace(p, weight_exp=exp) if isinstance(p, Dense) else p for p in network.projections
        )
        other = posing(run(replace_network(network, projections=wrong), inputs), reference)
        first = compare(reference, other, network).first
        assert first is not None
        detail = f"projection {synapse.name} has weight exponent {exp}, not 0"
        assert (first.kind, detail in first.detail) == ("weight exponent", True), first.detail


def test_wrong_inputs_of_a_backend_are_not_its_neurons_fault(
    attention: tuple[Network, Trace],
) -> None:
    network, trace = attention
    name = network.inputs[0].name
    first = compare(
        trace, changed(trace, name, (0, 0, *(0 for _ in network[name].shape))), network
    ).first
    assert first is not None
    assert first.population == name
    assert "different inputs" in first.detail


def test_a_population_behind_a_wrong_one_was_fed_different_spikes(
    attention: tuple[Network, Trace],
) -> None:
    network, trace = attention
    projection = next(p for p in network.projections if p.pre == network.inputs[0].name)
    broken = changed_weight(network, projection.name)
    other = posing(run(broken, frames_for(network, 3, seed=1)), trace)
    downstream = [p for p in network.projections if p.pre == projection.post]
    fed = {p.post for p in downstream if not np.array_equal(trace[p.post], other[p.post])}
    assert fed
    for name in fed:
        wrong = np.argwhere((trace[name] != other[name]).reshape(*trace[name].shape[:2], -1))
        samples = np.unique(wrong[:, 0])
        sample, step, neuron = map(int, wrong[0])
        kind, _ = classify(network, name, trace, other, (sample, step, neuron), samples)
        assert kind == "fed different spikes"


def changed_weight(network: Network, name: str) -> Network:
    """The network with the weights of one projection negated."""

    def negated(p: Any) -> Any:
        return replace(p, weight=-p.weight) if p.name == name else p

    return replace_network(network, projections=tuple(map(negated, network.projections)))
