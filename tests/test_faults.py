"""Seeded faults: those that change a spike are detected, located, and given their class."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stformer.network import (
    Conv,
    Input,
    Lif,
    Network,
    OneToOne,
    Operand,
    Product,
    Readout,
    no_bias,
)
from stformer.passes import assign_latency, replace_network
from stformer.replay import integrate
from stformer.testing import SAMPLES, inputs_for, sample_network
from stformer.testing_faults import (
    Fault,
    broken_neuron,
    extreme_network,
    faults,
    judge,
    neuron,
)
from stformer.testing_traces import changed, frames_for, posing, run
from stformer.trace import Probe
from stformer.verify import compare

STATES = Probe(states=True)
BENCHMARK = Path(__file__).resolve().parent.parent / "benchmarks" / "mutants.py"


def of_each_kind(network: Network, start: int, every: int) -> list[Fault]:
    """Some of a network's faults, spread over all kinds of them."""
    return list(faults(network, seed=1))[start::every]


@pytest.mark.parametrize(("name", "every"), [("attention", 11), ("biased", 4), ("extreme", 6)])
def test_seeded_faults_are_detected_located_and_classified(name: str, every: int) -> None:
    network = extreme_network() if name == "extreme" else sample_network(name)
    inputs = inputs_for(network, 8, np.random.default_rng(1))
    reference = run(network, inputs)
    changing = right = named = 0
    chosen = of_each_kind(network, 1, every)
    assert len({f.kind for f in chosen}) > 5
    for fault in chosen:
        trace = fault.run(inputs, STATES)
        seen = judge(network, reference, trace)
        assert seen.found == seen.changes, fault.name
        if seen.changes:
            changing += 1
            assert (seen.where, seen.alone) == (fault.where, True), fault.name
            right += seen.kind == fault.kind
            named += fault.kind in seen.named
    assert changing >= 5
    assert right >= 0.8 * changing
    assert named >= 0.9 * changing


def test_every_class_is_seeded() -> None:
    seeded = {
        f.kind
        for network in (sample_network("relay"), sample_network("biased"), extreme_network())
        for f in faults(network)
    }
    assert seeded == {
        "bias",
        "clip",
        "decay",
        "decay rounding",
        "delay offset",
        "extra projection",
        "input order",
        "missing projection",
        "reset",
        "threshold",
        "threshold tie",
        "weight difference",
        "weight exponent",
        "wrap",
    }


@pytest.mark.parametrize("name", [n for n in SAMPLES if n not in ("stream", "product")])
def test_the_broken_neurons_are_right_where_no_rule_is_broken(name: str) -> None:
    """Else a fault would be two."""
    network = sample_network(name)
    inputs = inputs_for(network, 4, np.random.default_rng(0))
    reference = run(network, inputs)
    for p in network.populations:
        if isinstance(p, (Lif, Readout)):
            same = broken_neuron(network, p.name, neuron())(inputs, STATES)
            assert compare(reference, same, network, states=True).equivalent


