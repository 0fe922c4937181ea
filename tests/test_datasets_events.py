"""Events: counted into frames, and made by the simulated camera."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from stformer import data
from stformer.datasets import camera, digits
from stformer.datasets.camera import Camera, film
from stformer.datasets.events import Events, frames_by_count, frames_by_time, in_order
from stformer.errors import InputError

SIZE = (3, 4)


def random_events(count: int, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    return Events(
        t=np.sort(rng.integers(50, 5000, count)),
        x=rng.integers(0, SIZE[1], count).astype(np.uint16),
        y=rng.integers(0, SIZE[0], count).astype(np.uint16),
        p=rng.integers(0, 2, count).astype(np.uint8),
        source="a.aedat",
    )


@pytest.mark.parametrize(("count", "steps"), [(1000, 7), (23, 5), (16, 16), (31, 16), (40, 1)])
def test_equal_counts_with_the_remainder_last(count: int, steps: int) -> None:
    events = random_events(count)
    expected = np.zeros((steps, 2, *SIZE), np.int64)
    for i in range(count):
        step = min(i // (count // steps), steps - 1)
        expected[step, events.p[i], events.y[i], events.x[i]] += 1
    frames = frames_by_count(events, steps, SIZE)
    assert frames.dtype == np.uint8
    assert (frames == expected).all()
    assert (frames.sum((1, 2, 3))[:-1] == count // steps).all()


@pytest.mark.parametrize(("count", "steps"), [(1000, 7), (3, 16), (1, 4)])
def test_equal_durations(count: int, steps: int) -> None:
    events = random_events(count)
    first, last = int(events.t[0]), int(events.t[-1])
    expected = np.zeros((steps, 2, *SIZE), np.int64)
    for i in range(count):
        step = (int(events.t[i]) - first) * steps // (last + 1 - first)
        expected[step, events.p[i], events.y[i], events.x[i]] += 1
    assert (frames_by_time(events, steps, SIZE) == expected).all()


def test_counts_saturate_and_do_not_wrap() -> None:
    many = random_events(300)
    same = replace(many, x=np.zeros(300, np.uint16), y=many.y * 0, p=many.p * 0)
    assert frames_by_count(same, 1, SIZE).max() == 255
    assert frames_by_time(same, 1, SIZE, largest=3).max() == 3
    assert frames_by_time(same, 1, SIZE, largest=3).sum() == 3


def test_mistakes_name_the_file() -> None:
    events = random_events(10)
    for frames_by in (frames_by_count, frames_by_time):
        with pytest.raises(InputError, match=r"a\.aedat: no events"):
            frames_by(random_events(0), 2, SIZE)
        with pytest.raises(InputError, match=r"a\.aedat: an event at x = 4.*sensor of 4x3"):
            frames_by(replace(events, x=events.x + np.uint16(1)), 2, SIZE)
        with pytest.raises(InputError, match="sensor of 4x3"):
            frames_by(replace(events, y=events.y + np.uint16(60000)), 2, SIZE)
        with pytest.raises(InputError, match="time steps: 0"):
            frames_by(events, 0, SIZE)
        with pytest.raises(InputError, match="time steps"):
            frames_by(events, 2**40, SIZE)  # before anything of that size is made
    with pytest.raises(InputError, match=r"a\.aedat: 10 events; allowed: at least one a step, 11"):
        frames_by_count(events, 11, SIZE)
    far = replace(events, t=np.array([*events.t[:-1], 2**62]))
    with pytest.raises(InputError, match="years"):
        frames_by_time(far, 16, SIZE)


def test_time_that_steps_back_is_sorted_and_cut_half_open() -> None:
    t = np.array([5, 3, 3, 9])
    zero, p = np.zeros(4, np.uint16), np.array([0, 1, 0, 1], np.uint8)
    events = in_order(t=t, x=np.arange(4, dtype=np.uint16), y=zero, p=p, source="x")
    assert events.t.tolist() == [3, 3, 5, 9]
    assert events.x.tolist() == [1, 2, 0, 3]  # stable
    assert events.during(3, 9).x.tolist() == [1, 2, 0]
    assert len(events.during(10, 20)) == 0


# --- the simulated camera ------------------------------------------------------------------------

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 17, (3, 8, 8)).astype(np.uint8)
SMALL = Camera(renderings=6, interval=9000)


def one_pixel(levels: list[int], on: int, off: int, c: Camera) -> list[tuple[int, int]]:
    """The rule, straightforwardly: (t, p) of a pixel whose log brightness takes these values."""
    reference, blind, out = levels[0], -c.refractory, []
    for step, (before, after) in enumerate(pairwise(levels)):
        while after - reference >= on or reference - after >= off:
            p = int(after > reference)
            reference += on if p else -off
            t = step * c.interval + (reference - before) * c.interval // (after - before)
            if t - blind >= c.refractory:
                out.append((t, p))
                blind = t
    return out


def test_every_pixel_follows_the_rule() -> None:
    random = np.random.RandomState(SMALL.seed)
    low, high = SMALL.threshold - SMALL.mismatch, SMALL.threshold + SMALL.mismatch
    on, off = (random.randint(low, high + 1, (16, 16)) for _ in range(2))
    table, moves = camera._log_table(SMALL), list(camera._movement(SMALL))
    logs = np.stack([camera._render(IMAGES, move, SMALL, table) for move in moves])
    assert len(moves) == 3 * SMALL.renderings + 1
    for image, events in zip(range(3), film(IMAGES, SMALL), strict=True):
        assert (np.diff(events.t) >= 0).all()
        for y, x in np.ndindex(16, 16):
            mine = (events.y == y) & (events.x == x)
            found = list(zip(events.t[mine].tolist(), events.p[mine].tolist(), strict=True))
            levels = logs[:, image, y, x].tolist()
            assert found == one_pixel(levels, int(on[y, x]), int(off[y, x]), SMALL)


def test_rendering_is_bilinear_and_black_outside() -> None:
    table = camera._log_table(SMALL)
    white = np.full((1, 8, 8), 16, np.uint8)
    assert (camera._render(white, (64 * 20, 0), SMALL, table) == table[0]).all()
    inside = camera._render(white, (0, 0), SMALL, table)[0, 4:12, 4:12]
    assert (inside == table[16 * 64 * 64]).all()
    fine = Camera(size=2, pitch=32)  # pixels at -1/4 and 1/4 of the centre of a 2x2 image
    image = np.array([[[0, 16], [0, 16]]], np.uint8)
    rendered = camera._render(image, (0, 0), fine, camera._log_table(fine))[0]
    expected = [np.rint(1024 * np.log(2 + 16 * share)) for share in (0.25, 0.75)]
    assert rendered.tolist() == [expected, expected]


def test_no_logarithm_is_near_a_rounding_tie() -> None:
    """So that the last bit of a machine's logarithm cannot change an event."""
    exact = 1024 * np.log(np.arange(16 * 64 * 64 + 1) / 4096 + 2)
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-9


