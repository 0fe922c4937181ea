"""`stformer targets`: what runs a model here, which files it can become, which chips are known."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stformer.cli.common import emit
from stformer.errors import InputError, Unavailable

if TYPE_CHECKING:
    from stformer.hardware_configs import Hardware


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="only this backend, format or hardware; exit code 3 where it is not available",
    )


def run(args: argparse.Namespace) -> int:
    from stformer import deploy, export, hardware_configs
    from stformer.report import table

    boards = hardware_configs.available()
    known = dict.fromkeys((*deploy.backends(), *export.FORMATS, *boards))
    if args.name and args.name not in known:
        raise InputError("target", f"'{args.name}'", ", ".join(known))
    targets = [_target(n, deploy.load) for n in deploy.backends() if args.name in (None, n)]
    formats = [_target(n, export.load) for n in export.FORMATS if args.name in (None, n)]
    head = ["why not", "how to get it"]
    hardware = [_hardware(hardware_configs.load(n)) for n in boards if args.name in (None, n)]
    tables = [
        table([kind, where, *head], _rows(found))
        for kind, where, found in (
            ("backend", "runs here", targets),
            ("format", "written here", formats),
        )
        if found
    ]
    if hardware:
        chips = ["hardware", "generation", "chips", "cores", "assumptions among its numbers"]
        tables.append(table(chips, [_chips(h) for h in hardware]))
    plain = {"targets": targets, "formats": formats, "hardware": hardware}
    emit(args, plain, "\n\n".join(tables))
    missing = args.name not in (None, *boards) and not any(
        t["available"] for t in (*targets, *formats)
    )
    return Unavailable.exit_code if missing else 0


def _hardware(target: Hardware) -> dict[str, Any]:
    from stformer.hardware_configs.schema import BASES

    found = Counter(value.basis for value in target.values())
    system = target.system
    return {
        "name": target.name,
        "generation": target.generation,
        "chips": system.chips.value if system else None,
        "cores": system.chips.value * system.cores_per_chip_usable.value if system else None,
        "confidence": target.confidence,
        "bases": {basis: found[basis] for basis in BASES},
    }


def _chips(h: dict[str, Any]) -> list[Any]:
    guessed = f"{h['bases']['assumption']} of {sum(h['bases'].values())}"
    return [h["name"], h["generation"], h["chips"], h["cores"], guessed]


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
