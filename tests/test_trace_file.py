"""Trace files that grow: same bytes however they were parted, bounded memory, all or nothing."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stformer import hdf5_rows, storage, trace_file, trace_tables
from stformer.cli import run as run_command
from stformer.errors import InputError
from stformer.network import Network
from stformer.testing import sample_network
from stformer.testing_cli import Call
from stformer.testing_traces import changed, frames_for, run, without
from stformer.trace import Probe, Trace, check_inputs, cut, digest_inputs, joined
from stformer.trace_file import reading, writing
from stformer.verify import compare
from stformer.windows import compare_files, compare_parts

SAMPLES = 11


@pytest.fixture(scope="module")
def whole() -> tuple[Network, Trace]:
    network = sample_network("attention")
    return network, run(network, frames_for(network, SAMPLES, seed=4))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Windows of four samples."""
    monkeypatch.setattr(trace_tables, "MOST_SAMPLES", 4)
    return 4


def parted(trace: Trace, cuts: list[int]) -> Iterator[Trace]:
    edges = sorted({0, *cuts, trace.samples})
    return (cut(trace, a, b) for a, b in pairwise(edges))


def write_all(path: Path, *parts: Trace) -> None:
    with writing(path, inputs=parts[0].inputs) as file:
        for part in parts:
            file.append(part)


def same(a: Trace, b: Trace) -> None:
    assert (a.network, a.backend, a.info) == (b.network, b.backend, b.info)
    for mine, theirs in ((a.spikes, b.spikes), (a.u, b.u), (a.v, b.v)):
        assert list(mine) == list(theirs)
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(mine[name], theirs[name])


# --- writing and reading -----------------------------------------------------------------------


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_bytes_do_not_depend_on_the_parts(
    data: st.DataObject, whole: tuple[Network, Trace], tmp_path: Path, small: int
) -> None:
    samples = data.draw(st.integers(1, SAMPLES))
    trace = replace(cut(whole[1], 0, samples), info={})
    cuts = data.draw(st.lists(st.integers(0, samples)))
    trace.save(tmp_path / "once")
    write_all(tmp_path / "parts", *parted(trace, cuts))
    assert (tmp_path / "once").read_bytes() == (tmp_path / "parts").read_bytes()
    same(Trace.load(tmp_path / "parts"), trace)


def test_any_samples_can_be_read(whole: tuple[Network, Trace], tmp_path: Path, small: int) -> None:
    _, trace = whole
    trace.save(tmp_path / "t")
    with reading(tmp_path / "t") as file:
        assert (file.samples, file.window) == (SAMPLES, small)
        assert (file.network, file.inputs) == (trace.network, trace.inputs)
        for start in range(SAMPLES):
            for stop in range(start + 1, SAMPLES + 1):
                same(file.part(start, stop), cut(trace, start, stop))


def test_a_window_that_was_changed_is_found(
    whole: tuple[Network, Trace], tmp_path: Path, small: int
) -> None:
    _, trace = whole
    trace.save(tmp_path / "t")
    with h5py.File(tmp_path / "t", "r+") as file:
        name = trace.populations[1]
        file[f"spikes/{name}"][5, 0] ^= 128
    with reading(tmp_path / "t") as opened:
        same(opened.part(0, 4), cut(trace, 0, 4))
        same(opened.part(8, 11), cut(trace, 8, 11))
        with pytest.raises(InputError, match=r"samples 4\.\.\.7: content of digest"):
            opened.part(3, 5)


def test_spikes_are_bits_and_packed(tmp_path: Path) -> None:
    spikes = {"a": np.zeros((64, 4, 50_000), np.uint8)}
    trace = Trace(network="0" * 64, inputs="1" * 64, backend="b", spikes=spikes)
    trace.save(tmp_path / "t")
    assert (tmp_path / "t").stat().st_size < spikes["a"].size / 8 / 20
    rng = np.random.default_rng(0)
    replace(trace, spikes={"a": rng.integers(0, 2, (64, 4, 50_000), np.uint8)}).save(
        tmp_path / "r"
    )
    size = (tmp_path / "r").stat().st_size
    assert size < 1.02 * spikes["a"].size / 8  # what cannot be packed costs a bit a spike
    with h5py.File(tmp_path / "r") as file:
        assert file["spikes/a"].compression == "gzip"
        assert np.prod(file["spikes/a"].chunks) <= 2**20


def test_parts_of_different_runs_are_refused(whole: tuple[Network, Trace], tmp_path: Path) -> None:
    _, trace = whole
    name = trace.populations[-1]
    for other in (
        replace(trace, network="0" * 64),
        replace(trace, backend="x"),
        without(trace, name),
        replace(trace, u={}),
        replace(trace, spikes={**trace.spikes, name: trace[name][:, :, ::2]}, u={}, v={}),
    ):
        with pytest.raises(InputError, match="parts of different runs"):
            write_all(tmp_path / "t", trace, other)
    with pytest.raises(InputError, match="no part"), writing(tmp_path / "t", inputs="1" * 64):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", [KeyboardInterrupt, ValueError])
