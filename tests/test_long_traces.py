"""Traces larger than memory: what reads their files holds a few windows and finds the same."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stformer import data as datasets
from stformer import storage, trace_file, trace_tables
from stformer.deploy.energy import activity
from stformer.minimise import Piece, minimise, smallest
from stformer.network import Network
from stformer.replay import needed
from stformer.testing import inputs_for, mutants, sample_network
from stformer.testing_cli import Call, write_model
from stformer.testing_faults import extreme_network, faults
from stformer.testing_traces import NETWORKS, changed, frames_for, posing, run, without
from stformer.trace import Part, Probe, Trace, cut, spans
from stformer.trace_file import reading
from stformer.trace_tables import Record, Tables, untabled
from stformer.verify import compare
from stformer.windows import compare_files

SAMPLES = 24
FEW = 6  # windows of both files that may be in memory, of 12 in each


class Windows:
    """Counts the windows of trace files that are unpacked, and those that are still held."""

    def __init__(self) -> None:
        self.read = self.most = 0
        self._held: list[weakref.ref[np.ndarray[tuple[int, ...], np.dtype[np.integer]]]] = []

    def untabled(self, head: Trace, records: tuple[Record, ...], tables: Tables) -> Trace:
        trace = untabled(head, records, tables)
        array = next(iter(trace.spikes.values()))
        owner = array if array.base is None else array.base  # what all its slices keep alive
        self._held = [ref for ref in self._held if ref() is not None]
        self._held.append(weakref.ref(owner))
        self.read += 1
        self.most = max(self.most, len(self._held))
        return trace


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[Windows]:
    """Windows of two samples; nobody loads a whole file, and few windows are ever held."""
    found = Windows()
    monkeypatch.setattr(trace_tables, "MOST_SAMPLES", 2)
    monkeypatch.setattr(trace_file, "untabled", found.untabled)
    monkeypatch.setattr(trace_file, "load_trace", None)
    yield found
    assert 0 < found.most <= FEW


@pytest.fixture(scope="module")
def packaged() -> Trace:
    return storage.load().run(datasets.packaged()[0][:SAMPLES])


def test_the_count_sees_a_whole_file(packaged: Trace, tmp_path: Path) -> None:
    found = Windows()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace_tables, "MOST_SAMPLES", 2)
        patch.setattr(trace_file, "untabled", found.untabled)
        packaged.save(tmp_path / "t")
        Trace.load(tmp_path / "t")
    assert (found.read, found.most) == (12, 12)


def test_spans() -> None:
    assert list(spans(5, 2)) == [(0, 2), (2, 4), (4, 5)]
    assert list(spans(0, 2)) == list(spans(0, 0)) == [(0, 0)]


def test_energy(packaged: Trace, tmp_path: Path, call: Call, windows: Windows) -> None:
    packaged.save(tmp_path / "t")
    plain = call.json("energy", "--trace", tmp_path / "t")
    whole = activity(storage.load(), [packaged])
    assert plain["samples"] == SAMPLES
    assert plain["rates"] == {name: whole.rate(name) for name in whole.sent}
    assert windows.read == 12


@pytest.mark.parametrize("what", ["features", "raster", "gates"])
def test_a_picture_of_one_sample(
    what: str, packaged: Trace, tmp_path: Path, call: Call, windows: Windows
) -> None:
    pytest.importorskip("matplotlib", reason="stformer[plot] is not installed")
    packaged.save(tmp_path / "t")
    words = ("--sample", 9, "-o", tmp_path / "x.png")
    found, ran = call.json("plot", what, tmp_path / "t", *words), call.json("plot", what, *words)
    for plain in (found, ran):  # the file is all that they know of the data
        for row in plain.get("rows", [plain]):
            assert row.pop("data") in ("t", "digits-samples.npz")
    assert found == ran
    assert windows.read == 1
    assert "0...23" in call.fails("plot", what, tmp_path / "t", "--sample", 24, *words[2:])


def test_a_picture_of_rates(packaged: Trace, tmp_path: Path, call: Call, windows: Windows) -> None:
    pytest.importorskip("matplotlib", reason="stformer[plot] is not installed")
    packaged.save(tmp_path / "t")
    output = ("-o", tmp_path / "x.png")
    found = call.json("plot", "rates", tmp_path / "t", *output)
    ran = call.json("plot", "rates", "--samples", SAMPLES, *output)
    assert (found.pop("data"), ran.pop("data")) == ("t", "digits-samples.npz")
    assert found == ran
    assert windows.read == 12


# --- the smallest piece ------------------------------------------------------------------------


def alike(a: Piece, b: Piece) -> None:
    """The same pieces, but for a report's explanation, which says which samples were looked at."""
    assert a.network.digest() == b.network.digest()
    assert (a.samples, a.repeats, a.report) == (b.samples, b.repeats, b.report)
    pairs = [(a.inputs, b.inputs)]
    for kind in ("spikes", "u", "v"):
        pairs += [(getattr(x, kind), getattr(y, kind)) for x, y in (
            (a.reference, b.reference), (a.other, b.other))]  # fmt: skip
    for mine, theirs in pairs:
        assert list(mine) == list(theirs)
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(mine[name], theirs[name])


