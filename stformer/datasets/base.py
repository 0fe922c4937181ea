"""What a data set is to the rest of the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]
"""Gets (done, total), in recordings."""


def quiet(done: int, total: int) -> None:
    """A Progress that shows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Frames before coding in time, and labels.

    Attributes:
        frames: [S, C, H, W] static images, or [S, T, C, H, W] event frames; whole numbers. Those
            of the large event sets are a read-only `np.memmap`.
        labels: [S].
    """

    frames: Frames
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """A data set that this package knows.

    Attributes:
        what: one line for `stformer datasets`.
        shape: (C, H, W) of a frame.
        largest: largest value of a frame; counts of events saturate there.
        classes: number of labels.
        samples: of the train and the test split.
        events: event frames [S, T, C, H, W], else static images [S, C, H, W].
        place: where its files lie or belong; None for what needs none.
        size: of what it needs on disk, for people; empty where that is nothing.
        missing: None when it can be loaded here, else (what is missing, how to get it).
        splits: loads {"train": Split, "test": Split}; gets T, which static images ignore.
        convert: makes the cache from which `splits` reads, with signs of life; None where
            loading takes seconds at most.
    """

    what: str
    shape: tuple[int, int, int]
    largest: int
    classes: int
    samples: tuple[int, int]
    events: bool = False
    place: Callable[[], str] | None = None
    size: str = ""
    missing: Callable[[], tuple[str, str] | None]
    splits: Callable[[int], dict[str, Split]]
    convert: Callable[[int, Progress], None] | None = None
