"""The trained module as a backend, on whatever device: nothing rounds between exact numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stformer import data, deploy, load  # noqa: E402
from stformer.deploy import torch as backend  # noqa: E402
from stformer.model import STFormer  # noqa: E402
from stformer.trace import Probe  # noqa: E402
from stformer.verify import compare  # noqa: E402


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