def test_events_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    for events in film(IMAGES, Camera()):
        for array, kind in ((events.t, "<i8"), (events.x, "<u2"), (events.y, "<u2")):
            digest.update(array.astype(kind).tobytes())
        digest.update(events.p.tobytes())
    assert digest.hexdigest() == (
        "5d241c203bc8ae10a4bdf27a9785429fd77ffea8694acca1f4d52521d15dfc48"
    )
    other = film(IMAGES, Camera(seed=1))
    assert [len(e) for e in other] != [len(e) for e in film(IMAGES, Camera())]


def test_event_digits_are_the_digits_in_the_same_split() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    still, moving = data.load("digits", 4), data.load("event-digits", 16)
    known = data.find("event-digits")
    for part, count in (("train", 1437), ("test", 360)):
        frames: Any = moving[part].frames
        assert (moving[part].labels == still[part].labels).all()
        assert frames.shape == (count, 16, *known.shape)
        assert frames.dtype == np.uint8
        assert frames.max() == known.largest
        assert frames.any((2, 3, 4)).all()  # no digit stands still
    assert 900 < min(map(len, digits.events())) < max(map(len, digits.events())) < 2000
    # The test digits again, of other time steps: the same events.
    (few,) = (data.load("event-digits", 3)["test"].frames,)
    assert few.shape[1] == 3
    assert data.in_time(few, 3) is few


def test_a_moving_digit_has_its_shape() -> None:
    """Where there are events there is an edge of the digit: none far from ink."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    frames = data.load("event-digits", 16)["test"].frames
    images = data.load("digits", 1)["test"].frames[:, 0]
    table = camera._log_table(digits.CAMERA)
    ink = np.zeros((len(images), 16, 16), bool)
    for move in camera._movement(digits.CAMERA):
        ink |= camera._render(images, move, digits.CAMERA, table) > table[0]
    seen = frames.any((1, 2))
    assert not (seen & ~ink).any()
    assert seen.sum() > 0.5 * ink.sum()
