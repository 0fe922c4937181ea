"""Augmentation: chance from seed, epoch and sample alone; what each kind does to frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("torchvision", reason="torchvision is not installed")

from stformer import augment  # noqa: E402
from stformer.errors import InputError  # noqa: E402
from stformer.recipe import TrainConfig  # noqa: E402

KINDS: dict[str, dict[str, Any]] = {
    "flip": {"flip": 0.5},
    "shift": {"shift": 2},
    "randaugment": {"policy": "randaugment", "policy_ops": 2},
    "autoaugment": {"policy": "autoaugment"},
    "erasing": {"erasing": 0.5},
    "all": {"flip": 0.5, "shift": 1, "policy": "randaugment", "policy_prob": 0.5, "erasing": 0.25},
    "events": {"events": True, "flip": 0.5},
}


def config(**more: Any) -> TrainConfig:
    return TrainConfig(epochs=1, **more)


def pictures(count: int = 24, size: int = 16) -> Any:
    return np.random.default_rng(1).integers(0, 256, (count, 3, size, size), np.uint8)


def events(count: int = 24, size: int = 16) -> Any:
    return np.random.default_rng(1).integers(0, 9, (count, 4, 2, size, size), np.uint8)


def frames_of(kind: str) -> tuple[Any, int]:
    return (events(), 8) if kind == "events" else (pictures(), 255)


@pytest.mark.parametrize("kind", KINDS)
def test_a_samples_chance_is_its_own(kind: str) -> None:
    frames, largest = frames_of(kind)
    before = frames.copy()
    c = config(**KINDS[kind], seed=3)
    numbers = np.arange(len(frames)) + 100
    whole = augment.augment(frames, numbers, c, 5, largest)
    assert whole.dtype == torch.uint8 and whole.shape == frames.shape
    assert (frames == before).all(), "the data set itself was changed"
    changed = (whole != torch.from_numpy(frames)).flatten(1).any(1).float().mean()
    assert changed > 0.2
    # another order and other company: the same samples
    order = np.random.default_rng(0).permutation(len(frames))[:7]
    torch.manual_seed(99)
    some = augment.augment(frames[order], numbers[order], c, 5, largest)
    assert torch.equal(some, whole[torch.from_numpy(order)])
    # another epoch, another seed: other samples
    for other in (
        augment.augment(frames, numbers, c, 6, largest),
        augment.augment(frames, numbers, config(**KINDS[kind], seed=4), 5, largest),
    ):
        assert not torch.equal(other, whole)


def test_torchs_own_generator_stays_as_it_was() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    augment.augment(pictures(), np.arange(24), config(**KINDS["all"]), 0, 255)
    c = config(mixup=0.5)
    augment.mix(torch.zeros(4, 1, 2, 2), torch.arange(4), c, classes=4, key=(0, 0, 0))
    assert torch.equal(torch.rand(3), expected)


def test_flip_mirrors_about_as_many_as_it_should() -> None:
    frames = pictures(400, 4)
    x = augment.augment(frames, np.arange(400), config(flip=0.25), 0, 255)
    same = (x == torch.from_numpy(frames)).flatten(1).all(1)
    mirrored = (x == torch.from_numpy(frames).flip(-1)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 0.15 < mirrored.float().mean() < 0.35


def test_shift_moves_by_up_to_so_many_pixels_each_way() -> None:
    frames = np.zeros((60, 1, 5, 5), np.uint8)
    frames[:, :, 2, 2] = 9
    moved = augment.augment(frames, np.arange(60), config(shift=1), 0, 16)
    places = {tuple(np.argwhere(m[0].numpy())[0]) for m in moved}
    assert places == {(y, x) for y in (1, 2, 3) for x in (1, 2, 3)}
    assert (moved.flatten(1).sum(1) == 9).all()


def test_erasing_leaves_a_grey_rectangle_and_nothing_else() -> None:
    frames = np.full((60, 3, 16, 16), 255, np.uint8)
    x = augment.augment(frames, np.arange(60), config(erasing=1.0), 0, 255)
    assert set(x.unique().tolist()) == {127, 255}
    for sample in x:
        gone = np.argwhere(sample[0].numpy() == 127)
        assert len(gone)
        height, width = gone.max(0) - gone.min(0) + 1
        assert height * width == len(gone) and 0.01 < len(gone) / 256 < 0.4


def test_events_change_all_steps_alike_and_counts_stay_counts() -> None:
    one = np.random.default_rng(2).integers(0, 9, (80, 1, 2, 32, 32), np.uint8)
    x = augment.augment(np.repeat(one, 3, axis=1), np.arange(80), config(events=True), 0, 8)
    assert torch.equal(x[:, 0], x[:, 1]) and torch.equal(x[:, 0], x[:, 2])
    assert int(x.max()) <= 8
    same = (x[:, 0] == torch.from_numpy(one[:, 0])).flatten(1).all(1)
    assert 5 <= int(same.sum()) <= 30, "one of six leaves frames as they are, on average 13 of 80"
    # what was moved by whole pixels is found again moved back
    shifted = 0
    for before, after in zip(one[:, 0, 0], x[:, 0, 0].numpy(), strict=True):
        inner = after[8:24, 8:24]
        shifted += any(
            (inner == before[8 - dy : 24 - dy, 8 - dx : 24 - dx]).all()
            for dy, dx in [(0, d) for d in range(-5, 6) if d] + [(d, 0) for d in range(-5, 6) if d]
        )
    assert 10 <= shifted <= 45, "two of six shift, on average 27 of 80, some by nothing"


def test_policies_are_for_pictures() -> None:
    augment.check(config(policy="randaugment"), (3, 32, 32), 255)
    augment.check(config(events=True), (2, 128, 128), 255)
    for shape, largest in (((2, 128, 128), 255), ((1, 8, 8), 16)):
        with pytest.raises(InputError, match=r"train\.policy.*train\.events"):
            augment.check(config(policy="autoaugment"), shape, largest)


def mixed(key: tuple[int, int, int] = (0, 0, 0), **more: Any) -> tuple[Any, Any]:
    x = torch.arange(6.0)[:, None, None, None].expand(6, 2, 8, 8) * 10
    return augment.mix(x, torch.arange(6), config(**more), classes=6, key=key)


def test_mixup_mixes_frames_and_labels_alike() -> None:
    x, y = mixed(mixup=1.0)
    assert y.shape == (6, 6)
    torch.testing.assert_close(y.sum(1), torch.ones(6))
    torch.testing.assert_close(x[:, 0, 0, 0], y @ (torch.arange(6.0) * 10))
    again, _ = mixed(mixup=1.0)
    assert torch.equal(again, x)
    for key in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not torch.equal(mixed(key, mixup=1.0)[0], x)


def test_cutmix_pastes_a_rectangle_of_the_share_that_labels_say() -> None:
    for step in range(8):
        x, y = mixed((0, step, 0), cutmix=1.0)
        torch.testing.assert_close(x[:, 0].mean((1, 2)), y @ (torch.arange(6.0) * 10))
        assert set(x.unique().tolist()) <= {0.0, 10.0, 20.0, 30.0, 40.0, 50.0}


def test_mixing_is_by_chance_and_ends_where_the_recipe_says() -> None:
    def was(key: tuple[int, int, int], **more: Any) -> bool:
        return mixed(key, mixup=0.5, **more)[1].dim() == 2

    share = np.mean([was((0, step, 0), mix_prob=0.5) for step in range(80)])
    assert 0.3 < share < 0.7
    assert was((199, 0, 0), mix_epochs=200) and not was((200, 0, 0), mix_epochs=200)
    assert not was((0, 0, 0), mix_prob=0.0)
    kinds = [mixed((0, step, 0), mixup=0.5, cutmix=1.0)[0] for step in range(30)]
    cut = [len(x[:, 0].unique()) <= 6 and bool((x % 10 == 0).all()) for x in kinds]
    assert 5 < sum(cut) < 25


def test_event_frames_are_mixed_with_all_their_steps() -> None:
    x = torch.arange(4.0)[:, None, None, None, None].expand(4, 3, 2, 8, 8)
    for kind in ("mixup", "cutmix"):
        out, y = augment.mix(x, torch.arange(4), config(**{kind: 1.0}), classes=4, key=(0, 1, 0))
        assert out.shape == x.shape
        torch.testing.assert_close(out.mean((1, 2, 3, 4)), y @ torch.arange(4.0))
        assert torch.equal(out[:, 0], out[:, 2])
