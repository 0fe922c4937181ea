"""The backend `norse`: how much is equal, and which rule makes each difference."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("norse")
pytest.importorskip("nirtorch")

from stformer import data, deploy, interpret, storage, testing
from stformer.deploy import norse as backend
from stformer.deploy.norse import Norse
from stformer.errors import Unavailable, Unsupported
from stformer.network import Dense, Input, Network, OneToOne, Readout, no_bias
from stformer.passes import assign_latency
from stformer.replay import replay
from stformer.testing_cli import Call
from stformer.trace import Probe, Trace
from stformer.verify import compare

REFUSED = {"product", "look-ahead", "stream"}
RUN = [n for n in testing.SAMPLES if n not in REFUSED]


def runs(network: Network, samples: int = 8, seed: int = 1) -> tuple[Trace, Trace]:
    inputs = testing.inputs_for(network, samples, np.random.default_rng(seed))
    return interpret.run(network, inputs), deploy.run("norse", network, inputs)


def own_differences(network: Network, trace: Trace) -> dict[str, int]:
    """Values that a population does not owe to the spikes it was fed."""
    names = [p.name for p in network.populations if not isinstance(p, Input)]
    counts = {n: int((replay(network, n, trace).spikes != trace[n]).sum()) for n in names}
    return {name: count for name, count in counts.items() if count}


def told(trace: Trace) -> dict[str, str]:
    """Population -> the rule that the notes name."""
    found = (re.match(r"(\S+) differs by itself in .*: (.*)", note) for note in trace.notes)
    return {m[1]: m[2] for m in found if m}


@pytest.mark.parametrize("name", RUN)
def test_every_difference_has_a_cause(name: str) -> None:
    network = testing.sample_network(name)
    expected, found = runs(network)
    assert (found.network, found.inputs) == (expected.network, expected.inputs)
    assert set(told(found)) == set(own_differences(network, found))
    report = compare(expected, found, network)
    assert report.equal_percent > 97
    assert report.differences == 0 or told(found)
    # Rounding of decays is the only rule that these numbers meet.
    assert all("in real numbers too" in why for why in told(found).values())


def test_most_samples_are_equal() -> None:
    equal = [name for name in RUN if compare(*runs(testing.sample_network(name))).differences == 0]
    assert {"attention", "conv", "temporal", "relay", "and", "iand", "or-pool"} <= set(equal)


def test_the_packaged_model(capsys: pytest.CaptureFixture[str]) -> None:
    network = storage.load()
    frames, labels = data.packaged()
    expected, found = (deploy.run(b, network, frames[:64]) for b in ("cpu", "norse"))
    report = compare(expected, found, network)
    assert 99.9 <= report.equal_percent < 100
    causes = told(found)
    assert set(causes) == set(own_differences(network, found)) and causes
    assert all("in real numbers too" in why for why in causes.values())
    # What is not its own doing follows from spikes that are: it was fed them.
    for p in report.populations:
        assert p.itself_wrong in ((None,) if not p.differences else (p.name in causes,))
    logits = found["head"][:, -1].reshape(64, -1)
    assert (logits.argmax(axis=1) == labels[:64]).mean() > 0.9


def test_a_resting_membrane_is_added_twice() -> None:
    """A bias of neurons that keep their current has no other place in NIR than v_leak."""
    post = testing.lif("a", (3,), 5, dv=1000, du=1500, bias_mant=np.array([0, 100, 150]))
    network = assign_latency(
        Network(
            name="n",
            steps=4,
            populations=(Input(name="in", shape=(3,)), post),
            projections=(OneToOne(name="q", pre="in", post="a", weight=3),),
        )
    )
    _, found = runs(network)
    assert "as Norse adds v_leak to the current, too" in told(found)["a"]


def test_float32_is_told_from_real_numbers() -> None:
    """A membrane that meets its threshold in real numbers may miss it in float32."""
    post = testing.lif("a", (1,), 1, dv=1365)
    network = assign_latency(
        Network(
            name="n",
            steps=8,
            populations=(Input(name="in", shape=(1,), high=2**20), post),
            projections=(Dense(name="q", pre="in", post="a", weight=np.array([[1]])),),
        )
    )
    trace = deploy.run("norse", network, np.zeros((1, 8, 1), np.int32))
    wrong = replace(trace, spikes={**trace.spikes, "a": 1 - trace["a"]})
    from stformer.deploy.norse_causes import causes

    (why,) = causes(network, wrong, frozenset())
    assert why == "a differs by itself in 8 of 8 values, given the spikes it was fed: 8 by float32"


def test_norse_by_itself_needs_what_is_put_right_here(tmp_path: Path) -> None:
    """If one of these fails, Norse has changed and a note is out of date."""
    import nir
    import norse.torch
    import torch

    from stformer import export

    network = testing.sample_network("and")
    inputs = testing.inputs_for(network, 8, np.random.default_rng(1))
    path = export.export("nir", network, tmp_path / "a.nir").path
    with pytest.warns(DeprecationWarning, match="nirtorch.load"):
        alone = norse.torch.from_nir(nir.read(path), dt=1e-4)
    state, rows = None, []
    with torch.no_grad():
        for t in range(network.steps):
            out, state = alone(torch.from_numpy(inputs["x"][:, t].astype(np.float32)), state)
            rows.append(out.numpy())
    expected, ours = runs(network)
    assert (np.stack(rows, axis=1) != expected["and"]).any()  # depth first
    np.testing.assert_array_equal(ours["and"], expected["and"])
    assert any("depth first" in note for note in ours.notes)

    _, ours = runs(testing.sample_network("temporal"))
    assert any("Norse has no Delay" in note for note in ours.notes)
    path = export.export("nir", testing.sample_network("temporal"), tmp_path / "t.nir").path
    with pytest.warns(DeprecationWarning, match="nirtorch.load"), pytest.raises(KeyError):
        norse.torch.from_nir(nir.read(path), dt=1e-4)
    _, ours = runs(testing.sample_network("readout"))
    assert any("batch as an axis" in note for note in ours.notes)


def refused(network: Network, match: str) -> None:
    with pytest.raises(Unsupported, match=match):
        deploy.ready("norse", network)


def test_several_ends() -> None:
    """nirtorch keeps each Output for the end, and two would wait for each other for ever."""
    network = assign_latency(
        Network(
            name="n",
            steps=3,
            populations=(
                Input(name="x", shape=(2,)),
                testing.lif("a", (2,), 1),
                testing.lif("b", (2,), 3),
                *(Readout(name=n, shape=(2,), bias_mant=no_bias((2,))) for n in ("c", "d")),
            ),
            projections=tuple(
                OneToOne(name=f"{a}>{b}", pre=a, post=b, weight=2)
                for a, b in ("xa", "xb", "ac", "xd")
            ),
        )
    )
    expected, found = runs(network)
    assert compare(expected, found, network).proven
    assert not compare(expected, found, network).not_compared


def test_problems() -> None:
    refused(testing.sample_network("product"), "population scores: NIR has no product")
    refused(testing.sample_network("look-ahead"), "projection tap-1")
    refused(testing.sample_network("stream"), "population x0: Norse has no Scale")
    refused(testing.recurrent_network(), "projection a>a: nirtorch puts a step")
    two = Network(
        name="n",
        steps=1,
        populations=(
            Input(name="x", shape=(2,)),
            Input(name="y", shape=(2,)),
            testing.lif("a", (2,), 1),
        ),
        projections=tuple(OneToOne(name=n, pre=n, post="a", weight=2) for n in "xy"),
    )
    refused(two, "population y: nirtorch feeds one Input")


@pytest.mark.parametrize("absent", ["torch", "nir", "nirtorch", "norse"])
def test_missing(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Norse().missing() is None
    monkeypatch.setattr(backend, "find_spec", lambda name: None if name == absent else name)
    with pytest.raises(Unavailable, match=rf"{absent} is not installed.*stformer\[norse"):
        deploy.ready("norse", testing.sample_network("dense"))


def test_batches_probe_and_progress() -> None:
    network = testing.sample_network("attention")
    inputs = testing.inputs_for(network, 5, np.random.default_rng(0))
    whole = Norse().run(network, inputs, probe=Probe())
    calls: list[tuple[int, int]] = []
    single = Norse(lambda done, of: calls.append((done, of)), batch_bytes=1)
    one = single.run(network, inputs, probe=Probe(populations=("gate", "x"), states=True))
    assert calls == [(i, 5) for i in range(1, 6)]
    assert set(one.spikes) == {"gate", "x"} and not one.u and not one.v
    np.testing.assert_array_equal(one["gate"], whole["gate"])
    assert float(whole.info["seconds"]) > 0


def test_verify_reports_agreement_and_causes(call: Call, tmp_path: Path) -> None:
    model = tmp_path / "a.stf"
    storage.save(model, testing.sample_network("current"))
    inputs = testing.inputs_for(testing.sample_network("current"), 16, np.random.default_rng(0))
    np.save(tmp_path / "x.npy", inputs["in"])
    words = ("verify", model, "--backend", "norse", "--data", tmp_path / "x.npy")
    plain = call.json(*words, code=1)
    (report,) = plain["reports"]
    assert 97 < report["equal_percent"] < 100
    assert any("dt = 0.0001" in note for note in report["notes"])
    assert any("differs by itself" in note for note in report["notes"])
    by_name = {p["name"]: p for p in report["populations"]}
    assert by_name["in"]["equal_percent"] == 100
    code, text, _ = call(*words)
    assert code == 1
    assert "equal %" in text and "  equal: 9" in text and "  note: a differs by itself" in text
