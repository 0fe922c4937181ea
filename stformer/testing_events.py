"""Small recordings in the formats of the published event sets, for tests."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from stformer.datasets import recordings


def events(seed: int, count: int = 40) -> Any:
    """[N, 4] of t, x, y, p, as an upright picture has them."""
    rng = np.random.default_rng(seed)
    out = rng.integers(0, (1, 128, 128, 2), (count, 4))
    out[:, 0] = np.sort(rng.integers(1000, 90000, count))
    return out


def aedat2(found: Any) -> bytes:
    """As jAER writes CIFAR10-DVS: see `read_aedat2_dvs128`."""
    head = (
        b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
        b"# Data format is int32 address, int32 timestamp (8 bytes total)\r\n"
    )
    body = b"".join(
        struct.pack(">ii", (127 - x) << 8 | (127 - y) << 1 | (1 - p), t) for t, x, y, p in found
    )
    return head + body


HEAD31 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def packet(
    found: Any, *, kind: int = 1, overflow: int = 0, spare: int = 0, bits: int = 1
) -> bytes:
    """A packet of polarity events; `spare` ones behind that do not count, `bits` are bit 0."""
    n = len(found)
    head = struct.pack("<hhiiiiii", kind, 1, 8, 4, overflow, n + spare, n, n)
    body = (struct.pack("<Ii", x << 17 | y << 2 | p << 1 | bits, t) for t, x, y, p in found)
    return head + b"".join(body) + b"\x01" * (8 * spare)


def write_cifar10_dvs(base: Path, count: int = 10) -> None:
    """The first recordings of each class."""
    for label, name in enumerate(recordings.CLASSES):
        folder = base / "cifar10dvs" / name
        folder.mkdir(parents=True)
        for n in range(count):
            (folder / f"cifar10_{name}_{n}.aedat").write_bytes(aedat2(events(100 * label + n)))


def write_gesture(base: Path) -> Path:
    """Two users to train, one to test: 3 + 2 and 1 gestures."""
    folder = base / "dvs128" / "DvsGesture"
    folder.mkdir(parents=True)
    tables = {
        "user01_led": [(1, 1000, 40000), (11, 35000, 90000), (8, 50000, 90000)],
        "user02_fluorescent_led": [(2, 0, 60000), (2, 60000, 90001)],
        "user24_lab": [(5, 0, 90001)],
    }
    for seed, (name, rows) in enumerate(tables.items()):
        found = events(seed, 400)
        content = HEAD31 + packet(found[:250], spare=2) + packet(found[:3], kind=0)
        (folder / f"{name}.aedat").write_bytes(content + packet(found[250:]))
        lines = ["class,startTime_usec,endTime_usec", *(",".join(map(str, row)) for row in rows)]
        (folder / f"{name}_labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "trials_to_train.txt").write_text(
        "user01_led.aedat\r\nuser02_fluorescent_led.aedat\r\n\r\n"
    )
    (folder / "trials_to_test.txt").write_text("user24_lab.aedat\n")
    return folder


def expected(found: Any, steps: int) -> Any:
    """Frames of equally many events, counted one by one."""
    frames = np.zeros((steps, 2, 128, 128), np.int64)
    for i, (_, x, y, p) in enumerate(found):
        frames[min(i // (len(found) // steps), steps - 1), p, y, x] += 1
    return frames
