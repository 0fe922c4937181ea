"""prove, and compile with a proof required: verdicts, tables, refusals."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from stformer import overflow, storage, testing
from stformer.network import Input, Network, OneToOne
from stformer.passes import schedule
from stformer.samples_base import lif, link
from stformer.testing_cli import Call

needs_training = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("sklearn") is None,
    reason="torch or scikit-learn is not installed",
)


@pytest.fixture
def too_large(tmp_path: Path) -> Path:
    """A model whose one neuron may be given 40,000."""
    network = Network(
        name="large",
        steps=4,
        populations=(Input(name="in", shape=(1,), high=40000), lif("a", (1,), 1)),
        projections=(link(OneToOne, "in", "a", weight=1),),
    )
    path = tmp_path / "large.stf"
    storage.save(path, schedule(network), provenance={"largest_sums": {"a": 12345}})
    return path


def test_the_packaged_model_is_proven(call: Call) -> None:
    code, out, err = call("prove")
    assert (code, err) == (0, "")
    assert "proven: in 4 steps no input overflows any of 33 populations" in out
    network = storage.load()
    for p in network.populations:
        assert isinstance(p, Input) or f"\n{p.name} " in out
    plain = call.json("prove", "--samples", 12)
    assert plain["proven"]
    assert plain["digest"] == network.digest()
    assert plain["seen_in"].startswith("12 samples of ")
    for population in plain["populations"]:
        for r in population["registers"]:
            assert 0 <= r["seen"] <= max(-r["low"], r["high"]) <= r["limit"]
            assert -(2 ** (r["bits"] - 1)) <= r["low"] <= r["high"] < 2 ** (r["bits"] - 1)


def test_samples_of_any_length_are_another_claim(call: Call) -> None:
    code, out, err = call("prove", "--any-steps")
    assert (code, err) == (1, "")
    assert "in any number of steps some input may overflow 1 of 33 populations" in out
    plain = call.json("prove", "--any-steps", code=1)
    assert plain["steps"] is None
    assert [p["name"] for p in plain["populations"] if not p["proven"]] == ["head"]


def test_what_is_not_proven_is_told_beside_what_was_seen(
    call: Call, too_large: Path, tmp_path: Path
) -> None:
    code, out, err = call("prove", too_large)
    assert (code, err) == (1, "")
    assert "not proven: in 4 steps some input may overflow 1 of 1 populations" in out
    assert "not proven: sum up to 40,000 of 32,767, seen 12,345" in out
    frames = np.zeros((3, 4, 1), np.int32)
    frames[1, 2] = 33000
    np.save(tmp_path / "x.npy", frames)
    code, out, err = call("prove", too_large, "--data", tmp_path / "x.npy")
    assert (code, err) == (1, "")
    assert "not proven: sum up to 40,000 of 32,767, seen 33,000" in out
    assert "3 samples of" in out


def test_samples_are_looked_at_a_few_at_a_time(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = call.json("prove", "--samples", 7)
    monkeypatch.setattr("stformer.cli.prove.CHUNK", 1)
    assert call.json("prove", "--samples", 7) == whole


def test_a_recurrent_network_is_observed_too(call: Call, tmp_path: Path) -> None:
    network = testing.recurrent_network()
    storage.save(tmp_path / "m.stf", network)
    frames = testing.inputs_for(network, 3, np.random.default_rng(0))["in"]
    np.save(tmp_path / "x.npy", frames)
    plain = call.json("prove", tmp_path / "m.stf", "--data", tmp_path / "x.npy")
    assert plain["populations"][0]["registers"][0]["seen"] > 0


def test_mistakes(call: Call, tmp_path: Path, model: Path) -> None:
    assert "No such file" in call.fails("prove", tmp_path / "x.stf")
    assert "--data" in call.fails("prove", model, "--samples", 3)


@needs_training
@pytest.mark.parametrize("required", ["flag", "recipe", ""])
def test_compile_writes_no_network_that_lacks_a_required_proof(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, too_large: Path, required: str
) -> None:
    from stformer import compile as compile_
    from stformer import recipe, train
    from stformer.config import config_from
    from stformer.model import STFormer

    chosen = recipe.load("digits", [f"compile.require_proof={str(required == 'recipe').lower()}"])
    run = train.Run(recipe=chosen, model=STFormer(config_from(chosen.model)), epochs_done=1)
    compiled = compile_.Compiled(
        network=storage.load(too_large),
        model=run.model,
        float_accuracy=0.5,
        quantised_accuracy=0.5,
        integer_accuracy=0.5,
        largest_sums={"a": 7},
    )
    monkeypatch.setattr(train, "load_run", lambda _: run)
    monkeypatch.setattr(compile_, "compile_run", lambda *_, **__: compiled)
    model = tmp_path / "m.stf"
    words = [
        "compile",
        tmp_path,
        "-o",
        model,
        *(["--require-proof"] if required == "flag" else []),
    ]
    if required:
        message = call.fails(*words, code=1)
        assert message.startswith(
            f"{model}: not proven free of overflow: a: sum up to 40,000 of 32,767. "
        )
        assert not model.exists()
    else:
        code, out, _ = call(*words)
        assert code == 0
        assert "overflow           possible in 1 populations, see `stformer prove`" in out
        assert model.exists()


@needs_training
@pytest.mark.parametrize("preset", ["hw", "paper"])
def test_scales_for_all_inputs(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an accumulator so small that the network does not fit it, unless it is made to."""
    from stformer.compile import fit
    from stformer.config import config_from
    from stformer.lower import lower_stformer
    from stformer.model import quantise
    from stformer.sane import sane_model

    given = {"size": 8, "width": 16, "depth": 1, "steps": 2, "channels": 1, "preset": preset}
    model = sane_model(config_from(given))
    quantise(model)
    limit = 2000
    monkeypatch.setitem(overflow.LIMITS, "sum", limit)
    before = overflow.prove(lower_stformer(model))
    assert not before.proven
    fit(model)
    after = overflow.prove(lower_stformer(model))
    assert after.proven
    # Halved until it fits and no more; what shares a stream's scale is as coarse as its worst.
    sums = {c.name: r.largest for c in after.populations for r in c.registers if r.what == "sum"}
    enough = [sums[c.name] > limit / 2.5 for c in before.open]
    assert all(enough) if preset == "hw" else any(enough)
    fit(model, room=0.5)
    roomy = overflow.prove(lower_stformer(model))
    assert all(r.largest <= r.limit / 2 for c in roomy.populations for r in c.registers)


@needs_training
@pytest.mark.slow
def test_a_trained_network_is_made_to_fit(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = ["train.epochs=1", "train.batch_size=512", "model.width=8", "model.depth=1"]
    tiny += ["model.steps=2", "compile.finetune_epochs=1", "compile.require_proof=true"]
    run, model = tmp_path / "run", tmp_path / "m.stf"
    call.json("train", "digits", *(w for t in tiny for w in ("--set", t)), "-o", run)
    monkeypatch.setitem(overflow.LIMITS, "sum", 500)
    assert "stem: sum up to" in call.fails("compile", run, "-o", model, code=1)
    tight = call.json("compile", run, "-o", model, "--scales", "bounds")
    assert tight["proven"]
    assert call.json("prove", model)["proven"]
    assert max(tight["largest_sums"].values()) <= 500
