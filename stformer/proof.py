"""A proof for people: reports, and what a reader needs to judge them and to repeat them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stformer.files import write_text
from stformer.machine import versions
from stformer.network import IntArray, Network
from stformer.report import Report
from stformer.trace import Trace, cut, predicted

FORMAT = "stformer-report"
VERSION = 1  # of packaged/report.schema.json


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """One report, and the one sample of it that is drawn.

    Attributes:
        report: what was found.
        sample: that of the first difference; 0 where all is equal.
        reference, other: that sample of both runs; of u and v only what the difference needs.
        label: of that sample, or None.
        correct: samples that reference and other put in the right class; None where there are
            no labels, or no one readout.
    """

    report: Report
    sample: int
    reference: Trace
    other: Trace
    label: int | None = None
    correct: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proof:
    """What a page and its JSON twin are made of.

    Attributes:
        comparisons: at least one for a proof.
        network: what ran; None where only traces are at hand.
        data: what the samples are, for people; may be empty.
        command: how to repeat it.
        facts: label -> text, what else to tell.
    """

    comparisons: tuple[Comparison, ...]
    network: Network | None
    data: str
    command: str
    facts: Mapping[str, str]

    @property
    def reports(self) -> list[Report]:
        return [c.report for c in self.comparisons]

    @property
    def proven(self) -> bool:
        return bool(self.comparisons) and all(r.proven for r in self.reports)

    def to_json(self) -> dict[str, Any]:
        """Plain data as packaged/report.schema.json describes it."""
        reports = []
        for c in self.comparisons:
            correct = c.correct and {"reference": c.correct[0], "other": c.correct[1]}
            reports.append({**c.report.to_json(), "correct": correct})
        return {
            "format": FORMAT,
            "version": VERSION,
            "proven": self.proven,
            "data": self.data,
            "command": self.command,
            "versions": versions_of_all(),
            "reports": reports,
        }


def versions_of_all() -> dict[str, str]:
    """Versions of whatever can have run or read something."""
    return versions("h5py", "onnxruntime")


def observed(
    report: Report,
    reference: Trace,
    other: Trace,
    network: Network | None = None,
    labels: IntArray | None = None,
) -> Comparison:
    """What of two traces goes with their report.

    Args:
        report: of `stformer.verify.compare`.
        reference, other: the traces; what is not drawn may be let go afterwards.
        network: what ran.
        labels: [S] or more, or None.
    """
    sample = report.first.sample if report.first else 0
    correct = None
    if labels is not None and network is not None:
        known = labels[: report.samples]
        counts = [
            None if classes is None else int(np.count_nonzero(classes == known))
            for classes in (predicted(network, reference), predicted(network, other))
        ]
        if counts[0] is not None and counts[1] is not None:
            correct = (counts[0], counts[1])
    return Comparison(
        report=report,
        sample=sample,
        reference=excerpt(report, reference, sample),
        other=excerpt(report, other, sample),
        label=None if labels is None else int(labels[sample]),
        correct=correct,
    )


def excerpt(report: Report, trace: Trace, sample: int) -> Trace:
    """One sample of a trace, with the states of the population that differs first."""
    name = report.first.population if report.first else None
    u, v = ({k: a for k, a in record.items() if k == name} for record in (trace.u, trace.v))
    return cut(replace(trace, u=u, v=v), sample, sample + 1)


def twin(path: str | Path) -> Path:
    """The JSON beside a page: FILE.json of FILE.html."""
    return Path(path).with_suffix(".json")


def write_report(path: str | Path, proof: Proof) -> None:
    """Write the page, and the same as JSON beside it, each whole or not at all.

    Args:
        path: of the page; its folder is made.
        proof: what it tells.

    Raises:
        InputError: the place cannot be written.
    """
    from stformer.page import proof_page

    write_text(twin(path), json.dumps(proof.to_json(), indent=2, allow_nan=False) + "\n")
    write_text(path, proof_page(proof))