def check(
    folder: Path, network: Network, reference: Trace, other: Trace, states: bool
) -> Piece | None:
    """The piece of two files is that of the traces in memory, if they differ."""
    reference.save(folder / "a")
    other.save(folder / "b")
    report = compare(reference, other, network, states=states)
    with reading(folder / "a") as a, reading(folder / "b") as b:
        found = compare_files(a, b, network, states=states)
        assert found.first == report.first
        if found.first is None:
            return None
        piece = smallest(network, a.part, b.part, found.first, states=states)
    alike(piece, minimise(network, reference, other, states=states))
    return piece


@pytest.mark.parametrize("name", ["current", "relay", "stream", "product", "recurrent"])
def test_the_piece_of_files_is_that_of_the_traces(
    name: str, tmp_path: Path, windows: Windows
) -> None:
    network = NETWORKS[name]()
    inputs = frames_for(network, 9, seed=2)
    reference = run(network, inputs)
    every = len(network.projections)
    seen = 0
    for _, _, mutant in list(mutants(network, seed=3))[::every]:
        other = posing(run(mutant, inputs), reference)
        seen += check(tmp_path, network, reference, other, states=False) is not None
    assert seen


def test_a_relay_that_was_not_recorded_is_worked_out(tmp_path: Path, windows: Windows) -> None:
    network = NETWORKS["relay"]()
    relay = next(p.name for p in network.populations if type(p).__name__ == "Relay")
    (behind,) = {p.post for p in network.projections if p.pre == relay}
    trace = without(run(network, frames_for(network, 9, seed=1)), relay)
    at = (6, network.steps - 1, *(0 for _ in network[behind].shape))
    piece = check(tmp_path, network, trace, changed(trace, behind, at), states=False)
    assert piece is not None
    assert relay in {p.name for p in piece.network.inputs}


def test_wrong_inputs(tmp_path: Path, windows: Windows) -> None:
    network = NETWORKS["attention"]()
    trace = run(network, frames_for(network, 9, seed=1))
    piece = check(tmp_path, network, trace, changed(trace, "x", (7, 2, 0, 0, 0)), states=False)
    assert piece is not None
    assert piece.network is network


@pytest.mark.parametrize("states", [False, True])
def test_what_a_sample_leaves_behind_is_seen_across_windows(
    states: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, windows: Windows
) -> None:
    """One sample a window, as large networks have it: its own would not explain the difference."""
    monkeypatch.setattr(trace_tables, "MOST_SAMPLES", 1)
    network = extreme_network()
    inputs = inputs_for(network, 9, np.random.default_rng(1))
    named = {(f.name, f.where): f for f in faults(network)}
    other = named["states of the last sample", "decays"].run(inputs, Probe(states=True))
    piece = check(tmp_path, network, run(network, inputs), other, states)
    assert piece is not None
    assert len(piece.samples) > 1


def test_little_is_read_for_a_piece(packaged: Trace) -> None:
    """The sample, no more than 16 before it, and of most populations nothing."""
    network = storage.load()
    name = "blocks.0.mlp1"
    other = changed(packaged, name, (20, 1, 0, 0, 0))
    read: defaultdict[tuple[bool, bool], set[tuple[int, int]]] = defaultdict(set)

    def part(trace: Trace, start: int, stop: int, names: Collection[str] | None) -> Trace:
        assert names in (None, needed(network, name))
        read[trace is other, names is None].add((start, stop))
        return cut(trace, start, stop, names)

    first = compare(packaged, other, network).first
    assert first is not None
    traces: list[Part] = [partial(part, trace) for trace in (packaged, other)]
    assert smallest(network, *traces, first).samples == (20,)
    assert read == {(False, False): {(20, 21)}, (True, False): {(20, 21)}}
    # A class that no piece explains: all are looked at, but one sample of the whole network.
    assert smallest(network, *traces, replace(first, kind="wrap")).samples == (20,)
    for side in (False, True):
        assert read[side, False] == {(20, 21), (19, 21), (4, 21)}
        assert read[side, True] == {(20, 21)}


def test_minimise_of_two_files(tmp_path: Path, call: Call, windows: Windows) -> None:
    model = write_model(tmp_path)
    network = storage.load(model)
    trace = run(network, frames_for(network, SAMPLES, seed=1))
    a, b, case = tmp_path / "a", tmp_path / "b", tmp_path / "case"
    trace.save(a)
    changed(trace, "gate", (19, 2, 0, 0, 0)).save(b)
    code, _, err = call("verify", model, "--traces", a, b, "--minimise", "-o", case)
    assert code == 1
    assert "1 samples, 3 steps" in err
    assert storage.load(case / "network.stf").steps == 3


@pytest.mark.parametrize("by_window", [False, True])
def test_inputs_are_no_proof_where_the_network_is_not_given(
    tmp_path: Path, by_window: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = sample_network("attention")
    trace = run(network, frames_for(network, 4, seed=1), states=False)
    (source,) = (p.name for p in network.inputs)
    only = without(trace, *(n for n in trace.spikes if n != source))
    quiet = {n: a if n == source else a * 0 for n, a in trace.spikes.items()}
    monkeypatch.setattr(trace_tables, "MOST_SAMPLES", 3)
    silent = replace(trace, spikes=quiet)
    for one, word in ((only, "NOTHING"), (silent, "SILENT"), (trace, "EQUIVALENT")):
        if by_window:
            one.save(tmp_path / "one.trace")
            with reading(tmp_path / "one.trace") as a, reading(tmp_path / "one.trace") as b:
                report = compare_files(a, b)
        else:
            report = compare(one, one)
        assert report.verdict.startswith(word)
        assert report.proven == (one is trace)
