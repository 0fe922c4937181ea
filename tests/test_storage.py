"""Files: round trips, same bytes, whole or not at all, and nothing hostile gets through."""

from __future__ import annotations

import errno
import json
import os
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import pytest

from stformer import files, hdf5, interpret, storage
from stformer.errors import InputError
from stformer.network import Conv, Dense, Input, Lif, Network, Readout, no_bias
from stformer.trace import Probe, Trace

RNG = np.random.default_rng(7)


def make(name: str = "n") -> Network:
    return Network(
        name=name,
        steps=3,
        populations=(
            Input(name="in", shape=(2, 4, 4)),
            Lif(
                name="a>b#1",
                shape=(3, 4, 4),
                vth=3,
                dv=2048,
                bias_mant=np.array([-4096, 0, 4095]).reshape(3, 1, 1),
                latency=1,
            ),
            Readout(name="out", shape=(5,), bias_mant=no_bias((5,)), latency=2),
        ),
        projections=(
            Conv(
                name="in>a",
                pre="in",
                post="a>b#1",
                weight=np.random.default_rng(1).integers(-128, 128, (3, 2, 3, 3)),
                padding=(1, 1),
            ),
            Dense(
                name="a>out",
                pre="a>b#1",
                post="out",
                weight=np.random.default_rng(2).integers(-128, 128, (5, 48)),
            ),
        ),
    )


def make_trace(*, states: bool = True) -> Trace:
    frames = RNG.integers(0, 2, (5, 3, 2, 4, 4))
    return interpret.run(make(), frames, probe=Probe(states=states))


@pytest.fixture
def stf(tmp_path: Path) -> Path:
    path = tmp_path / "n.stf"
    storage.save(path, make(), model={"dim": 8}, provenance={"note": "größer ≤ 1"})
    return path


@pytest.fixture
def traced(tmp_path: Path) -> Path:
    path = tmp_path / "n.trace"
    make_trace().save(path)
    return path


def test_network_round_trip(stf: Path) -> None:
    document = storage.load_document(stf)
    assert document.network.digest() == make().digest()
    assert document.network.name == "n"
    assert document.model == {"dim": 8}
    assert document.provenance == {"note": "größer ≤ 1"}
    assert storage.load(str(stf)).digest() == make().digest()


def test_no_model_is_none_and_no_provenance_is_empty(tmp_path: Path) -> None:
    storage.save(tmp_path / "x.stf", make())
    document = storage.load_document(tmp_path / "x.stf")
    assert (document.model, document.provenance) == (None, {})


@pytest.mark.parametrize("states", [False, True])
def test_trace_round_trip(tmp_path: Path, states: bool) -> None:
    trace = make_trace(states=states)
    trace = Trace(
        network=trace.network,
        inputs=trace.inputs,
        backend=trace.backend,
        spikes=trace.spikes,
        u=trace.u,
        v=trace.v,
        info={"seconds": 0.25, "threads": 2, "device": "cpu"},
    )
    trace.save(tmp_path / "t")
    back = Trace.load(tmp_path / "t")
    assert back.populations == trace.populations  # in order
    assert (back.network, back.inputs, back.backend) == (trace.network, trace.inputs, "reference")
    assert back.info == {"seconds": 0.25, "threads": 2, "device": "cpu"}
    for mine, theirs in ((trace.spikes, back.spikes), (trace.u, back.u), (trace.v, back.v)):
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(mine[name], theirs[name])
    assert bool(back.v) == states


