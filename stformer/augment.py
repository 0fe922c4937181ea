"""Augmentation: of single samples by torchvision, of batches by MixUp and CutMix.

What a sample goes through depends on the seed, the epoch and its number in the split; how a
batch is mixed, on the seed, the epoch, the step and the part of the batch. Who loads it, when,
and on how many processes does not matter.

Shape legend: B samples, T steps (event frames only), C channels, H, W.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stformer.errors import InputError
from stformer.recipe import TrainConfig

Transform = Callable[[Tensor], Tensor]
Numbers = npt.NDArray[np.int64]

# Streams of chance of one seed and epoch.
FLIP, SHIFT_Y, SHIFT_X, POLICY, TRANSFORM, MIX = range(1, 7)

POLICY_BINS = 11  # magnitudes 0...10, as the baseline's library counts them
# Ranges of the baseline's augmentation of event frames: tangent, pixels, degrees, part of area.
SHEAR, TRANSLATE, ROTATE, CUTOUT = 0.3, 5, 30, (0.001, 0.11)


def check(config: TrainConfig, shape: tuple[int, ...], largest: int) -> None:
    """Raise InputError where an image policy is asked for what is no 8-bit image.

    Args:
        config: which augmentations.
        shape: of a frame, (C, H, W).
        largest: value of a frame.
    """
    if config.policy != "none" and not is_image(shape, largest):
        raise InputError(
            "train.policy",
            f"'{config.policy}' for {shape[0]} channels of values up to {largest}",
            "'none', or a data set of images with 1 or 3 channels, 0...255",
            "event frames have train.events",
        )


def is_image(shape: tuple[int, ...], largest: int) -> bool:
    """Whether frames of this shape are 8-bit pictures; others have no colours to change."""
    return largest == 255 and shape[0] in (1, 3)


def augment(
    frames: npt.NDArray[np.uint8], numbers: Numbers, config: TrainConfig, epoch: int, largest: int
) -> Tensor:
    """Samples as an epoch shows them; whole numbers stay whole.

    Args:
        frames: [B, C, H, W] or [B, T, C, H, W]; not changed.
        numbers: [B], of the samples in their split.
        config: which augmentations.
        epoch: from 0.
        largest: value of a frame.

    Returns:
        uint8, of the frames' shape.
    """
    x = torch.from_numpy(np.ascontiguousarray(frames))
    seeds = [config.seed, epoch]
    if config.flip:
        mirrored = torch.from_numpy(_uniform([*seeds, FLIP], numbers) < config.flip)
        x = torch.where(mirrored.reshape(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)
    if config.shift:
        x = _shifted(x, numbers, config, epoch)
    shape = tuple(x.shape[-3:])
    policy, others = _transforms(config, shape, largest)
    if policy is None and not others:
        return x
    chosen = _uniform([*seeds, POLICY], numbers) < config.policy_prob
    chance = (_bits([*seeds, TRANSFORM], numbers) >> np.uint64(1)).tolist()
    out = []
    with _own_chance():
        for sample, number, takes_policy in zip(x, chance, chosen, strict=True):
            torch.default_generator.manual_seed(number)
            if policy is not None and takes_policy:
                sample = policy(sample)
            for transform in others:
                sample = transform(sample)
            out.append(sample)
    return torch.stack(out)


def mix(
    x: Tensor, y: Tensor, config: TrainConfig, *, classes: int, key: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    """MixUp or CutMix of a part of a batch, by chance; each sample with its neighbour.

    Args:
        x: floats, [B, C, H, W] or [B, T, C, H, W].
        y: classes, [B].
        config: alphas and chances.
        classes: number of classes.
        key: (epoch, step, part), each from 0.

    Returns:
        x, and y as it was or, where mixed, probabilities [B, classes].
    """
    kinds = [k for k in ("mixup", "cutmix") if getattr(config, k)]
    if not kinds or (config.mix_epochs and key[0] >= config.mix_epochs):
        return x, y
    rng = np.random.default_rng([config.seed, MIX, *key])
    if rng.random() >= config.mix_prob:
        return x, y
    kind = kinds[int(rng.integers(len(kinds)))]
    transform = _mixer(kind, getattr(config, kind), classes)
    with _own_chance():
        torch.default_generator.manual_seed(int(rng.integers(2**62)))
        flat, mixed = transform(x.flatten(1, -3), y)
    return flat.reshape(x.shape), mixed


def _shifted(x: Tensor, numbers: Numbers, config: TrainConfig, epoch: int) -> Tensor:
    """Each sample moved by up to `shift` pixels in both directions, zeros moving in."""
    most = config.shift
    height, width = x.shape[-2:]
    padded = torch.nn.functional.pad(x, (most, most, most, most))
    rows, columns = (
        (_uniform([config.seed, epoch, axis], numbers) * (2 * most + 1)).astype(int).tolist()
        for axis in (SHIFT_Y, SHIFT_X)
    )
    moved = [
        p[..., dy : dy + height, dx : dx + width]
        for p, dy, dx in zip(padded, rows, columns, strict=True)
    ]
    return torch.stack(moved)


def _transforms(
    config: TrainConfig, shape: tuple[int, ...], largest: int
) -> tuple[Transform | None, tuple[Transform, ...]]:
    """(the policy, what follows it), for single samples."""
    fill = largest // 2 if is_image(shape, largest) else 0  # grey; events: nothing
    policy, others = None, []
    if config.policy != "none":
        policy = _policy(config.policy, config.policy_ops, config.policy_magnitude, fill)
    if config.events:
        others.append(_event_augmentation(shape[-1], shape[-2]))
    if config.erasing:
        others.append(_erasing(config.erasing, fill))
    return policy, tuple(others)


@cache
def _policy(name: str, ops: int, magnitude: int, fill: int) -> Transform:
    from torchvision.transforms import InterpolationMode, v2

    how = {"interpolation": InterpolationMode.BILINEAR, "fill": fill}
    made: Transform
    if name == "autoaugment":
        made = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, **how)
    else:
        made = v2.RandAugment(ops, magnitude, POLICY_BINS, **how)
    return made


@cache
def _erasing(chance: float, fill: int) -> Transform:
    from torchvision.transforms import v2

    made: Transform = v2.RandomErasing(chance, value=fill)
    return made


@cache
def _event_augmentation(width: int, height: int) -> Transform:
    """One of the baseline's six, drawn anew for every sample."""
    from torchvision.transforms import v2

    degrees = math.degrees(math.atan(SHEAR))
    across, down = min(TRANSLATE / width, 1.0), min(TRANSLATE / height, 1.0)
    made: Transform = v2.RandomChoice(
        [
            v2.Identity(),
            v2.RandomAffine(0, shear=(-degrees, degrees)),
            v2.RandomAffine(0, translate=(across, 0.0)),
            v2.RandomAffine(0, translate=(0.0, down)),
            v2.RandomRotation(ROTATE),
            v2.RandomErasing(1.0, scale=CUTOUT, ratio=(1.0, 1.0)),
        ]
    )
    return made


@cache
def _mixer(
    kind: str, alpha: float, classes: int
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    from torchvision.transforms import v2

    made: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = (
        v2.MixUp if kind == "mixup" else v2.CutMix
    )(alpha=alpha, num_classes=classes)
    return made


@contextmanager
def _own_chance() -> Iterator[None]:
    """torch's generator, which torchvision draws from, is ours in here and as before after."""
    state = torch.default_generator.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def _bits(key: list[int], numbers: Numbers) -> npt.NDArray[np.uint64]:
    """64 random bits per sample: entry `number` of the SplitMix64 stream that the key seeds."""
    start = np.random.SeedSequence(key).generate_state(1, np.uint64)
    z = start + (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits: npt.NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return bits


def _uniform(key: list[int], numbers: Numbers) -> npt.NDArray[np.float64]:
    """A number in [0, 1) per sample."""
    return (_bits(key, numbers) >> np.uint64(11)) * 2.0**-53
