"""Pictures of networks at work and of training runs; needs matplotlib (`stformer[plot]`).

`features`, `raster`, `rates` and `gates` draw recordings (`record`, or `Recording` around a
trace), `curves` draws run folders, `chips` what `stformer.deploy.mapping` found. Each gives a
matplotlib Figure, made without pyplot; `save` writes it so that the same figure gives the same
bytes.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from stformer.errors import Unavailable

if TYPE_CHECKING:
    from stformer.plot.chips_picture import chips
    from stformer.plot.curves_picture import curves
    from stformer.plot.features_picture import features
    from stformer.plot.gates_picture import gates
    from stformer.plot.raster_picture import raster
    from stformer.plot.rates_picture import rates
    from stformer.plot.recording import Recording, record
    from stformer.plot.style import save

__all__ = [
    "Recording",
    "chips",
    "curves",
    "features",
    "gates",
    "need_matplotlib",
    "raster",
    "rates",
    "record",
    "save",
]

_FREE = {"Recording": "recording", "record": "recording"}
_DRAWN = {
    "chips": "chips_picture",
    "curves": "curves_picture",
    "features": "features_picture",
    "gates": "gates_picture",
    "raster": "raster_picture",
    "rates": "rates_picture",
    "save": "style",
}


def need_matplotlib() -> None:
    """Raise Unavailable, exit code 3, where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise Unavailable(
            "a picture", "matplotlib is not installed", "pip install 'stformer[plot]'"
        )


def __getattr__(name: str) -> object:
    if name in _FREE:
        return getattr(import_module(f"stformer.plot.{_FREE[name]}"), name)
    if name in _DRAWN:
        need_matplotlib()
        return getattr(import_module(f"stformer.plot.{_DRAWN[name]}"), name)
    raise AttributeError(f"module 'stformer.plot' has no attribute '{name}'")
