"""The smallest piece of a difference that still differs, saved as a case that anybody can run.

A piece is one population with the inputs that were recorded for it, one sample, and the steps up
to the difference. Where that does not show it (states carried over from a sample before, say), the
piece grows until it does. The first difference is one that no other can have caused, so what fed
the population was right on both sides.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stformer import storage
from stformer.diagnose import explain
from stformer.errors import InputError, StformerError
from stformer.files import atomic_folder
from stformer.network import Input, IntArray, Network, is_graded
from stformer.passes import assign_latency
from stformer.replay import needed, sent
from stformer.report import Difference, Report
from stformer.trace import Part, Probe, Trace, check_inputs, cut, digest_inputs
from stformer.verify import compare

Frames: TypeAlias = Mapping[str, npt.NDArray[np.int32]]
RunBoth: TypeAlias = Callable[[Network, Frames, Probe], tuple[Trace, Trace]]

MARK = "case.json"  # shows that a folder is one of ours
MOST_BEFORE = 16  # samples before the one that differs that a piece may hold


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """A part of a comparison that differs as the whole does.

    Attributes:
        network: the population with inputs in its sources' place, or the whole network.
        inputs: what feeds it, [S, T, *shape] each.
        reference, other: what both sides did; of runs, or cut out of the whole's traces.
        report: their comparison.
        samples: which of the whole's samples these are.
        repeats: two runs of the piece differ so; False where only the records do.
    """

    network: Network
    inputs: Frames
    reference: Trace
    other: Trace
    report: Report
    samples: tuple[int, ...]
    repeats: bool


def minimise(
    network: Network,
    reference: Trace,
    other: Trace,
    *,
    states: bool = False,
    run: RunBoth | None = None,
) -> Piece:
    """The smallest piece of two traces that shows their first difference.

    Args:
        network: what ran.
        reference, other: its traces, which differ.
        states: whether u and v count.
        run: runs both sides on a network and inputs; without it the records are cut.

    Returns:
        The smallest piece whose runs differ at the same place in the same way. Without `run`, or
        where no runs do, the smallest piece of the records which the class of the difference
        still fits, if there is one, and else just the smallest.

    Raises:
        InputError: the traces do not differ, or do not tell what fed the population.
    """
    first = compare(reference, other, network, states=states).first
    if first is None:
        raise InputError("the traces", "no difference", "two that differ")
    right, wrong = partial(cut, reference), partial(cut, other)
    return smallest(network, right, wrong, first, states=states, run=run)


def smallest(
    network: Network,
    reference: Part,
    other: Part,
    first: Difference,
    *,
    states: bool = False,
    run: RunBoth | None = None,
) -> Piece:
    """`minimise` of traces whose first difference is known: its sample and few before are read.

    Args:
        network, states, run: as there.
        reference, other: read samples of the two traces; a `TraceReader.part`, say.
        first: of their comparison.
    """

    def pieces() -> Iterator[Piece]:
        return _pieces(network, reference, other, first, states)

    for piece in pieces() if run else ():
        assert run is not None
        try:
            ours, theirs = run(piece.network, piece.inputs, Probe(states=states))
        except StformerError:  # a backend that cannot run this piece may run a larger one
            continue
        again = compare(ours, theirs, piece.network, states=states)
        if _same(again, first, piece.samples):
            return replace(piece, reference=ours, other=theirs, report=again, repeats=True)
    least = next(pieces(), None)
    if least is None:
        raise InputError(
            f"population {first.population}",
            "no record of what fed it, nor of the network's inputs",
            "traces of all populations",
        )
    # Other populations' records explain no more than those of this one and its sources.
    whole = least.network is network
    alike = takewhile(lambda piece: (piece.network is network) == whole, pieces())
    return next((piece for piece in alike if _explains(piece, first)), least)


def _pieces(
    network: Network, reference: Part, other: Part, first: Difference, states: bool
) -> Iterator[Piece]:
    """From the smallest to the whole; only those whose records show the difference."""
    name = first.population
    names = needed(network, name)
    ahead = any(p.delay < 0 for p in network.incoming(name))
    until = network.steps if ahead else first.step + 1
    before = range(max(0, first.sample - MOST_BEFORE), first.sample)
    choices: list[tuple[int, ...]] = [(first.sample,)]
    if before:
        choices += [(first.sample - 1, first.sample), (*before, first.sample)]
    plans = [(True, choices[0], until), *((True, chosen, network.steps) for chosen in choices)]
    plans += [(False, chosen, network.steps) for chosen in choices]
    for alone, chosen, steps in dict.fromkeys(plans):
        span = chosen[0], chosen[-1] + 1, names if alone else None
        ours, theirs = (trace(*span) for trace in (reference, other))
        part = _alone(network, ours, name, steps) if alone else network
        if part is None:
            continue
        records = [_cut(network, trace, part, steps) for trace in (ours, theirs)]
        if any(p.name not in records[0].spikes for p in part.inputs):
            continue
        fed = {p.name: records[0].spikes[p.name] for p in part.inputs}
        inputs = check_inputs(part, fed)
        ours, theirs = (replace(r, inputs=digest_inputs(inputs)) for r in records)
        report = compare(ours, theirs, part, states=states)
        if _same(report, first, chosen):
            yield Piece(
                network=part,
                inputs=inputs,
                reference=ours,
                other=theirs,
                report=report,
                samples=chosen,
                repeats=False,
            )


def _alone(network: Network, trace: Trace, name: str, steps: int) -> Network | None:
    """A population with inputs in its sources' place; None without sources or a record of them."""
    if all(p.pre == name for p in network.incoming(name)):
        return None
    inputs = []
    incoming = network.incoming(name)
    for source in dict.fromkeys(p.pre for p in incoming if p.pre != name):
        population = network[source]
        record = sent(network, trace, source)
        if record is None:
            return None
        low, high = 0, 1
        if isinstance(population, Input):
            low, high = population.low, population.high
        elif is_graded(population):
            part = record[:, :steps]
            low, high = min(int(part.min()), 0), max(int(part.max()), 2)  # not (0, 1): no spikes
        inputs.append(Input(name=source, shape=population.shape, low=low, high=high))
    alone = Network(
        name=f"{network.name[:150]}.case",
        steps=steps,
        populations=(*inputs, replace(network[name], latency=0)),
        projections=incoming,
    )
    return assign_latency(alone)


