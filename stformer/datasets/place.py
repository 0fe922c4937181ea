"""Where data sets lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "STFORMER_DATA"


def root() -> Path:
    """The folder of $STFORMER_DATA, else stformer/data in the user's cache (XDG)."""
    if named := os.environ.get(VARIABLE):
        return Path(os.path.expanduser(named))
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    base = Path(cache) if Path(cache).is_absolute() else Path(os.path.expanduser("~/.cache"))
    return base / "stformer" / "data"


def folder(name: str) -> Path:
    """Where a data set's archive is unpacked."""
    return root() / name


def put(archive: str, where: Path) -> str:
    """What to do for a data set whose files are not here."""
    return f"unpack {archive} in {where} (${VARIABLE} names another folder than {root()})"


def absent(wanted: list[Path], base: Path) -> str:
    """What of these files is not there, for a message; empty where all are."""
    lost = [path for path in wanted if not path.is_file()]
    if not lost:
        return ""
    example = lost[0].relative_to(base)
    return f"{len(lost):,} of {len(wanted):,} files are not in {base}, as {example}"
