"""What a comparison found, as data, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One run at the place of a difference.

    Attributes:
        value: spike or graded value, as recorded.
        u, v: after this step, as recorded; None where they were not.
        u_before, v_before: after the step before; 0 at the start of a sample.
        arriving: sum of weight * spike this step, worked out from the run's own record of the
            sources; None without the network or such a record.
        membrane: v before threshold and reset, worked out from the same.
    """

    value: int
    u: int | None
    v: int | None
    u_before: int | None
    v_before: int | None
    arriving: int | None
    membrane: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first difference in time order.

    Attributes:
        population, sample, step: where; the step is in the population's own time.
        neuron: flat index; `coordinates` is the same in the population's shape.
        vth: threshold mantissa of a Lif; it fires above vth * 64.
        reference, other: the two runs.
        kind: its class, see `stformer.diagnose`.
        detail: what the class means here.
    """

    population: str
    sample: int
    step: int
    neuron: int
    coordinates: tuple[int, ...]
    vth: int | None
    reference: Side
    other: Side
    kind: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationReport:
    """One population that both runs recorded.

    Attributes:
        kind, latency: of the network; empty and None when it was not given.
        computed: not an input; where the network was not given, not the one input.
        stateful: has states that could be compared.
        neurons: of one sample; `entries` is samples * steps * neurons.
        spikes: values other than 0 in the reference.
        rate: spikes per neuron and step; None for graded values.
        differences: of spikes or graded values.
        u_differences, v_differences: None where they were not compared.
        itself_wrong: it differs, though fed right or wrong spikes it should not have (True), or
            it does what it should with wrong ones (False); None where it does not differ or
            that cannot be told.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    latency: int | None
    computed: bool
    stateful: bool
    neurons: int
    entries: int
    spikes: int
    rate: float | None
    differences: int
    u_differences: int | None
    v_differences: int | None
    itself_wrong: bool | None

    @property
    def equal_percent(self) -> float:
        """Of its spikes or graded values; 100 only where all are equal."""
        return _percent(self.entries, self.differences)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The comparison of two traces.

    Attributes:
        network, inputs: digests; `network_name` is empty when the network was not given.
        reference, other: names of the backends.
        samples, steps: of the traces.
        states: whether u and v were to be compared too.
        populations: those that both recorded, in the network's order.
        not_compared: those that one of them lacks.
        first: the first difference; None when there is none.
        notes: where the backends say that they are not the definition (`Trace.notes`).
    """

    network: str
    network_name: str
    inputs: str
    reference: str
    other: str
    samples: int
    steps: int
    states: bool
    populations: tuple[PopulationReport, ...]
    not_compared: tuple[str, ...]
    first: Difference | None
    notes: tuple[str, ...] = ()

    @property
    def compared(self) -> int:
        """Entries (population, sample, step, neuron) whose spikes were compared."""
        return sum(p.entries for p in self.populations)

    @property
    def states_compared(self) -> int:
        """Numbers of u and v that were compared."""
        return sum(
            p.entries * ((p.u_differences is not None) + (p.v_differences is not None))
            for p in self.populations
        )

    @property
    def differences(self) -> int:
        return sum(p.differences for p in self.populations)

    @property
    def equal_percent(self) -> float:
        """Of all spikes and graded values compared; 100 only where all are equal."""
        return _percent(self.compared, self.differences)

    @property
    def state_differences(self) -> int:
        return sum((p.u_differences or 0) + (p.v_differences or 0) for p in self.populations)

    @property
    def nothing_compared(self) -> str:
        """What was asked for and not done, as a sentence; empty when there is no such thing."""
        computed = [p for p in self.populations if p.computed]
        if not sum(p.entries for p in computed):
            return "no population but inputs was recorded by both"
        asked = [p for p in computed if p.stateful]
        if self.states and asked and not self.states_compared:
            return "states were asked for and not recorded by both"
        return ""

    @property
    def equivalent(self) -> bool:
        """Something was compared and all of it is equal: spikes, and states when asked for."""
        return not (self.nothing_compared or self.differences or self.state_differences)

    @property
    def silent(self) -> bool:
        """Nothing but inputs sent anything, so that equality shows little."""
        return not any(p.spikes for p in self.populations if p.computed)

    @property
    def proven(self) -> bool:
        """Equivalent, and in at least one spike or graded value."""
        return self.equivalent and not self.silent

    @property
    def verdict(self) -> str:
        """One line."""
        pair = f"{self.other} against {self.reference}"
        why = self.nothing_compared
        if self.differences or self.state_differences:  # says more than what was not compared
            states = f", {self.state_differences:,} of {self.states_compared:,} states"
            return (
                f"DIFFERENT  {pair}: {self.differences:,} of {self.compared:,} values"
                f"{states if self.states_compared else ''} differ{f'; {why}' if why else ''}"
            )
        if why:
            return f"NOTHING COMPARED  {pair}: {why}"
        if self.silent:
            return (
                f"SILENT  {pair}: {self.compared:,} values are equal, and none of them is a spike"
            )
        spikes = sum(p.spikes for p in self.populations)
        states = f" and all {self.states_compared:,} states" if self.states else ""
        return (
            f"EQUIVALENT  {pair}: all {self.compared:,} values{states} are equal "
            f"({spikes:,} not 0, {self.samples} samples x {self.steps} steps, "
            f"{len(self.populations)} populations)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`: all fields, and the counts and verdicts."""
        names = ("compared", "states_compared", "differences", "state_differences")
        verdicts = ("equivalent", "silent", "proven", "verdict", "equal_percent")
        plain = {**{n: getattr(self, n) for n in (*verdicts, *names)}, **asdict(self)}
        for entry, population in zip(plain["populations"], self.populations, strict=True):
            entry["equal_percent"] = population.equal_percent
        return plain

    def to_text(self) -> str:
        """Verdict first, then the first difference, then a table of populations."""
        return "\n".join((self.verdict, *_remarks(self), "", table(*_rows(self)))) + "\n"


