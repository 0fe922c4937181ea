"""An ablation as Markdown and as JSON: the paper's numbers beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from stformer.ablate import CASES, DATASETS, TABLES, Outcome, Outcomes, Row, cases_of
from stformer.recipe import Recipe

NONE = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of a case's model, see `stformer.counts`."""

    parameters: int
    operations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an ablation is of, and how it was made.

    Attributes:
        recipe: that the cases change.
        tables: keys of `stformer.ablate.TABLES`.
        seeds: their number.
        integers: whether networks were compiled.
        sizes: case -> its model's.
        command: that makes it again.
        versions, machine: for people.
    """

    recipe: Recipe
    tables: Sequence[str]
    seeds: int
    integers: bool
    sizes: Mapping[str, Size]
    command: str
    versions: Mapping[str, str]
    machine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Accuracies over seeds, in per cent.

    Attributes:
        mean: of n seeds.
        std: the sample's, with n - 1; None of one seed.
    """

    mean: float
    std: float | None
    n: int

    def __str__(self) -> str:
        tail = "" if self.std is None else f" ± {self.std:.2f}"
        return f"{self.mean:.2f}{tail}"


def spread(accuracies: Sequence[float]) -> Spread | None:
    """Of fractions 0...1; None where there are none."""
    if not accuracies:
        return None
    cents = [100 * a for a in accuracies]
    return Spread(mean=mean(cents), std=stdev(cents) if len(cents) > 1 else None, n=len(cents))


def floats(outcomes: Mapping[int, Outcome]) -> Spread | None:
    """Of the float networks."""
    return spread([o.float_accuracy for o in outcomes.values()])


def whole(outcomes: Mapping[int, Outcome]) -> Spread | None:
    """Of the integer networks."""
    return spread([a for o in outcomes.values() if (a := o.integer_accuracy) is not None])


def differs(one: Spread | None, other: Spread | None) -> bool:
    """Whether the means are further apart than the two standard deviations together.

    A yardstick and no test: of equal normal distributions, 8 % of comparisons with three seeds
    each are that far apart, 22 % with two, 2 % with five.
    """
    if one is None or other is None or one.std is None or other.std is None:
        return False
    # Accuracies are fractions of one test split: equal distances must not differ by rounding.
    apart, noise = abs(one.mean - other.mean), one.std + other.std
    return apart > noise and not math.isclose(apart, noise)


def markdown(subject: Subject, outcomes: Outcomes) -> str:
    """All tables of an ablation, its cases, and how it was made."""
    parts = [_table(subject, name, outcomes) for name in subject.tables]
    cases = cases_of(subject.tables)
    of = [f"* `{case}`: {_changes(case)}" for case in cases]
    runs = sum(len(outcomes[case]) for case in cases)
    train = subject.recipe.train
    total = len(cases) * subject.seeds
    made = (
        f"Recipe `{subject.recipe.name}`, {train.epochs} epochs, {runs} of {total} runs finished. "
        f"Made by\n\n    {subject.command}\n\n"
        f"with {', '.join(f'{k} {v}' for k, v in subject.versions.items())} on {subject.machine}."
    )
    legend = "Cases, as changes of the recipe's `[model]`:\n\n" + "\n".join(of)
    return "\n\n".join([*parts, legend, made]) + "\n"


def to_plain(subject: Subject, outcomes: Outcomes) -> dict[str, Any]:
    """The same as JSON types."""
    cases = cases_of(subject.tables)
    return {
        "recipe": subject.recipe.to_plain(),
        "command": subject.command,
        "versions": dict(subject.versions),
        "machine": subject.machine,
        "seeds": subject.seeds,
        "cases": {
            case: {
                "model": CASES[case],
                **asdict(subject.sizes[case]),
                "float": _plain(floats(outcomes[case])),
                "integer": _plain(whole(outcomes[case])),
                "runs": [
                    {"seed": seed, **asdict(o)} for seed, o in sorted(outcomes[case].items())
                ],
            }
            for case in cases
        },
        "tables": {
            name: {
                "title": TABLES[name].title,
                "rows": [
                    {
                        "label": row.label,
                        "case": row.case,
                        "paper": dict(zip(DATASETS, row.paper, strict=True)),
                    }
                    for row in TABLES[name].rows
                ],
                "beyond_noise": _beyond(subject, name, outcomes),
            }
            for name in subject.tables
        },
    }


def _plain(found: Spread | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


def _table(subject: Subject, name: str, outcomes: Outcomes) -> str:
    table, data = TABLES[name], subject.recipe.name
    ours = [f"{data}, float", *([f"{data}, integer"] if subject.integers else [])]
    head = ["", *DATASETS, *ours, "seeds", "parameters", "dense ops"]
    rows = [_cells(row, subject, outcomes) for row in table.rows]
    lines = [f"**{table.title}.** Accuracy in per cent; the first four columns are the paper's."]
    lines += ["", *_aligned([head, *rows])]
    first = table.rows[0].label
    if subject.seeds == 1:
        verdict = "One seed says nothing of the noise."
    elif beyond := _beyond(subject, name, outcomes):
        verdict = f"Further from “{first}” than both standard deviations: {'; '.join(beyond)}."
    else:
        verdict = f"No row is further from “{first}” than both standard deviations together."
    return "\n".join([*lines, "", verdict])


def _cells(row: Row, subject: Subject, outcomes: Outcomes) -> list[str]:
    size, found = subject.sizes[row.case], outcomes[row.case]
    paper = [NONE if value is None else f"{value:.2f}" for value in row.paper]
    ours = [str(floats(found) or NONE)]
    if subject.integers:
        ours.append(str(whole(found) or NONE))
    return [
        row.label,
        *paper,
        *ours,
        str(len(found)),
        f"{size.parameters:,}",
        f"{size.operations / 1e6:,.1f} M",
    ]


def _beyond(subject: Subject, name: str, outcomes: Outcomes) -> list[str]:
    """ "conv31 (float)" for what differs from a table's first row."""
    first, *others = TABLES[name].rows
    kinds = {"float": floats} | ({"integer": whole} if subject.integers else {})
    return [
        f"{row.label} ({kind})"
        for row in others
        for kind, of in kinds.items()
        if differs(of(outcomes[row.case]), of(outcomes[first.case]))
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table that is one to the eye as well; the first column left, numbers right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in rows
    ]
    rule = "| " + " | ".join(["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]) + " |"
    return [lines[0], rule, *lines[1:]]


def _changes(case: str) -> str:
    return ", ".join(
        f"{key} = {str(value).lower() if isinstance(value, bool) else value}"
        for key, value in CASES[case].items()
    )
