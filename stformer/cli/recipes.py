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
        [r.name, r.data, r.train.epochs, r.train.batch_size, r.train.lr, _network(r.model)]
        for r in found
    ]
    head = ["recipe", "data", "epochs", "batch", "lr", "network"]
    emit(args, plain, table(head, rows))
    return 0


def _network(model: object) -> str:
    """A named variant, or width and depth."""
    assert isinstance(model, dict)
    if "variant" in model:
        return str(model["variant"])
    return f"width {model.get('width')}, depth {model.get('depth')}"
