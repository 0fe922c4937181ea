"""`stformer targets`: what runs a model here, which files it can become, which chips are known."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stformer.cli.common import emit

if TYPE_CHECKING:
    from stformer.hardware_configs import Hardware


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none of its own."""


def run(args: argparse.Namespace) -> int:
    from stformer import deploy, export, hardware_configs
    from stformer.report import table

    targets = [_target(name, deploy.load) for name in deploy.backends()]
    formats = [_target(name, export.load) for name in export.FORMATS]
    head = ["why not", "how to get it"]
    text = table(["backend", "runs here", *head], _rows(targets))
    if formats:
        text += "\n\n" + table(["format", "written here", *head], _rows(formats))
    hardware = [_hardware(hardware_configs.load(n)) for n in hardware_configs.available()]
    chips = ["hardware", "generation", "chips", "cores", "assumptions among its numbers"]
    text += "\n\n" + table(chips, [_chips(h) for h in hardware])
    emit(args, {"targets": targets, "formats": formats, "hardware": hardware}, text)
    return 0


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
