"""What is no file of ours, or no longer: told by name, with little memory, never a traceback."""

from __future__ import annotations

import json
import os
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from stformer import hdf5, storage
from stformer.errors import InputError
from stformer.network import Network
from stformer.testing_traces import make
from stformer.trace_file import load_trace
from stformer.trace_tables import file_digest, window_digest

WINDOW = 5  # of a short trace: all its samples
RNG = np.random.default_rng(7)


def test_missing_folder_empty_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("not hdf5 at all, really")
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(tmp_path / "other", "w") as file:
        file["x"] = [1.0]
    for name, found in {
        "gone": "No such file",
        ".": "a folder",
        "empty": "an empty file",
        "text": "not HDF5",
        "pipe": "device or pipe",
        "other": "document",
    }.items():
        for load in (storage.load, storage.load_document, load_trace):
            with pytest.raises(InputError, match=found) as e:
                load(tmp_path / name)
            assert e.value.where.startswith(str(tmp_path))
    for nothing in ("", "a\0b"):
        with pytest.raises(InputError, match="path"):
            storage.load(nothing)


def test_network_and_trace_are_told_apart(stf: Path, traced: Path) -> None:
    with pytest.raises(InputError, match=r"a trace file; allowed: a network file"):
        storage.load(traced)
    with pytest.raises(InputError, match=r"a network file; allowed: a trace file"):
        load_trace(stf)


@pytest.mark.parametrize("kind", ["network", "trace"])
def test_every_truncation_and_flipped_bytes(stf: Path, traced: Path, kind: str) -> None:
    path = stf if kind == "network" else traced
    load: Callable[[Path], object] = storage.load if kind == "network" else load_trace
    whole = path.read_bytes()
    for cut in sorted({1, 7, 8, 9, 47, 48, 100, len(whole) - 1, *range(0, len(whole), 997)}):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError):
            load(path)
    rng = np.random.default_rng(3)
    for at in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            result = load(path)
        except InputError:
            continue
        # Padding, or the text beside the digest, may change; the numbers may not.
        if isinstance(result, Network):
            assert result.digest() == make().digest()


Edit = Callable[[h5py.File], None]


def replaced(name: str, **options: Any) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return edit


def attribute(key: str, value: object) -> Edit:
    def edit(file: h5py.File) -> None:
        file.attrs[key] = value

    return edit


def rewrite(change: Callable[[Any], Any]) -> Edit:
    """Change the parsed JSON text."""

    def edit(file: h5py.File) -> None:
        value = change(json.loads(file["document"][()]))
        set_text(file, json.dumps(value).encode())

    return edit


def raw(text: bytes) -> Edit:
    return lambda file: set_text(file, text)


def set_text(file: h5py.File, text: bytes) -> None:
    del file["document"]
    kind = h5py.string_dtype("utf-8", max(1, len(text)))
    file.create_dataset("document", data=np.array(text, kind), dtype=kind)


def linked(link: object) -> Edit:
    def edit(file: h5py.File) -> None:
        del file["in>a/weight"]
        file["in>a/weight"] = link

    return edit


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(3, 2, 3, 3), dtype="i1")
    layout[...] = h5py.VirtualSource("/etc/hostname", "x", shape=(3, 2, 3, 3))
    del file["in>a/weight"]
    file.create_virtual_dataset("in>a/weight", layout)


def field_(kind: str, index: int, key: str, value: object) -> Edit:
    def change(top: Any) -> Any:
        top["network"][kind][index][key] = value
        return top

    return rewrite(change)


def dropped(kind: str, index: int, key: str) -> Edit:
    def change(top: Any) -> Any:
        del top["network"][kind][index][key]
        return top

    return rewrite(change)


