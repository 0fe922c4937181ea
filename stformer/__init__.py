"""Train a spiking transformer, lower it to integers, prove that what was trained is what runs."""

from stformer.errors import InputError, StformerError, Unavailable, Unsupported
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
