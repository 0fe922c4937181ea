"""Files: round trips, same bytes, whole or not at all, and nothing hostile gets through."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import pytest

from stformer import files, storage
from stformer.errors import InputError
from stformer.testing_traces import make, make_trace
from stformer.trace import Trace
from stformer.trace_file import load_trace

RNG = np.random.default_rng(7)


def test_network_round_trip(stf: Path) -> None:
    document = storage.load_document(stf)
    assert document.network.digest() == make().digest()
    assert document.network.name == "n"
    assert document.provenance == {"note": "größer ≤ 1"}
    assert storage.load(str(stf)).digest() == make().digest()


def test_no_provenance_is_empty(tmp_path: Path) -> None:
    storage.save(tmp_path / "x.stf", make())
    document = storage.load_document(tmp_path / "x.stf")
    assert document.provenance == {}


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
        np.testing.assert_array_equal(file["spikes/graded"][:], spikes["graded"].reshape(5, -1))
        bits = np.packbits(spikes["bits"].reshape(5, -1), axis=1)
        np.testing.assert_array_equal(file["spikes/bits"][:], bits)


def test_empty_trace_round_trip(tmp_path: Path) -> None:
    Trace(network="0" * 64, inputs="1" * 64, backend="b", spikes={}).save(tmp_path / "t")
    assert Trace.load(tmp_path / "t").populations == ()


def test_same_content_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = make_trace()
    storage.save(tmp_path / "a", make(), provenance={"x": 1, "y": 2})
    trace.save(tmp_path / "ta")
    # Times in HDF5 have a resolution of one second, so a file written later must still agree.
    import time

    time.sleep(1.1)
    storage.save(tmp_path / "b", make(), provenance={"y": 2, "x": 1})
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


def test_text_makes_its_folder(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"
    files.make_folder(tmp_path / "a")  # there already
    for bad in (tmp_path / "a" / "b" / "c.txt" / "d", tmp_path / "x\0y"):
        with pytest.raises(InputError, match=r"can(not)? be made"):
            files.make_folder(bad)


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
def test_provenance_must_be_json(tmp_path: Path, bad: object) -> None:
    with pytest.raises(InputError, match="JSON"):
        storage.save(tmp_path / "x", make(), provenance={"bad": bad})
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


def test_more_than_the_limit_is_not_loaded(tmp_path: Path) -> None:
    make_trace().save(tmp_path / "t")
    with pytest.raises(InputError, match="up to 100"):
        load_trace(tmp_path / "t", limit=100)


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


def test_the_limit_is_for_all_arrays_together(tmp_path: Path) -> None:
    spikes = {name: np.zeros((1, 1, 10_000), np.int32) for name in "abc"}
    Trace(network="0" * 64, inputs="1" * 64, backend="b", spikes=spikes).save(tmp_path / "t")
    assert (tmp_path / "t").stat().st_size < 20_000
    assert len(load_trace(tmp_path / "t", limit=120_000).spikes) == 3
    with pytest.raises(InputError, match="up to 119999"):
        load_trace(tmp_path / "t", limit=119_999)
