"""Removing what a run leaves when it is killed: shared memory by its prefix, its folder."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # Linux; elsewhere segments end with their resource tracker


def remove(prefix: str, folder: Path | None) -> None:
    """Unlink shared memory of that prefix and remove the folder; what is gone is no error.

    Args:
        prefix: as POSIX has it, with the leading slash.
        folder: the run's own, or None.
    """
    if SHARED_MEMORY.is_dir():
        for segment in SHARED_MEMORY.glob(prefix.lstrip("/") + "*"):
            with suppress(OSError):
                segment.unlink()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
