"""Random frames in a data set's place, to try speed, memory and plumbing without its files."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

from stformer.datasets.base import DataSet, Frames, Split

PREFIX = "synthetic:"
SAMPLES = 256
COUNTS = np.repeat(np.arange(4, dtype=np.uint8), (190, 57, 8, 1))  # nearly Poisson, mean 0.3


def random_splits(dataset: DataSet, steps: int, samples: int = SAMPLES) -> dict[str, Split]:
    """Random splits with the shapes and ranges of a data set's; nothing in them can be learnt.

    Args:
        dataset: gives shape, largest value and classes.
        steps: T of event frames, whose counts are sparse: 0.3 a cell.
        samples: of the train split, 1 or more; the test split has a quarter, rounded up.
    """
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        frames: Frames
        if dataset.events:
            byte = random.integers(0, 256, (count, steps, *dataset.shape), np.uint8)
            frames = np.minimum(COUNTS, dataset.largest)[byte]
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
        splits=partial(random_splits, dataset),
        convert=None,
    )


def _nothing() -> None:
    return None
