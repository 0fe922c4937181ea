"""Data sets as integer frames, with fixed splits: the front of `stformer.datasets`.

NumPy only; a loader imports its package on use.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stformer.datasets.base import DataSet, Frames, Labels, Progress, Split, quiet
from stformer.datasets.cifar import CIFAR10, CIFAR100
from stformer.datasets.digits import DIGITS, EVENT_DIGITS
from stformer.datasets.recordings import CIFAR10_DVS, DVS128_GESTURE
from stformer.datasets.synthetic import PREFIX, random_splits, stand_in
from stformer.errors import InputError, Unavailable
from stformer.network import Network

__all__ = [
    "DATASETS",
    "DataSet",
    "Frames",
    "Labels",
    "Split",
    "find",
    "in_time",
    "load",
    "load_inputs",
    "packaged",
    "synthetic",
]

PACKAGED = Path(__file__).parent / "packaged" / "digits-samples.npz"

DATASETS: dict[str, DataSet] = {
    "digits": DIGITS,
    "event-digits": EVENT_DIGITS,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "cifar10dvs": CIFAR10_DVS,
    "dvs128": DVS128_GESTURE,
}


def find(name: str) -> DataSet:
    """The data set of that name, or random frames in its place for "synthetic:NAME".

    Raises:
        InputError: no such data set; lists those there are.
    """
    real = name.removeprefix(PREFIX)
    if real not in DATASETS:
        raise InputError("data set", f"'{name}'", ", ".join(DATASETS))
    return DATASETS[real] if real == name else stand_in(DATASETS[real])


def load(name: str, steps: int, progress: Progress = quiet) -> dict[str, Split]:
    """{"train": ..., "test": ...}.

    Args:
        name: as `find` takes it.
        steps: T that event data are binned to; static images ignore it.
        progress: gets (done, total) while a large event set is converted, once.

    Raises:
        InputError: no such data set; a damaged file of it.
        Unavailable: what loads it is not installed, or its files are not here.
    """
    dataset = find(name)
    if problem := dataset.missing():
        raise Unavailable(f"data set '{name}'", *problem)
    if dataset.convert:
        dataset.convert(steps, progress)
    return dataset.splits(steps)


def synthetic(name: str, steps: int, samples: int) -> dict[str, Split]:
    """Random splits in the shape of a data set, see `random_splits`; nothing is loaded."""
    return random_splits(find(name), steps, samples)


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
