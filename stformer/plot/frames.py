"""Input frames as pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from stformer.network import IntArray
from stformer.plot.style import bare

ON, OFF = (0.0, 0.447, 0.698), (0.835, 0.369, 0.0)  # polarities of an event camera

Picture = npt.NDArray[np.float64]


def is_static(frames: IntArray) -> bool:
    """Whether the frames [T, ...] are one image, shown T times."""
    return bool((frames == frames[:1]).all())


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether a population's shape is that of maps with more than one place."""
    return len(shape) == 3 and shape[1] * shape[2] > 1


def picture_of(frames: IntArray) -> tuple[Picture, str]:
    """Frames [T, C, H, W] as one picture, and what it shows.

    Returns:
        [H, W] of 0...1 in grey, or [H, W, 3] for three channels (colours) and two (the
        polarities of events, blue and orange).
    """
    mean = frames.astype(np.float64).mean(axis=0)
    low, high = min(float(mean.min()), 0.0), float(mean.max())
    scaled = (mean - low) / (high - low) if high > low else np.zeros_like(mean)
    when = "" if is_static(frames) else ", time mean"
    if len(scaled) == 3:
        return np.moveaxis(scaled, 0, -1), f"colours{when}"
    if len(scaled) == 2:
        ink = sum(scaled[i][..., None] * (1 - np.array(c)) for i, c in enumerate((OFF, ON)))
        light: Picture = np.clip(1.0 - np.asarray(ink, np.float64), 0.0, 1.0)
        return light, f"events{when}"
    grey = scaled.mean(axis=0)
    top = grey.max()
    return (grey / top if top > 0 else grey), f"grey levels{when}"


def draw_picture(axes: Axes, picture: Picture, **more: Any) -> None:
    """Show it; grey where it has no colours."""
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", **more)
    bare(axes)


def draw_map(axes: Axes, values: Picture, colours: Any, high: float) -> None:
    """A map of rates, from 0 to `high`."""
    axes.imshow(values, cmap=colours, vmin=0, vmax=high or 1, interpolation="nearest")
    bare(axes)
