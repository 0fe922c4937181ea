"""`--data` and `--samples`: what is read, and every way a file can be wrong."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stformer import storage
from stformer.network import Dense, Input, Network, OneToOne
from stformer.passes import schedule
from stformer.testing import inputs_for, lif, sample_network
from stformer.testing_cli import Call


def _zip(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def _npy(array: Any, **more: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **more)
    return out.getvalue()


def _claiming(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    """A header that claims an array, and a few bytes."""
    out = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    npy: Any = np.lib.format
    npy.write_array_header_1_0(out, header)
    return out.getvalue() + b"\0" * 64


def _made(path: Path, kind: str, frames: Any) -> None:
    """A file of samples with that mistake."""
    x = _npy(frames)
    labels = np.zeros(len(frames), np.int64)
    objects = _npy(np.array([{}, []], object), allow_pickle=True)
    nan, fraction = frames.astype(float), frames.astype(float)
    nan[1, 0].flat[0], fraction[1, 0].flat[0] = np.nan, 0.5
    npy = {
        "truncated": x[:-5],
        "longer": x + b"\0",
        "text": b"hello" * 40,
        "empty file": b"",
        "objects": objects,
        "huge": _claiming((2**40, *frames.shape[1:])),
        "overflowing": _claiming((2**62, 2**62)),
        "negative": _claiming((-1, 4)),
        "text elements": _npy(np.array(["a", "b"])),
        "complex": _npy(frames.astype(complex)),
        "wrong steps": _npy(np.repeat(frames, 2, axis=1)),
        "wrong shape": _npy(frames[..., :1]),
        "flat": _npy(frames.ravel()),
        "scalar": _npy(np.array(3)),
        "no samples": _npy(frames[:0]),
        "nan": _npy(nan),
        "fractions": _npy(fraction),
        "too large": _npy(frames + 1),
        "negative values": _npy(frames.astype(np.int8) - 1),
    }
    npz = {
        "no inputs": {"images": x},
        "truncated member": {"inputs": x[:-5]},
        "objects member": {"inputs": objects},
        "object labels": {"inputs": x, "labels": objects},
        "huge member": {"inputs": _claiming((2**40, *frames.shape[1:]))},
        "few labels": {"inputs": x, "labels": _npy(labels[1:])},
        "float labels": {"inputs": x, "labels": _npy(labels * 0.5)},
        "two axes of labels": {"inputs": x, "labels": _npy(labels[:, None])},
    }
    if kind in npy:
        path.with_suffix(".npy").write_bytes(npy[kind])
    elif kind in npz:
        _zip(path.with_suffix(".npz"), **npz[kind])
    elif kind == "no zip":
        path.with_suffix(".npz").write_bytes(x)
    elif kind == "damaged zip":
        _zip(path.with_suffix(".npz"), inputs=x)
        content = bytearray(path.with_suffix(".npz").read_bytes())
        content[300] ^= 255
        path.with_suffix(".npz").write_bytes(content)
    else:
        assert kind == "other suffix"
        path.with_suffix(".csv").write_text("1,2,3\n")


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("truncated", "as its header says"),
        ("longer", "as its header says"),
        ("text", "numpy.save"),
        ("empty file", "numpy.save"),
        ("objects", "Python objects"),
        ("huge", "bytes"),
        ("overflowing", "bytes"),
        ("negative", "as its header says"),
        ("text elements", "elements of type"),
        ("complex", "elements of type complex128"),
        ("wrong steps", "8 time steps; allowed: 4"),
        ("wrong shape", "of shape [5, 4, 4, 2, 1]; allowed: [samples, 4, 4, 2, 2]"),
        ("flat", "allowed: [samples, 4"),
        ("scalar", "a single number; allowed: [samples, 4, 4, 2, 2]"),
        ("no samples", "no samples; allowed: at least one"),
        ("nan", "NaN"),
        ("fractions", "fractions"),
        ("too large", "values 1...2; allowed: 0...1"),
        ("negative values", "values -1...0; allowed: 0...1"),
        ("no inputs", "arrays images; allowed: an array 'inputs'"),
        ("truncated member", "as its header says"),
        ("objects member", "Python objects"),
        ("object labels", "labels: Python objects"),
        ("huge member", "bytes"),
        ("few labels", "labels of shape [4]"),
        ("float labels", "float64 labels"),
        ("two axes of labels", "labels of shape [5, 1]"),
        ("no zip", "numpy.savez"),
        ("damaged zip", "numpy.savez"),
        ("other suffix", "'.csv'"),
    ],
)
def test_data_files_with_mistakes(
    kind: str, part: str, call: Call, tmp_path: Path, model: Path, frames: Any
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    _made(folder / "x", kind, frames)
    (path,) = folder.iterdir()
    message = call.fails("run", model, "--backend", "reference", "--data", path)
    assert part in message, message


def test_data_that_is_not_there(call: Call, tmp_path: Path, model: Path) -> None:
    run = ("run", model, "--backend", "reference")
    assert "no such file" in call.fails(*run, "--data", tmp_path / "gone.npz")
    assert "no such file" in call.fails(*run, "--data", "gone.npy")
    assert f"{tmp_path}: a folder" in call.fails(*run, "--data", tmp_path)
    message = call.fails(*run, "--data", "digit")
    assert "'digit'" in message
    assert "digits" in message
    message = call.fails(*run)
    assert "--data" in message
    assert "digits" in message
    assert "m.stf" in message


def test_labels_of_other_classes(call: Call, tmp_path: Path) -> None:
    readout = sample_network("readout")
    storage.save(tmp_path / "r.stf", readout)
    (x,) = inputs_for(readout, 3, np.random.default_rng(0)).values()
    for labels, good in (([0, 1, 0], True), ([0, 99, 0], False), ([0, -1, 0], False)):
        np.savez(tmp_path / "x.npz", inputs=x, labels=np.array(labels))
        words = ("run", tmp_path / "r.stf", "--backend", "reference", "--data", tmp_path / "x.npz")
        if good:
            assert call(*words)[0] == 0
        else:
            assert "the classes of" in call.fails(*words)


def test_more_samples_than_there_are(call: Call, model: Path, data: Path) -> None:
    run = ("run", model, "--backend", "reference", "--data", data)
    code, out, err = call(*run, "--samples", "6", "--json")
    assert code == 0
    assert json.loads(out)["samples"] == 5
    assert "there are 5 samples" in err
    code, out, err = call(*run, "--samples", "5", "--json")
    assert (code, err) == (0, "")
    assert call.json(*run, "--samples", "2")["samples"] == 2


def test_networks_with_several_inputs_take_arrays_by_name(
    call: Call, tmp_path: Path, data: Path
) -> None:
    several = schedule(
        Network(
            name="several",
            steps=4,
            populations=(Input(name="x", shape=(3,)), Input(name="y", shape=(2,)), lif("p", (2,))),
            projections=(
                Dense(name="x>p", pre="x", post="p", weight=np.full((2, 3), 2, np.int8)),
                OneToOne(name="y>p", pre="y", post="p", weight=1),
            ),
        )
    )
    storage.save(tmp_path / "s.stf", several)
    arrays = inputs_for(several, 2, np.random.default_rng(0))
    np.savez(tmp_path / "s.npz", **arrays)
    run = ("run", tmp_path / "s.stf", "--backend", "reference", "--data")
    assert call.json(*run, tmp_path / "s.npz")["samples"] == 2
    np.savez(tmp_path / "uneven.npz", x=arrays["x"], y=arrays["y"][:1])
    assert "equal numbers" in call.fails(*run, tmp_path / "uneven.npz")
    first, *_ = arrays
    np.savez(tmp_path / "half.npz", **{first: arrays[first]})
    assert "an array '" in call.fails(*run, tmp_path / "half.npz")
    assert f"an .npz file with {', '.join(arrays)}" in call.fails(*run, data)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("words", [["run", "--backend", "cpu"], ["prove"], ["bundle", "-o", "b"]])
def test_a_network_without_inputs_takes_no_data(
    words: list[str], given: bool, call: Call, tmp_path: Path, data: Path
) -> None:
    free = Network(name="free", steps=4, populations=(lif("p", (2,)),), projections=())
    storage.save(tmp_path / "f.stf", free)
    samples = ["--data", data] if given else ["--samples", "3"]
    message = call.fails(words[0], tmp_path / "f.stf", *words[1:], *samples)
    assert "network free: no input" in message
