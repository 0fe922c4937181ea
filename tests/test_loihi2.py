"""The backend for the chip, with everything of Intel's replaced by stand-ins (tests/loihi)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stformer import deploy, interpret
from stformer.deploy.loihi2 import MEASURES, Loihi2
from stformer.errors import InputError
from stformer.network import Network
from stformer.testing import inputs_for, sample_network
from stformer.testing_cli import Call, small_frames, write_model
from stformer.trace import Probe
from stformer.verify import compare

STAND_IN = Path(__file__).parent / "loihi"


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the extension, and a board that answers pings; its folder of commands."""
    if reason := deploy.load("lava-sim").missing():
        pytest.skip(reason)
    monkeypatch.syspath_prepend(str(STAND_IN))
    command(tmp_path, "ping", "echo pong")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in ("PARTITION", "BOARD", "LOIHI_GEN", "SLURM", "NOSLURM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NXSDKHOST", "10.0.0.2")
    return tmp_path


def command(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def engine(measure: str | None = None) -> Loihi2:
    found = Loihi2(stall_seconds=120)
    found.config = "loihi_stand_in:Config"
    found.measure = measure
    return found


def proven(network: Network, samples: int = 3) -> None:
    inputs = inputs_for(network, samples, np.random.default_rng(5))
    trace = engine().run(network, inputs, probe=Probe())
    report = compare(interpret.run(network, inputs), trace, network)
    assert report.proven, report.to_text()
    recorded = {p.name for p in network.populations} - {p.name for p in network.readouts}
    assert set(trace.spikes) == recorded


@pytest.mark.parametrize("name", ["attention", "temporal", "conv"])
def test_the_same_spikes_come_back(name: str, board: Path) -> None:
    proven(sample_network(name))


def test_adapters_that_take_their_time(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = sample_network("attention")
    monkeypatch.setenv("STAND_IN_INPUT", "2")
    monkeypatch.setenv("STAND_IN_OUTPUT", "1")
    inputs = inputs_for(network, 3, np.random.default_rng(5))
    expected = interpret.run(network, inputs)
    late = engine().run(network, inputs, probe=Probe())
    assert not compare(expected, late, network).equivalent
    monkeypatch.setenv("STFORMER_INPUT_DELAY", "2")
    monkeypatch.setenv("STFORMER_OUTPUT_DELAY", "1")
    proven(network)


def test_readouts_stay_on_the_chip(board: Path) -> None:
    network = sample_network("readout")
    inputs = inputs_for(network, 2, np.random.default_rng(0))
    trace = engine().run(network, inputs, probe=Probe(states=True))
    names = [p.name for p in network.readouts]
    assert names and not set(names) & set(trace.spikes) and not trace.u
    assert names[0] in trace.notes[0]


@pytest.mark.parametrize(
    ("measure", "numbers"),
    [
        ("power", {"power.total_power": 1.0}),
        ("time", {"time.avg_time_per_step": 12.5}),
        ("activity", {"activity.spikes": 7.0}),
    ],
)
def test_one_profiler_a_run(measure: str, numbers: dict[str, float], board: Path) -> None:
    assert measure in MEASURES
    network = sample_network("attention")
    inputs = inputs_for(network, 1, np.random.default_rng(0))
    info = engine(measure).run(network, inputs, probe=Probe()).info
    assert numbers.items() <= info.items()
    assert not [k for k in info if k.split(".")[0] in set(MEASURES) - {measure}]


def test_measuring_from_the_command_line(
    board: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loihi2, "config", "loihi_stand_in:Config")
    model = write_model(tmp_path)
    np.save(tmp_path / "d.npy", small_frames())
    words = ("run", model, "--data", tmp_path / "d.npy", "--backend")
    plain = call.json(*words, "loihi2", "--measure", "power")
    assert plain["info"]["power.total_power"] == 1.0
    assert "no profiler" in call.fails(*words, "cpu", "--measure", "time")
    assert "--cluster" in call.fails(*words, "loihi2", "--measure", "time", "--cluster", "local:1")


def test_a_board_of_a_batch_system(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NXSDKHOST")
    monkeypatch.setenv("BOARD", "ncl-1")
    rows = "echo 'NODELIST NODES PARTITION STATE'; echo 'ncl-1 1 oheogulch idle'"
    command(board, "sinfo", rows)
    proven(sample_network("attention"), samples=1)
    monkeypatch.setenv("BOARD", "ncl-2")
    with pytest.raises(Exception, match="ncl-2 is not found"):
        proven(sample_network("attention"), samples=1)


def test_what_is_missing_is_said(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Loihi2().missing() is None
    monkeypatch.delenv("NXSDKHOST")
    assert "no board is named" in (Loihi2().missing() or "")
    monkeypatch.undo()
    if deploy.load("lava-sim").missing() is None:
        assert "extension" in (Loihi2().missing() or "")


def test_intervals_of_the_reset_are_powers_of_two() -> None:
    network = sample_network("attention")
    assert not Loihi2().problems(network)
    five = replace(network, steps=5)
    assert "power of two" in Loihi2().problems(five)[-1].why


def test_delays_that_are_none(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = sample_network("attention")
    inputs = inputs_for(network, 1, np.random.default_rng(0))
    for text in ("-1", "63", "two", "¹"):
        monkeypatch.setenv("STFORMER_INPUT_DELAY", text)
        with pytest.raises(InputError, match="STFORMER_INPUT_DELAY"):
            engine().run(network, inputs, probe=Probe())
