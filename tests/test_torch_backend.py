"""The trained module as a backend, on whatever device: nothing rounds between exact numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stformer import data, deploy, load  # noqa: E402
from stformer.config import config_from  # noqa: E402
from stformer.deploy import torch as backend  # noqa: E402
from stformer.lower import lower_stformer  # noqa: E402
from stformer.model import STFormer, quantise  # noqa: E402
from stformer.network import Network  # noqa: E402
from stformer.sane import sane_model  # noqa: E402
from stformer.trace import Probe  # noqa: E402
from stformer.training.precision import exact  # noqa: E402
from stformer.verify import compare  # noqa: E402


def small_model(preset: str, **extra: Any) -> STFormer:
    """An STFormer in its integer life, with random weights."""
    plain = {"preset": preset, "size": 8, "width": 16, "heads": 2, "depth": 1, "steps": 3, **extra}
    model = sane_model(config_from(plain))
    quantise(model)
    return model


def random_inputs(network: Network, samples: int) -> Any:
    (source,) = network.inputs
    shape = (samples, network.steps, *source.shape)
    return np.random.default_rng(3).integers(0, source.high + 1, shape).astype(np.int32)


def test_what_could_round_is_off_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []
    forward = STFormer.forward

    def spied(model: STFormer, x: Any) -> Any:
        if isinstance(x, torch.Tensor):  # not while it is lowered
            cudnn, matmul = torch.backends.cudnn.enabled, torch.get_float32_matmul_precision()
            seen.append((cudnn, torch.is_autocast_enabled(), matmul, x.device.type))
        return forward(model, x)

    monkeypatch.setattr(STFormer, "forward", spied)
    torch.set_float32_matmul_precision("medium")
    try:
        deploy.run("torch", load(), data.packaged()[0][:1])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == [(False, False, "highest", "cpu")]
    assert torch.backends.cudnn.enabled


def test_on_a_gpu_too_what_could_round_is_off() -> None:
    """The switches alone need no GPU: cuDNN's algorithms and TF32, of which it is the default."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.enabled, cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with exact(torch.device("cuda")):
            assert not (cudnn.enabled or cudnn.allow_tf32 or matmul.allow_tf32)
        with exact(torch.device("cuda"), any_algorithm=True):
            assert cudnn.enabled and not (cudnn.allow_tf32 or matmul.allow_tf32)
        assert matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before[2])
    assert before == (cudnn.enabled, cudnn.allow_tf32, torch.get_float32_matmul_precision())


@pytest.mark.parametrize("preset", ["hw", "paper"])
def test_sums_are_the_same_in_any_order(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another device would add them: each convolution in parts, in a random order."""
    network = lower_stformer(small_model(preset))
    inputs = random_inputs(network, 4)
    probe = Probe(states=True)
    expected = deploy.run("torch", network, inputs, probe=probe)
    random = np.random.default_rng(7)
    shuffled = 0

    def parts(x: Any, weight: Any, *, groups: int, **how: Any) -> Any:
        nonlocal shuffled
        if groups > 1 or x.is_meta:
            return conv2d(x, weight, groups=groups, **how)
        shuffled += 1
        total = torch.zeros(1)
        for c in random.permutation(x.shape[1]):
            total = total + conv2d(x[:, c : c + 1], weight[:, c : c + 1], **how)
        return total

    conv2d = torch.nn.functional.conv2d
    monkeypatch.setattr(torch.nn.functional, "conv2d", parts)
    other = deploy.run("torch", network, inputs, probe=probe)
    assert shuffled > 5
    assert compare(expected, other, network, states=True).proven


def test_sums_that_float32_may_lose_are_refused_by_name() -> None:
    """127 times 2^17 is a little less than 2^24, and a neuron has more synapses than one."""
    model = small_model("hw", largest_input=2**17)
    model.stem.conv_synapses()[0].weight.data.fill_(127)
    network = lower_stformer(model)
    (problem,) = deploy.load("torch").problems(network)
    assert problem.where == "population stem" and "16,777,216" in problem.why
    assert deploy.load("cpu").problems(network) == []


def test_a_machine_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert "no NVIDIA GPU" in (backend.TorchCuda().missing() or "")


def test_on_a_gpu_every_spike_and_state_is_the_reference_s() -> None:
    engine = deploy.load("torch-cuda")
    if reason := engine.missing():
        pytest.skip(reason)
    network, frames = load(), data.packaged()[0][:64].astype(np.int32)
    probe = Probe(states=True)
    expected = deploy.run("reference", network, frames, probe=probe)
    report = compare(expected, engine.run(network, frames, probe=probe), network, states=True)
    assert report.proven, report.to_text()
