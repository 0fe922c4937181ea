"""`stformer targets`: what can run a model here, and which files can be written of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from stformer.cli.common import emit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none of its own."""


def run(args: argparse.Namespace) -> int:
    from stformer import deploy, export
    from stformer.report import table

    targets = [_target(name, deploy.load) for name in deploy.backends()]
    formats = [_target(name, export.load) for name in export.FORMATS]
    head = ["why not", "how to get it"]
    text = table(["backend", "runs here", *head], _rows(targets))
    if formats:
        text += "\n\n" + table(["format", "written here", *head], _rows(formats))
    emit(args, {"targets": targets, "formats": formats}, text)
    return 0


def _rows(found: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [t["name"], "yes" if t["available"] else "no", t["why"] or "", t["get"] or ""]
        for t in found
    ]


def _target(name: str, load: Callable[[str], Any]) -> dict[str, Any]:
    try:
        reason = load(name).missing()
    except Exception as e:  # another package's backend may fail in any way; the list goes on
        reason = f"it cannot be imported ({type(e).__name__}: {e})"
    why, _, do = (reason or "").partition("; ")
    return {"name": name, "available": not reason, "why": why or None, "get": do or None}
