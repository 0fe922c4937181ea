"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the published files.

The binary version holds nothing but bytes, which NumPy reads. The python version holds pickles,
which can run code: torchvision.datasets reads it, after comparing the MD5 of every file with the
published one, so that no other pickle is ever opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from stformer.datasets.base import DataSet, Frames, Labels, Split
from stformer.datasets.place import absent, folder, put
from stformer.errors import InputError

PIXELS = 3 * 32 * 32
BATCH = 10_000  # images of a CIFAR-10 file, and of both test sets


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the archives of one set hold.

    Attributes:
        name: of the set, and of its folder.
        classes: number of labels.
        binary, python: folder in the archive -> its name is the archive's too.
        train, test: files of the binary version: name and images in batches of BATCH.
        labels: bytes before each image; the last one is the (fine) label.
        pickles: files of the python version.
    """

    name: str
    classes: int
    binary: str
    python: str
    archives: tuple[str, str]
    train: tuple[tuple[str, int], ...]
    test: tuple[str, int]
    labels: int
    pickles: tuple[str, ...]


TEN = Layout(
    name="cifar10",
    classes=10,
    binary="cifar-10-batches-bin",
    python="cifar-10-batches-py",
    archives=("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
    train=tuple((f"data_batch_{i}.bin", 1) for i in range(1, 6)),
    test=("test_batch.bin", 1),
    labels=1,
    pickles=(*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
)
HUNDRED = Layout(
    name="cifar100",
    classes=100,
    binary="cifar-100-binary",
    python="cifar-100-python",
    archives=("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
    train=(("train.bin", 5),),
    test=("test.bin", 1),
    labels=2,
    pickles=("train", "test", "meta"),
)


def _lost(layout: Layout, version: str) -> str:
    base = folder(layout.name)
    if version == "binary":
        files = [base / layout.binary / name for name, _ in (*layout.train, layout.test)]
    else:
        files = [base / layout.python / name for name in layout.pickles]
    return absent(files, base)


def _missing(layout: Layout) -> tuple[str, str] | None:
    base = folder(layout.name)
    binary, python = layout.archives
    what = _lost(layout, "binary")
    if not what:
        return None
    if not _lost(layout, "python"):
        if find_spec("torchvision") is not None:
            return None
        do = f"pip install 'stformer[train]', or {put(binary, base)}"
        return "torchvision, which reads the python version, is not installed", do
    return what, put(f"{binary} (or {python})", base)


def _splits(layout: Layout, steps: int) -> dict[str, Split]:
    del steps
    if _lost(layout, "binary"):
        return {"train": _pickled(layout, True), "test": _pickled(layout, False)}
    return {"train": _read(layout, layout.train), "test": _read(layout, (layout.test,))}


def _read(layout: Layout, files: tuple[tuple[str, int], ...]) -> Split:
    """The binary version: per image its label bytes, then red, green, blue, each by rows."""
    record = layout.labels + PIXELS
    frames, labels = [], []
    for name, batches in files:
        path = folder(layout.name) / layout.binary / name
        rows = _bytes(path, batches * BATCH * record).reshape(-1, record)
        frames.append(rows[:, layout.labels :].reshape(-1, 3, 32, 32))
        labels.append(rows[:, layout.labels - 1])
        if labels[-1].max() >= layout.classes:
            raise InputError(str(path), f"label {labels[-1].max()}", f"0...{layout.classes - 1}")
    return Split(frames=np.concatenate(frames), labels=np.concatenate(labels).astype(np.int64))


def _bytes(path: Path, size: int) -> Frames:
    try:
        found = path.stat().st_size
        if found != size:
            raise InputError(str(path), f"{found:,} bytes", f"{size:,}", "unpack it anew")
        content: Frames = np.fromfile(path, np.uint8)
    except OSError as e:
        raise InputError(str(path), e.strerror or str(e), "a readable file") from None
    if len(content) != size:
        raise InputError(str(path), f"{len(content):,} bytes", f"{size:,}", "unpack it anew")
    return content


def _pickled(layout: Layout, train: bool) -> Split:
    """The python version, through torchvision, which checks every file's MD5 first."""
    from torchvision.datasets import CIFAR10, CIFAR100

    cls: Any = {"cifar10": CIFAR10, "cifar100": CIFAR100}[layout.name]
    base = folder(layout.name)
    try:
        found = cls(str(base), train=train, download=False)
    except RuntimeError:
        do = f"unpack {layout.archives[1]} anew"
        raise InputError(
            str(base / layout.python), "files with other MD5 sums", "the published ones", do
        ) from None
    frames: Frames = np.ascontiguousarray(np.asarray(found.data).transpose(0, 3, 1, 2))
    labels: Labels = np.asarray(found.targets, np.int64)
    return Split(frames=frames, labels=labels)


def _dataset(layout: Layout, size: str) -> DataSet:
    return DataSet(
        what=f"60,000 photographs, 32x32, RGB, {layout.classes} classes (Krizhevsky 2009)",
        shape=(3, 32, 32),
        largest=255,
        classes=layout.classes,
        samples=(50_000, 10_000),
        place=lambda: str(folder(layout.name)),
        size=size,
        missing=partial(_missing, layout),
        splits=partial(_splits, layout),
    )


CIFAR10 = _dataset(TEN, "162 MB, 184 MB unpacked")
CIFAR100 = _dataset(HUNDRED, "161 MB, 184 MB unpacked")
