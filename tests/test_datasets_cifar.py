"""CIFAR-10 and CIFAR-100 in both published versions, whole and damaged, and random stand-ins."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stformer import data
from stformer.datasets import cifar
from stformer.errors import InputError, Unavailable
from stformer.testing_cli import Call

FEW = 20  # images of a file, in place of 10,000


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STFORMER_DATA", str(tmp_path))
    monkeypatch.setattr(cifar, "BATCH", FEW)
    return tmp_path


def images(count: int, seed: int, classes: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3, 32, 32), np.uint8), rng.integers(0, classes, count)


def write_binary(base: Path, layout: cifar.Layout) -> dict[str, tuple[Any, Any]]:
    """The binary version, as its page describes it; gives what is in each file."""
    folder = base / layout.name / layout.binary
    folder.mkdir(parents=True)
    out = {}
    for seed, (name, batches) in enumerate((*layout.train, layout.test)):
        frames, labels = images(FEW * batches, seed, layout.classes)
        with (folder / name).open("wb") as file:
            for frame, label in zip(frames, labels, strict=True):
                coarse = bytes([label // 5]) if layout.classes == 100 else b""
                file.write(coarse + bytes([label]) + frame.tobytes())
        out[name] = (frames, labels)
    return out


def write_python(
    base: Path, layout: cifar.Layout, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[Any, Any]]:
    """The python version, and its sums in place of the published ones."""
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
    cls = datasets.CIFAR10 if layout.classes == 10 else datasets.CIFAR100
    folder = base / layout.name / layout.python
    folder.mkdir(parents=True)
    key = "labels" if layout.classes == 10 else "fine_labels"
    out, sums = {}, {}
    for seed, name in enumerate(layout.pickles):
        frames, labels = images(FEW, seed, layout.classes)
        entry: dict[str, Any] = {"data": frames.reshape(FEW, -1), key: labels.tolist()}
        if "meta" in name:
            entry = {cls.meta["key"]: [str(i) for i in range(layout.classes)]}
        content = pickle.dumps(entry)
        (folder / name).write_bytes(content)
        out[name], sums[name] = (frames, labels), hashlib.md5(content).hexdigest()
    for kind in ("train_list", "test_list"):
        listed = [[name, sums[name]] for name, _ in getattr(cls, kind)]
        monkeypatch.setattr(cls, kind, listed)
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": sums[cls.meta["filename"]]})
    return out


@pytest.mark.parametrize("layout", [cifar.TEN, cifar.HUNDRED], ids=lambda layout: layout.name)
def test_the_binary_version(place: Path, layout: cifar.Layout) -> None:
    written = write_binary(place, layout)
    splits = data.load(layout.name, 4)
    frames, labels = (
        np.concatenate([written[name][i] for name, _ in layout.train]) for i in range(2)
    )
    assert (splits["train"].frames == frames).all()
    assert (splits["train"].labels == labels).all()
    assert (splits["test"].frames == written[layout.test[0]][0]).all()
    assert (splits["test"].labels == written[layout.test[0]][1]).all()
    assert splits["test"].frames.dtype == np.uint8
    assert splits["test"].labels.dtype == np.int64
    assert splits["test"].frames.shape[1:] == data.find(layout.name).shape


@pytest.mark.parametrize("layout", [cifar.TEN, cifar.HUNDRED], ids=lambda layout: layout.name)
def test_the_python_version(
    place: Path, layout: cifar.Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_python(place, layout, monkeypatch)
    splits = data.load(layout.name, 4)
    train = [name for name in layout.pickles if name.startswith(("data_batch", "train"))]
    test = "test_batch" if layout.classes == 10 else "test"
    for part, names in (("train", train), ("test", [test])):
        assert (splits[part].frames == np.concatenate([written[n][0] for n in names])).all()
        assert (splits[part].labels == np.concatenate([written[n][1] for n in names])).all()
    assert splits["train"].frames.flags.c_contiguous


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.target,)


def test_no_other_pickle_is_opened(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_python(place, cifar.TEN, monkeypatch)
    victim = place / "cifar10" / "cifar-10-batches-py"
    good = victim / "test_batch"
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        kept = (victim / name).read_bytes()
        (victim / name).write_bytes(pickle.dumps(Bomb(place / "pwned")))
        with pytest.raises(InputError, match=r"MD5.*cifar-10-python\.tar\.gz anew"):
            data.load("cifar10", 4)
        (victim / name).write_bytes(kept)
    assert not (place / "pwned").exists()
    assert good.is_file()
    data.load("cifar10", 4)


def test_damaged_binary_files(place: Path) -> None:
    write_binary(place, cifar.TEN)
    path = place / "cifar10" / "cifar-10-batches-bin" / "data_batch_3.bin"
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b"\0", b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"data_batch_3\.bin: {len(content):,} bytes"):
            data.load("cifar10", 4)
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: nothing of that size may be allocated
    with pytest.raises(InputError, match="1,099,511,627,776 bytes"):
        data.load("cifar10", 4)
    path.write_bytes(b"\x0a" + whole[1:])
    with pytest.raises(InputError, match=r"label 10; allowed: 0\.\.\.9"):
        data.load("cifar10", 4)


def test_what_is_missing(
    place: Path, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match=r"2 of 2 files.*cifar-100-binary/train\.bin"):
        data.load("cifar100", 4)
    write_binary(place, cifar.TEN)
    (place / "cifar10" / "cifar-10-batches-bin" / "data_batch_5.bin").unlink()
    plain = call.json("datasets")
    assert plain["digits"]["missing"] is None or "scikit" in plain["digits"]["missing"]["what"]
    lost = plain["cifar10"]["missing"]
    base = str(place / "cifar10")
    assert lost["what"] == (
        f"1 of 6 files are not in {base}, as cifar-10-batches-bin/data_batch_5.bin"
    )
    assert "cifar-10-binary.tar.gz" in lost["do"]
    assert base in lost["do"]
    assert plain["cifar10"]["place"] == base
    assert (plain["cifar10"]["train"], plain["cifar10"]["test"]) == (50000, 10000)
    _, text, _ = call("datasets")
    assert "cifar10: 1 of 6 files" in text
    assert "50,000" in text
    message = call.fails("run", "--backend", "cpu", "--data", "cifar10", code=3)
    assert "data_batch_5.bin" in message
    assert base in message
    for name in cifar.TEN.pickles:
        path = place / "cifar10" / cifar.TEN.python / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.setattr(cifar, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=r"torchvision.*pip install"):
        data.load("cifar10", 4)


def test_where_data_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    from stformer.datasets import place

    monkeypatch.setenv("STFORMER_DATA", "~/sets")
    assert place.root() == Path.home() / "sets"
    monkeypatch.delenv("STFORMER_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert place.root() == Path("/var/cache/stformer/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert place.root() == Path.home() / ".cache" / "stformer" / "data"


@pytest.mark.parametrize("name", list(data.DATASETS))
def test_synthetic_stand_ins_need_no_files(name: str) -> None:
    dataset = data.find(name)
    splits = data.synthetic(name, 5, 9)
    assert (len(splits["train"]), len(splits["test"])) == (9, 3)
    frames = splits["train"].frames
    time = (5,) if dataset.events else ()
    assert frames.shape == (9, *time, *dataset.shape)
    assert frames.dtype == np.uint8
    assert frames.min() == 0
    assert frames.max() <= dataset.largest
    assert frames.max() == dataset.largest or dataset.events
    assert splits["train"].labels.max() < dataset.classes
    again = data.synthetic(name, 5, 9)
    assert (again["train"].frames == frames).all()
    stand_in = data.find(f"synthetic:{name}")
    assert stand_in.missing() is None
    assert stand_in.shape == dataset.shape
    loaded = stand_in.splits(2)
    assert (len(loaded["train"]), len(loaded["test"])) == stand_in.samples
    if dataset.events:
        assert 0.1 < (loaded["train"].frames > 0).mean() < 0.4
