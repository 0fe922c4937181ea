"""Are two runs the same, spike for spike? Compares traces; knows no simulator.

Two traces are equivalent when, for every population that both recorded, every spike or graded
value at every step, for every neuron and sample, is equal. No tolerance. What comparing nothing
would show is nothing, so it is a failure.

The first difference is the first in time order: the earliest sample, in it the smallest hardware
time (own time step + latency), in that the first population in the network's order, in that
the lowest neuron index. A spike arrives one hardware step after it was sent, so no difference
before the first can have caused it: the population it names is the one that is wrong, unless a
source of it was not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stformer.diagnose import classify, is_itself_wrong, side
from stformer.errors import InputError
from stformer.network import Input, IntArray, Lif, Network, Readout
from stformer.report import Difference, PopulationReport, Report
from stformer.trace import Inputs, Probe, Trace, check_inputs, cut, digest_inputs

Run: TypeAlias = Callable[[str, Network, Inputs, Probe], Trace]
Mask = npt.NDArray[np.bool_]


def verify(
    network: Network,
    inputs: Inputs,
    backends: Iterable[str],
    *,
    run: Run,
    against: str = "reference",
    states: bool = False,
    samples: Mapping[str, int] | None = None,
    seen: Callable[[Report, Trace, Trace], None] = lambda *_: None,
) -> list[Report]:
    """Run backends on the same inputs and compare each with one of them.

    Args:
        network: what runs.
        inputs: see `stformer.trace.check_inputs`.
        backends: names; `against` among them is compared with a second run of itself.
        run: (name, network, inputs, probe) -> trace; `stformer.deploy.run` with a positional
            probe.
        against: the backend that is taken to be right.
        states: compare u and v too.
        samples: backend -> how many of the first samples it runs, where it is not all.
        seen: gets each report and its two traces, which are let go afterwards.

    Returns:
        A report for each backend, in their order.
    """
    probe = Probe(states=states)
    frames = check_inputs(network, inputs)
    count = len(next(iter(frames.values()))) if frames else 1
    limits = {name: min((samples or {}).get(name, count), count) for name in backends}
    if not limits:
        raise InputError("backends", "none", "one or more names")
    most = max(limits.values())
    reference = run(against, network, _head(frames, most), probe)
    reports = []
    for name, limit in limits.items():
        other = run(name, network, _head(frames, limit), probe)
        expected = first_samples(reference, _head(frames, limit)) if limit < most else reference
        reports.append(compare(expected, other, network, states=states))
        seen(reports[-1], expected, other)
    return reports


def _head(
    frames: Mapping[str, npt.NDArray[np.int32]], count: int
) -> dict[str, npt.NDArray[np.int32]]:
    return {name: a[:count] for name, a in frames.items()}


def first_samples(trace: Trace, inputs: Mapping[str, npt.NDArray[np.int32]]) -> Trace:
    """The trace of a run with only the first samples, those of `inputs`."""
    count = len(next(iter(inputs.values())))
    return replace(cut(trace, 0, count), inputs=digest_inputs(inputs))


def compare(
    reference: Trace,
    other: Trace,
    network: Network | None = None,
    *,
    states: bool = False,
    explain: bool = True,
) -> Report:
    """Compare two traces of one network and one set of inputs.

    Args:
        reference: the trace that is taken to be right.
        other: the trace in question.
        network: what ran; without it, a difference is located but not explained, and every
            latency counts as 0.
        states: compare u and v too, for populations whose states both recorded.
        explain: find the first difference and its cause; without, differences are counted.

    Raises:
        InputError: traces of different networks, inputs or sizes, or not of `network`.
    """
    _check_pair(reference, other, network)
    order = [p.name for p in network.populations] if network else list(reference.populations)
    both = [n for n in order if n in reference.spikes and n in other.spikes]
    latencies = {n: network[n].latency if network else 0 for n in both}
    populations: list[PopulationReport] = []
    masks: dict[str, Mask] = {}
    for name in both:
        found, masks[name] = _compare_population(reference, other, network, name, states, explain)
        computed = found.computed and (network is not None or not _is_input(reference, name))
        populations.append(replace(found, computed=computed))
    return Report(
        network=reference.network,
        network_name=network.name if network else "",
        inputs=reference.inputs,
        reference=reference.backend,
        other=other.backend,
        samples=reference.samples,
        steps=reference.steps,
        states=states,
        populations=tuple(populations),
        not_compared=tuple(n for n in _all_names(reference, other) if n not in both),
        first=_first_difference(reference, other, network, masks, latencies, states)
        if explain
        else None,
        notes=(*reference.notes, *other.notes),
    )


def _is_input(trace: Trace, name: str) -> bool:
    """Whether a population is all that the run was given, which its digest tells."""
    first = next(iter(trace.spikes)) == name  # inputs come first; the others need no digest
    return first and digest_inputs({name: trace.spikes[name]}) == trace.inputs


def _all_names(reference: Trace, other: Trace) -> list[str]:
    return list(dict.fromkeys((*reference.populations, *other.populations)))


def _check_pair(reference: Trace, other: Trace, network: Network | None) -> None:
    pair = f"traces of {reference.backend} and {other.backend}"
    for what, a, b in (
        ("network", reference.network, other.network),
        ("inputs", reference.inputs, other.inputs),
    ):
        if a != b:
            raise InputError(
                pair,
                f"different {what} ({a[:12]} and {b[:12]})",
                "runs of one network on the same inputs",
                f"run both again with the same {'model' if what == 'network' else 'data'}",
            )
    if network and network.digest() != reference.network:
        raise InputError(
            pair,
            f"network {reference.network[:12]}",
            f"traces of network {network.name}, {network.digest()[:12]}",
            "give the model that the traces were recorded with",
        )
    for trace in (reference, other):
        for kind in ("spikes", "u", "v"):
            _check_arrays(trace, kind, network)


def _check_arrays(trace: Trace, kind: str, network: Network | None) -> None:
    """Backends and files can give anything: all are integers [samples, steps, *shape]."""
    arrays: Mapping[str, IntArray] = getattr(trace, kind)
    first = next(iter(trace.spikes.values()), None)
    for name, array in arrays.items():
        where = f"trace of {trace.backend}, {kind} of population {name}"
        if array.dtype.kind not in "biu":
            raise InputError(where, f"an array of type {array.dtype}", "integers")
        allowed = list(array.shape if first is None or array.ndim < 2 else first.shape[:2])
        if network:
            allowed[1:] = [network.steps, *network[name].shape]
        elif array.ndim >= 2:
            allowed += array.shape[2:]
        if array.ndim < 2 or allowed != list(array.shape):
            raise InputError(
                where,
                f"an array of shape {list(array.shape)}",
                f"{allowed}" if array.ndim >= 2 else "[samples, steps, ...]",
            )


def _differ(reference: Trace, other: Trace, name: str, kind: str) -> tuple[int, Mask]:
    """(number of differences, [S, T] where there are any) of one population's spikes, u or v."""
    a: IntArray = getattr(reference, kind)[name]
    b: IntArray = getattr(other, kind)[name]
    if a.shape != b.shape or a.ndim < 2:
        raise InputError(
            f"{kind} of population {name}",
            f"shapes {list(a.shape)} and {list(b.shape)}",
            "two of one shape [S, T, ...]",
        )
    different = a != b
    return int(np.count_nonzero(different)), different.any(axis=tuple(range(2, a.ndim)))


