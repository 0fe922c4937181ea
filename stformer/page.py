"""A proof as one HTML file: the verdict, what was compared, and pictures of one sample."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence

import numpy as np

from stformer import html
from stformer.network import Input, IntArray, Network
from stformer.proof import Comparison, Proof, versions_of_all
from stformer.report import Difference, PopulationReport, Report
from stformer.trace import Trace, logits, predicted

MOST_RASTERS = 60  # populations drawn of a sample
SIDES = (  # of a difference: what is told, and the field of `report.Side`
    ("value sent", "value"),
    ("arriving sum", "arriving"),
    ("u before", "u_before"),
    ("u", "u"),
    ("v before", "v_before"),
    ("v that meets the threshold", "membrane"),
    ("v", "v"),
)


def proof_page(proof: Proof) -> str:
    """The whole page."""
    title = proof.network.name if proof.network else "two traces"
    body = [html.facts(dict(_overview(proof)))]
    body += [html.heading("What was compared"), _comparisons(proof)]
    for comparison in proof.comparisons:
        body += _remarks(comparison.report)
        if comparison.report.first:
            body += _divergence(comparison, comparison.report.first)
    equal = [c for c in proof.comparisons if not c.report.first]
    if equal:  # one stands for all: they are equal
        body += [html.heading("One sample through the network"), *_pictures(equal[0], proof)]
    body += [html.heading("Populations"), _populations(proof.reports)]
    body += [html.heading("To repeat it"), html.code(proof.command)]
    body += [html.facts(dict(_identity(proof)))]
    return html.page(f"{title}: are the spikes equal?", _verdict(proof), proof.proven, body)


def _verdict(proof: Proof) -> str:
    reports = proof.reports
    if not proof.proven:
        return "Not proven. " + " ".join(f"{r.verdict}." for r in reports)
    names = ", ".join(r.other for r in reports)
    what = "Every spike and every state is" if all(r.states for r in reports) else "Every spike is"
    count = sum(r.compared + r.states_compared for r in reports)
    return (
        f"{what} equal: {names} against {reports[0].reference}, {count:,} values, 0 differences."
    )


def _overview(proof: Proof) -> Iterator[tuple[str, str]]:
    if proof.data:
        yield "data", proof.data
    told: set[str] = set()
    for c in proof.comparisons:
        names = (c.report.reference, c.report.other) if c.correct else ()
        for name, correct in zip(names, c.correct or (), strict=True):
            share = 100 * correct / c.report.samples
            label = f"accuracy of {name}, {c.report.samples:,} samples"
            if label not in told:
                yield label, f"{share:.2f} %, {correct:,} right"
            told.add(label)
    yield from proof.facts.items()


def _identity(proof: Proof) -> Iterator[tuple[str, str]]:
    yield "network", ", ".join(dict.fromkeys(r.network for r in proof.reports))
    for r in proof.reports:
        yield f"inputs, {r.samples:,} samples", r.inputs
    yield from versions_of_all().items()
    yield "system", f"{platform.system()} {platform.machine()}"


def _comparisons(proof: Proof) -> str:
    states = any(r.states for r in proof.reports)
    head = ["backends", "samples", "steps", "populations", "spikes and values", "differ"]
    head += ["equal", *(["states", "states differ"] if states else [])]
    rows: list[list[object]] = []
    for r in proof.reports:
        row: list[object] = [f"{r.other} against {r.reference}", r.samples, r.steps]
        row += [len(r.populations), r.compared, r.differences, _share(r)]
        row += [r.states_compared, r.state_differences] if states else []
        rows.append(row)
    off = [i for i, r in enumerate(proof.reports) if not r.proven]
    return html.table(head, rows, off)


def _share(report: Report) -> str | None:
    """Share of equal values; never "100 %" where one differs."""
    return f"{report.equal_percent:.4f} %" if report.compared else None


def _remarks(report: Report) -> list[str]:
    out = [html.paragraph(f"{report.other}: {note}") for note in report.notes]
    if report.not_compared:
        names = ", ".join(report.not_compared)
        out.append(html.paragraph(f"Not compared, since one side did not record them: {names}"))
    return out


# --- the first difference ---------------------------------------------------------------------


def _divergence(c: Comparison, d: Difference) -> list[str]:
    report = c.report
    place = ", ".join(map(str, d.coordinates))
    fires = "" if d.vth is None else f" It fires above {d.vth} << 6 = {d.vth << 6:,}."
    out = [
        html.heading(f"Where {report.other} first differs from {report.reference}"),
        html.paragraph(
            f"Population {d.population}, sample {d.sample}, step {d.step}, neuron {d.neuron} "
            f"at [{place}]. Class: {d.kind}; {d.detail}.{fires}"
        ),
    ]
    pairs = [(label, getattr(d.reference, f), getattr(d.other, f)) for label, f in SIDES]
    rows = [pair for pair in pairs if pair[1:] != (None, None)]
    off = [i for i, pair in enumerate(rows) if pair[1] != pair[2]]
    out.append(html.table(["", *_sides(report)], rows, off))
    figures = [_raster(c, d.population, (d.step, d.neuron))]
    right, wrong = _sides(report)
    if _has(c.reference.v, d) and _has(c.other.v, d):
        levels = {} if d.vth is None else {"threshold": d.vth << 6}
        series = {
            "reference": _course(c.reference.v[d.population], d.neuron),
            "other": _course(c.other.v[d.population], d.neuron),
        }
        caption = f"v of neuron {d.neuron} after each step: solid {right}, dashed {wrong}"
        figures.append(html.lines(series, levels, caption))
    note = (
        f"Sample {c.sample}, a column per time step, a line per neuron. Blue: equal. Red: "
        f"different, in the first picture filled where {wrong} sent something and hollow where "
        f"only {right} did."
    )
    out += [html.row(figures), html.paragraph(note)]
    others = [n for n in _drawable(c) if n != d.population]
    out.append(html.row([_raster(c, name) for name in others[:MOST_RASTERS]]))
    return out


def _sides(report: Report) -> tuple[str, str]:
    """Names of the two runs that differ from each other."""
    if report.reference != report.other:
        return report.reference, report.other
    return f"{report.reference} (1)", f"{report.other} (2)"


def _has(record: object, d: Difference) -> bool:
    return isinstance(record, dict) and d.population in record


def _course(record: IntArray, neuron: int) -> list[int]:
    """[1, T, *shape] -> the values of one neuron over time."""
    values: list[int] = record[0].reshape(record.shape[1], -1)[:, neuron].tolist()
    return values


def _raster(c: Comparison, name: str, mark: tuple[int, int] | None = None) -> str:
    def flat(trace: Trace) -> IntArray:
        values: IntArray = trace[name][0].reshape(trace.steps, -1)
        return values

    other = flat(c.other) if name in c.other.spikes else None
    return html.raster(flat(c.reference), name, other, mark)


def _drawable(c: Comparison) -> list[str]:
    """Populations that send spikes."""
    return [n for n in c.reference.populations if c.reference[n].dtype == np.uint8]


# --- an equal sample ---------------------------------------------------------------------------


def _pictures(c: Comparison, proof: Proof) -> list[str]:
    first = list(_ends(c, proof.network)) if proof.network else []
    names = _drawable(c)
    note = (
        f"Spikes of sample {c.sample}, a column per time step (the population's own time), a line "
        f"per neuron, up to {html.MOST_NEURONS} of them."
    )
    if len(names) > MOST_RASTERS:
        note += f" The first {MOST_RASTERS} of {len(names)} populations."
    rasters = [_raster(c, name) for name in names[:MOST_RASTERS]]
    return [html.row(first), html.paragraph(note), html.row(rasters)]


def _ends(c: Comparison, network: Network) -> Iterator[str]:
    """What came in, as an image, and what came out, as bars."""
    trace = c.reference
    for name in trace.populations:
        population = network[name]
        if isinstance(population, Input) and len(population.shape) == 3:
            frame = trace[name][0].sum((0, 1), dtype=np.int64)
            label = "" if c.label is None else f", label {c.label}"
            yield html.image(frame, f"{name}, sample {c.sample}{label}")
    classes = predicted(network, trace)
    if classes is not None:
        (readout,) = (p.name for p in network.readouts if p.name in trace.spikes)
        values = logits(trace[readout][:1])[0].tolist()
        if len(values) <= 20:
            names, answer = [str(i) for i in range(len(values))], int(classes[0])
            yield html.bars(values, names, answer, f"{readout}: class {answer}")


# --- the table ---------------------------------------------------------------------------------


def _populations(reports: Sequence[Report]) -> str:
    """A line a population; a column of differences a backend."""
    states = any(r.states for r in reports)
    known: dict[str, PopulationReport] = {}
    for report in reports:  # in the first one's order
        for p in report.populations:
            known.setdefault(p.name, p)
    one = len(reports) == 1
    head = ["population", "kind", "neurons", "latency", "rate", "spikes, or not 0", "compared"]
    for r in reports:
        head += ["differ" if one else f"{r.other}: differ", *(["u", "v"] if states else [])]
        head += ["fault"] if r.first else []
    rows: list[list[object]] = []
    off = []
    for name, p in known.items():
        size = "×".join(map(str, p.shape))
        rate = None if p.rate is None else f"{p.rate:.4f}"
        row: list[object] = [name, p.kind, size, p.latency, rate, p.spikes, p.entries]
        for r in reports:
            q = next((q for q in r.populations if q.name == name), None)
            row += _found(q, states, with_fault=bool(r.first))
            if q and (q.differences or q.u_differences or q.v_differences):
                off.append(len(rows))
        rows.append(row)
    return html.table(head, rows, off)


def _found(p: PopulationReport | None, states: bool, *, with_fault: bool) -> list[object]:
    columns = 1 + 2 * states + with_fault
    if p is None:
        return [None] * columns
    fault = {True: "its own", False: "fed wrong spikes", None: None}[p.itself_wrong]
    out: list[object] = [p.differences, *([p.u_differences, p.v_differences] if states else [])]
    return [*out, fault] if with_fault else out
