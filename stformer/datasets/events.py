"""Events of a vision sensor, and the frames they are counted in; NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stformer.datasets.base import Frames
from stformer.errors import InputError

COUNT_MAX = 255
"""What a uint8 frame holds; frames saturate there, or lower where a data set says so."""

# Bounds T * 2 * H * W of one recording's frames.
CELLS_MAX = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """One recording.

    Attributes:
        t: [N] int64, microseconds, ascending.
        x, y: [N] uint16, from the upper left corner.
        p: [N] uint8, 1 where it became brighter (ON), 0 where darker (OFF).
        source: the file, for messages.
    """

    t: npt.NDArray[np.int64]
    x: npt.NDArray[np.uint16]
    y: npt.NDArray[np.uint16]
    p: npt.NDArray[np.uint8]
    source: str = "events"

    def __len__(self) -> int:
        return len(self.t)

    def during(self, start: int, end: int) -> Events:
        """Those with start <= t < end, in microseconds."""
        i, j = np.searchsorted(self.t, (start, end))
        return Events(
            t=self.t[i:j], x=self.x[i:j], y=self.y[i:j], p=self.p[i:j], source=self.source
        )


def in_order(
    t: npt.NDArray[np.int64],
    x: npt.NDArray[np.uint16],
    y: npt.NDArray[np.uint16],
    p: npt.NDArray[np.uint8],
    source: str,
) -> Events:
    """Events as `Events` wants them; old hardware lets the time step back now and then."""
    if len(t) and (np.diff(t) < 0).any():
        order = np.argsort(t, kind="stable")
        t, x, y, p = t[order], x[order], y[order], p[order]
    return Events(t=t, x=x, y=y, p=p, source=source)


def frames_by_count(
    events: Events, steps: int, size: tuple[int, int], *, largest: int = COUNT_MAX
) -> Frames:
    """Counts in bins of equally many events, [T, 2, H, W]; channel = polarity.

    Each bin gets N // T events, the last one the remainder too (SpikingJelly's
    split_by="number": datasets/utils.py, cal_fixed_frames_number_segment_index).

    Args:
        events: at least T of them.
        steps: T, 1 or more.
        size: (H, W) of the sensor.
        largest: counts saturate at this, 1...255.

    Raises:
        InputError: fewer than T events, events outside the sensor.
    """
    _check(events, steps, size)
    if len(events) < steps:
        raise InputError(events.source, f"{len(events)} events", f"at least one a step, {steps}")
    bins = np.minimum(np.arange(len(events)) // (len(events) // steps), steps - 1)
    return _count(events, bins, steps, size, largest)


def frames_by_time(
    events: Events, steps: int, size: tuple[int, int], *, largest: int = COUNT_MAX
) -> Frames:
    """Counts in bins of equal duration, from the first event to the last, [T, 2, H, W].

    Bin of an event: (t - t0) * T // (t1 - t0 + 1), in whole numbers. Arguments and errors as in
    `frames_by_count`, but one event is enough.
    """
    _check(events, steps, size)
    span = int(events.t[-1]) - int(events.t[0]) + 1
    if span > np.iinfo(np.int64).max // steps:
        raise InputError(events.source, f"{span} microseconds", "a recording of less than years")
    bins = (events.t - events.t[0]) * steps // span
    return _count(events, bins, steps, size, largest)


def _check(events: Events, steps: int, size: tuple[int, int]) -> None:
    height, width = size
    if steps < 1 or steps * 2 * height * width > CELLS_MAX:
        raise InputError("time steps", str(steps), f"1...{CELLS_MAX // (2 * height * width)}")
    if not len(events):
        raise InputError(events.source, "no events", "a recording with events")
    x, y = int(events.x.max()), int(events.y.max())
    if x >= width or y >= height:
        raise InputError(
            events.source, f"an event at x = {x}, y = {y} or so", f"a sensor of {width}x{height}"
        )


def _count(
    events: Events,
    bins: npt.NDArray[np.int64],
    steps: int,
    size: tuple[int, int],
    largest: int,
) -> Frames:
    assert 1 <= largest <= COUNT_MAX
    height, width = size
    cell = ((bins * 2 + events.p) * height + events.y) * width + events.x
    counts = np.bincount(cell, minlength=steps * 2 * height * width)
    return np.minimum(counts, largest).astype(np.uint8).reshape(steps, 2, height, width)
