"""Limits and costs of hardware targets, one TOML each, every number with its basis and source.

`load` reads a target by name, or a user's file, which may override single values of a target::

    [meta]
    name = "my-board"
    base = "loihi2-kapoho-point"

    [system]
    chips = { value = 4, basis = "table", source = "label on the board" }

The keys there are, their units and ranges: `stformer.hardware_configs.schema`.
"""

from __future__ import annotations

from pathlib import Path

if __name__ != "stformer.hardware_configs":
    raise ImportError(f"import 'stformer.hardware_configs', not '{__name__}'")

from stformer.hardware_configs.read import FOLDER, read_target
from stformer.hardware_configs.schema import Hardware, Value

__all__ = ["DEFAULT", "Hardware", "Value", "available", "load"]

DEFAULT = "loihi2-oheo-gulch"  # the smallest board, and the one with measured anchors


def available() -> list[str]:
    """Names of the targets that ship with the package."""
    return sorted(p.stem for p in FOLDER.glob("*.toml"))


def load(name: str | Path = DEFAULT) -> Hardware:
    """A target by name, or from a .toml file.

    Raises:
        InputError: no such target or file, no TOML, an unknown or missing key, a value of the
            wrong type, unit or range, a basis that is none; names file, line and key.
    """
    return read_target(str(name), available())