def test_what_was_interrupted_leaves_the_old_file(
    whole: tuple[Network, Trace], tmp_path: Path, small: int, end: type[BaseException]
) -> None:
    _, trace = whole
    (tmp_path / "t").write_bytes(b"old")

    def write() -> None:
        with writing(tmp_path / "t", inputs=trace.inputs) as file:
            file.append(trace)
            raise end

    with pytest.raises(end):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["t"]
    assert (tmp_path / "t").read_bytes() == b"old"


def test_a_disk_that_fills_up_is_told_and_leaves_nothing(
    whole: tuple[Network, Trace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    _, trace = whole
    trace.save(tmp_path / "t")
    need = (tmp_path / "t").stat().st_size
    (tmp_path / "t").unlink()

    class Full(hdf5_rows._Disk):
        """A disk with room for so many bytes."""

        room = 0

        def write(self, data: Any) -> int:
            if self.tell() + len(data) > self.room:
                self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    disk = hdf5_rows._Disk

    def fails(room: int) -> None:
        monkeypatch.setattr(Full, "room", room)
        monkeypatch.setattr(hdf5_rows, "_Disk", Full)
        with pytest.raises(InputError, match="No space left"):
            trace.save(tmp_path / "t")
        assert not list(tmp_path.iterdir())

    for room in (0, 600, *range(need // 9, need, need // 9), need - 1):
        fails(room)
    gc.collect()
    assert not h5py.h5f.get_obj_count(types=h5py.h5f.OBJ_FILE), "HDF5 could not close a file"
    monkeypatch.setattr(hdf5_rows, "_Disk", disk)
    trace.save(tmp_path / "t")
    same(Trace.load(tmp_path / "t"), trace)


def test_joined_is_the_opposite_of_cut(whole: tuple[Network, Trace]) -> None:
    _, trace = whole
    same(joined(list(parted(trace, [2, 3, 9])), trace.inputs), trace)
    name = trace.populations[0]
    assert not np.shares_memory(cut(trace, 1, 2)[name], trace[name])  # the rest can be let go
    parts = [replace(trace, info=info) for info in ({"seconds": 1.0, "mib": 3, "on": "a"}, {
        "seconds": 2.0, "mib": 2, "chunks": 4.0, "on": "b"})]  # fmt: skip
    found = joined(parts, trace.inputs).info
    assert found == {"seconds": 3.0, "mib": 3, "on": "b", "chunks": 4.0}


def test_the_digest_of_inputs_does_not_depend_on_their_type() -> None:
    network = sample_network("attention")
    frames = frames_for(network, 5, seed=0)
    digest = digest_inputs(check_inputs(network, frames))
    for kind in (np.uint8, np.int64, np.float32):
        other = {name: np.asfortranarray(a.astype(kind)) for name, a in frames.items()}
        assert digest_inputs(other) == digest
    assert digest_inputs({name: a[::-1] for name, a in frames.items()}) != digest


# --- comparing ---------------------------------------------------------------------------------


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), states=st.booleans(), known=st.booleans())
def test_parts_give_the_report_of_the_whole(
    data: st.DataObject, states: bool, known: bool, whole: tuple[Network, Trace]
) -> None:
    network, trace = whole
    other = replace(trace, backend="other")
    for _ in range(data.draw(st.integers(0, 2))):
        kind = data.draw(st.sampled_from(("spikes", "u", "v")))
        name = data.draw(st.sampled_from(sorted(getattr(trace, kind))))
        shape = getattr(trace, kind)[name].shape
        other = changed(other, name, tuple(data.draw(st.integers(0, n - 1)) for n in shape), kind)
    cuts = data.draw(st.lists(st.integers(0, SAMPLES), max_size=4))
    given_ = network if known else None
    pairs = zip(parted(trace, cuts), parted(other, cuts), strict=True)
    found = compare_parts(pairs, given_, states=states)
    expected = compare(trace, other, given_, states=states)

    def plain(report: object) -> object:
        """Without what only the window of the first difference, or all samples, tell."""
        less = {"itself_wrong": None, **({} if known else {"computed": True})}
        return [replace(p, **less) for p in report.populations]  # type: ignore[attr-defined]

    assert plain(found) == plain(expected)
    assert replace(found, populations=()) == replace(expected, populations=())
    first = expected.first
    if first is not None:
        mine, theirs = (
            next(p.itself_wrong for p in r.populations if p.name == first.population)
            for r in (found, expected)
        )
        assert mine == theirs


def test_files_with_windows_of_their_own(
    whole: tuple[Network, Trace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, trace = whole
    name = trace.populations[2]
    at = (7, 1, *(0 for _ in network[name].shape))
    other = replace(changed(trace, name, at), u={}, v={})
    for path, file, most in ((tmp_path / "a", trace, 3), (tmp_path / "b", other, 5)):
        monkeypatch.setattr(trace_tables, "MOST_SAMPLES", most)
        file.save(path)
    done: list[int] = []
    with reading(tmp_path / "a") as a, reading(tmp_path / "b") as b:
        report = compare_files(a, b, network, progress=lambda n, _: done.append(n))
    assert done == [3, 6, 9, 11]
    assert report.differences == 1
    assert report.first == compare(trace, other, network).first
    cut(trace, 0, 10).save(tmp_path / "c")
    with (
        reading(tmp_path / "a") as a,
        reading(tmp_path / "c") as c,
        pytest.raises(InputError, match="11 and 10 samples"),
    ):
        compare_files(a, c, network)
    replace(cut(trace, 0, 10), inputs="0" * 64).save(tmp_path / "c")
    with (
        reading(tmp_path / "a") as a,
        reading(tmp_path / "c") as c,
        pytest.raises(InputError, match="different inputs"),
    ):
        compare_files(a, c, network)


# --- memory ------------------------------------------------------------------------------------


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_tables, "MOST_SAMPLES", 8)
    rng = np.random.default_rng(0)
    part = Trace(
        network="0" * 64,
        inputs="1" * 64,
        backend="b",
        spikes={"a": rng.integers(0, 2, (8, 4, 5000), np.uint8)},
        v={"a": rng.integers(-9, 9, (8, 4, 5000)).astype(np.int32)},
    )
    window = sum(a.nbytes for a in (part["a"], part.v["a"]))

    def write(path: Path, count: int) -> None:
        with writing(path, inputs=part.inputs) as file:
            for _ in range(count):
                file.append(part)

    def check(a: Path, b: Path) -> None:
        with reading(a) as one, reading(b) as two:
            assert compare_files(one, two, states=True).proven

    peaks = []
    for count in (4, 40):
        a, b = tmp_path / f"a{count}", tmp_path / f"b{count}"
        written = peak_of(lambda a=a, count=count: write(a, count))  # type: ignore[misc]
        write(b, count)
        peaks.append((written, peak_of(lambda a=a, b=b: check(a, b))))  # type: ignore[misc]
    for short, long in zip(*peaks, strict=True):
        assert long < short + window / 2
    assert max(peaks[1]) < 12 * window < 40 * window / 3


def test_a_long_run_holds_a_block_of_its_records(
    call: Call, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run -o` of many samples, then `verify --traces`: memory grows by the inputs only."""
    network = storage.load(model)
    size = Probe(states=True).size(network)
    monkeypatch.setattr(trace_tables, "WINDOW_BYTES", 32 * size)
    monkeypatch.setattr(run_command, "BLOCK_BYTES", 64 * size)
    frames = next(iter(frames_for(network, 64, seed=0).values())).astype(np.uint8)
    peaks = []
    for count in (2, 40):
        data, trace = tmp_path / f"{count}.npy", tmp_path / f"{count}.trace"
        np.save(data, np.concatenate([frames] * count))
        words = ("run", model, "--backend", "reference", "--data", data, "--state", "-o", trace)
        peaks.append(peak_of(lambda words=words: call(*words)))  # type: ignore[misc]
        with reading(trace) as file:
            assert (file.samples, file.window) == (64 * count, 32)
            inputs = check_inputs(network, np.load(data))
            assert file.inputs == digest_inputs(inputs)
    assert peaks[1] - peaks[0] < 38 * 64 * size / 4
    whole = run(network, frames)
    back = Trace.load(tmp_path / "2.trace")
    for name in whole.spikes:
        np.testing.assert_array_equal(back[name], np.concatenate([whole[name]] * 2))


def test_a_run_in_blocks_tells_what_a_whole_one_does(
    call: Call, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", model, "--backend", "cpu", "--data", data)
    once = call.json(*words)
    size = Probe().size(storage.load(model))
    monkeypatch.setattr(trace_tables, "WINDOW_BYTES", 2 * size)
    monkeypatch.setattr(run_command, "BLOCK_BYTES", 2 * size)
    assert list(run_command.blocks(size, 5)) == [(0, 2), (2, 4), (4, 5)]
    blocks = call.json(*words)
    for plain in (once, blocks):
        del plain["seconds"], plain["samples_per_second"], plain["info"]
    assert blocks == once
    assert trace_file.LIMIT >= trace_tables.WINDOW_BYTES


@pytest.mark.parametrize("room", [5_000, 150_000])
def test_a_real_limit_of_the_system(tmp_path: Path, room: int) -> None:
    """What the kernel refuses to write, in a process of its own, which must end without noise."""
    code = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))\n"
        "from stformer.cli import main\n"
        "sys.exit(main(['run', '--backend', 'cpu', '--samples', '40', '-o', 't']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "stformer: error: t: cannot be written (File too large); "
        "allowed: a writable folder with room for it.\n"
    )
    assert not list(tmp_path.iterdir())
