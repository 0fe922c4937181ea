"""What the machine has."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version


def cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def versions(*more: str) -> dict[str, str]:
    """Versions of what takes part and of further distributions, of those that are installed."""
    out = {"Python": platform.python_version()}
    for name in ("stformer", "numpy", "torch", "lava-nc", *more):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out
