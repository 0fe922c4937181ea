"""`stformer targets`: what can run a model here, and which files can be written of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from stformer.cli.common import emit
from stformer.errors import InputError, Unavailable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="only this backend or format; exit code 3 where it is not available",
    )


def run(args: argparse.Namespace) -> int:
    from stformer import deploy, export
    from stformer.report import table

    known = {**deploy.backends(), **export.FORMATS}
    if args.name and args.name not in known:
        raise InputError("target", f"'{args.name}'", ", ".join(known))
    targets = [_target(n, deploy.load) for n in deploy.backends() if args.name in (None, n)]
    formats = [_target(n, export.load) for n in export.FORMATS if args.name in (None, n)]
    head = ["why not", "how to get it"]
    tables = [
        table([kind, where, *head], _rows(found))
        for kind, where, found in (
            ("backend", "runs here", targets),
            ("format", "written here", formats),
        )
        if found
    ]
    emit(args, {"targets": targets, "formats": formats}, "\n\n".join(tables))
    missing = args.name and not any(t["available"] for t in (*targets, *formats))
    return Unavailable.exit_code if missing else 0


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