def test_the_benchmark_counts_what_changes_a_spike() -> None:
    spec = importlib.util.spec_from_file_location("mutants_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = sample_network("dense")
    rows = list(module.measure(network, frames_for(network, 4, seed=1), 1))
    assert len({r["fault"] for r in rows}) == len(rows)
    assert all(r["detected"] for r in rows)
    *each, total = module.table(rows)
    assert [sum(line[i] for line in each) for i in range(2, 9)] == total[2:]
    assert total[2] == len(rows)
    assert total[3] == sum(r["changes"] > 0 for r in rows) > 5


# --- what has no population's rule to blame ---------------------------------------------------


def test_a_flipped_bit_is_unknown() -> None:
    """No mistake of a neuron makes one wrong spike in a population that is right else."""
    network = sample_network("conv")
    inputs = frames_for(network, 12, seed=3)
    trace = run(network, inputs)
    lif = next(p for p in network.populations if isinstance(p, Lif))
    unknown = 0
    places = np.argwhere(np.ones(lif.shape))
    for i in range(8):
        at = (1 + i, 2, *map(int, places[i % len(places)]))
        first = compare(trace, changed(trace, lif.name, at), network).first
        assert first is not None
        unknown += first.kind == "unknown"
    assert unknown == 8


def order_of(read: Any, backend: str = "other") -> tuple[str, str]:
    """Class of a trace whose input was read otherwise, and nothing behind it recorded."""
    network = sample_network("conv")
    name = network.inputs[0].name
    trace = run(network, frames_for(network, 5, seed=2))
    other = replace(trace, backend=backend, spikes={**trace.spikes, name: read(trace[name])})
    first = compare(trace, other, network).first
    assert first is not None
    assert first.population == name
    return first.kind, first.detail


def test_inputs_in_another_order() -> None:
    def late(x: Any) -> Any:
        moved = np.roll(x, 1, axis=1)
        moved[:, 0] = 0
        return moved

    assert order_of(lambda x: x[..., ::-1, ::-1])[0] == "input order"
    assert "channels" in order_of(lambda x: x[:, :, ::-1])[1]
    assert "steps" in order_of(lambda x: x[:, ::-1])[1]
    assert "samples" in order_of(lambda x: x[::-1])[1]
    assert order_of(late)[0] == "delay offset"
    assert order_of(lambda x: 1 - x) == ("unknown", "the two runs recorded different inputs")


def test_spikes_that_reach_the_next_sample() -> None:
    """A delayed tap that is not emptied: the same stream without walls between samples."""
    populations = (
        Input(name="in", shape=(6,)),
        Lif(name="a", shape=(6,), vth=3, dv=2048, bias_mant=no_bias((6,))),
    )
    projections = (
        OneToOne(name="now", pre="in", post="a", weight=2),
        OneToOne(name="then", pre="in", post="a", weight=2, delay=2),
    )
    network = assign_latency(
        Network(name="n", steps=4, populations=populations, projections=projections)
    )
    frames = np.random.default_rng(0).integers(0, 2, (6, 4, 6))
    trace = run(network, frames)
    stream = frames.reshape(24, 6)
    arriving = 2 * stream
    arriving[2:] += 2 * stream[:-2]
    wrong = integrate(network["a"], arriving.reshape(6, 4, 6))
    other = replace(trace, spikes={**trace.spikes, "a": wrong.spikes.astype(np.uint8)}, u={}, v={})
    first = compare(trace, other, network).first
    assert first is not None
    assert first.kind == "reset"
    assert "reach the next one through then" in first.detail


def test_all_weights_changed_show_in_the_sums() -> None:
    network = sample_network("attention")
    inputs = frames_for(network, 16, seed=2)
    reference = run(network, inputs)
    projection = next(p for p in network.projections if p.name == "x>q")
    assert isinstance(projection, Conv)
    weight = np.random.default_rng(0).integers(-9, 12, projection.weight.shape)
    others = tuple(p for p in network.projections if p is not projection)
    mutant = replace(network, projections=(*others, replace(projection, weight=weight)))
    first = compare(reference, posing(run(mutant, inputs), reference), network).first
    assert first is not None
    assert (first.population, first.kind) == ("q", "weight difference")
    assert "4 of its 4 channels" in first.detail


def test_operands_that_change_places() -> None:
    network = sample_network("product")
    inputs = frames_for(network, 3, seed=2)
    reference = run(network, inputs)
    product = next(p for p in network.populations if isinstance(p, Product))
    ports = {"left": "right", "right": "left"}
    swapped = tuple(
        replace(p, port=ports[p.port]) if isinstance(p, Operand) and p.post == product.name else p
        for p in network.projections
    )
    other = posing(run(replace(network, projections=swapped), inputs), reference)
    first = compare(reference, other, network).first
    assert first is not None
    assert (first.population, first.kind) == (product.name, "input order")


@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize(("field", "value"), [("dv", 1300), ("du", 2100)])
def test_a_decay_is_found_among_all(field: str, value: int, states: bool) -> None:
    network = extreme_network()
    inputs = inputs_for(network, 12, np.random.default_rng(3))
    reference = run(network, inputs, states=states)
    changed = tuple(
        (replace(p, dv=value) if field == "dv" else replace(p, du=value))
        if isinstance(p, Lif) and p.name == "decays"
        else p
        for p in network.populations
    )
    mutant = replace_network(network, populations=changed)
    other = posing(run(mutant, inputs, states=states), reference)
    first = compare(reference, other, network).first
    assert first is not None
    assert first.kind == "decay"
    found = re.findall(
        rf"its {field} is (\d+), not \d+(?:, or another of \d+...(\d+))?", first.detail
    )
    assert len(found) == 1
    low, high = found[0]
    assert int(low) <= value <= int(high or low)
    assert int(low) == value or not states


def test_what_is_carried_over_is_not_blamed_for_later_samples() -> None:
    """States left behind fit the first samples, where nothing differs, and explain nothing."""
    network = sample_network("dense")
    inputs = frames_for(network, 90, seed=3)
    trace = run(network, inputs, states=False)
    other = changed(trace, "a", (80, 2, 0))
    first = compare(trace, other, network).first
    assert first is not None
    assert "last one left" not in first.detail
    assert first.kind != "reset"


def test_states_alone_show_what_is_carried_over() -> None:
    """A neuron that never fires; what has no states to compare must not explain it."""
    network = sample_network("dense")
    inputs = frames_for(network, 4, seed=3)
    quiet = tuple(
        replace(p, vth=9000) if isinstance(p, Lif) and p.name == "b" else p
        for p in network.populations
    )
    network = replace_network(network, populations=quiet)
    reference = run(network, inputs)
    fault = next(
        f for f in faults(network) if f.name == "states of the last sample" and f.where == "b"
    )
    other = fault.run(inputs, STATES)
    assert compare(reference, other, network).equivalent
    first = compare(reference, other, network, states=True).first
    assert first is not None
    assert (first.population, first.kind) == ("b", "reset")
