"""What runs on a GPU stays there: a pretended one refuses operations across devices too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from stformer import compile as compiling  # noqa: E402
from stformer import data, deploy, recipe, train  # noqa: E402
from stformer.config import config_from  # noqa: E402
from stformer.deploy.torch import TorchCuda  # noqa: E402
from stformer.lower import lower_stformer  # noqa: E402
from stformer.model import quantise  # noqa: E402
from stformer.nn.neuron import Neuron, _Lif  # noqa: E402
from stformer.sane import random_frames, sane_model  # noqa: E402
from stformer.trace import Probe  # noqa: E402
from stformer.training.pretended import OnGpu, can_pretend, pretended  # noqa: E402
from stformer.verify import compare  # noqa: E402

if not can_pretend() and os.environ.get("STFORMER_PEERS") != "1":  # CI's newer torch must
    pytest.skip("this torch is too old to pretend a GPU", allow_module_level=True)


@pytest.fixture
def gpu() -> Iterator[None]:
    with pretended():
        yield


def test_the_pretended_gpu_is_as_strict_as_one(gpu: None) -> None:
    there, here = torch.ones(3, device="cuda"), torch.arange(3)
    assert there.device.type == "cuda" and (there * 2 + torch.tensor(1)).cpu().tolist() == [
        3,
        3,
        3,
    ]
    with pytest.raises(RuntimeError, match="both devices"):
        there + here
    with pytest.raises((TypeError, RuntimeError)):
        there.numpy()
    there[1] = 5
    there += here.to("cuda")
    assert isinstance(there, OnGpu) and there.cpu().tolist() == [1, 6, 3]


@pytest.mark.parametrize(
    "choice",
    [
        {"preset": "hw"},
        {"preset": "paper"},
        {"downsample": "pool", "residual": "add", "stem_stride": 2},
        {"attention": "product", "residual": "or", "temporal_taps": 2},
        {"kind": "cnn"},
    ],
    ids=str,
)
def test_every_spike_and_state_is_the_reference_s(choice: dict[str, Any]) -> None:
    model = sane_model(config_from({"size": 16, "width": 16, "heads": 2, "depth": 1, **choice}))
    quantise(model)
    network = lower_stformer(model)
    inputs = random_frames(model.config, 3).transpose(0, 1).numpy().astype(np.int32)
    probe = Probe(states=True)
    expected = deploy.run("reference", network, inputs, probe=probe)
    with pretended():
        got = TorchCuda().run(network, inputs, probe=probe)
    report = compare(expected, got, network, states=True)
    assert report.proven, report.to_text()
    assert "pretended" in str(got.info["gpu"])


def test_gradients_of_a_neuron(gpu: None) -> None:
    """`backward` itself is left out by the pretended one, so ours is called by hand."""
    gradients = []
    for device in ("cpu", "cuda"):
        random = torch.Generator().manual_seed(1)
        spikes, over, out = (torch.rand(4, 2, 3, 5, generator=random).to(device) for _ in range(3))
        ctx = SimpleNamespace(
            saved_tensors=(spikes.round(), over),
            neuron=Neuron(),
            bias_shape=torch.Size((3, 1)),
            per_sum=0.5,
            per_bias=0.25,
            needs_input_grad=(True, True, False, False),
        )
        gradients.append([g.cpu() for g in _Lif.backward(ctx, out) if g is not None])
    for one, other in zip(*gradients, strict=True):
        assert one.any() and torch.equal(one, other)


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_training_and_compiling(
    amp: str, gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    few = {
        name: data.Split(frames=split.frames[:32], labels=split.labels[:32])
        for name, split in data.load("digits", 2).items()
    }
    monkeypatch.setattr(data, "load", lambda name, steps: few)
    words = ["model.width=8", "model.depth=1", "model.steps=2", "train.batch_size=16"]
    chosen = recipe.load("digits", [*words, "train.epochs=1", f"train.amp={amp}"])
    run = train.train(chosen, tmp_path / "run", device="cuda")
    compiled = compiling.compile_run(run, finetune_epochs=1, device="cuda")
    assert not any(isinstance(p, OnGpu) for p in compiled.model.parameters())
    assert train.accuracy(compiled.model, few["test"]) == compiled.integer_accuracy
    assert deploy.load("torch").problems(compiled.network) == []
