"""`stformer datasets`: what can be loaded here."""

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
            "missing": None if problem is None else {"what": problem[0], "do": problem[1]},
        }
        for name, (dataset, problem) in found.items()
    }
    rows = [
        [name, "here" if problem is None else f"missing: {'; '.join(problem)}", dataset.what]
        for name, (dataset, problem) in found.items()
    ]
    emit(args, plain, table(["data set", "state", "what"], rows))
    return 0