def _percent(entries: int, differences: int) -> float:
    """Cut, not rounded, to four places: one difference among many must not read as none."""
    equal = entries - differences
    return equal * 1_000_000 // entries / 10_000 if entries else 0.0


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as needed; numbers to the right, with thousands separated."""
    cells = [[_cell(value) for value in row] for row in rows]
    right = [
        any(isinstance(r[i], (int, float)) for r in rows)
        and not any(isinstance(r[i], str) and r[i] for r in rows)
        for i in range(len(head))
    ]
    widths = [max(len(row[i]) for row in (list(head), *cells)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        parts = (
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, right, strict=True)
        )
        return "  ".join(parts).rstrip()

    return "\n".join((line(head), "  ".join("-" * w for w in widths), *map(line, cells)))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _rows(report: Report) -> tuple[list[str], list[list[object]]]:
    known = report.network_name != ""
    columns = ["population", *(["kind", "latency"] if known else []), "neurons", "rate", "not 0"]
    columns += ["differ", *(["u differ", "v differ"] if report.states else [])]
    columns += ["equal %", "fault"] if report.first else []
    rows = []
    for p in report.populations:
        row: list[object] = [p.name, *([p.kind, p.latency] if known else [])]
        row += [p.neurons, p.rate, p.spikes, p.differences]
        row += [p.u_differences, p.v_differences] if report.states else []
        fault = {True: "its own", False: "fed wrong spikes", None: ""}[p.itself_wrong]
        rows.append([*row, p.equal_percent, fault] if report.first else row)
    return columns, rows


def _remarks(report: Report) -> Iterator[str]:
    if report.differences:
        yield f"  equal: {report.equal_percent:.4f} % of the values"
    yield from (f"  note: {note}" for note in report.notes)
    if report.not_compared:
        yield f"  not compared, one side did not record them: {', '.join(report.not_compared)}"
    lacking = [
        p.name
        for p in report.populations
        if p.stateful
        and (p.v_differences is None or (p.kind == "Lif" and p.u_differences is None))
    ]
    if report.states and lacking and report.states_compared and report.network_name:
        yield f"  states not compared, one side did not record them: {', '.join(lacking)}"
    if report.first:
        yield from _describe(report, report.first)


def _describe(report: Report, d: Difference) -> Iterator[str]:
    place = ", ".join(map(str, d.coordinates))
    yield ""
    yield (
        f"  first difference: population {d.population}, sample {d.sample}, step {d.step}, "
        f"neuron {d.neuron} at [{place}]"
    )
    yield f"  class: {d.kind}; {d.detail}"
    if d.vth is not None:
        yield f"  threshold: {d.vth} << 6 = {d.vth << 6:,}; a neuron fires above it"
    rows: list[list[object]] = []
    for label, name in (
        ("value", "value"),
        ("arriving sum", "arriving"),
        ("u before", "u_before"),
        ("u", "u"),
        ("v before", "v_before"),
        ("v that meets the threshold (worked out)", "membrane"),
        ("v", "v"),
    ):
        values = [getattr(d.reference, name), getattr(d.other, name)]
        if values != [None, None]:
            rows.append([label, *values])
    ours, theirs = report.reference, report.other
    if ours == theirs:
        ours, theirs = f"{ours} (1)", f"{theirs} (2)"
    for line in table(["", ours, theirs], rows).splitlines():
        yield f"    {line}"
