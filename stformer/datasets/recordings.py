"""CIFAR10-DVS and DVS128 Gesture: recordings of real event cameras, as published."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from stformer.datasets import cache
from stformer.datasets.aedat import DVS128, read_aedat2_dvs128, read_aedat31
from stformer.datasets.base import DataSet, Frames, Progress, Split
from stformer.datasets.cache import Cache, Recording
from stformer.datasets.events import frames_by_count
from stformer.datasets.place import absent, folder, put, root
from stformer.errors import InputError

LARGEST_COUNT = 15
"""Counts saturate there: 2 * 9 inputs of a stem still leave 7 bits to each weight."""

SIZE = (DVS128, DVS128)
PARTS = ("train", "test")

# --- CIFAR10-DVS --------------------------------------------------------------------------------

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
PER_CLASS = 1000


def _cifar10_dvs_files(part: str) -> Iterator[tuple[Path, int]]:
    """Recordings of a part in their order, with labels.

    The first 90 % of each class train, in the order of the names as text (..., 9, 90, 900, ...):
    what SpikingJelly's split_to_train_test_set makes of the sorted folder, which Spikformer and
    its successors report on.
    """
    for label, name in enumerate(CLASSES):
        files = sorted(f"cifar10_{name}_{n}.aedat" for n in range(PER_CLASS))
        border = len(files) * 9 // 10
        for file in files[:border] if part == "train" else files[border:]:
            yield folder("cifar10dvs") / name / file, label


def _cifar10_dvs_frames(path: Path, steps: int) -> Frames:
    events = read_aedat2_dvs128(path)
    return frames_by_count(events, steps, SIZE, largest=LARGEST_COUNT)[None]


def _cifar10_dvs(part: str, steps: int) -> list[Recording]:
    return [
        Recording(files=(path,), labels=(label,), frames=partial(_cifar10_dvs_frames, path, steps))
        for path, label in _cifar10_dvs_files(part)
    ]


def _cifar10_dvs_missing() -> tuple[str, str] | None:
    base = folder("cifar10dvs")
    what = absent([path for part in PARTS for path, _ in _cifar10_dvs_files(part)], base)
    do = put("the ten archives airplane.zip to truck.zip", base)
    return (what, do) if what else None


# --- DVS128 Gesture -----------------------------------------------------------------------------

GESTURES = 11
COLUMNS = "class,startTime_usec,endTime_usec"
LARGEST_TABLE = 2**20  # bytes of a text file


def _gesture_base() -> Path:
    return folder("dvs128") / "DvsGesture"


def _trials(part: str) -> list[Path]:
    """The recordings that trials_to_train.txt or trials_to_test.txt names."""
    path = _gesture_base() / f"trials_to_{part}.txt"
    names = [line.strip() for line in _text(path).splitlines() if line.strip()]
    if not names:
        raise InputError(str(path), "no names", "names like user01_led.aedat")
    for name in names:
        if not re.fullmatch(r"user\d\d_[a-z_]+\.aedat", name):
            raise InputError(str(path), repr(name[:80]), "names like user01_led.aedat")
    return [path.with_name(name) for name in names]


def _table_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_labels.csv")


def _gestures(path: Path) -> list[tuple[int, int, int]]:
    """(label from 0, start, end) of each gesture of a recording, microseconds."""
    table = _table_of(path)
    head, *lines = _text(table).strip().splitlines() or [""]
    if head.strip() != COLUMNS or not lines:
        raise InputError(str(table), repr(head[:80]), f"the columns {COLUMNS}, and rows")
    rows = []
    for number, line in enumerate(lines, 2):
        found = re.fullmatch(r"\s*(\d{1,2})\s*,\s*(\d{1,18})\s*,\s*(\d{1,18})\s*", line)
        label, start, end = map(int, found.groups()) if found else (0, 0, 0)
        if not 1 <= label <= GESTURES or start >= end:
            allowed = f"a class of 1...{GESTURES}, start and end in microseconds"
            raise InputError(f"{table}, line {number}", repr(line[:80]), allowed)
        rows.append((label - 1, start, end))
    return rows


def _gesture_frames(path: Path, steps: int) -> Frames:
    """[gestures, T, 2, 128, 128]; half-open in time, some overlap (user22_led)."""
    events = read_aedat31(path)
    out = []
    for _, start, end in _gestures(path):
        part = events.during(start, end)
        out.append(frames_by_count(part, steps, SIZE, largest=LARGEST_COUNT))
    return np.stack(out)


def _gesture(part: str, steps: int) -> list[Recording]:
    return [
        Recording(
            files=(path, _table_of(path)),
            labels=tuple(label for label, _, _ in _gestures(path)),
            frames=partial(_gesture_frames, path, steps),
        )
        for path in _trials(part)
    ]


def _gesture_missing() -> tuple[str, str] | None:
    base = _gesture_base()
    do = put("DvsGesture.tar.gz", base.parent)
    what = absent([base / f"trials_to_{part}.txt" for part in PARTS], base.parent)
    if not what:
        try:
            files = [path for part in PARTS for path in _trials(part)]
        except InputError as e:  # a list of data sets still has to show the others
            return f"{e.where}: {e.found}; allowed: {e.allowed}", do
        what = absent([*files, *map(_table_of, files)], base.parent)
    return (what, do) if what else None


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > LARGEST_TABLE:
            raise InputError(str(path), f"{size:,} bytes", f"up to {LARGEST_TABLE:,}")
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise InputError(str(path), reason, "a readable text file") from None


# --- both ---------------------------------------------------------------------------------------

RECORDINGS = {"cifar10dvs": _cifar10_dvs, "dvs128": _gesture}


def _caches(name: str, steps: int) -> dict[str, Cache]:
    stem = f"{name}-T{steps}-count{LARGEST_COUNT}"
    return {
        part: Cache(
            path=root() / "converted" / f"{stem}-{part}.npy",
            recordings=RECORDINGS[name](part, steps),
            shape=(steps, 2, *SIZE),
        )
        for part in PARTS
    }


def _convert(name: str, steps: int, progress: Progress) -> None:
    cache.make(list(_caches(name, steps).values()), progress)


def _splits(name: str, steps: int) -> dict[str, Split]:
    return {
        part: Split(
            frames=cache.load(found),
            labels=np.array([label for r in found.recordings for label in r.labels], np.int64),
        )
        for part, found in _caches(name, steps).items()
    }


CIFAR10_DVS = DataSet(
    what="10,000 CIFAR-10 photographs moved before a DVS128, 128x128 (Li et al. 2017)",
    shape=(2, *SIZE),
    largest=LARGEST_COUNT,
    classes=len(CLASSES),
    samples=(9000, 1000),
    events=True,
    place=lambda: str(folder("cifar10dvs")),
    size="5.2 GB of frames at T = 16",
    missing=_cifar10_dvs_missing,
    splits=partial(_splits, "cifar10dvs"),
    convert=partial(_convert, "cifar10dvs"),
)

DVS128_GESTURE = DataSet(
    what="11 hand gestures of 29 people before a DVS128, 128x128 (Amir et al. 2017)",
    shape=(2, *SIZE),
    largest=LARGEST_COUNT,
    classes=GESTURES,
    samples=(1176, 288),
    events=True,
    place=lambda: str(folder("dvs128")),
    size="0.8 GB of frames at T = 16",
    missing=_gesture_missing,
    splits=partial(_splits, "dvs128"),
    convert=partial(_convert, "dvs128"),
)
