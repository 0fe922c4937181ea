"""What a recipe can ask for: precision, layouts, parts, held-out samples; and bad numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from stformer import data, recipe, train  # noqa: E402
from stformer.data import Split  # noqa: E402
from stformer.model import quantise  # noqa: E402
from stformer.nn.neuron import Neuron, lif  # noqa: E402
from stformer.training import checkpoint  # noqa: E402
from stformer.training.batches import Samples, epoch_parts, held_out, load_parts  # noqa: E402
from stformer.training.evaluate import Rates, counted, unhealthy, watch  # noqa: E402
from stformer.training.finite import NotFinite  # noqa: E402
from stformer.training.precision import exact, repeatable  # noqa: E402
from stformer.training.setup import begin  # noqa: E402

TINY = [
    *("train.epochs=2", "train.batch_size=32", "train.checkpoint_minutes=0"),
    *("model.width=8", "model.depth=1", "model.steps=2"),
]


def tiny(*more: str) -> recipe.Recipe:
    return recipe.load("digits", [*TINY, *more])


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> dict[str, Split]:
    """128 digits to train on and 64 to test: an epoch takes a fraction of a second."""
    whole = data.load("digits", 2)
    sizes = {"train": 128, "test": 64}
    cut = {
        name: Split(frames=whole[name].frames[:n], labels=whole[name].labels[:n])
        for name, n in sizes.items()
    }
    monkeypatch.setattr(data, "load", lambda name, steps: cut)
    return cut


def begun(*more: str) -> train.Training:
    chosen = tiny(*more)
    model, splits = train.prepare(chosen)
    return begin(model, splits["train"], chosen.train, train.alone("cpu"))


def weights(model: Any) -> dict[str, Any]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# --- batches -----------------------------------------------------------------------------------


def test_every_sample_is_in_one_part_of_an_epoch() -> None:
    config = tiny("train.batch_size=24").train
    pool = np.arange(10, 128)  # 118: four batches of 24 and one of 22
    steps = epoch_parts(pool, config, 0, 4)
    assert [len(step) for step in steps] == [4] * 5
    seen = np.concatenate([part.numbers for step in steps for part in step])
    assert len(set(seen)) == len(seen) == 116  # 22 cannot be cut into 4
    assert set(seen) <= set(pool)
    assert {len(part.numbers) for part in steps[-1]} == {5}
    # parts are those of a batch, whatever their number
    whole = epoch_parts(pool, config, 0, 1)
    for one, cut in zip(whole, steps, strict=True):
        together = np.concatenate([part.numbers for part in cut])
        assert (one[0].numbers[: len(together)] == together).all()
    other = epoch_parts(pool, config, 1, 1)
    assert (other[0][0].numbers != whole[0][0].numbers).any()


def test_workers_change_nothing() -> None:
    t = begun("train.flip=0.5", "train.shift=1", "train.erasing=0.5")
    parts = [step[0] for step in epoch_parts(t.pool, t.config, 0, 1)]
    there = {}
    for workers in (0, 2):
        samples = Samples(t.split, replace(t.config, workers=workers), 16)
        there[workers] = list(load_parts(samples, parts, pin=False))
    for (part, (x, y)), (same, (x2, y2)) in zip(there[0], there[2], strict=True):
        assert part is same and torch.equal(x, x2) and torch.equal(y, y2)


def test_held_out_samples_are_a_fraction_of_every_class() -> None:
    labels = np.repeat(np.arange(5), [40, 20, 10, 2, 1])
    kept, held = held_out(labels, 0.1, seed=1)
    assert sorted([*kept, *held]) == list(range(73))
    assert np.bincount(labels[held], minlength=5).tolist() == [4, 2, 1, 1, 0]
    assert (held_out(labels, 0.1, seed=1)[1] == held).all()
    assert (held_out(labels, 0.1, seed=2)[1] != held).any()
    assert len(held_out(labels, 0.0, seed=1)[1]) == 0


def test_parts_add_up_to_the_gradient_of_the_whole() -> None:
    """With batch norm out of the way (eval mode): the mean over parts is that over the batch."""
    gradients = []
    for accumulate in (1, 4):
        t = begun(f"train.accumulate={accumulate}", "train.lr=0", "train.min_lr=0")
        for module in t.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
                module.train = lambda mode=True: None
        train.run_epoch(t, 0, 0.0)
        gradients.append([p.grad for p in t.model.parameters() if p.grad is not None])
    assert len(gradients[0]) > 20
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


# --- number formats ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["train.amp=bf16"],
        ["train.amp=fp16"],
        ["train.channels_last=true"],
        ["train.deterministic=true"],
        ["train.clip_norm=0.5", "train.cutmix=1", "train.mixup=1", "train.mix_prob=0.5"],
    ],
)
def test_options_train_and_resume_exactly(words: list[str], tmp_path: Path) -> None:
    chosen = tiny(*words, "train.checkpoint_minutes=1e-9")
    expected = weights(train.train(chosen, tmp_path / "whole", device="cpu").model)
    steps = 0

    def stop(at: train.Tick) -> None:
        nonlocal steps
        steps += 1
        if steps == 6:  # after five checkpoints, within the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(chosen, tmp_path / "cut", device="cpu", tick=stop)
    state = checkpoint.read(tmp_path / "cut")
    assert (state["epoch"], state["step"]) == (1, 1)
    resumed = train.train(chosen, tmp_path / "cut", resume=True, device="cpu")
    assert_same(weights(resumed.model), expected)
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    ]
    for one, other in zip(*rows, strict=True):
        for key in ("epoch", "loss", "lr", "grad_norm", "test_accuracy", "rates"):
            assert one[key] == other[key], key


def test_mixed_precision_ends_at_the_neuron() -> None:
    t = begun("train.amp=bf16")
    seen: dict[str, Any] = {}
    block = t.model.spatial.layers[0]
    block.norm.register_forward_hook(lambda m, i, out: seen.update(norm=out.dtype))
    block.register_forward_hook(lambda m, i, out: seen.update(spikes=out.dtype))
    train.run_epoch(t, 0, 1e-3)
    assert seen == {"norm": torch.bfloat16, "spikes": torch.float32}
    half = torch.tensor([[1.5], [0.5]], dtype=torch.float16, requires_grad=True)
    spikes = lif(half, Neuron())
    assert spikes.dtype == torch.float32 and spikes.ravel().tolist() == [1.0, 0.0]
    spikes.sum().backward()
    assert half.grad is not None and half.grad.dtype == torch.float16


def test_integers_are_exact_whatever_the_recipe_says() -> None:
    """Autocast around the integer life: bf16 holds whole numbers up to 256 only."""
    t = begun()
    quantise(t.model)
    expected = train.predict(t.model, t.split)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(train.predict(t.model, t.split), expected)
        inside = []
        with exact(torch.device("cpu")):
            inside.append((torch.ones(1, 1) @ torch.ones(1, 1)).dtype != torch.float32)
        assert inside == [False]
    integer = begin(t.model, t.split, tiny("train.amp=bf16").train, t.here)
    dtypes = set()
    t.model.stem.synapses[0].register_forward_hook(lambda m, i, out: dtypes.add(out.dtype))
    train.run_epoch(integer, 0, 0.01)
    assert dtypes == {torch.float32}


def test_deterministic_mode_is_on_inside_only() -> None:
    before = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(False)  # conftest has it on
    with repeatable(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark == before
    torch.use_deterministic_algorithms(True)
    with repeatable(False):
        assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own compiler
def test_compiled_training_equals_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated by torch.compile; the C++ that it would write takes minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    losses = []
    for words in (["train.compile=false"], ["train.compile=true"]):
        t = begun(*words)
        losses.append(train.run_epoch(t, 0, 1e-3))
        assert sorted(t.model.state_dict()) == sorted(begun().model.state_dict())
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


# --- what is watched ---------------------------------------------------------------------------


def test_validation_selects_an_epoch_and_test_images_have_no_say(tmp_path: Path) -> None:
    chosen = tiny("train.validation=0.25", "train.epochs=5", "train.lr=0.02")
    run = train.train(chosen, tmp_path, device="cpu")
    rows = [json.loads(s) for s in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all("test_accuracy" not in row for row in rows)
    found = [row["validation_accuracy"] for row in rows]
    selected = run.result["selected"]
    assert selected["epoch"] == 1 + int(np.argmax(found))  # the first of the best
    assert selected["validation_accuracy"] == max(found)
    splits = data.load("digits", 2)
    loaded = train.load_run(tmp_path)
    assert_same(weights(loaded.model), weights(run.model))
    assert train.accuracy(loaded.model, splits["test"]) == selected["test_accuracy"]
    last = checkpoint.read(tmp_path)["model"]
    loaded.model.load_state_dict(last)
    assert train.accuracy(loaded.model, splits["test"]) == run.result["last"]["test_accuracy"]
    assert json.loads((tmp_path / "result.json").read_text()) == run.result


def test_rates_are_spikes_per_neuron_and_step() -> None:
    t = begun()
    rates = Rates()
    with counted(t.model, rates):
        logits = train.predict(t.model, t.split)
    mean = rates.mean()
    assert "stem" in mean and "blocks.0.attention.gate" in mean and "head" not in mean
    seen = []
    hook = t.model.stem.register_forward_hook(lambda m, i, out: seen.append(out))
    assert torch.equal(train.predict(t.model, t.split), logits)
    hook.remove()
    assert mean["stem"] == pytest.approx(float(torch.cat(seen, 1).mean()))
    with torch.no_grad():
        t.model.stem.norm.bias.fill_(5.0)  # fires at every step
        t.model.rpe.norm.bias.fill_(-50.0)  # never
    _, mean = watch(t.model, t.split, t.here)
    dead, saturated = unhealthy(mean)
    assert "stem" in saturated and "rpe" in dead
    assert not t.model.stem._forward_hooks


def test_metrics_and_tensorboard_have_what_a_plot_needs(tmp_path: Path) -> None:
    train.train(tiny(), tmp_path, device="cpu")
    rows = [json.loads(s) for s in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert set(rows[0]) == {
        *("epoch", "epochs", "loss", "lr", "grad_norm", "test_accuracy", "seconds"),
        *("samples_per_second", "dead", "saturated", "rates"),
    }
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = loader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2]
    assert events.Scalars("rates/stem")[1].value == pytest.approx(rows[1]["rates"]["stem"])


# --- NaN ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("weight", "the weights 'blocks.0.mlp1.synapses.0.weight' are not finite"),
        ("arrives", "what arrives at population 'blocks.0.mlp1' is not finite"),
        ("gradient", "the gradient of 'blocks.0.mlp1.*population 'blocks.0.mlp1'"),
    ],
)
def test_not_a_number_is_traced_to_its_population(where: str, message: str) -> None:
    t = begun()
    block = t.model.blocks[0].mlp1
    if where == "weight":
        with torch.no_grad():
            block.synapses[0].weight[3, 2] = float("nan")
    elif where == "arrives":
        # Behind the neuron NaN is silence: nothing but the gradient would ever show it.
        block.synapses[0].register_forward_hook(lambda m, i, out: out / torch.zeros(()) * 0)
    else:
        block.norm.weight.register_hook(lambda g: g * float("inf"))
    before = weights(t.model)
    with pytest.raises(NotFinite, match=f"epoch 3, step 1: {message}"):
        train.run_epoch(t, 2, 1e-3)
    for name, parameter in t.model.named_parameters():
        assert torch.equal(parameter, before[name]) or where == "weight"


def test_fp16_gradients_that_overflow_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    t = begun("train.amp=fp16")
    start = t.scaler.state_dict() | {"scale": 2.0**30}  # float16 ends at 65504
    t.scaler.load_state_dict(start)
    before = weights(t.model)
    with pytest.raises(KeyboardInterrupt):
        train.run_epoch(t, 0, 1e-3, None, _interrupt)
    assert t.scaler.get_scale() == 2.0**29
    for name, parameter in t.model.named_parameters():
        assert torch.equal(parameter, before[name])
    t.scaler.load_state_dict(start | {"scale": 1.0})
    with torch.no_grad():
        t.model.head.weight.fill_(1e30)  # scaling less does not help here
    with pytest.raises(NotFinite):
        train.run_epoch(t, 0, 1e-3)


def _interrupt(_: object) -> None:
    raise KeyboardInterrupt
