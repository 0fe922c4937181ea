"""Why two traces differ: which population is wrong, and which rule or number would explain it.

A class is given when a population with exactly that fault, fed what the other run recorded for
its sources, does exactly what the other run recorded for it; what fits nothing is unknown.
Where several mistakes fit, the simplest gives the class and the others are told beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.decays import other_decays
from stformer.linear import weights_explain
from stformer.network import Input, IntArray, Lif, Network
from stformer.orders import orders
from stformer.replay import Replayed, arriving_parts, delayed, delays, integrate, total
from stformer.report import Side
from stformer.single import shared_numbers, single_weights
from stformer.suspects import CARRIED, affordable, case_of, fits, is_record, suspects
from stformer.trace import Trace

REPLAYED = 16  # differing samples that a diagnosis looks at, the first ones
BESIDE = 8  # and samples that do not differ, which a suspect must not change
TOLD = 3  # other explanations that are told

At = tuple[int, int, int]  # sample, step, flat neuron


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
    chosen = samples[: min(REPLAYED, affordable(network, name))]
    again = _replay(network, name, trace, chosen)
    return None if again is None else not is_record(again, name, trace, chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A mistake that would do all that was recorded.

    Attributes:
        kind: its class.
        detail: what the mistake is.
    """

    kind: str
    detail: str


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
    if isinstance(network[name], Input):
        found = [Explanation(kind=k, detail=d) for k, d in _inputs(name, reference, other)]
        return _told(found) if found else ("unknown", "the two runs recorded different inputs")
    itself = is_itself_wrong(network, name, other, samples)
    if itself is None:
        return "unknown", f"{other.backend} did not record all sources of {name}"
    if not itself:
        return "fed different spikes", f"{name} does what it should with the spikes it was fed"
    found = explain(network, name, other, samples)
    return _told(found) if found else ("unknown", _by_states(network, name, other, at))


def looked_at(network: Network, name: str, sample: int) -> tuple[int, int]:
    """(start, stop) of the samples around the first that differs which tell `classify` most.

    Args:
        network, name: as there.
        sample: the first that differs; `stop` may lie beyond the last that there is.
    """
    most = 2 * affordable(network, name)
    carried = sample < min(CARRIED, most)  # what is carried over is followed from the start
    start = 0 if carried else max(sample - min(BESIDE, most), 0)
    return start, sample + min(REPLAYED, most)


def explain(
    network: Network, name: str, other: Trace, samples: npt.NDArray[np.intp]
) -> list[Explanation]:
    """All mistakes of a population that would do what a trace recorded, the simplest first.

    Any decay, then weights of matrices and kernels, are looked at where nothing simpler fits.

    Args:
        network: what ran.
        name: a population that computes, which is itself wrong in the trace.
        other: the trace, with the population's sources.
        samples: those where it is wrong; the first `REPLAYED` and some others are replayed.
    """
    case = case_of(network, name, other, _chosen(network, name, other, samples))
    assert case is not None
    found = [
        Explanation(kind=s.kind, detail=s.detail) for s in suspects(case) if fits(s, name, other)
    ]
    found += [Explanation(kind=kind, detail=detail) for kind, detail in shared_numbers(case)]
    for numbers in (other_decays, single_weights):
        if not found:
            found = [Explanation(kind=kind, detail=detail) for kind, detail in numbers(case)]
    if not found and (detail := weights_explain(case)):
        found = [Explanation(kind="weight difference", detail=detail)]
    return found


def _told(found: list[Explanation]) -> tuple[str, str]:
    first, *others = found
    if not others:
        return first.kind, first.detail
    words = "; ".join(e.detail for e in others[:TOLD])
    more = f"; {len(others) - TOLD} more" if len(others) > TOLD else ""
    return first.kind, f"{first.detail} (these would do the same: {words}{more})"


def _chosen(
    network: Network, name: str, trace: Trace, samples: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Samples to replay, in order: those that differ, and some that must stay as they are."""
    most = affordable(network, name)
    some = samples[: min(REPLAYED, most)]
    rest = np.setdiff1d(np.arange(trace.samples), samples)[: min(BESIDE, most - len(some))]
    return np.sort(np.concatenate([some, rest]))


def _inputs(name: str, reference: Trace, other: Trace) -> list[tuple[str, str]]:
    """What one run's inputs are of the other's: the same in another order of axes or steps."""
    right, wrong = reference.spikes[name], other.spikes[name]
    found = [
        ("input order", f"{name} is read {detail}")
        for detail, read in orders(right.shape[2:])
        if np.array_equal(read(right), wrong)
    ]
    if np.array_equal(right[:, ::-1], wrong):
        found.append(("input order", f"the steps of {name} come in reverse"))
    if sorted(map(_bytes, right)) == sorted(map(_bytes, wrong)):
        found.append(("input order", "the samples are the same, in another order"))
    for shift, word in ((1, "late"), (-1, "early")):
        steps = right.shape[1] + min(shift, 0)
        moved = delayed(right, shift)[:, :steps]
        if moved.any() and np.array_equal(moved, wrong[:, :steps]):
            found.append(("delay offset", f"everything {name} sends is one step {word}"))
    return found


def _bytes(sample: IntArray) -> bytes:
    return np.ascontiguousarray(sample).tobytes()


def _by_states(network: Network, name: str, trace: Trace, at: At) -> str:
    """What is known where no mistake fits: where the current is not what its inputs make it.

    The step at which a neuron's spike is wrong may be later than the one at which its current
    was, so all steps of the sample up to it count.
    """
    population = network[name]
    sample, step, _ = at
    if not isinstance(population, Lif) or name not in trace.u:
        return f"{name} itself differs; record states to learn more"
    again = _replay(network, name, trace, np.array([sample]))
    assert again is not None
    assert again.u is not None
    off = trace.u[name][sample, : step + 1].astype(np.int64) - again.u[0, : step + 1]
    if not off.any():
        return "its current is right: its bias, decay, threshold or reset differ"
    wrong = np.argwhere(off)[0]
    units = int(off[tuple(wrong)]) / (1 << fx.SHIFT)
    place = ", ".join(map(str, wrong[1:]))
    return (
        f"the current of neuron [{place}] is off by {units:g} units of weight at step {wrong[0]}, "
        "with these spikes coming in"
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