def test_trace_over_several_chunks(tmp_path: Path) -> None:
    spikes = {
        "bits": RNG.integers(0, 2, (5, 4, 450_001), np.uint8),  # > 1 MiB packed, odd tail
        "graded": RNG.integers(-(2**31), 2**31, (3 + 2, 4, 30_001)).astype(np.int32),
    }
    trace = Trace(network="0" * 64, inputs="1" * 64, backend="b", spikes=spikes)
    trace.save(tmp_path / "t")
    back = Trace.load(tmp_path / "t")
    for name, a in spikes.items():
        np.testing.assert_array_equal(a, back[name])
    with h5py.File(tmp_path / "t") as file:  # and plain h5py reads it too
        np.testing.assert_array_equal(file["spikes/graded"][:], spikes["graded"].ravel())
        assert file["spikes/bits"].shape == (-(-spikes["bits"].size // 8),)


def test_empty_trace_round_trip(tmp_path: Path) -> None:
    Trace(network="0" * 64, inputs="1" * 64, backend="b", spikes={}).save(tmp_path / "t")
    assert Trace.load(tmp_path / "t").populations == ()


def test_same_content_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = make_trace()
    storage.save(tmp_path / "a", make(), model={"x": 1, "y": 2})
    trace.save(tmp_path / "ta")
    # Times in HDF5 have a resolution of one second, so a file written later must still agree.
    import time

    time.sleep(1.1)
    storage.save(tmp_path / "b", make(), model={"y": 2, "x": 1})
    trace.save(tmp_path / "tb")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "ta").read_bytes() == (tmp_path / "tb").read_bytes()


def test_import_does_not_load_h5py() -> None:
    import subprocess
    import sys

    code = "import sys, stformer; sys.exit('h5py' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- writing: whole or not at all -------------------------------------------------------------


def left(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


@pytest.mark.parametrize("end", [KeyboardInterrupt, ValueError])
def test_interrupted_write_leaves_the_old_file(tmp_path: Path, end: type[BaseException]) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"old")

    def write() -> None:
        with files.atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise end

    with pytest.raises(end):
        write()
    assert left(tmp_path) == {"f"}
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_is_a_readable_error(
    stf: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before = stf.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, call, full)
    with pytest.raises(InputError, match=r"n\.stf: cannot be written \(No space left on device\)"):
        storage.save(stf, make("other"))
    assert stf.read_bytes() == before
    assert left(stf.parent) == {"n.stf"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_really_full_device(tmp_path: Path) -> None:
    def write() -> None:
        with files.atomic_path(tmp_path / "x") as temporary:
            temporary.unlink()
            temporary.symlink_to("/dev/full")
            temporary.write_bytes(b"x" * 10)

    with pytest.raises(InputError, match="No space left"):
        write()
    assert left(tmp_path) == set()


def test_write_replaces_follows_links_and_keeps_the_umask(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    files.write_text(tmp_path / "link", "neu ä\n")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == "neu ä\n".encode()
    files.write_text(tmp_path / "fresh", "x")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o666 & ~mask
    assert left(tmp_path) == {"real", "link", "fresh"}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("missing/x.stf", "no folder"),
        (".", "a folder"),
        ("", "''"),
        ("a\0b", "a\\\\x00b"),
        ("pipe", "a device or pipe"),  # never a real device: a failing test would replace it
    ],
)
def test_unwritable_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, found: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(InputError, match=found):
        storage.save(path, make())
    assert left(tmp_path) == {"pipe"}
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        storage.save(tmp_path / "x", make())
    tmp_path.chmod(0o700)


def test_denied_creation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(files.Path, "open", denied)
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\)"):
        storage.save(tmp_path / "x", make())


@pytest.mark.parametrize("bad", [float("nan"), {1, 2}, object()])
def test_model_must_be_json(tmp_path: Path, bad: object) -> None:
    with pytest.raises(InputError, match="JSON"):
        storage.save(tmp_path / "x", make(), model={"bad": bad})
    assert left(tmp_path) == set()


def broken_traces() -> Iterator[tuple[str, dict[str, Any], str]]:
    bits = np.zeros((2, 3, 4), np.uint8)
    ints = np.zeros((2, 3, 4), np.int32)
    yield "digest", {"network": "x"}, "network"
    yield "twos", {"spikes": {"a": bits + 2}}, "0 and 1"
    yield "dtype", {"spikes": {"a": ints.astype(np.int64)}}, "int64"
    yield "steps", {"spikes": {"a": bits, "b": bits[:, :2]}}, "samples and steps"
    yield "no samples", {"spikes": {"a": bits[:0]}}, "samples and steps"
    yield "v shape", {"spikes": {"a": bits}, "v": {"a": ints[..., :2]}}, "v of 'a'"
    yield "u of nobody", {"spikes": {"a": bits}, "u": {"b": ints}}, "u of 'b'"
    yield "v dtype", {"spikes": {"a": bits}, "v": {"a": bits}}, "uint8"
    yield "info", {"info": {"x": [1]}}, "info 'x'"
    yield "nan", {"info": {"x": float("nan")}}, "JSON"


