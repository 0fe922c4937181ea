"""The verifier, tested by breaking networks and traces: what differs is found and named."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stformer import interpret
from stformer.errors import InputError
from stformer.network import Dense, Lif, Network
from stformer.passes import replace_network
from stformer.replay import replay
from stformer.report import Report
from stformer.testing import SAMPLES, mutants, recurrent_network, sample_network
from stformer.testing_traces import changed, frames_for, posing, run, without
from stformer.trace import Inputs, Probe, Trace, numbered
from stformer.verify import compare, verify

STATES = Probe(states=True)

# --- mutation -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("states", [False, True])
def test_every_mutant_that_changes_something_is_found_and_named(name: str, states: bool) -> None:
    network = sample_network(name)
    inputs = frames_for(network, 4, seed=2)
    reference = run(network, inputs)
    kinds = ("spikes", "u", "v") if states else ("spikes",)
    effective = 0
    for what, suspects, mutant in mutants(network, seed=3):
        other = posing(run(mutant, inputs), reference)
        counts = {
            kind: sum(
                int((a != getattr(other, kind)[n]).sum())
                for n, a in getattr(reference, kind).items()
            )
            for kind in kinds
        }
        report = compare(reference, other, network, states=states)
        assert report.differences == counts["spikes"], what
        assert report.state_differences == counts.get("u", 0) + counts.get("v", 0), what
        assert report.equivalent == (not any(counts.values())), what
        if report.first is None:
            continue
        effective += 1
        assert report.first.population in suspects, what
        assert report.first.kind != "fed different spikes", what
        faults = {p.name for p in report.populations if p.itself_wrong}
        assert report.first.population in faults, what
        assert faults <= set(suspects), what  # the others did right with wrong spikes
    assert effective


def test_mutants_with_recurrence_are_found() -> None:
    network = recurrent_network()
    inputs = frames_for(network, 4, seed=2)
    reference = run(network, inputs)
    found = 0
    loop = network.recurrent[0]
    assert isinstance(loop, Dense)
    for i in range(loop.weight.size):
        weight = loop.weight.copy()
        weight.flat[i] += 9
        wrong = replace(loop, weight=weight)
        projections = tuple(wrong if p.name == loop.name else p for p in network.projections)
        mutant = replace_network(network, projections=projections)
        report = compare(reference, posing(run(mutant, inputs), reference), network)
        if report.first is not None:
            found += 1
            assert (report.first.population, report.populations[-1].itself_wrong) == ("a", True)
    assert found


def test_mutants_of_all_sorts_changed_spikes() -> None:
    """The test above would pass if no mutant of some sort ever mattered."""
    sorts = {"one weight", "delay", "threshold", "one bias", "transposed", "dropped"}
    seen = set()
    for name in ("attention", "temporal", "biased", "conv", "dense"):
        network = sample_network(name)
        inputs = frames_for(network, 4, seed=2)
        reference = run(network, inputs)
        for what, _, mutant in mutants(network, seed=3):
            other = posing(run(mutant, inputs), reference)
            if compare(reference, other, network).differences:
                seen |= {sort for sort in sorts if sort in what}
    assert seen == sorts


# --- where the first difference is ----------------------------------------------------------


@settings(max_examples=60)
@given(data=st.data(), states=st.booleans())
def test_one_changed_value_is_found_where_it_is(data: st.DataObject, states: bool) -> None:
    network = sample_network("temporal")
    trace = run(network, frames_for(network, 3, seed=1))
    kind = data.draw(st.sampled_from(("spikes", "u", "v") if states else ("spikes",)))
    name = data.draw(st.sampled_from(sorted(getattr(trace, kind))))
    at = tuple(data.draw(st.integers(0, n - 1)) for n in getattr(trace, kind)[name].shape)
    other = changed(trace, name, at, kind)
    report = compare(trace, other, network, states=states)
    first = report.first
    assert not report.equivalent
    assert report.differences + report.state_differences == 1
    assert first is not None
    assert (first.population, first.sample, first.step) == (name, *at[:2])
    assert first.coordinates == at[2:]
    assert first.neuron == np.ravel_multi_index(at[2:], network[name].shape)
    field = "value" if kind == "spikes" else kind
    assert getattr(first.reference, field) == getattr(trace, kind)[name][at]
    assert getattr(first.other, field) == getattr(other, kind)[name][at]
    if kind != "spikes":
        assert compare(trace, other, network).equivalent  # states were not asked for


def test_first_is_first_in_hardware_time(attention: tuple[Network, Trace]) -> None:
    network, trace = attention
    shallow, deep = network.populations[1], network.populations[-1]
    gap = deep.latency - shallow.latency
    assert gap > 0
    assert network.steps > 1

    def first(*places: tuple[str, int, int], network: Network | None = network) -> Any:
        other = trace
        for name, sample, step in places:
            shape = trace[name].shape[2:]
            other = changed(other, name, (sample, step, *(0 for _ in shape)))
        found = compare(trace, other, network).first
        assert found is not None
        return found.population, found.sample, found.step

    # Step 0 of the deep one is later than step 1 of the shallow one if it is over one deeper.
    assert gap > 1
    assert first((deep.name, 0, 0), (shallow.name, 0, 1)) == (shallow.name, 0, 1)
    assert first((deep.name, 0, 0), (shallow.name, 0, 1), network=None) == (deep.name, 0, 0)
    # The lowest of several neurons.
    several = changed(changed(trace, deep.name, (0, 0, 1, 1, 1)), deep.name, (0, 0, 0, 1, 0))
    found = compare(trace, several, network).first
    assert found is not None
    assert found.coordinates == (0, 1, 0)
    # An earlier sample comes first, whatever its step.
    assert first((deep.name, 0, 1), (shallow.name, 1, 0)) == (deep.name, 0, 1)
    # The same time: the network's order.
    twins = [p for p in network.populations if p.latency == shallow.latency]
    if len(twins) > 1:
        assert first((twins[1].name, 2, 0), (twins[0].name, 2, 0))[0] == twins[0].name


def test_both_sides_are_told(attention: tuple[Network, Trace]) -> None:
    network, trace = attention
    p = next(q for q in network.populations if isinstance(q, Lif) and q.latency == 1)
    zeros = tuple(0 for _ in p.shape)
    first = compare(trace, changed(trace, p.name, (1, 0, *zeros)), network).first
    assert first is not None
    again = replay(network, p.name, trace)
    assert again.membrane is not None
    expected = int(again.arriving[1, 0].flat[0])
    assert (first.reference.arriving, first.other.arriving) == (expected, expected)
    assert first.reference.membrane == again.membrane[1, 0].flat[0]
    assert first.vth == p.vth
    assert (first.reference.u_before, first.reference.v_before) == (0, 0)
    # Where u and v change from one step to the next, so that before and after can be told apart.
    u, v = trace.u[p.name], trace.v[p.name]
    at = (
        np.argwhere((u[:, :-1] != u[:, 1:]) & (v[:, :-1] != v[:, 1:]))[0] + np.eye(5, dtype=int)[1]
    )
    sample, step, *place = map(int, at)
    later = compare(trace, changed(trace, p.name, (sample, step, *place)), network).first
    assert later is not None
    for side in (later.reference, later.other):
        assert (side.u, side.v) == (u[tuple(at)], v[tuple(at)])
        before = (sample, step - 1, *place)
        assert (side.u_before, side.v_before) == (u[before], v[before])
    bare = replace(trace, u={}, v={})
    blind = compare(bare, changed(bare, p.name, (1, 1, *zeros)), network).first
    assert blind is not None
    assert blind.reference.v is None
    assert blind.reference.v_before is None


# --- refusals and empty comparisons ---------------------------------------------------------


def test_traces_of_different_things_are_refused(attention: tuple[Network, Trace]) -> None:
    network, trace = attention
    with pytest.raises(InputError, match="different network"):
        compare(trace, replace(trace, network="0" * 64), network)
    with pytest.raises(InputError, match="different inputs"):
        compare(trace, replace(trace, inputs="0" * 64), network)
    with pytest.raises(InputError, match="Give the model"):
        compare(trace, trace, sample_network("dense"))
    name = trace.populations[-1]
    for count, network_ in ((1, network), (1, None)):
        short = replace(trace, spikes={**trace.spikes, name: trace[name][:count]})
        with pytest.raises(InputError, match=f"population {name}"):
            compare(trace, short, network_)
        flat = replace(trace, spikes={name: trace[name].ravel()}, u={}, v={})
        with pytest.raises(InputError, match=f"population {name}"):
            compare(flat, flat, network_)
    fewer = replace(trace, spikes={n: a[:2] for n, a in trace.spikes.items()}, u={}, v={})
    with pytest.raises(InputError, match="shape"):
        compare(trace, fewer, network)


def test_comparing_nothing_is_a_failure(attention: tuple[Network, Trace]) -> None:
    network, trace = attention
    names = trace.populations
    inputs = [p.name for p in network.inputs]
    nothing = without(trace, *names)
    only_inputs = without(trace, *(n for n in names if n not in inputs))
    half = without(trace, *names[: len(names) // 2]), without(trace, *names[len(names) // 2 :])
    for a, b in ((nothing, nothing), (trace, nothing), (only_inputs, trace), half):
        report = compare(a, b, network)
        assert not report.equivalent
        assert not report.proven
        assert report.verdict.startswith("NOTHING COMPARED")
    report = compare(trace, replace(trace, u={}, v={}), network, states=True)
    assert not report.equivalent
    assert "states were asked for" in report.verdict
    name = trace.populations[-1]
    changed = trace.spikes | {name: trace[name] ^ 1}
    report = compare(trace, replace(trace, spikes=changed, u={}, v={}), network, states=True)
    assert report.verdict.startswith("DIFFERENT") and "states were asked for" in report.verdict
    assert "0 of 0" not in report.verdict
    assert compare(trace, replace(trace, u={}, v={}), network).equivalent
    assert not compare(nothing, nothing).equivalent
    none = replace(trace, spikes={n: a[:0] for n, a in trace.spikes.items()}, u={}, v={})
    assert compare(none, none, network).verdict.startswith("NOTHING COMPARED")


@pytest.mark.parametrize("kind", ["spikes", "u", "v"])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64, object])
def test_what_is_not_integers_is_refused(
    attention: tuple[Network, Trace], kind: str, dtype: type[Any]
) -> None:
    """A NaN has no place in a report, and floats may round where integers differ."""
    network, trace = attention
    name, *_ = trace.u
    arrays = {n: a.astype(dtype) if n == name else a for n, a in getattr(trace, kind).items()}
    changes: dict[str, Any] = {kind: arrays}
    for network_ in (network, None):
        with pytest.raises(InputError, match=f"{kind} of population {name}: an array of type"):
            compare(trace, replace(trace, **changes), network_, states=True)


def test_what_one_side_lacks_is_told(attention: tuple[Network, Trace]) -> None:
    network, trace = attention
    name = trace.populations[2]
    report = compare(trace, without(trace, name), network)
    assert report.equivalent
    assert report.not_compared == (name,)
    assert name in report.to_text()
    assert report.compared == sum(a.size for n, a in trace.spikes.items() if n != name)
    stateless = next(n for n in trace.v)
    other = replace(trace, u={k: a for k, a in trace.u.items() if k != stateless})
    other = replace(other, v={k: a for k, a in trace.v.items() if k != stateless})
    text = f"states not compared, one side did not record them: {stateless}"
    currents = replace(trace, u={k: a for k, a in trace.u.items() if k != stateless})
    for lacking in (other, currents):
        report = compare(trace, lacking, network, states=True)
        assert report.equivalent
        assert text in report.to_text()


def test_silence_is_equal_but_no_proof() -> None:
    network = sample_network("dense")
    trace = run(network, frames_for(network, 2, seed=0))
    quiet = replace(trace, spikes={n: a * 0 for n, a in trace.spikes.items()}, u={}, v={})
    report = compare(quiet, quiet, network)
    assert (report.equivalent, report.silent, report.proven) == (True, True, False)
    assert report.verdict.startswith("SILENT")
    assert compare(trace, trace, network).proven


def test_counts_are_exact(attention: tuple[Network, Trace]) -> None:
    network, trace = attention
    report = compare(trace, trace, network, states=True)
    assert report.proven
    assert report.first is None
    assert report.compared == sum(a.size for a in trace.spikes.values())
    states = [*trace.u.values(), *trace.v.values()]
    assert report.states_compared == sum(a.size for a in states)
    for p in report.populations:
        assert p.entries == 3 * network.steps * p.neurons
        assert p.spikes == np.count_nonzero(trace[p.name])
        assert p.latency == network[p.name].latency
    assert [p.name for p in report.populations] == [p.name for p in network.populations]


# --- reports ----------------------------------------------------------------------------------


def test_a_report_is_json_and_text(attention: tuple[Network, Trace]) -> None:
    network, trace = attention
    name = trace.populations[1]
    at = (0, 0, *(0 for _ in network[name].shape))
    report = compare(trace, changed(trace, name, at), network, states=True)
    plain = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert plain["differences"] == 1
    assert plain["equivalent"] is False
    assert plain["first"]["population"] == name
    assert plain["first"]["reference"]["value"] + plain["first"]["other"]["value"] == 1
    text = report.to_text()
    assert text.startswith("DIFFERENT")
    assert f"population {name}, sample 0, step 0" in text
    assert all(p in text for p in trace.populations)


def test_equality_in_percent_and_notes(attention: tuple[Network, Trace]) -> None:
    network, trace = attention
    name = trace.populations[1]
    other = changed(trace, name, (0, 0, *(0 for _ in network[name].shape)))
    other = replace(other, info={"note 1": "first", **numbered(["first", "second"])})
    report = compare(trace, other, network)
    assert report.notes == other.notes == ("first", "second")
    assert 0 < report.equal_percent < 100
    assert replace(report.populations[1], entries=10**9, differences=1).equal_percent == 99.9999
    assert replace(report.populations[1], entries=10**9, differences=0).equal_percent == 100
    plain = report.to_json()
    assert plain["notes"] == ("first", "second")
    assert [p["equal_percent"] == 100 for p in plain["populations"]] == [
        p.name != name for p in report.populations
    ]
    text = report.to_text()
    assert "note: second" in text and "equal %" in text
    assert "equal" not in compare(trace, trace, network).to_text().split("\n", 1)[1]


# --- orchestration ------------------------------------------------------------------------------


def test_verify_runs_each_backend_on_its_samples() -> None:
    network = sample_network("conv")
    inputs = frames_for(network, 5, seed=0)
    calls: list[tuple[str, int]] = []

    def run_one(name: str, network: Network, inputs: Inputs, probe: Probe) -> Trace:
        assert isinstance(inputs, dict)
        calls.append((name, len(next(iter(inputs.values())))))
        trace = replace(interpret.run(network, inputs, probe=probe), backend=name)
        if name == "bad":
            last = trace.populations[-1]
            return changed(trace, last, (0, 0, *(0 for _ in network[last].shape)))
        return trace

    reports: list[Report] = verify(
        network,
        inputs,
        ["good", "bad", "few", "many"],
        run=run_one,
        states=True,
        samples={"few": 2, "many": 99},
    )
    assert calls == [("reference", 5), ("good", 5), ("bad", 5), ("few", 2), ("many", 5)]
    assert [r.proven for r in reports] == [True, False, True, True]
    assert [r.samples for r in reports] == [5, 5, 2, 5]
    assert all(r.states_compared for r in reports)
    calls.clear()
    verify(network, inputs, ["few"], run=run_one, against="good", samples={"few": 2})
    assert calls == [("good", 2), ("few", 2)]
    with pytest.raises(InputError, match="one or more"):
        verify(network, inputs, [], run=run_one)


def test_verify_knows_no_simulator() -> None:
    code = "import sys, stformer.verify\nassert not [m for m in sys.modules if 'deploy' in m]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
