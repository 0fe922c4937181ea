"""Data sets as integer frames, with fixed splits; NumPy only, each loader's package on use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stformer.errors import InputError, Unavailable
from stformer.network import Network

PACKAGED = Path(__file__).parent / "packaged" / "digits-samples.npz"

Frames = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Frames before coding in time, and labels.

    Attributes:
        frames: [S, C, H, W] static images, or [S, T, C, H, W] event frames; whole numbers.
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
        largest: largest value of a frame.
        classes: number of labels.
        missing: None when it can be loaded here, else (what is missing, how to get it).
        splits: loads {"train": Split, "test": Split}.
    """

    what: str
    shape: tuple[int, int, int]
    largest: int
    classes: int
    missing: Callable[[], tuple[str, str] | None]
    splits: Callable[[], dict[str, Split]]


def _digits_missing() -> tuple[str, str] | None:
    if find_spec("sklearn") is None:
        return "scikit-learn is not installed", "pip install 'stformer[train]'"
    return None


def _digits() -> dict[str, Split]:
    """Every fifth image is a test image: 360 of 1,797, each writer in both parts."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    frames = bunch.images.astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    test = np.arange(len(labels)) % 5 == 0
    return {
        "train": Split(frames=frames[~test], labels=labels[~test]),
        "test": Split(frames=frames[test], labels=labels[test]),
    }


DATASETS: dict[str, DataSet] = {
    "digits": DataSet(
        what="1,797 handwritten digits, 8x8, 16 grey levels (UCI, in scikit-learn)",
        shape=(1, 8, 8),
        largest=16,
        classes=10,
        missing=_digits_missing,
        splits=_digits,
    ),
}


def find(name: str) -> DataSet:
    """The data set of that name; InputError lists those there are."""
    if name not in DATASETS:
        raise InputError("data set", f"'{name}'", ", ".join(DATASETS))
    return DATASETS[name]


def load(name: str, steps: int) -> dict[str, Split]:
    """{"train": ..., "test": ...}.

    Args:
        name: of the data set.
        steps: of event frames; a static image has none.

    Raises:
        InputError: no such data set.
        Unavailable: what loads it is not installed.
    """
    dataset = find(name)
    if problem := dataset.missing():
        raise Unavailable(f"data set '{name}'", *problem)
    del steps
    return dataset.splits()


def synthetic(name: str, steps: int, samples: int) -> dict[str, Split]:
    """Random frames and labels in the shape of a data set; nothing is loaded."""
    del steps
    dataset, rng = find(name), np.random.default_rng(0)
    return {
        part: Split(
            frames=rng.integers(0, dataset.largest + 1, (samples, *dataset.shape), np.uint8),
            labels=rng.integers(0, dataset.classes, samples),
        )
        for part in ("train", "test")
    }


def in_time(frames: Frames, steps: int) -> Frames:
    """[S, T, C, H, W]: an image at every step (direct coding); event frames as they are.

    Raises:
        InputError: event frames of another number of steps.
    """
    if frames.ndim == 4:
        return np.ascontiguousarray(
            np.broadcast_to(frames[:, None], (len(frames), steps, *frames.shape[1:]))
        )
    if frames.shape[1] != steps:
        raise InputError("event frames", f"{frames.shape[1]} time steps", str(steps))
    return frames


def packaged() -> tuple[Frames, Labels]:
    """The packaged model's samples: 360 test digits, inputs [S, T, C, H, W] and labels [S]."""
    with np.load(PACKAGED, allow_pickle=False) as samples:
        return samples["inputs"], samples["labels"]


def load_inputs(name: str, network: Network) -> tuple[Frames, Labels]:
    """The test split of a data set, coded for a network: [S, T, C, H, W] and labels [S]."""
    split = load(name, network.steps)["test"]
    return in_time(split.frames, network.steps), split.labels
