"""`stformer targets`: what can run a model here."""

from __future__ import annotations

import argparse
from typing import Any

from stformer.cli.common import emit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none of its own."""


def run(args: argparse.Namespace) -> int:
    from stformer.deploy import backends
    from stformer.report import table

    targets = [_target(name) for name in backends()]
    rows = [
        [t["name"], "yes" if t["available"] else "no", t["why"] or "", t["get"] or ""]
        for t in targets
    ]
    head = ["backend", "runs here", "why not", "how to get it"]
    emit(args, {"targets": targets}, table(head, rows))
    return 0


def _target(name: str) -> dict[str, Any]:
    from stformer.deploy import load

    try:
        reason = load(name).missing()
    except Exception as e:  # another package's backend may fail in any way; the list goes on
        reason = f"it cannot be imported ({type(e).__name__}: {e})"
    why, _, do = (reason or "").partition("; ")
    return {"name": name, "available": not reason, "why": why or None, "get": do or None}