def _cut(whole: Network, trace: Trace, part: Network, steps: int) -> Trace:
    """What a trace of the whole tells of a part."""

    def some(arrays: Mapping[str, IntArray]) -> dict[str, IntArray]:
        return {p.name: arrays[p.name][:, :steps] for p in part.populations if p.name in arrays}

    spikes = dict(trace.spikes)
    for p in part.inputs:
        record = sent(whole, trace, p.name)
        if record is not None:
            spikes[p.name] = record.astype(np.int32 if is_graded(p) else np.uint8)
    computed = {p.name for p in part.populations if not isinstance(p, Input)}
    u = {k: a for k, a in trace.u.items() if k in computed}
    v = {k: a for k, a in trace.v.items() if k in computed}
    spikes, u, v = map(some, (spikes, u, v))
    return replace(trace, network=part.digest(), spikes=spikes, u=u, v=v, info={})


def _same(report: Report, first: Difference, samples: Sequence[int]) -> bool:
    """Whether a piece's first difference is the whole's."""
    found = report.first
    return found is not None and (
        (found.population, samples[found.sample], found.step, found.neuron)
        == (first.population, first.sample, first.step, first.neuron)
        and (found.reference.value, found.other.value)
        == (first.reference.value, first.other.value)
    )


def _explains(piece: Piece, first: Difference) -> bool:
    """Whether the whole's class still fits; no sample is known to be right but those here.

    The last one is the first that differs.
    """
    if isinstance(piece.network[first.population], Input) or first.kind == "unknown":
        return True
    assert piece.report.first is not None
    wrong = np.array([piece.other.samples - 1])
    found = explain(piece.network, first.population, piece.other, wrong)
    return first.kind in {e.kind for e in found}


def save_case(path: str | Path, piece: Piece, whole: Report, command: str | None) -> None:
    """Write a piece as a folder, whole or not at all.

    Args:
        path: the folder; one that holds a case already is replaced.
        piece: what differs.
        whole: the comparison that it is a piece of, for the class of its first difference.
        command: what repeats the runs, from inside the folder; None where only the records
            differ.

    Raises:
        InputError: the place cannot be written, or holds other things.
    """
    records = "stformer verify network.stf --traces reference.trace other.trace"
    records += " --state" if piece.report.states else ""
    with atomic_folder(path, MARK) as folder:
        storage.save(folder / "network.stf", piece.network)
        _save_inputs(folder / "inputs.npz", piece)
        piece.reference.save(folder / "reference.trace")
        piece.other.save(folder / "other.trace")
        plain: dict[str, Any] = {
            "samples": list(piece.samples),
            "repeats": piece.repeats,
            "commands": [c for c in (command if piece.repeats else None, records) if c],
            "report": piece.report.to_json(),
            "whole": whole.to_json(),
        }
        text = json.dumps(plain, indent=2, default=lambda value: value.item())
        (folder / MARK).write_text(text + "\n", "utf-8")
        (folder / "README.md").write_text(_readme(piece, whole, plain["commands"]), "utf-8")


def _save_inputs(path: Path, piece: Piece) -> None:
    """As `--data` takes them: one array as `inputs`, several by their populations' names."""
    names = list(piece.inputs)
    keys = ["inputs"] if len(names) == 1 else names
    npy: Any = np.lib.format  # untyped in some releases of NumPy
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, name in zip(keys, names, strict=True):
            with archive.open(f"{key}.npy", "w") as file:
                npy.write_array(file, piece.inputs[name])


def _readme(piece: Piece, whole: Report, commands: Sequence[str]) -> str:
    first = whole.first
    assert first is not None
    sources = ", ".join(p.name for p in piece.network.inputs)
    alone = len(piece.network.populations) == 1 + len(piece.network.inputs)
    what = f"population {first.population} alone, fed what was recorded of {sources}"
    by = "Run again, both sides do the same:" if piece.repeats else "The records show it:"
    return "\n".join(
        (
            f"# {whole.other} against {whole.reference}: {first.kind}",
            "",
            f"{first.detail[:1].upper()}{first.detail[1:]}.",
            "",
            f"This is {what if alone else 'the whole network'}, of network "
            f"{whole.network_name} ({whole.network[:12]}), "
            f"sample {', '.join(map(str, piece.samples))} of {whole.samples}, "
            f"{piece.network.steps} of {whole.steps} steps.",
            "",
            by,
            "",
            *(f"    {command}" for command in commands),
            "",
            "```",
            piece.report.to_text().rstrip(),
            "```",
            "",
        )
    )
