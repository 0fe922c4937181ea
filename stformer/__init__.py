"""Train a spiking transformer, lower it to integers, prove that what was trained is what runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from stformer.errors import InputError, StformerError, Unavailable, Unsupported

if TYPE_CHECKING:
    from stformer.network import Network
    from stformer.storage import load
    from stformer.trace import Probe, Trace

__version__ = "0.1.0.dev0"

__all__ = [
    "InputError",
    "Network",
    "Probe",
    "StformerError",
    "Trace",
    "Unavailable",
    "Unsupported",
    "__version__",
    "load",
]

# Imported on use: NumPy alone would take most of the time of `stformer --help`.
_LATER = {
    "Network": "stformer.network",
    "load": "stformer.storage",
    "Probe": "stformer.trace",
    "Trace": "stformer.trace",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module 'stformer' has no attribute '{name}'")
    return getattr(import_module(_LATER[name]), name)
