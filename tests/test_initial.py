"""Before training: every population of every kind of model fires, and none all the time."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from stformer import data  # noqa: E402
from stformer.config import config_from  # noqa: E402
from stformer.model import STFormer  # noqa: E402
from stformer.nn import Spiking  # noqa: E402
from stformer.train import to_tensor  # noqa: E402

DEAD, SATURATED = 1e-4, 0.6


@pytest.mark.parametrize("residual", ["iand", "or", "add", "ms"])
@pytest.mark.parametrize("attention", ["gated", "qk", "product"])
@pytest.mark.parametrize("depth", [1, 8])
def test_nothing_is_dead_or_saturated(residual: str, attention: str, depth: int) -> None:
    torch.manual_seed(0)
    values = {"residual": residual, "attention": attention, "depth": depth, "product_scale": 4.0}
    model = STFormer(config_from(values)).train()
    rates: dict[str, float] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, args: Any, out: Any) -> None:
            rates[name] = float(out.mean())

        return hook

    for name, module in model.named_modules():
        if isinstance(module, Spiking) and not module.graded:
            module.register_forward_hook(keep(name))
    frames = data.load("digits", model.config.steps)["train"].frames[:64]
    with torch.no_grad():
        model(to_tensor(model, frames))
    assert len(rates) > 5 * depth
    odd = {name: rate for name, rate in rates.items() if not DEAD < rate < SATURATED}
    assert not odd
