"""`stformer datasets`: what can be loaded here, and what to put where for the rest."""

from __future__ import annotations

import argparse

from stformer.cli.common import emit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No flags of its own."""
    del parser


def run(args: argparse.Namespace) -> int:
    from stformer.data import DATASETS
    from stformer.report import table

    found = {name: (dataset, dataset.missing()) for name, dataset in DATASETS.items()}
    plain = {
        name: {
            "what": dataset.what,
            "shape": list(dataset.shape),
            "classes": dataset.classes,
            "largest": dataset.largest,
            "events": dataset.events,
            "train": dataset.samples[0],
            "test": dataset.samples[1],
            "size": dataset.size,
            "place": dataset.place() if dataset.place else None,
            "missing": None if problem is None else {"what": problem[0], "do": problem[1]},
        }
        for name, (dataset, problem) in found.items()
    }
    rows = [
        [
            *(name, "here" if problem is None else "missing"),
            *(f"{n:,}" for n in dataset.samples),
            "x".join(map(str, dataset.shape)),
            *(dataset.size or "-", dataset.what),
        ]
        for name, (dataset, problem) in found.items()
    ]
    head = ["data set", "state", "train", "test", "frames", "on disk", "what"]
    lost = [
        f"{name}: {problem[0]}\n  to get it: {problem[1]}"
        for name, (_, problem) in found.items()
        if problem is not None
    ]
    emit(args, plain, "\n\n".join([table(head, rows), *lost]))
    return 0
