"""Traces that do not fit in memory, compared a few samples at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from stformer.diagnose import looked_at
from stformer.errors import InputError
from stformer.network import Network
from stformer.replay import needed
from stformer.report import PopulationReport, Report
from stformer.trace import Trace, add_frames, begin_input, spans
from stformer.trace_file import TraceReader
from stformer.verify import compare


def compare_files(
    reference: TraceReader,
    other: TraceReader,
    network: Network | None = None,
    *,
    states: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Report:
    """`stformer.verify.compare` for two trace files, a window of samples at a time.

    The report is the same but for what needs other samples: the first difference is explained
    by the samples of its own window and some around it (`stformer.diagnose.looked_at`), and
    whether a population itself is wrong is found out in that window only.

    Args:
        reference, other, network, states: as there.
        progress: called with (samples done, samples in all).

    Raises:
        InputError: as `compare`, and for files that are damaged.
    """
    compare(reference.head, other.head, network)  # refuses other networks and inputs
    samples = reference.samples
    if samples != other.samples:
        pair = f"traces of {reference.backend} and {other.backend}"
        raise InputError(pair, f"{samples} and {other.samples} samples", "equal numbers")
    step = min(reference.window, other.window)
    first = reference.records[0] if reference.records and network is None else None
    digest = hashlib.sha256()  # of the first population, as if it were all of the inputs
    if first:
        begin_input(digest, first.name, (samples, *first.shape))

    def pairs() -> Iterator[tuple[Trace, Trace]]:
        for start, stop in spans(samples, step):
            part = reference.part(start, stop)
            if first:
                add_frames(digest, part[first.name])
            yield part, other.part(start, stop)
            progress(stop, samples)

    report = compare_parts(pairs(), network, states=states)
    if network is not None:
        return _explained(report, reference, other, network, step)
    if first is None or digest.hexdigest() != reference.inputs:
        return report
    populations = (
        replace(p, computed=p.computed and p.name != first.name) for p in report.populations
    )
    return replace(report, populations=tuple(populations))


def _explained(
    report: Report, reference: TraceReader, other: TraceReader, network: Network, step: int
) -> Report:
    """The first difference explained by more samples than a window of `step`, where that helps."""
    if report.first is None:
        return report
    name, sample = report.first.population, report.first.sample
    window = sample - sample % step, min(sample - sample % step + step, report.samples)
    start, stop = looked_at(network, name, sample)
    start, stop = min(start, window[0]), min(max(stop, window[1]), report.samples)
    if (start, stop) == window:
        return report
    names = needed(network, name)
    right, wrong = (file.part(start, stop, names) for file in (reference, other))
    first = compare(right, wrong, network, states=report.states).first
    assert first is not None, "it differs as it did"
    return replace(report, first=replace(first, sample=sample))


def parts(
    file: TraceReader, progress: Callable[[int, int], None] = lambda *_: None
) -> Iterator[Trace]:
    """All samples of a trace file, a window at a time; of none, its head.

    Args:
        file: to read.
        progress: called with (samples done, samples in all).
    """
    for start, stop in spans(file.samples, file.window):
        yield file.part(start, stop)
        progress(stop, file.samples)


def compare_parts(
    pairs: Iterable[tuple[Trace, Trace]], network: Network | None = None, *, states: bool = False
) -> Report:
    """One report of traces that come in parts, at least one, in the order of the samples.

    Without the network, an input is known as one only where one part is all samples.
    """
    whole: Report | None = None
    for reference, other in pairs:
        explain = whole is None or whole.first is None
        part = compare(reference, other, network, states=states, explain=explain)
        whole = part if whole is None else _added(whole, part)
    assert whole is not None, "no part"
    return whole


def _added(whole: Report, part: Report) -> Report:
    """The report of `whole` followed by `part`, which have the same populations."""
    first = whole.first
    if first is None and part.first is not None:
        first = replace(part.first, sample=whole.samples + part.first.sample)
    pairs = zip(whole.populations, part.populations, strict=True)
    return replace(
        whole,
        samples=whole.samples + part.samples,
        populations=tuple(_sum(a, b) for a, b in pairs),
        first=first,
    )


def _sum(a: PopulationReport, b: PopulationReport) -> PopulationReport:
    entries, spikes = a.entries + b.entries, a.spikes + b.spikes
    return replace(
        a,
        entries=entries,
        spikes=spikes,
        rate=None if a.rate is None else spikes / entries,
        differences=a.differences + b.differences,
        u_differences=_both(a.u_differences, b.u_differences),
        v_differences=_both(a.v_differences, b.v_differences),
        itself_wrong=b.itself_wrong if a.itself_wrong is None else a.itself_wrong,
    )


def _both(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b
