"""The smallest piece of a difference: it differs as the whole does, and its folder repeats it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stformer import interpret, storage
from stformer.errors import InputError, Unsupported
from stformer.minimise import Piece, minimise, save_case
from stformer.network import Input, Network
from stformer.testing import inputs_for, mutants, sample_network
from stformer.testing_cli import Call, fake_backend, write_data, write_model
from stformer.testing_faults import Fault, extreme_network, faults
from stformer.testing_traces import NETWORKS, changed, frames_for, posing, run, without
from stformer.trace import Inputs, Probe, Trace
from stformer.verify import compare

STATES = Probe(states=True)


def place(piece: Piece) -> tuple[Any, ...]:
    first = piece.report.first
    assert first is not None
    sides = (first.reference, first.other)
    values = tuple((s.value, s.u, s.v, s.arriving, s.membrane) for s in sides)
    return first.population, piece.samples[first.sample], first.step, first.neuron, values


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("name", ["current", "relay", "stream", "product", "recurrent"])
def test_a_piece_of_the_records_differs_as_the_whole(name: str, states: bool) -> None:
    network = NETWORKS[name]()
    inputs = frames_for(network, 4, seed=2)
    reference = run(network, inputs)
    seen = 0
    every = len(network.projections)  # of all sorts
    for what, _, mutant in list(mutants(network, seed=3))[::every]:
        other = posing(run(mutant, inputs), reference)
        report = compare(reference, other, network, states=states)
        if report.first is None:
            continue
        seen += 1
        piece = minimise(network, reference, other, states=states)
        first = report.first
        assert place(piece) == (
            first.population,
            first.sample,
            first.step,
            first.neuron,
            tuple(
                (s.value, s.u, s.v, s.arriving, s.membrane) for s in (first.reference, first.other)
            ),
        ), what
        # One sample and one population, whose sources are inputs now.
        computed = [p.name for p in piece.network.populations if not isinstance(p, Input)]
        assert computed == [first.population]
        assert piece.samples == (first.sample,)
        assert first.step < piece.network.steps <= network.steps
        # The right side of it is what the definition does with these inputs.
        again = interpret.run(piece.network, piece.inputs, probe=Probe(states=bool(reference.v)))
        assert compare(again, piece.reference, piece.network, states=states).equivalent
    assert seen


def test_an_early_difference_leaves_few_steps() -> None:
    network = sample_network("attention")
    trace = run(network, frames_for(network, 3, seed=1))
    other = changed(replace(trace, u={}, v={}), "kv", (2, 1, 0, 0, 0))
    piece = minimise(network, trace, other)
    assert piece.network.steps == 2
    assert {p.name for p in piece.network.inputs} == {"k", "v"}
    assert piece.samples == (2,)
    assert not piece.repeats


def fault_of(network: Network, name: str, where: str) -> Fault:
    return next(f for f in faults(network) if (f.name, f.where) == (name, where))


def test_what_a_sample_leaves_behind_takes_several_samples() -> None:
    network = extreme_network()
    inputs = inputs_for(network, 5, np.random.default_rng(1))
    fault = fault_of(network, "states of the last sample", "decays")
    reference, other = run(network, inputs), fault.run(inputs, STATES)
    report = compare(reference, other, network)
    assert report.first is not None
    assert report.first.kind == "reset"

    def both(part: Network, inputs: Inputs, probe: Probe) -> tuple[Trace, Trace]:
        again = next(f for f in faults(part) if (f.name, f.where) == (fault.name, fault.where))
        return interpret.run(part, inputs, probe=probe), again.run(inputs, probe)

    for chosen in (both, None):
        piece = minimise(network, reference, other, run=chosen)
        assert len(piece.samples) > 1
        assert piece.samples[-1] == report.first.sample
        assert piece.repeats == (chosen is not None)
        assert [p.name for p in piece.network.populations] == ["in", "decays"]


def test_a_backend_that_takes_the_whole_network_only() -> None:
    network = sample_network("attention")
    inputs = frames_for(network, 3, seed=1)
    fault = fault_of(network, "fires at the threshold", "q")
    reference, other = run(network, inputs), fault.run(inputs, STATES)

    def both(part: Network, inputs: Inputs, probe: Probe) -> tuple[Trace, Trace]:
        if part is not network:
            raise Unsupported("x", "everything", "only one network")
        return interpret.run(part, inputs, probe=probe), fault.run(inputs, probe)

    piece = minimise(network, reference, other, run=both)
    assert piece.repeats
    assert piece.network is network
    assert len(piece.samples) == 1


def test_wrong_inputs_keep_the_whole_network() -> None:
    network = sample_network("attention")
    trace = run(network, frames_for(network, 3, seed=1))
    piece = minimise(network, trace, changed(trace, "x", (1, 2, 0, 0, 0)))
    assert piece.network is network
    assert piece.samples == (1,)


def test_refusals() -> None:
    network = sample_network("attention")
    trace = run(network, frames_for(network, 3, seed=1))
    with pytest.raises(InputError, match="no difference"):
        minimise(network, trace, trace)
    bare = without(trace, "x", "k", "v")
    with pytest.raises(InputError, match="no record of what fed it"):
        minimise(network, bare, changed(bare, "kv", (0, 0, 0, 0, 0)))


# --- folders ------------------------------------------------------------------------------


def saved(folder: Path, name: str) -> tuple[Piece, Path]:
    network = NETWORKS[name]()
    inputs = frames_for(network, 4, seed=2)
    reference = run(network, inputs)
    for _, _, mutant in mutants(network, seed=3):
        other = posing(run(mutant, inputs), reference)
        report = compare(reference, other, network)
        if report.first:
            piece = minimise(network, reference, other)
            save_case(folder / "case", piece, report, None)
            return piece, folder / "case"
    raise AssertionError("no mutant differs")


@pytest.mark.parametrize("name", ["dense", "recurrent", "product", "look-ahead", "stream"])
def test_a_folder_repeats_its_difference(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    piece, folder = saved(tmp_path, name)
    plain = json.loads((folder / "case.json").read_text("utf-8"))
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "case.json",
        "inputs.npz",
        "network.stf",
        "other.trace",
        "reference.trace",
    ]
    (command,) = plain["commands"]
    assert f"    {command}\n" in (folder / "README.md").read_text("utf-8")
    monkeypatch.chdir(folder)
    program, *words = shlex.split(command)
    assert program == "stformer"
    again = call.json(*words, code=1)["reports"][0]["first"]
    assert again == plain["report"]["first"]
    assert again["kind"] in piece.report.to_text()
    # The inputs are a backend's like any other; `cpu` has no recurrence.
    if name != "recurrent":
        words = ["verify", "network.stf", "--data", "inputs.npz", "--backend", "cpu"]
        plain = json.loads(call(*words, "--json")[1])
        assert plain["reports"][0]["equivalent"]


def tying(network: Network, inputs: Inputs, probe: Probe) -> Trace:
    """A backend whose population `q` fires at the threshold."""
    if "q" not in network:
        return interpret.run(network, inputs, probe=probe)
    return replace(
        fault_of(network, "fires at the threshold", "q").run(inputs, probe), backend="fake"
    )


def test_the_command_saves_what_repeats(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = write_model(tmp_path), write_data(tmp_path)
    fake = fake_backend(monkeypatch, tying)
    case = tmp_path / "case"
    verify = ("verify", model, "--data", data, "--state")
    code, out, err = call(*verify, "--backend", f"cpu,{fake}", "--minimise", "-o", case)
    assert code == 1
    assert "class: threshold tie" in out
    assert f"wrote {case}: 2 populations, 1 samples" in err
    plain = json.loads((case / "case.json").read_text("utf-8"))
    assert plain["repeats"]
    assert len(plain["commands"]) == 2
    monkeypatch.chdir(case)
    for command in plain["commands"]:
        again = call.json(*shlex.split(command)[1:], code=1)["reports"][0]
        assert again["first"]["population"] == "q"
        assert again["first"]["other"]["value"] == 1
        assert {**again["first"], "sample": 0} == plain["report"]["first"]
    # A case is replaced by another, and by nothing else.
    assert call(*verify, "--backend", fake, "--minimise", "-o", case)[0] == 1
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_difference_that_no_run_repeats(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = write_model(tmp_path), write_data(tmp_path)

    def once(network: Network, inputs: Inputs, probe: Probe) -> Trace:
        trace = replace(interpret.run(network, inputs, probe=probe), backend="fake")
        return changed(trace, "kv", (3, 0, 0, 0, 0)) if trace.samples == 5 else trace

    fake = fake_backend(monkeypatch, once)
    case = tmp_path / "case"
    words = ("verify", model, "--data", data, "--backend", fake, "--minimise", "-o", case)
    code, _, err = call(*words)
    assert code == 1
    assert "only the records differ" in err
    assert "The records show it" in (case / "README.md").read_text("utf-8")


def test_the_command_cuts_traces(call: Call, tmp_path: Path) -> None:
    model = write_model(tmp_path)
    network = storage.load(model)
    trace = run(network, frames_for(network, 3, seed=1))
    a, b, case = tmp_path / "a.trace", tmp_path / "b.trace", tmp_path / "case"
    trace.save(a)
    changed(trace, "gate", (1, 2, 0, 0, 0)).save(b)
    assert call("verify", model, "--traces", a, b, "--minimise", "-o", case)[0] == 1
    assert storage.load(case / "network.stf").steps == 3
    replace(trace, backend="same").save(b)
    for path in (tmp_path / "none",):
        code, _, err = call("verify", model, "--traces", a, b, "--minimise", "-o", path)
        assert code == 0
        assert "nothing differs" in err
        assert not path.exists()


def test_mistakes_with_cases(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = write_model(tmp_path), write_data(tmp_path)
    fake = fake_backend(monkeypatch, None)  # nothing may run before these are told
    verify = ("verify", model, "--data", data, "--backend", fake)
    assert "go together" in call.fails(*verify, "--minimise")
    assert "go together" in call.fails(*verify, "-o", tmp_path / "case")
    assert "other things" in call.fails(*verify, "--minimise", "-o", tmp_path)
    assert "a file" in call.fails(*verify, "--minimise", "-o", model)
    assert "no folder" in call.fails(*verify, "--minimise", "-o", tmp_path / "no" / "case")
    network = storage.load(model)
    trace = run(network, frames_for(network, 3, seed=1))
    a, b = tmp_path / "a.trace", tmp_path / "b.trace"
    trace.save(a)
    changed(trace, "gate", (1, 2, 0, 0, 0)).save(b)
    assert "no MODEL" in call.fails("verify", "--traces", a, b, "--minimise", "-o", tmp_path / "c")


def test_the_example_of_the_docs(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "divergence.md"
    blocks = re.findall(r"^```(python|sh)\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    assert [language for language, _ in blocks] == ["python", "sh"]
    folders = (str(Path(sys.executable).parent), os.environ["PATH"])
    for language, block in blocks:
        shell = ["bash", "-euo", "pipefail", "-c"] if language == "sh" else [sys.executable, "-c"]
        done = subprocess.run(
            [*shell, block],
            cwd=tmp_path,
            env={**os.environ, "PATH": os.pathsep.join(folders)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
