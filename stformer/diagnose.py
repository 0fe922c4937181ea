"""Why two traces differ: which population is wrong, and which rule or number would explain it.

A class is given when a population with exactly that fault, fed what the other run recorded for
its sources, does exactly what the other run recorded for it; what fits nothing is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.network import Input, IntArray, Lif, Network
from stformer.replay import (
    FAULTS,
    Replayed,
    arriving_parts,
    delayed,
    delays,
    integrate,
    total,
)
from stformer.report import Side
from stformer.trace import Trace

REPLAYED = 16  # samples that a diagnosis looks at; the first that differ
At = tuple[int, int, int]  # sample, step, flat neuron

_SAYS = {
    "threshold tie": "it fires where the membrane meets the threshold exactly",
    "wrap": "it does not wrap the current at 24 bits",
    "clip": "it does not clip the membrane at 24 bits",
    "decay rounding": "it rounds the membrane's decay down, not toward zero",
    "reset": "it starts a sample with the states that the last one left",
}


def side(network: Network | None, name: str, trace: Trace, at: At) -> Side:
    """What one run recorded at a place, and what the definition gets from its own sources."""
    sample, step, neuron = at

    def of(kind: Mapping[str, IntArray], t: int) -> int | None:
        if name not in kind:
            return None
        return int(kind[name][sample, t].flat[neuron]) if t >= 0 else 0

    again = _replay(network, name, trace, np.array([sample])) if network else None

    def replayed(array: npt.NDArray[np.int64] | None) -> int | None:
        return None if array is None else int(array[0, step].flat[neuron])

    return Side(
        value=int(trace.spikes[name][sample, step].flat[neuron]),
        u=of(trace.u, step),
        v=of(trace.v, step),
        u_before=of(trace.u, step - 1),
        v_before=of(trace.v, step - 1),
        arriving=replayed(again.arriving) if again else None,
        membrane=replayed(again.membrane) if again else None,
    )


def is_itself_wrong(
    network: Network, name: str, trace: Trace, samples: npt.NDArray[np.intp]
) -> bool | None:
    """Whether a population does what it should not, given the spikes that it was fed.

    Args:
        network: what the trace should be a trace of.
        name: the population.
        trace: its record, and its sources'.
        samples: where to look; the first `REPLAYED` of them count.

    Returns:
        False when it does exactly what the definition does with the same spikes (so it was
        fed wrong ones); None for inputs and where the trace lacks a source.
    """
    chosen = samples[:REPLAYED]
    again = _replay(network, name, trace, chosen)
    return None if again is None else not _is_record(again, name, trace, chosen)


def classify(
    network: Network,
    name: str,
    reference: Trace,
    other: Trace,
    at: At,
    samples: npt.NDArray[np.intp],
) -> tuple[str, str]:
    """(class, explanation) of a population's difference.

    Args:
        network: what ran.
        name: the population.
        reference: the trace that is right.
        other: the trace in question.
        at: the first difference.
        samples: all samples of the population that differ.
    """
    population = network[name]
    if isinstance(population, Input):
        return "unknown", "the two runs recorded different inputs"
    chosen = samples[:REPLAYED]
    itself = is_itself_wrong(network, name, other, chosen)
    if itself is None:
        return "unknown", f"{other.backend} did not record all sources of {name}"
    if not itself:
        return "fed different spikes", f"{name} does what it should with the spikes it was fed"
    for shift in (1, -1):
        if _is_shifted(reference.spikes[name], other.spikes[name], shift):
            late = "late" if shift > 0 else "early"
            return "delay offset", f"everything {name} sends is one step {late}"
    for kind, detail, again, where in _suspects(network, name, other, chosen):
        if _is_record(again, name, other, where):
            return kind, detail
    return _by_states(network, name, other, at)


def _suspects(
    network: Network, name: str, trace: Trace, chosen: npt.NDArray[np.intp]
) -> Iterator[tuple[str, str, Replayed, npt.NDArray[np.intp]]]:
    """(class, explanation, what the population would do, for which samples), one fault each."""
    population = network[name]
    for fault in FAULTS:
        # States that a sample leaves behind are those of the sample just before it.
        where = np.arange(chosen[-1] + 1)[:REPLAYED] if fault == "reset" else chosen
        parts = arriving_parts(network, name, trace, where)
        assert parts is not None
        shape = (len(where), trace.steps, *population.shape)
        a = total(network, name, parts, delays(network, name), shape)
        yield fault, _SAYS[fault], integrate(population, a, fault), where
    parts = arriving_parts(network, name, trace, chosen)
    assert parts is not None
    shape = (len(chosen), trace.steps, *population.shape)
    right = delays(network, name)
    for projection, delay in right.items():
        for wrong in (delay + 1, delay - 1):
            if wrong >= 0 or delay < 0:
                a = total(network, name, parts, {**right, projection: wrong}, shape)
                detail = f"projection {projection} has delay {wrong}, not {delay}"
                yield "delay offset", detail, integrate(population, a), chosen
    for projection in right:
        a = total(network, name, parts, {k: d for k, d in right.items() if k != projection}, shape)
        detail = f"projection {projection} is missing"
        yield "weight difference", detail, integrate(population, a), chosen


def _by_states(network: Network, name: str, trace: Trace, at: At) -> tuple[str, str]:
    """What u alone tells: with these spikes coming in, a wrong current means wrong synapses.

    The step at which a neuron's spike is wrong may be later than the one at which its current
    was, so all steps of the sample up to it count.
    """
    population = network[name]
    sample, step, _ = at
    if not isinstance(population, Lif) or name not in trace.u:
        return "unknown", f"{name} itself differs; record states to learn more"
    again = _replay(network, name, trace, np.array([sample]))
    assert again is not None
    assert again.u is not None
    off = trace.u[name][sample, : step + 1].astype(np.int64) - again.u[0, : step + 1]
    if not off.any():
        return "unknown", "its current is right: bias, decay, threshold or reset differ"
    wrong = np.argwhere(off)[0]
    units = int(off[tuple(wrong)]) / (1 << fx.SHIFT)
    place = ", ".join(map(str, wrong[1:]))
    return (
        "weight difference",
        f"the current of neuron [{place}] is off by {units:g} units of weight at step {wrong[0]}, "
        "with these spikes coming in",
    )


def _replay(
    network: Network, name: str, trace: Trace, samples: npt.NDArray[np.intp]
) -> Replayed | None:
    population = network[name]
    if isinstance(population, Input):
        return None
    parts = arriving_parts(network, name, trace, samples)
    if parts is None:
        return None
    shape = (len(samples), trace.steps, *population.shape)
    return integrate(population, total(network, name, parts, delays(network, name), shape))


def _is_record(again: Replayed, name: str, trace: Trace, samples: npt.NDArray[np.intp]) -> bool:
    """Whether a replay equals all that the trace recorded for a population."""
    if not np.array_equal(again.spikes, trace.spikes[name][samples]):
        return False
    pairs = ((again.u, trace.u), (again.v, trace.v))
    return all(
        np.array_equal(array, record[name][samples])
        for array, record in pairs
        if array is not None and name in record
    )


def _is_shifted(reference: IntArray, other: IntArray, shift: int) -> bool:
    """Whether `other` is `reference` one step late (1) or early (-1), and there is something."""
    if shift > 0:
        return bool(other[:, 1:].any()) and np.array_equal(delayed(reference, 1), other)
    return bool(other[:, :-1].any()) and np.array_equal(reference[:, 1:], other[:, :-1])