def _compare_population(
    reference: Trace,
    other: Trace,
    network: Network | None,
    name: str,
    states: bool,
    explain: bool,
) -> tuple[PopulationReport, Mask]:
    spikes = reference.spikes[name]
    differences, mask = _differ(reference, other, name, "spikes")
    state_differences: dict[str, int | None] = {"u": None, "v": None}
    for kind in state_differences if states else ():
        if name in getattr(reference, kind) and name in getattr(other, kind):
            state_differences[kind], more = _differ(reference, other, name, kind)
            mask = mask | more
    neurons = spikes[0, 0].size if spikes.size else int(np.prod(spikes.shape[2:]))
    count = int(np.count_nonzero(spikes))
    binary = spikes.dtype == np.uint8
    population = network[name] if network else None
    itself = (
        is_itself_wrong(network, name, other, np.flatnonzero(mask.any(axis=1)))
        if explain and network is not None and mask.any()
        else None
    )
    report = PopulationReport(
        name=name,
        kind=type(population).__name__ if population else "",
        shape=tuple(spikes.shape[2:]),
        latency=population.latency if population else None,
        computed=not isinstance(population, Input),
        stateful=isinstance(population, (Lif, Readout)) or population is None,
        neurons=neurons,
        entries=spikes.size,
        spikes=count,
        rate=count / spikes.size if binary and spikes.size else None,
        differences=differences,
        u_differences=state_differences["u"],
        v_differences=state_differences["v"],
        itself_wrong=itself,
    )
    return report, mask


def _first_difference(
    reference: Trace,
    other: Trace,
    network: Network | None,
    masks: Mapping[str, Mask],
    latencies: Mapping[str, int],
    states: bool,
) -> Difference | None:
    """The first in time order, see the head of this file."""
    keys = []
    for rank, (name, mask) in enumerate(masks.items()):
        samples = np.flatnonzero(mask.any(axis=1))
        if len(samples):
            sample = int(samples[0])
            step = int(np.flatnonzero(mask[sample])[0])
            keys.append((sample, step + latencies[name], rank, step, name))
    if not keys:
        return None
    sample, _, _, step, name = min(keys)
    neuron = min(
        int(np.flatnonzero(different)[0])
        for different in _differing_neurons(reference, other, name, sample, step, states)
        if different.any()
    )
    shape = reference.spikes[name].shape[2:]
    at = (sample, step, neuron)
    population = network[name] if network else None
    kind, detail = (
        classify(network, name, reference, other, at, np.flatnonzero(masks[name].any(axis=1)))
        if network
        else ("unknown", "the network was not given")
    )
    return Difference(
        population=name,
        sample=sample,
        step=step,
        neuron=neuron,
        coordinates=tuple(int(i) for i in np.unravel_index(neuron, shape)),
        vth=population.vth if isinstance(population, Lif) else None,
        reference=side(network, name, reference, at),
        other=side(network, name, other, at),
        kind=kind,
        detail=detail,
    )


def _differing_neurons(
    reference: Trace, other: Trace, name: str, sample: int, step: int, states: bool
) -> list[npt.NDArray[Any]]:
    """Flat masks over neurons: where spikes differ, and the states when they count."""
    kinds = ("spikes", "u", "v") if states else ("spikes",)
    pairs = [
        (getattr(reference, kind)[name][sample, step], getattr(other, kind)[name][sample, step])
        for kind in kinds
        if name in getattr(reference, kind) and name in getattr(other, kind)
    ]
    return [(a != b).ravel() for a, b in pairs]
