"""CIFAR10-DVS and DVS128 Gesture: their formats, splits and errors."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from stformer import data
from stformer.datasets import aedat, recordings
from stformer.datasets.aedat import read_aedat2_dvs128, read_aedat31
from stformer.errors import InputError, Unavailable
from stformer.testing_cli import Call
from stformer.testing_events import (
    HEAD31,
    aedat2,
    events,
    expected,
    packet,
    write_cifar10_dvs,
    write_gesture,
)

T = 4


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STFORMER_DATA", str(tmp_path))
    monkeypatch.setattr(recordings, "PER_CLASS", 10)
    return tmp_path


def test_aedat_2(tmp_path: Path) -> None:
    path = tmp_path / "x.aedat"
    found = events(1)
    external = struct.pack(">II", 0xFFFF8000, 5)  # as Java extends its sign
    path.write_bytes(aedat2(found) + external)
    read = read_aedat2_dvs128(path)
    assert np.stack([read.t, read.x, read.y, read.p], 1).tolist() == found.tolist()
    assert (read.t.dtype, read.x.dtype, read.p.dtype) == (np.int64, np.uint16, np.uint8)
    # address 0 is jAER's upper... lower left corner, ON: of the upright picture, lower right
    path.write_bytes(aedat2([]) + struct.pack(">ii", 3 << 8 | 7 << 1 | 1, 77))
    read = read_aedat2_dvs128(path)
    assert (read.t[0], read.x[0], read.y[0], read.p[0]) == (77, 124, 120, 0)


def test_aedat_31(tmp_path: Path) -> None:
    path = tmp_path / "x.aedat"
    found = events(2)
    path.write_bytes(
        HEAD31
        + packet(found[:20], spare=3)
        + packet(found[:5], kind=0)
        + packet(found[:5], bits=0)  # invalid ones
        + packet(found[20:])
        + packet(found[:2], overflow=1)
    )
    read = read_aedat31(path)
    both = np.concatenate([found, found[:2] + np.array([2**31, 0, 0, 0])])
    assert np.stack([read.t, read.x, read.y, read.p], 1).tolist() == both.tolist()
    path.write_bytes(HEAD31)
    assert len(read_aedat31(path)) == 0


HOSTILE_2 = {
    "empty": (b"", "AER-DAT2.0"),
    "other version": (aedat2(events(1)).replace(b"2.0", b"1.0", 1), "AER-DAT2.0"),
    "truncated": (aedat2(events(1))[:-3], "multiple of 8"),
    "no line end": (b"#!AER-DAT2.0" + b"x" * 2**21, "header without end"),
    "lines without end": (b"#!AER-DAT2.0\n" + b"#\n" * 2**20, "header without end"),
    "header only": (b"#!AER-DAT2.0", "header without end"),
    "address": (aedat2([]) + struct.pack(">ii", 0x10000, 0), "the address 0x10000"),
}


@pytest.mark.parametrize("kind", HOSTILE_2)
def test_damaged_aedat_2(kind: str, tmp_path: Path) -> None:
    content, part = HOSTILE_2[kind]
    path = tmp_path / "x.aedat"
    path.write_bytes(content)
    with pytest.raises(InputError, match=part) as e:
        read_aedat2_dvs128(path)
    assert e.value.where == str(path)


def raw(kind: int, size: int, offset: int, overflow: int, capacity: int, number: int) -> bytes:
    return HEAD31 + struct.pack("<hhiiiiii", kind, 1, size, offset, overflow, capacity, number, 0)


HOSTILE_31 = {
    "text": (b"hello world, hello world", "AER-DAT3.1"),
    "no end of header": (b"#!AER-DAT3.1\r\n#Format: RAW\r\nabc\r\n", "#!END-HEADER"),
    "half a header": (b"#!AER-DAT3.1\r\n#Format: RAW", "header without end"),
    "half a packet header": (HEAD31 + bytes(27), "incomplete packet at byte"),
    "truncated": ((HEAD31 + packet(events(1)))[:-1], "incomplete packet at byte"),
    "a claim of 16 GiB": (raw(1, 8, 4, 0, 2**31 - 1, 2**31 - 1), "incomplete packet"),
    "another kind's claim": (raw(2, 2**31 - 1, 4, 0, 2**31 - 1, 1), "incomplete packet"),
    "negative capacity": (raw(1, 8, 4, 0, -1, -1), "damaged packet"),
    "negative size": (raw(2, -8, 4, 0, 5, 5), "damaged packet"),
    "negative overflow": (raw(1, 8, 4, -1, 0, 0), "damaged packet"),
    "more than there is room": (raw(1, 8, 4, 0, 0, 5), "damaged packet"),
    "size of events": (raw(1, 16, 4, 0, 0, 0), "polarity events of 16 bytes"),
    "negative time": (HEAD31 + packet([(-5, 1, 1, 1)]), "negative timestamp"),
}


@pytest.mark.parametrize("kind", HOSTILE_31)
def test_damaged_aedat_31(kind: str, tmp_path: Path) -> None:
    content, part = HOSTILE_31[kind]
    path = tmp_path / "x.aedat"
    path.write_bytes(content)
    with pytest.raises(InputError, match=part) as e:
        read_aedat31(path)
    assert e.value.where == str(path)


def test_random_damage_never_escapes(tmp_path: Path) -> None:
    path, rng = tmp_path / "x.aedat", np.random.default_rng(0)
    for whole, read in (
        (aedat2(events(1)), read_aedat2_dvs128),
        (HEAD31 + packet(events(1)) + packet(events(2)), read_aedat31),
    ):
        for _ in range(300):
            damaged = bytearray(whole)
            damaged[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged[: int(rng.integers(1, len(whole) + 1))])
            try:
                read(path)
            except InputError:
                continue


def test_what_no_file_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, part in (
        (tmp_path, "bytes"),
        (tmp_path / "gone", "No such"),
        (tmp_path / "pipe", "pipe: "),
    ):
        with pytest.raises(InputError, match=part):
            read_aedat31(path)
    monkeypatch.setattr(aedat, "LARGEST_FILE", 100)
    (tmp_path / "large").write_bytes(HEAD31 + bytes(100))
    with pytest.raises(InputError, match="allowed: a file of up to 100"):
        read_aedat31(tmp_path / "large")


def test_cifar10_dvs(place: Path) -> None:
    write_cifar10_dvs(place)
    splits = data.load("cifar10dvs", T)
    assert splits["train"].frames.shape == (90, T, 2, 128, 128)
    assert isinstance(splits["train"].frames, np.memmap)
    assert splits["train"].labels.tolist() == [label for label in range(10) for _ in range(9)]
    assert splits["test"].labels.tolist() == list(range(10))
    for label in (0, 7):
        assert (splits["test"].frames[label] == expected(events(100 * label + 9), T)).all()
        assert (
            splits["train"].frames[9 * label + 4] == expected(events(100 * label + 4), T)
        ).all()


def test_cifar10_dvs_is_split_in_the_order_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "PER_CLASS", 1000)
    test = [path.stem for path, _ in recordings._cifar10_dvs_files("test")]
    train = [path.stem for path, _ in recordings._cifar10_dvs_files("train")]
    assert (len(train), len(test)) == (9000, 1000)
    assert not set(train) & set(test)
    assert test[:3] == ["cifar10_airplane_909", "cifar10_airplane_91", "cifar10_airplane_910"]
    assert test[99] == "cifar10_airplane_999"


def test_gesture(place: Path) -> None:
    write_gesture(place)
    splits = data.load("dvs128", T)
    assert splits["train"].labels.tolist() == [0, 10, 7, 1, 1]
    assert splits["test"].labels.tolist() == [4]
    first = events(0, 400)
    for i, (start, end) in enumerate([(1000, 40000), (35000, 90000), (50000, 90000)]):
        inside = first[(first[:, 0] >= start) & (first[:, 0] < end)]
        assert (splits["train"].frames[i] == expected(inside, T)).all()
    assert (splits["test"].frames[0] == expected(events(2, 400), T)).all()


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("trials_to_test.txt", "../../user24_lab.aedat\n", "names like user01_led.aedat"),
        ("trials_to_test.txt", "\n", "no names"),
        ("trials_to_test.txt", "/etc/passwd\n", "names like user01_led.aedat"),
        ("trials_to_test.txt", "user25_lab.aedat\n", "2 of 6 files.*user25_lab.aedat"),
        ("trials_to_test.txt", "\u00e9\n", "ascii"),
        ("user24_lab_labels.csv", "", "the columns class,startTime"),
        ("user24_lab_labels.csv", "a,b\n1,2\n", "the columns class,startTime"),
        ("user24_lab_labels.csv", "class,startTime_usec,endTime_usec\n", "and rows"),
        ("user24_lab_labels.csv", "class,startTime_usec,endTime_usec\n12,1,2\n", "line 2"),
        ("user24_lab_labels.csv", "class,startTime_usec,endTime_usec\n1,1,2\n1,9,9\n", "line 3"),
        ("user24_lab_labels.csv", "class,startTime_usec,endTime_usec\n1,-1,2\n", "line 2"),
        ("user24_lab_labels.csv", "class,startTime_usec,endTime_usec\n1,1,2\n", "no events"),
    ],
)
def test_damaged_tables_of_gesture(place: Path, name: str, text: str, part: str) -> None:
    folder = write_gesture(place)
    (folder / name).write_text(text, "utf-8")
    with pytest.raises((InputError, Unavailable), match=part):
        data.load("dvs128", T)


def test_what_is_missing(place: Path, call: Call) -> None:
    lost = call.json("datasets")["cifar10dvs"]["missing"]
    assert lost["what"].startswith("100 of 100 files are not in ")
    assert lost["what"].endswith("as airplane/cifar10_airplane_0.aedat")
    assert "airplane.zip to truck.zip" in lost["do"]
    write_cifar10_dvs(place)
    folder = write_gesture(place)
    plain = call.json("datasets")
    assert plain["cifar10dvs"]["missing"] is None
    assert plain["dvs128"]["missing"] is None
    (folder / "user01_led_labels.csv").unlink()
    with pytest.raises(Unavailable, match=r"user01_led_labels\.csv.*DvsGesture\.tar\.gz"):
        data.load("dvs128", T)
    (folder / "trials_to_train.txt").write_text("?\n")
    assert "'?'" in call.json("datasets")["dvs128"]["missing"]["what"]
