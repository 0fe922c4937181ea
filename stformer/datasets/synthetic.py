"""Random frames in a data set's place, to try speed, memory and plumbing without its files."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

from stformer.datasets.base import DataSet, Frames, Split

PREFIX = "synthetic:"
SAMPLES = 256
RATE = 0.3  # events per pixel, polarity and step


def synthetic(dataset: DataSet, steps: int, samples: int = SAMPLES) -> dict[str, Split]:
    """Random splits with the shapes and ranges of a data set's; nothing in them can be learnt.

    Args:
        dataset: gives shape, largest value and classes.
        steps: T of event frames, whose counts are sparse: Poisson, 0.3 a cell.
        samples: of the train split, 1 or more; the test split has a quarter, rounded up.
    """
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        frames: Frames
        if dataset.events:
            counts = random.poisson(RATE, (count, steps, *dataset.shape))
            frames = np.minimum(counts, dataset.largest).astype(np.uint8)
        else:
            frames = random.integers(0, dataset.largest + 1, (count, *dataset.shape), np.uint8)
        return Split(frames=frames, labels=random.integers(0, dataset.classes, count))

    return {"train": split(samples), "test": split(math.ceil(samples / 4))}


def stand_in(dataset: DataSet) -> DataSet:
    """A data set of the same shape that is always here: "synthetic:NAME"."""
    return replace(
        dataset,
        what=f"random frames in the place of: {dataset.what}",
        samples=(SAMPLES, math.ceil(SAMPLES / 4)),
        place=None,
        size="",
        missing=_nothing,
        splits=partial(synthetic, dataset),
        convert=None,
    )


def _nothing() -> None:
    return None
