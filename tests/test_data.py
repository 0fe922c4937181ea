"""Data sets: fixed splits of real data, and coding in time."""

from __future__ import annotations

import numpy as np
import pytest

from stformer import data
from stformer.datasets import digits
from stformer.errors import InputError, Unavailable


def test_digits_are_the_1797_real_ones_in_a_fixed_split() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    splits = data.load("digits", 4)
    train, test = splits["train"], splits["test"]
    assert (len(train), len(test)) == (1437, 360)
    assert train.frames.shape[1:] == data.find("digits").shape
    both = np.concatenate([train.frames, test.frames])
    assert both.min() == 0
    assert both.max() == data.find("digits").largest
    assert np.bincount(test.labels, minlength=10).min() >= 25
    assert test.labels[:5].tolist() == [0, 5, 0, 5, 0]  # images 0, 5, 10, 15, 20
    assert int(both.sum(dtype=np.int64)) == 561718  # of scikit-learn's file


def test_images_repeat_and_event_frames_stay() -> None:
    images = np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2)
    coded = data.in_time(images, 4)
    assert coded.shape == (3, 4, 1, 2, 2)
    assert (coded == images[:, None]).all()
    assert data.in_time(coded, 4) is coded
    with pytest.raises(InputError, match="4 time steps"):
        data.in_time(coded, 3)


def test_unknown_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"'digit'.*digits"):
        data.load("digit", 4)
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="pip install"):
        data.load("digits", 4)
