"""What a step of the optimizer sees: which samples, in which parts, and how they get there.

A step's batch is cut into `parts` of equal size, whatever number of processes shares them:
the same parts on one process or four give the same gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stformer.augment import Numbers, augment
from stformer.data import Labels, Split
from stformer.machine import cores
from stformer.recipe import TrainConfig

Batch = tuple[Tensor, Tensor]
AHEAD = 4  # parts that a worker prepares before they are asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Samples that go through the network at once.

    Attributes:
        epoch, step, part: where they belong, each from 0.
        numbers: of the samples in their split.
    """

    epoch: int
    step: int
    part: int
    numbers: Numbers


def held_out(labels: Labels, fraction: float, seed: int) -> tuple[Numbers, Numbers]:
    """(numbers to train on, numbers to validate on): this fraction of every class, seeded.

    At least one sample of a class stays on either side, where it has two and the fraction is
    not 0.
    """
    rng = np.random.default_rng([seed, 0x5E1EC7])
    kept, held = [], []
    for label in np.unique(labels):
        of_class = rng.permutation(np.flatnonzero(labels == label))
        count = round(fraction * len(of_class))
        if fraction:
            count = min(max(count, 1), len(of_class) - 1)
        held.append(of_class[:count])
        kept.append(of_class[count:])
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(held))


def steps_of(samples: int, batch_size: int, parts: int) -> int:
    """Steps of an epoch; the last is left out where it has fewer samples than parts."""
    whole, rest = divmod(samples, batch_size)
    return whole + (rest >= parts)


def epoch_parts(pool: Numbers, config: TrainConfig, epoch: int, parts: int) -> list[list[Part]]:
    """The parts of every step of an epoch.

    The order depends on the seed and the epoch. A last, smaller batch is shortened by up to
    `parts - 1` samples, so that all parts of a step are of one size.
    """
    order = pool[np.random.default_rng([config.seed, epoch]).permutation(len(pool))]
    out = []
    for step in range(steps_of(len(pool), config.batch_size, parts)):
        batch = order[step * config.batch_size : (step + 1) * config.batch_size]
        size = len(batch) // parts
        out.append(
            [
                Part(epoch=epoch, step=step, part=i, numbers=batch[i * size : (i + 1) * size])
                for i in range(parts)
            ]
        )
    return out


class Samples(Dataset[Batch]):
    """Augmented parts of a split; what a worker process runs."""

    def __init__(self, split: Split, config: TrainConfig, largest: int) -> None:
        self.split, self.config, self.largest = split, config, largest

    def __getitem__(self, part: Part) -> Batch:
        """(uint8 frames, labels) of a part."""
        frames = augment(
            self.split.frames[part.numbers], part.numbers, self.config, part.epoch, self.largest
        )
        return frames, torch.from_numpy(self.split.labels[part.numbers])


def load_parts(samples: Samples, parts: list[Part], *, pin: bool) -> Iterator[tuple[Part, Batch]]:
    """The parts in their order, loaded between steps or by worker processes.

    Args:
        samples: of which split.
        parts: all that this process will see.
        pin: into memory that a GPU copies from while it computes.
    """
    workers = min(samples.config.workers, cores())  # more would only wait for each other
    if not workers:
        yield from ((part, samples[part]) for part in parts)
        return
    loader = DataLoader(
        samples,
        batch_size=None,  # a part is a batch already
        sampler=cast("list[int]", parts),
        num_workers=workers,
        prefetch_factor=AHEAD,
        pin_memory=pin,
        worker_init_fn=partial(_begin_worker),
        generator=torch.Generator(),  # its seed is not used; torch's own stays as it was
    )
    yield from zip(parts, loader, strict=True)


def _begin_worker(_number: int) -> None:
    torch.set_num_threads(1)  # worker processes are the parallelism


def as_input(frames: Tensor, steps: int) -> Tensor:
    """[T, B, C, H, W] of floats: an image at every step (direct coding), event frames as they are.

    Args:
        frames: [B, C, H, W], or [B, T, C, H, W].
        steps: T.
    """
    x = frames.float()
    if x.dim() == 4:
        return x.expand(steps, *x.shape)
    return x.transpose(0, 1).contiguous()