W = "in>a/weight"
HOSTILE: dict[str, tuple[Edit, str]] = {
    "version": (attribute("version", 2), "version 2"),
    "version text": (attribute("version", np.bytes_("1")), "version '1'"),
    "format": (attribute("format", np.bytes_("nir")), "format 'nir'"),
    "vlen attribute": (attribute("format", "stformer-network"), "attribute 'format'"),
    "big attribute": (attribute("format", np.zeros(5000)), "attribute 'format'"),
    "no format": (lambda f: f.attrs.__delitem__("format"), "format None"),
    "extra attribute": (attribute("more", 1), "attributes"),
    "digest": (attribute("digest", np.bytes_("0" * 64)), "digest"),
    "no digest": (attribute("digest", np.bytes_("0" * 63)), "attributes"),
    "weight changed": (replaced(W, data=np.ones((3, 2, 3, 3), np.int8)), "digest"),
    "weight gone": (lambda f: f.__delitem__(W), "no array 'in>a/weight'"),
    "extra array": (lambda f: f.__setitem__("more/weight", np.ones(1, np.int8)), "more/weight"),
    "float weight": (replaced(W, data=np.ones((3, 2, 3, 3))), "float64"),
    "int64 weight": (replaced(W, data=np.ones((3, 2, 3, 3), np.int64)), "int64"),
    "vlen": (replaced(W, shape=(3,), dtype=h5py.vlen_dtype(np.int8)), "dataset 'in>a/weight'"),
    "reference": (replaced(W, shape=(3,), dtype=h5py.ref_dtype), "dataset 'in>a/weight'"),
    "compound": (replaced(W, shape=(3,), dtype=np.dtype([("a", "i1")])), "dataset"),
    "null space": (replaced(W, data=h5py.Empty("i1")), "shape None"),
    "scalar": (replaced(W, data=np.int8(1)), "shape"),
    "five axes": (replaced(W, data=np.ones((1,) * 5, np.int8)), "1 to 4 axes"),
    "growable": (replaced(W, shape=(3,), maxshape=(None,), dtype="i1", chunks=(3,)), "fixed"),
    "huge": (replaced(W, shape=(2**40,), dtype="i1"), "bytes in the whole file"),
    "huge chunked": (replaced(W, shape=(2**40,), dtype="i1", chunks=(2**20,)), "whole file"),
    "many": (
        lambda f: [f.create_dataset(f"x/{i}", shape=(2**27,), dtype="i1") for i in range(9)],
        "stored|whole file",
    ),
    "unwritten": (replaced(W, shape=(2**29,), dtype="i1"), "0 bytes stored"),
    "unwritten chunks": (
        replaced(W, shape=(2**29,), dtype="i1", chunks=(2**20,), compression="gzip"),
        "chunks of shape",
    ),
    "big chunk": (
        replaced(W, shape=(2**22,), dtype="i1", chunks=(2**22,), compression="gzip"),
        "chunks of shape",
    ),
    "other filter": (
        replaced(W, data=np.ones(9, np.int8), chunks=(9,), compression="lzf"),
        "filters",
    ),
    "no filter": (replaced(W, data=np.ones(9, np.int8), chunks=(9,)), "filters"),
    "external storage": (
        replaced(W, shape=(4,), dtype="i1", external=[("/etc/passwd", 0, 4)]),
        "other files",
    ),
    "virtual": (virtual, "other files|4 axes|stored"),
    "soft link": (linked(h5py.SoftLink("/a>out/weight")), "a link"),
    "external link": (linked(h5py.ExternalLink("/etc/passwd", "/x")), "a link"),
    "loop": (lambda f: f.__setitem__("in>a/loop", f["/"]), "two groups deep"),
    "named type": (lambda f: f.__setitem__("t", np.dtype("i4")), "another kind"),
    "no text": (lambda f: f.__delitem__("document"), "missing"),
    "text as array": (replaced("document", data=np.zeros(9, np.uint8)), "one string"),
    "text vlen": (replaced("document", data="{}"), "one string"),
    "text huge": (replaced("document", shape=(), dtype="S20000000"), "up to 16777216"),
    "not UTF-8": (raw(b"\xff\xfe"), "UTF-8"),
    "not JSON": (raw(b"{"), "JSON"),
    "empty text": (raw(b""), "JSON"),
    "NaN": (raw(b'{"network": NaN}'), "NaN"),
    "infinity": (raw(b'{"network": 1e999}'), "1e999"),
    "long integer": (raw(b"1" * 100_000), "an integer of 100000 digits"),
    "deep": (raw(b"[" * 100_000 + b"]" * 100_000), "deep nesting"),
    "bomb": (raw(b"[" + b"[]," * 1_100_000 + b"[]]"), "too many items"),
    "twice": (raw(b'{"a": 1, "a": 2}'), "twice"),
    "a list": (raw(b"[]"), "list"),
    "extra key": (rewrite(lambda t: {**t, "more": 1}), "keys"),
    "extra network key": (rewrite(lambda t: {**t, "network": {**t["network"], "m": 1}}), "keys"),
    "network null": (rewrite(lambda t: {**t, "network": None}), "NoneType"),
    "a key more": (rewrite(lambda t: {**t, "model": []}), "model"),
    "provenance null": (rewrite(lambda t: {**t, "provenance": None}), "provenance"),
    "kind": (field_("populations", 1, "kind", "Adex"), "'Adex'"),
    "kind list": (field_("populations", 1, "kind", ["Lif"]), ""),
    "population kind": (field_("projections", 1, "kind", "Input"), ""),
    "extra field": (field_("populations", 1, "extra", 1), "extra"),
    "no field": (dropped("populations", 1, "vth"), "vth"),
    "fraction": (field_("populations", 1, "vth", 1.5), "vth = 1.5"),
    "zero": (field_("populations", 1, "vth", 0), "vth = 0"),
    "bool": (field_("populations", 1, "vth", True), "vth = True"),
    "bias is a number": (field_("populations", 1, "bias_mant", 3), "bias_mant"),
    "name is a list": (field_("projections", 0, "name", [["x"]]), ""),
    "name is a mapping": (field_("projections", 0, "name", {"a": 1}), ""),
    "end is a list": (field_("projections", 0, "pre", [["in"]]), ""),
    "huge neurons": (field_("populations", 0, "shape", [2**20, 2**20, 2**20]), "neurons|shape"),
    "huge padding": (field_("projections", 0, "padding", [2**40, 0]), "padding"),
    "populations": (
        rewrite(lambda t: {**t, "network": {**t["network"], "populations": 3}}),
        "list",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_hostile_network(stf: Path, name: str) -> None:
    edit, found = HOSTILE[name]
    with h5py.File(stf, "r+") as file:
        edit(file)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=found) as e:
            storage.load(stf)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(stf) in str(e.value)
    assert len(str(e.value)) < 2000
    assert peak < 64 * 2**20


def trace_text(change: Callable[[Any], Any]) -> Edit:
    """Change the text and make the digest right again."""

    def edit(file: h5py.File) -> None:
        rewrite(change)(file)
        sign(file)

    return edit


def sign(file: h5py.File) -> None:
    """Make the digests right again, of the one window that there is."""
    tables: dict[str, Any] = {}

    def take(path: str, data: object) -> None:
        if isinstance(data, h5py.Dataset) and path not in ("document", "digests"):
            tables[path] = data[...]

    file.visititems(take)
    file["digests"][...] = np.frombuffer(window_digest(tables), np.uint8)
    text = file["document"][()].decode()
    file.attrs["digest"] = np.bytes_(file_digest(text, file["digests"][...]))


def population(key: str, value: object) -> Edit:
    def change(top: Any) -> Any:
        top["populations"][0][key] = value
        return top

    return trace_text(change)


def swapped(name: str, data: Any) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[name]
        chunks = (WINDOW, data.shape[1])
        more = {"chunks": chunks, "maxshape": (None, data.shape[1])}
        file.create_dataset(name, data=data, compression="gzip", **more)
        sign(file)

    return edit


def flipped_bit(file: h5py.File) -> None:
    file["spikes/in"][3, 2] ^= 1


def gzip_bomb(file: h5py.File) -> None:
    del file["spikes/in"]
    more = {"chunks": (WINDOW, 12), "maxshape": (None, 12), "compression": "gzip"}
    data = file.create_dataset("spikes/in", (5, 12), "u1", **more)
    data.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**28)))


