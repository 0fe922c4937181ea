"""scikit-learn's handwritten digits: as they are, and as an event camera sees them."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import numpy as np

from stformer.datasets.base import DataSet, Frames, Labels, Split
from stformer.datasets.camera import Camera, film
from stformer.datasets.events import Events, frames_by_time

CAMERA = Camera()
LARGEST_COUNT = 3


def _missing() -> tuple[str, str] | None:
    if find_spec("sklearn") is None:
        return "scikit-learn is not installed", "pip install 'stformer[train]'"
    return None


def images() -> tuple[Frames, Labels]:
    """All 1,797: [S, 8, 8] of 0...16, and labels [S]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images.astype(np.uint8), bunch.target.astype(np.int64)


def _split(frames: Frames, labels: Labels) -> dict[str, Split]:
    """Every fifth image is a test image: 360 of 1,797, each writer in both parts."""
    test = np.arange(len(labels)) % 5 == 0
    return {
        "train": Split(frames=frames[~test], labels=labels[~test]),
        "test": Split(frames=frames[test], labels=labels[test]),
    }


def _digits(steps: int) -> dict[str, Split]:
    del steps
    frames, labels = images()
    return _split(frames[:, None], labels)


@cache
def events() -> tuple[Events, ...]:
    """The recording of each digit, in scikit-learn's order."""
    return tuple(film(images()[0], CAMERA))


def _event_digits(steps: int) -> dict[str, Split]:
    size = (CAMERA.size, CAMERA.size)
    frames = [frames_by_time(e, steps, size, largest=LARGEST_COUNT) for e in events()]
    return _split(np.stack(frames), images()[1])


DIGITS = DataSet(
    what="1,797 handwritten digits, 8x8, 16 grey levels (UCI, in scikit-learn)",
    shape=(1, 8, 8),
    largest=16,
    classes=10,
    samples=(1437, 360),
    missing=_missing,
    splits=_digits,
)

EVENT_DIGITS = DataSet(
    what="the same digits seen by a simulated event camera, 16x16, in three saccades",
    shape=(2, CAMERA.size, CAMERA.size),
    largest=LARGEST_COUNT,
    classes=10,
    samples=(1437, 360),
    events=True,
    missing=_missing,
    splits=_event_digits,
)
