"""The command line: its surface, mistakes in its words, and its answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stformer import deploy, interpret, storage
from stformer.cli.info import synapses
from stformer.interpret import synapse
from stformer.network import Dense, Input, Network, Operand, Readout, no_bias
from stformer.passes import schedule
from stformer.testing import SAMPLES, inputs_for, sample_network
from stformer.testing_cli import (
    Call,
    fake_backend,
)
from stformer.trace import Inputs, Probe, Trace

ROOT = Path(__file__).resolve().parent.parent


# --- mistakes in the words ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["no command", "verify"]),
        (["vrify"], ["'vrify'", "info, export, import, run, verify", "Did you mean 'verify'?"]),
        (["xyzzy"], ["'xyzzy'"]),
        (["--verison"], ["'--verison'", "Did you mean '--version'?"]),
        (["run", "--bakend", "cpu"], ["stformer run", "did you mean '--backend'?"]),
        (["run", "--sample=3"], ["'--sample'", "did you mean '--samples'?"]),
        (["info", "a", "b"], ["'b'", "too many"]),
        (["info", "-x"], ["'-x'"]),
        (["run"], ["required: --backend", "stformer run --help"]),
        (["run", "--backend"], ["expected one argument"]),
        (["run", "--backend", "cpu", "--samples", "0"], ["--samples", "'0'", "from 1"]),
        (["run", "--backend", "cpu", "--samples", "-4"], ["--samples", "from 1"]),
        (["run", "--backend", "cpu", "--samples", "many"], ["'many'", "from 1"]),
        (["verify"], ["--backend", "--traces"]),
        (["verify", "--backend", ","], ["names none"]),
        (["verify", "--traces", "a"], ["expected 2 arguments"]),
        (["verify", "--traces", "a", "b", "--backend", "cpu"], ["--backend has no use"]),
        (["verify", "--traces", "a", "b", "--samples", "2"], ["--samples has no use"]),
    ],
)
def test_mistakes_in_the_words(words: list[str], parts: list[str], call: Call) -> None:
    message = call.fails(*words)
    for part in parts:
        assert part in message, message


def test_far_names_get_no_suggestion(call: Call) -> None:
    assert "mean" not in call.fails("xyzzy")
    assert "mean" not in call.fails("info", "--qqqqqq")


# --- answers ------------------------------------------------------------------------------------


def test_info_counts(call: Call, model: Path, network: Network) -> None:
    plain = call.json("info", model)
    assert plain["digest"] == network.digest()
    assert [p["name"] for p in plain["populations"]] == [p.name for p in network.populations]
    assert [p["latency"] for p in plain["populations"]] == [p.latency for p in network.populations]
    assert plain["latency"] == network.depth
    total = plain["total"]
    assert total["neurons"] == sum(
        p["neurons"] for p in plain["populations"] if p["kind"] != "Input"
    )
    code, out, err = call("info", model)
    assert (code, err) == (0, "")
    assert network.digest() in out
    for p in (*network.populations, *network.projections):
        assert p.name in out


def test_info_says_where_it_cuts(call: Call, tmp_path: Path, network: Network) -> None:
    storage.save(tmp_path / "m.stf", network, provenance={"words": "many " * 100})
    lines = call("info", tmp_path / "m.stf")[1].splitlines()
    (line,) = [line for line in lines if line.startswith("words")]
    assert line.endswith("many …") and len(line) <= 200


@pytest.mark.parametrize("name", SAMPLES)
def test_synapses_are_counted_as_they_act(name: str) -> None:
    """One spike at a time through weights of 1: the sum of all that arrives is the count."""
    sample = sample_network(name)
    for p in sample.projections:
        pre, post = sample[p.pre].shape, sample[p.post].shape
        if isinstance(p, Operand):  # hands every value on, once
            assert synapses(sample, p) == np.prod(pre)
            continue
        weight: Any = 1 if isinstance(p.weight, int) else np.ones_like(p.weight)
        ones = replace(p, weight=weight, weight_exp=0)
        size = int(np.prod(pre))
        single = np.eye(size, dtype=np.int64).reshape(size, *pre)
        assert synapses(sample, p) == synapse(ones, single, post).sum()


def test_run_answers_and_saves(
    call: Call, tmp_path: Path, model: Path, data: Path, network: Network, frames: Any
) -> None:
    out = tmp_path / "t.trace"
    run = ("run", model, "--backend", "reference", "--data", data, "-o", out)
    plain = call.json(*run, "--state")
    saved, expected = Trace.load(out), interpret.run(network, frames, probe=Probe(states=True))
    assert saved.populations == expected.populations
    for name in expected.populations:
        assert np.array_equal(saved[name], expected[name])
    assert set(saved.v) == set(expected.v)
    assert plain["trace"] == str(out)
    assert plain["accuracy"] is None
    assert plain["digest"] == network.digest()
    for p in plain["populations"]:
        assert p["rate"] == pytest.approx(expected[p["name"]].mean())
        assert p["spikes"] == expected[p["name"]].sum()
    assert not call.json(*run)["info"]
    assert not Trace.load(out).v


def test_accuracy_is_the_readouts_last_word(call: Call, tmp_path: Path) -> None:
    readout = schedule(
        Network(
            name="r",
            steps=3,
            populations=(
                Input(name="x", shape=(3,)),
                Readout(name="out", shape=(3,), bias_mant=no_bias((3,))),
            ),
            projections=(
                Dense(name="x>out", pre="x", post="out", weight=np.eye(3, dtype=np.int8) * 5),
            ),
        )
    )
    storage.save(tmp_path / "r.stf", readout)
    answers = np.array([0, 1, 2, 0, 1, 2])
    x = np.tile(np.eye(3, dtype=np.uint8)[answers][:, None], (1, 3, 1))
    x[:, 0] = np.eye(3, dtype=np.uint8)[(answers + 1) % 3]  # the first step says another class
    labels = answers.copy()
    labels[:2] = (labels[:2] + 2) % 3
    wrong = int((labels != answers).sum())
    assert wrong
    np.savez(tmp_path / "x.npz", inputs=x, labels=labels)
    words = ("run", tmp_path / "r.stf", "--backend", "reference", "--data", tmp_path / "x.npz")
    plain = call.json(*words)
    assert plain["predictions"] == answers.tolist()
    assert plain["correct"] == 6 - wrong
    assert plain["accuracy"] == (6 - wrong) / 6
    assert f"accuracy {100 * (6 - wrong) / 6:.2f} %" in call(*words)[1]


def test_verify_proves(call: Call, model: Path, data: Path) -> None:
    verify = ("verify", model, "--data", data)
    plain = call.json(*verify, "--backend", "reference,cpu", "--state")
    assert plain["proven"] is True
    assert [r["other"] for r in plain["reports"]] == ["reference", "cpu"]
    assert all(r["compared"] and r["states_compared"] for r in plain["reports"])
    code, out, err = call(*verify, "--backend", "cpu")
    assert (code, err) == (0, "")
    assert out.startswith("EQUIVALENT  cpu against reference")
    assert call.json(*verify, "--backend", "reference", "--against", "cpu")["proven"]


def lying(network: Network, inputs: Inputs, probe: Probe) -> Trace:
    """The reference, but its last population sends something else in the last sample."""
    trace = interpret.run(network, inputs, probe=probe)
    name = trace.populations[-1]
    wrong = trace[name].copy()
    wrong[-1, -1].flat[2] = 1 - wrong[-1, -1].flat[2]
    return replace(trace, backend="fake", spikes={**trace.spikes, name: wrong})


def test_verify_finds(
    call: Call, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, network: Network
) -> None:
    verify = (
        "verify",
        model,
        "--data",
        data,
        "--backend",
        f"reference,{fake_backend(monkeypatch, lying)}",
    )
    code, out, err = call(*verify)
    assert (code, err) == (1, "")
    first, second, *_ = out.splitlines()
    assert first.startswith("EQUIVALENT")
    assert second.startswith("DIFFERENT  fake against reference: 1 of ")
    last = network.populations[-1].name
    assert f"population {last}, sample 4, step 3, neuron 2" in out
    plain = call.json(*verify, code=1)
    assert [r["proven"] for r in plain["reports"]] == [True, False]
    assert plain["proven"] is False


def test_silence_proves_nothing(call: Call, tmp_path: Path) -> None:
    dense = sample_network("dense")
    storage.save(tmp_path / "d.stf", dense)
    (x,) = inputs_for(dense, 2, np.random.default_rng(0)).values()
    np.save(tmp_path / "x.npy", x * 0)
    trace = interpret.run(dense, x * 0)
    assert not any(a.any() for a in trace.spikes.values()), "this sample network is not silent"
    code, out, _ = call(
        "verify", tmp_path / "d.stf", "--data", tmp_path / "x.npy", "--backend", "cpu"
    )
    assert code == 1
    assert out.startswith("SILENT")


def test_slow_backends_run_fewer_samples_by_default(
    call: Call,
    model: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stformer.cli import verify

    monkeypatch.setattr(verify, "FEW", {"cpu": 3})
    words = ("verify", model, "--data", data, "--backend", "reference,cpu")
    code, out, err = call(*words, "--json")
    assert code == 0
    assert [r["samples"] for r in json.loads(out)["reports"]] == [5, 3]
    assert "cpu runs the first 3 of 5 samples" in err
    plain = call.json(*words, "--samples", "4")
    assert [r["samples"] for r in plain["reports"]] == [4, 4]


def test_verify_of_saved_traces(
    call: Call, tmp_path: Path, model: Path, data: Path, network: Network
) -> None:
    a, b, c = (tmp_path / f"{name}.trace" for name in "abc")
    for backend, path in (("reference", a), ("cpu", b)):
        run = ("run", model, "--backend", backend, "--data", data, "-o", path)
        assert call(*run, "--state")[0] == 0
    assert call.json("verify", model, "--traces", a, b, "--state")["proven"]
    code, out, err = call("verify", "--traces", a, b)
    assert code == 0
    assert err == ""
    trace = Trace.load(b)
    name = network.populations[1].name
    wrong = trace[name].copy()
    wrong[1, 2].flat[0] ^= 1
    replace(trace, spikes={**trace.spikes, name: wrong}).save(c)
    for words in (("verify", model, "--traces", a, c), ("verify", "--traces", a, c)):
        code, out, err = call(*words)
        assert code == 1
        assert f"population {name}, sample 1, step 2, neuron 0" in out
    other = Trace.load(b)
    replace(other, network="0" * 64).save(c)
    assert "different network" in call.fails("verify", "--traces", a, c)
    replace(other, inputs="0" * 64).save(c)
    assert "different inputs" in call.fails("verify", "--traces", a, c)
    assert "twice" in call.fails("verify", "--traces", a, a)
    assert "gone" in call.fails("verify", "--traces", a, tmp_path / "gone")
    storage.save(tmp_path / "o.stf", sample_network("dense"))
    assert "the model" in call.fails("verify", tmp_path / "o.stf", "--traces", a, b)


def test_targets_say_why_not(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_backend(monkeypatch, missing="no chip on this desk; pip install chip")
    deploy.BACKENDS["broken-import"] = "no.such.module:It"
    try:
        found = {t["name"]: t for t in call.json("targets")["targets"]}
        out = call("targets")[1]
        alone = call.json("targets", "fake", code=3)
    finally:
        del deploy.BACKENDS["broken-import"]
    assert list(found)[:5] == ["reference", "cpu", "torch", "torch-cuda", "onnx"]
    assert found["reference"] == {"name": "reference", "available": True, "why": None, "get": None}
    assert found["fake"]["why"] == "no chip on this desk"
    assert found["fake"]["get"] == "pip install chip"
    assert "cannot be imported" in found["broken-import"]["why"]
    assert "pip install chip" in out
    assert [t["name"] for t in alone["targets"]] == ["fake"] and alone["formats"] == []
    code = 0 if deploy.load("onnx").missing() is None else 3
    assert call.json("targets", "onnx", code=code)["formats"][0]["name"] == "onnx"
    assert "'lava'" in call.fails("targets", "lava")


@pytest.mark.parametrize("name", ["targets", "datasets", "recipes", "info"])
def test_json_where_nothing_is_asked(name: str, call: Call) -> None:
    assert call.json(name)


def test_the_packaged_model_runs_without_more(call: Call) -> None:
    plain = call.json("run", "--backend", "cpu", "--samples", "16")
    assert plain["samples"] == 16
    assert plain["accuracy"] > 0.8
    assert call.json("verify", "--backend", "cpu", "--samples", "2", "--state")["proven"]


def test_a_slow_backend_runs_a_few_packaged_samples_unless_told(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stformer.cli import run

    monkeypatch.setattr(run, "FEW", {"cpu": 3})
    code, out, err = call("run", "--backend", "cpu")
    assert code == 0
    assert "3 samples" in out
    assert "the first 3 samples" in err
    assert call.json("run", "--backend", "cpu", "--samples", 5)["samples"] == 5


def test_info_counts_a_variants_parts(call: Call) -> None:
    pytest.importorskip("torch")
    plain = call.json("info", "Spikingformer-4-384", "--set", "classes=100")["model"]
    assert plain["parameters"] + plain["unused_in_the_baseline"] == 9_360_916
    assert sum(p["parameters"] for p in plain["parts"]) == plain["parameters"]
    code, out, err = call("info", "STFormer-2-256", "--set", "preset=paper")
    assert (code, err) == (0, "")
    assert "6,791,690" in out
    assert (
        "did you mean 'preset'"
        in call.fails("info", "STFormer-2-256", "--set", "prest=hw").lower()
    )
    assert "Did you mean 'STFormer-4-384'" in call.fails("info", "STFormer-4-38")
    assert "--set" in call.fails("info", "--set", "classes=3")


def test_info_counts_the_parts_of_a_lowered_model(call: Call) -> None:
    pytest.importorskip("torch")
    plain = call.json("info")["model"]
    assert [p["name"] for p in plain["parts"]][:2] == ["stem", "spatial"]
    assert plain["operations"] == sum(p["operations"] for p in plain["parts"])


def test_lava_models_name_the_backend(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = "stformer.deploy.cpu:Cpu"  # stands in for Lava, which takes seconds
    monkeypatch.setitem(deploy.BACKENDS, "lava-sim", "stformer.deploy.reference:Reference")
    monkeypatch.setitem(deploy.BACKENDS, "lava-sim-fast", fast)
    words = ("--backend", "lava-sim", "--samples", 1)
    assert call.json("run", *words, "--lava-models", "fast")["backend"] == "cpu"
    assert call.json("run", *words, "--lava-models", "stock")["backend"] == "reference"
    assert call.json("run", *words)["backend"] == "reference"
    (report,) = call.json("verify", *words, "--lava-models", "fast")["reports"]
    assert report["other"] == "cpu"
    both = ("verify", "--backend", "lava-sim-fast", "--against", "lava-sim", "--samples", 1)
    (report,) = call.json(*both)["reports"]
    assert (report["reference"], report["other"]) == ("reference", "cpu")
    assert "about lava-sim" in call.fails("run", "--backend", "cpu", "--lava-models", "fast")
    traces = ("--traces", "a", "b", "--lava-models", "fast")
    assert "--lava-models has no use" in call.fails("verify", *traces)
