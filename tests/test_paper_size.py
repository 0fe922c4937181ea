"""Variants of paper size: what lowers from them is equal on torch, cpu and reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from stformer import deploy, interpret, storage  # noqa: E402
from stformer.compile import calibrate  # noqa: E402
from stformer.config import config_from  # noqa: E402
from stformer.data import Split  # noqa: E402
from stformer.lower import lower_stformer  # noqa: E402
from stformer.model import STFormer, quantise  # noqa: E402
from stformer.network import Graded, Lif, Network, Product, Relay  # noqa: E402
from stformer.sane import random_frames, sane_model  # noqa: E402
from stformer.testing import assert_traces_equal  # noqa: E402
from stformer.trace import Probe  # noqa: E402

SATURATED = 0.6

pytestmark = pytest.mark.slow


def integers(model: STFormer, path: Path) -> Network:
    """The network of a model, by way of a file, as `stformer compile` makes it."""
    frames = random_frames(model.config, 1).transpose(0, 1).numpy().astype(np.uint8)
    quantise(model)
    calibrate(model, Split(frames=frames, labels=np.zeros(1, np.int64)))
    storage.save(path, lower_stformer(model))
    return storage.load(path)


def check_equal_and_alive(network: Network, model: STFormer) -> None:
    inputs = random_frames(model.config, 1).transpose(0, 1).numpy()
    probe = Probe(states=True)
    expected = interpret.run(network, inputs, probe=probe)
    assert_traces_equal(expected, deploy.run("cpu", network, inputs, probe=probe), states=True)
    got = deploy.run("torch", network, inputs, probe=probe)
    assert all(isinstance(network[n], Relay) for n in set(expected.spikes) - set(got.spikes))
    for kind in ("spikes", "u", "v"):
        for name, values in getattr(got, kind).items():
            np.testing.assert_array_equal(values, getattr(expected, kind)[name], err_msg=name)
    rates = {
        p.name: float(expected[p.name].mean()) for p in network.populations if isinstance(p, Lif)
    }
    assert not [n for n, rate in rates.items() if not 0 < rate <= SATURATED], rates


@pytest.mark.parametrize("preset", ["hw", "paper"])
@pytest.mark.parametrize(
    "variant",
    ["STFormer-4-384", "STFormer-2-256", "Spikingformer-4-384", "Spikingformer-2-256"],
)
def test_every_variant_is_its_network(variant: str, preset: str, tmp_path: Path) -> None:
    model = sane_model(config_from({"variant": variant, "preset": preset}))
    network = integers(model, tmp_path / "x.stf")
    kinds = {type(p) for p in network.populations}
    assert ({Graded, Product} <= kinds) == (preset == "paper")
    check_equal_and_alive(network, model)


def test_after_steps_of_training(tmp_path: Path) -> None:
    config = config_from({"variant": "STFormer-4-384"})
    model = sane_model(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    before = model.head.weight.detach().clone()
    labels = torch.arange(4)
    for _ in range(3):
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(random_frames(config, 4)), labels).backward()
        optimizer.step()
    assert (model.head.weight != before).any()
    model.eval()
    check_equal_and_alive(integers(model, tmp_path / "x.stf"), model)
