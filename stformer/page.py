"""The proof as one HTML file: verdicts, what was compared, and pictures of one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stformer import html
from stformer.network import Input, IntArray, Network
from stformer.report import PopulationReport, Report
from stformer.trace import Trace, logits

MOST_RASTERS = 40  # populations drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What the reports are about, for the pictures.

    Attributes:
        network: what ran.
        trace: the reference's; its first sample is drawn.
        labels: [S], or None.
        facts: label -> text, shown as a table (accuracy, versions).
        command: how to repeat it.
    """

    network: Network
    trace: Trace
    labels: IntArray | None
    facts: Mapping[str, str]
    command: str


def proof_page(subject: Subject, reports: Sequence[Report]) -> str:
    """The whole page."""
    proven = bool(reports) and all(r.proven for r in reports)
    names = ", ".join(r.other for r in reports)
    against = reports[0].reference if reports else "nothing"
    verdict = (
        f"Every spike is equal: {names} against {against}, 0 differences."
        if proven
        else f"Not proven: {names} against {against}. " + " ".join(r.verdict for r in reports)
    )
    body = [
        html.facts(subject.facts),
        html.heading("What was compared"),
        _comparisons(reports),
        *(_difference(r) for r in reports if r.first),
        html.heading("One sample through the network"),
        *_pictures(subject),
        html.heading("Populations"),
        _populations(subject.network, reports),
        html.heading("Identity"),
        html.facts({"network": subject.network.digest(), "inputs": subject.trace.inputs}),
        html.paragraph("To repeat it:"),
        html.code(subject.command),
    ]
    return html.page(f"{subject.network.name}: proof of equal spikes", verdict, proven, body)


def _comparisons(reports: Sequence[Report]) -> str:
    rows = [
        (
            f"{r.other} against {r.reference}",
            r.samples,
            r.steps,
            len(r.populations),
            f"{r.compared:,}",
            f"{r.states_compared:,}" if r.states else "–",
            f"{r.differences + r.state_differences:,}",
        )
        for r in reports
    ]
    head = [
        "backends",
        "samples",
        "steps",
        "populations",
        "spike entries",
        "state entries",
        "differences",
    ]
    return html.table(head, rows)


def _difference(report: Report) -> str:
    d = report.first
    assert d is not None
    where = f"population {d.population}, sample {d.sample}, step {d.step}, neuron {d.coordinates}"
    return html.paragraph(
        f"First difference of {report.other}: {where}: "
        f"{d.reference.value} against {d.other.value} "
        f"({d.kind}: {d.detail})"
    )


def _pictures(subject: Subject) -> list[str]:
    network, trace = subject.network, subject.trace
    first = []
    for name in trace.populations:
        population = network[name]
        if isinstance(population, Input) and len(population.shape) == 3:
            frame = trace[name][0, 0].sum(0)
            label = "" if subject.labels is None else f", label {subject.labels[0]}"
            first.append(html.image(frame, max(int(frame.max()), 1), f"{name}, sample 0{label}"))
    for readout in network.readouts:
        if readout.name in trace.spikes:
            values = logits(trace[readout.name][:1])[0]
            answer = int(values.argmax())
            names = [str(i) for i in range(len(values))]
            first.append(html.bars(values.tolist(), names, answer, f"{readout.name}: {answer}"))
    rasters = [
        html.raster(trace[name][0].reshape(trace.steps, -1), name)
        for name in trace.populations
        if trace[name].dtype == np.uint8
    ]
    note = (
        "Spikes of every population, a column per time step (its own time), a line per neuron, "
        "up to 300 neurons each."
    )
    return [html.row(first), html.paragraph(note), html.row(rasters[:MOST_RASTERS])]


def _populations(network: Network, reports: Sequence[Report]) -> str:
    known: dict[str, PopulationReport] = {}
    for report in reversed(reports):
        known |= {p.name: p for p in report.populations}
    rows = []
    for population in network.populations:
        p = known.get(population.name)
        if p is None:
            continue
        differing = sum(
            q.differences + (q.u_differences or 0) + (q.v_differences or 0)
            for r in reports
            for q in r.populations
            if q.name == p.name
        )
        rate = "–" if p.rate is None else f"{p.rate:.3f}"
        size = "×".join(map(str, p.shape))
        rows.append((p.name, p.kind, size, p.latency, rate, f"{p.spikes:,}", differing))
    head = ["population", "kind", "neurons", "latency", "rate", "values not 0", "differences"]
    return html.table(head, rows)
