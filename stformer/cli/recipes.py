"""`stformer recipes`: what can be trained by name."""

from __future__ import annotations

import argparse

from stformer.cli.common import emit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No flags of its own."""
    del parser


def run(args: argparse.Namespace) -> int:
    from stformer import recipe
    from stformer.report import table

    found = [recipe.load(name) for name in recipe.available()]
    plain = {r.name: r.to_plain() for r in found}
    rows = [
        [r.name, r.data, r.train.epochs, r.model.get("width"), r.model.get("depth")] for r in found
    ]
    emit(args, plain, table(["recipe", "data", "epochs", "width", "depth"], rows))
    return 0