@pytest.mark.parametrize(
    ("change", "found"), [b[1:] for b in broken_traces()], ids=[b[0] for b in broken_traces()]
)
def test_a_broken_trace_is_not_written(tmp_path: Path, change: dict[str, Any], found: str) -> None:
    given = {"network": "0" * 64, "inputs": "1" * 64, "backend": "b", "spikes": {}, **change}
    with pytest.raises(InputError, match=found):
        Trace(**given).save(tmp_path / "t")
    assert left(tmp_path) == set()


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="up to 100"):
        storage.save_trace(tmp_path / "t", make_trace(), limit=100)
    storage.save_trace(tmp_path / "t", make_trace(), limit=10**6)
    with pytest.raises(InputError, match="up to 100"):
        storage.load_trace(tmp_path / "t", limit=100)


# --- reading what others made -----------------------------------------------------------------


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
        "other": "",
    }.items():
        for load in (storage.load, storage.load_document, storage.load_trace):
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
        storage.load_trace(stf)


@pytest.mark.parametrize("kind", ["network", "trace"])
def test_every_truncation_and_flipped_bytes(stf: Path, traced: Path, kind: str) -> None:
    path = stf if kind == "network" else traced
    load: Callable[[Path], object] = storage.load if kind == "network" else storage.load_trace
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
    "model list": (rewrite(lambda t: {**t, "model": []}), "model"),
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
    arrays: dict[str, Any] = {}
    file.visititems(
        lambda k, d: (
            arrays.update({k: d[:]}) if isinstance(d, h5py.Dataset) and k != "document" else None
        )
    )
    text = file["document"][()].decode()
    file.attrs["digest"] = np.bytes_(storage._content_digest(text, arrays))


def population(key: str, value: object) -> Edit:
    def change(top: Any) -> Any:
        top["populations"][0][key] = value
        return top

    return trace_text(change)


def swapped(name: str, data: Any) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=data, chunks=True, compression="gzip")
        sign(file)

    return edit


def gzip_bomb(file: h5py.File) -> None:
    del file["spikes/in"]
    data = file.create_dataset("spikes/in", (60,), "u1", chunks=(60,), compression="gzip")
    data.id.write_direct_chunk((0,), zlib.compress(bytes(2**28)))


HOSTILE_TRACES: dict[str, tuple[Edit, str]] = {
    "version": (attribute("version", 9), "version 9"),
    "digest": (attribute("digest", np.bytes_("0" * 64)), "digest"),
    "gzip bomb": (gzip_bomb, "a chunk of 61 bytes"),
    "shape": (population("shape", [5, 3, 2, 4, 5]), "spikes of 'in'"),
    "shape big": (population("shape", [2**26, 2**26, 1]), "up to"),
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
    "v short": (swapped("v/out", np.zeros(5, np.int32)), "v of 'out'"),
    "v type": (swapped("v/out", np.zeros(75, np.int16)), "v of 'out'"),
    "bits short": (swapped("spikes/in", np.zeros(59, np.uint8)), "spikes of 'in'"),
    "bits as int": (swapped("spikes/in", np.zeros(60, np.int32)), "spikes of 'in'"),
    "graded as bits": (swapped("spikes/out", np.zeros(75, np.uint8)), "spikes of 'out'"),
}


@pytest.mark.parametrize("name", HOSTILE_TRACES)
def test_hostile_trace(traced: Path, name: str) -> None:
    edit, found = HOSTILE_TRACES[name]
    with h5py.File(traced, "r+") as file:
        edit(file)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=found) as e:
            storage.load_trace(traced)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(traced) in str(e.value)
    assert peak < 64 * 2**20


def test_file_larger_than_the_limit(traced: Path) -> None:
    with pytest.raises(InputError, match="bytes"):
        hdf5.read(traced, 1000)


def test_packaged_model_is_what_none_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert storage.PACKAGED.parts[-2:] == ("packaged", "digits.stf")
    monkeypatch.setattr(storage, "PACKAGED", tmp_path / "d.stf")
    storage.save(tmp_path / "d.stf", make("digits"))
    assert storage.load().name == "digits"


def test_trace_defaults_are_read_only() -> None:
    trace = Trace(network="", inputs="", backend="", spikes={})
    assert isinstance(trace.u, MappingProxyType)