def more_digests(file: h5py.File) -> None:
    del file["digests"]
    file["digests"] = np.zeros((2, 32), np.uint8)
    text = file["document"][()].decode()
    file.attrs["digest"] = np.bytes_(file_digest(text, file["digests"][...]))


HOSTILE_TRACES: dict[str, tuple[Edit, str]] = {
    "version": (attribute("version", 9), "version 9"),
    "digest": (attribute("digest", np.bytes_("0" * 64)), "digest"),
    "digests": (lambda f: f["digests"].write_direct(np.zeros((1, 32), np.uint8)), "digest"),
    "no digests": (lambda f: f.__delitem__("digests"), "no array 'digests'"),
    "more digests": (more_digests, "2 digests for 5 samples"),
    "gzip bomb": (gzip_bomb, f"a chunk of {WINDOW * 12 + 1} bytes"),
    "window": (trace_text(lambda t: {**t, "window": 0}), "a window of 0"),
    "window true": (trace_text(lambda t: {**t, "window": True}), "a window of True"),
    "window big": (trace_text(lambda t: {**t, "window": 2**40}), "up to"),
    "window other": (trace_text(lambda t: {**t, "window": 6}), "in chunks of 5 samples"),
    "bit": (flipped_bit, "samples 0...4: content of digest"),
    "shape": (population("shape", [5, 3, 2, 4, 5]), "spikes of 'in'"),
    "shape big": (population("shape", [2**26, 2**26, 1]), "spikes of 'in'"),
    "shape negative": (population("shape", [-5, -3, 32]), "shape"),
    "shape float": (population("shape", [5.0, 3, 32]), "shape"),
    "shape deep": (population("shape", [5, 3, 1, 1, 1, 32]), "shape"),
    "shape null": (population("shape", None), "shape"),
    "name": (population("name", "nobody"), "spikes/nobody"),
    "name list": (population("name", []), "name"),
    "graded": (population("graded", True), "spikes of 'in'"),
    "graded text": (population("graded", "yes"), "graded"),
    "extra": (population("more", 1), "keys"),
    "twice": (trace_text(lambda t: {**t, "populations": t["populations"] * 2}), "once"),
    "left": (trace_text(lambda t: {**t, "populations": t["populations"][1:]}), "arrays"),
    "no list": (trace_text(lambda t: {**t, "populations": {}}), "populations"),
    "backend": (trace_text(lambda t: {**t, "backend": 3}), "backend"),
    "network": (trace_text(lambda t: {**t, "network": 3}), "network"),
    "inputs": (trace_text(lambda t: {**t, "inputs": "abc"}), "inputs"),
    "info": (trace_text(lambda t: {**t, "info": []}), "info"),
    "info value": (trace_text(lambda t: {**t, "info": {"a": [1]}}), "info 'a'"),
    "v short": (swapped("v/out", np.zeros((5, 1), np.int32)), "v of 'out'"),
    "v type": (swapped("v/out", np.zeros((5, 15), np.int16)), "v of 'out'"),
    "bits short": (swapped("spikes/in", np.zeros((5, 11), np.uint8)), "spikes of 'in'"),
    "bits as int": (swapped("spikes/in", np.zeros((5, 12), np.int32)), "spikes of 'in'"),
    "graded as bits": (swapped("spikes/out", np.zeros((5, 15), np.uint8)), "spikes of 'out'"),
}


@pytest.mark.parametrize("name", HOSTILE_TRACES)
def test_hostile_trace(traced: Path, name: str) -> None:
    edit, found = HOSTILE_TRACES[name]
    with h5py.File(traced, "r+") as file:
        edit(file)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=found) as e:
            load_trace(traced)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(traced) in str(e.value)
    assert peak < 64 * 2**20


def test_file_larger_than_the_limit(traced: Path) -> None:
    with pytest.raises(InputError, match="bytes"):
        hdf5.read(traced, 1000)
