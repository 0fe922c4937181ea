"""The cache of converted event frames: kept, resumed, and made anew where it is not sound."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stformer import data
from stformer.datasets import cache, recordings
from stformer.datasets.aedat import read_aedat2_dvs128
from stformer.errors import InputError
from stformer.testing_cli import Call
from stformer.testing_events import aedat2, events, expected, write_cifar10_dvs

T = 4


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STFORMER_DATA", str(tmp_path))
    monkeypatch.setattr(recordings, "PER_CLASS", 10)
    return tmp_path


def converted(place: Path) -> Path:
    return place / "converted" / "cifar10dvs-T4-count15-test.npy"


def reads(monkeypatch: pytest.MonkeyPatch, fail_at: int | None = None) -> list[str]:
    """Names of the recordings that are read from now on; interrupts at one of them."""
    seen: list[str] = []

    def read(path: Path) -> Any:
        if len(seen) == fail_at:
            raise KeyboardInterrupt
        seen.append(path.stem)
        return read_aedat2_dvs128(path)

    monkeypatch.setattr(recordings, "read_aedat2_dvs128", read)
    return seen


def test_what_is_converted_stays_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10_dvs(place)
    seen, told = reads(monkeypatch), []
    data.load("cifar10dvs", T, lambda done, total: told.append((done, total)))
    assert len(seen) == 100
    assert told[0] == (0, 100) and told[-1] == (100, 100) and told == sorted(told)
    before = {p.name: p.stat().st_mtime_ns for p in (place / "converted").iterdir()}
    assert sorted(before) == [
        f"cifar10dvs-T4-count15-{part}.{end}"
        for part in ("test", "train")
        for end in ("json", "lock", "npy")
    ]
    data.load("cifar10dvs", T)
    assert len(seen) == 100
    index = json.loads(converted(place).with_suffix(".json").read_text())
    assert len(index["sources"]) == 10
    data.load("cifar10dvs", 5)  # its own files
    assert len(seen) == 200
    assert (
        before.items()
        <= {p.name: p.stat().st_mtime_ns for p in (place / "converted").iterdir()}.items()
    )


def test_a_sound_cache_needs_no_writing_and_moves_along(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STFORMER_DATA", str(place / "here"))
    write_cifar10_dvs(place / "here")
    data.load("cifar10dvs", T)
    (place / "here").rename(place / "there")
    monkeypatch.setenv("STFORMER_DATA", str(place / "there"))
    for lock in (place / "there" / "converted").glob("*.lock"):
        lock.unlink()
        lock.mkdir()  # nobody can open it for writing, not even root
    seen = reads(monkeypatch)
    data.load("cifar10dvs", T)
    assert not seen
    monkeypatch.setattr(cache, "VERSION", 2)
    with pytest.raises(InputError, match=r"\.lock: cannot be locked"):
        data.load("cifar10dvs", T)


@pytest.mark.parametrize("damage", ["none", "flipped", "short", "source", "journal", "version"])
def test_an_interrupted_conversion_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    write_cifar10_dvs(place)
    reads(monkeypatch, fail_at=50)
    with pytest.raises(KeyboardInterrupt):
        data.load("cifar10dvs", T)
    part = converted(place).with_name("cifar10dvs-T4-count15-train.part")
    if damage == "flipped":
        with part.open("r+b") as file:
            file.seek(5000)
            file.write(b"\x09")
    elif damage == "short":
        os.truncate(part, part.stat().st_size - 1)
    elif damage == "source":
        os.utime(place / "cifar10dvs" / "airplane" / "cifar10_airplane_0.aedat", ns=(1, 1))
    elif damage == "version":
        monkeypatch.setattr(cache, "VERSION", 2)
    elif damage == "journal":
        part.with_suffix(".journal").write_text("{")
    else:
        with part.open("ab") as file:
            file.write(b"half a recording")
    seen = reads(monkeypatch)
    splits = data.load("cifar10dvs", T)
    assert len(seen) == (50 if damage == "none" else 100)
    assert (splits["train"].frames[0] == expected(events(0), T)).all()
    assert (splits["train"].frames[89] == expected(events(908), T)).all()
    assert not part.exists()


@pytest.mark.parametrize(
    "damage", ["flipped", "short", "empty", "gone", "index", "no index", "fresh"]
)
def test_a_damaged_or_stale_cache_is_made_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    write_cifar10_dvs(place)
    data.load("cifar10dvs", T)
    path = converted(place)
    source = place / "cifar10dvs" / "bird" / "cifar10_bird_9.aedat"
    if damage == "flipped":
        content = bytearray(path.read_bytes())
        content[-7] ^= 4
        path.write_bytes(content)
    elif damage == "short":
        os.truncate(path, path.stat().st_size - 1)
    elif damage == "empty":
        os.truncate(path, 0)
    elif damage == "gone":
        path.unlink()
    elif damage == "index":
        path.with_suffix(".json").write_text("[]")
    elif damage == "no index":
        path.with_suffix(".json").unlink()
    else:
        source.write_bytes(aedat2(events(9999)))
    seen = reads(monkeypatch)
    frames = data.load("cifar10dvs", T)["test"].frames
    assert len(seen) == 10
    assert (frames[2] == expected(events(9999 if damage == "fresh" else 209), T)).all()


def test_nothing_is_left_of_a_recording_that_cannot_be_read(place: Path) -> None:
    write_cifar10_dvs(place)
    bad = place / "cifar10dvs" / "truck" / "cifar10_truck_9.aedat"
    bad.write_bytes(aedat2([]))
    with pytest.raises(InputError, match=r"cifar10_truck_9\.aedat: no events"):
        data.load("cifar10dvs", T)
    assert not converted(place).exists()
    bad.write_bytes(aedat2(events(1)))
    assert (data.load("cifar10dvs", T)["test"].frames[9] == expected(events(1), T)).all()


def test_a_full_disk(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10_dvs(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(InputError, match=r"1 MB free; allowed: 12 MB"):
        data.load("cifar10dvs", T)


def test_the_command_line_converts_and_says_what_is_wrong(place: Path, call: Call) -> None:
    message = call.fails("run", "--backend", "cpu", "--data", "cifar10dvs", code=3)
    assert "data set 'cifar10dvs' is not available here: 100 of 100 files" in message
    write_cifar10_dvs(place)
    message = call.fails("run", "--backend", "cpu", "--data", "cifar10dvs")
    assert "[10, 4, 2, 128, 128]" in message  # converted, but not what the packaged model takes
    assert converted(place).exists()
