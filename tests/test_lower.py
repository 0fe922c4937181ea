"""One forward, three lives: what the module computes in integers is what the network says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from stformer import deploy, interpret, passes  # noqa: E402
from stformer.config import PRESETS, STFormerConfig, config_from, config_to  # noqa: E402
from stformer.errors import InputError, Unsupported  # noqa: E402
from stformer.lower import lower, lower_stformer, record, restore  # noqa: E402
from stformer.model import STFormer, quantise  # noqa: E402
from stformer.network import Conv, Dense, Lif, Relay  # noqa: E402
from stformer.nn import Gate, Join, Neuron, Readout, conv_block, dense_block  # noqa: E402
from stformer.testing import assert_traces_equal  # noqa: E402
from stformer.trace import Probe  # noqa: E402

VARIANTS: list[dict[str, Any]] = [
    {},
    {"attention": "qk", "residual": "or", "downsample": "pool"},
    {"residual": "add", "temporal_branches": 4, "temporal_dilations": (1, 2)},
    {"residual": "add", "attention": "qk", "downsample": "pool", "depth": 1},
    {"temporal": False, "depth": 1},
    {"dv": 2731, "spatial_kernel": 3, "temporal_kernel": 3, "temporal_taps": 2, "steps": 5},
    {"width": 16, "heads": 2, "stem_stride": 2, "size": 16, "spatial_strides": (1, 2, 2)},
    {"channels": 2, "largest_input": 1, "classes": 3, "depth": 1, "steps": 1},
    {"guided": False, "temporal_branches": 4, "temporal_dilations": (2, 1)},
    {"guided": False, "tied_query": True, "depth": 1},
    {"residual": "ms", "depth": 1},
    {"residual": "ms", "attention": "qk", "head_spikes": False, "dv": 2731},
    {"attention": "product", "temporal_causal": False, "steps": 3},
    {"size": 16, "stem_stride": 2, "spatial_strides": (1, 1, 2), **PRESETS["paper"]},
    {**PRESETS["paper"], "linear_bias": True, "head_spikes": False, "rpe_skip": False},
]


def trained(config: STFormerConfig, seed: int = 0) -> STFormer:
    """A model with norms that have seen data, weights large enough to make everything fire."""
    torch.manual_seed(seed)
    model = STFormer(config).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # average all that it has seen
            nn.init.constant_(module.weight, 0.9)
            nn.init.uniform_(module.bias, -0.3, 0.6)
    with torch.no_grad():
        for _ in range(4):
            model(frames(config, 16))
    return model.eval()


def frames(config: STFormerConfig, samples: int) -> Any:
    shape = (config.steps, samples, config.channels, config.size, config.size)
    return torch.randint(0, config.largest_input + 1, shape).float()


@pytest.mark.parametrize("choice", VARIANTS, ids=lambda c: ",".join(map(str, c.values())))
def test_every_variant_is_its_network(choice: dict[str, Any]) -> None:
    config = STFormerConfig(**choice)
    model = trained(config)
    quantise(model)
    network = lower_stformer(model)
    inputs = frames(config, 5).transpose(0, 1).numpy()
    probe = Probe(states=True)
    expected = interpret.run(network, inputs, probe=probe)
    assert_traces_equal(expected, deploy.run("cpu", network, inputs, probe=probe), states=True)
    got = deploy.run("torch", network, inputs, probe=probe)
    missing = set(expected.populations) - set(got.populations)
    assert all(isinstance(network[name], Relay) for name in missing)
    for name in got.populations:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    for name in got.v:
        np.testing.assert_array_equal(got.v[name], expected.v[name], err_msg=name)
    for name in got.u:
        np.testing.assert_array_equal(got.u[name], expected.u[name], err_msg=name)
    silent = [n for n in got.populations if isinstance(network[n], Lif) and not got[n].any()]
    assert len(silent) <= len(got.populations) // 4, f"too quiet to mean much: {silent}"


def test_eval_logits_are_the_readout() -> None:
    config = STFormerConfig()
    model = trained(config)
    quantise(model)
    network = lower_stformer(model)
    x = frames(config, 7)
    with torch.no_grad():
        logits = model(x)
    membrane = interpret.run(network, x.transpose(0, 1).numpy())["head"][:, -1, :, 0, 0]
    scale = float(model.head.scale) * config.steps * model.tokens * 64
    np.testing.assert_array_equal(np.rint(logits.numpy() * scale).astype(int), membrane)


def test_quantised_logits_stay_near_the_float_ones() -> None:
    config = STFormerConfig(depth=1)
    model = trained(config)
    x = frames(config, 64)
    with torch.no_grad():
        before = model(x)
        quantise(model)
        after = model(x)
    # Spikes flip at the threshold, so only the bulk can be close.
    assert (before - after).abs().mean() < 0.35 * before.std()
    assert np.corrcoef(before.flatten(), after.flatten())[0, 1] > 0.9


def test_restoring_gives_the_digest_back() -> None:
    model = trained(STFormerConfig())
    quantise(model)
    network = lower_stformer(model)
    assert lower_stformer(restore(network)).digest() == network.digest()


def test_a_changed_network_restores_to_the_changed_one() -> None:
    model = trained(STFormerConfig())
    quantise(model)
    network = lower_stformer(model)
    projections = list(network.projections)
    i = next(i for i, p in enumerate(projections) if p.post == "blocks.0.mlp1")
    weight = projections[i].weight.copy()  # type: ignore[union-attr]
    weight[3, 4, 0, 0] ^= 1
    projections[i] = replace(projections[i], weight=weight)
    changed = passes.replace_network(network, projections=tuple(projections))
    assert changed.digest() != network.digest()
    assert lower_stformer(restore(changed)).digest() == changed.digest()


def test_a_foreign_network_is_refused_by_name() -> None:
    model = trained(STFormerConfig())
    quantise(model)
    network = lower_stformer(model)
    nameless = passes.replace_network(network, source="")
    with pytest.raises(Unsupported, match="not lowered from an STFormer"):
        deploy.run("torch", nameless, frames(model.config, 1).transpose(0, 1).numpy())
    other = passes.replace_network(network, source='{"STFormer": {"depth": 1}}')
    with pytest.raises(Unsupported, match="differs from what its model's config lowers to"):
        restore(other)


def test_own_modules_lower_and_foreign_ones_are_named() -> None:
    class Mine(nn.Module):
        def __init__(self, foreign: bool) -> None:
            super().__init__()
            self.first = conv_block(1, 4, 3, Neuron())
            self.second = conv_block(4, 4, 3, Neuron(dv=1000))
            self.both, self.join = Gate(), Join("or")
            self.odd = nn.Conv2d(4, 4, 1) if foreign else nn.Identity()
            self.head = Readout(4, 2)

        def forward(self, x: Any) -> Any:
            a = self.first(x)
            b = self.odd(self.second(a))
            return self.head(self.join(a, self.both(a, b)))

    def build(foreign: bool) -> Any:
        model = Mine(foreign).eval()
        for block in (model.first, model.second):
            nn.init.constant_(block.norm.bias, 0.6)
            block.quantise()
        model.head.quantise()
        model.head.fix_bias(25)
        return lower(model, name="mine", steps=3, shape=(1, 5, 5))

    network = build(foreign=False)
    assert [p.name for p in network.populations] == [
        "input", "first", "second", "both", "join", "head",
    ]  # fmt: skip
    x = np.random.default_rng(0).integers(0, 2, (2, 3, 1, 5, 5))
    assert interpret.run(network, x)["head"].any()
    with pytest.raises(Unsupported, match="odd"):
        build(foreign=True)


def test_a_float_model_does_not_lower_silently() -> None:
    with pytest.raises((Unsupported, InputError), match=r"stem|quantise"):
        lower_stformer(STFormer(STFormerConfig()))


def test_config_round_trip_and_its_refusals() -> None:
    config = STFormerConfig(width=48, residual="or", temporal_dilations=(2,))
    assert config_from(config_to(config)) == config
    for wrong, match in (
        ({"widht": 3}, r"the key 'widht'.*Did you mean 'width'\?"),
        ({"width": 12}, "width"),
        ({"residual": "plus"}, "'iand', 'or', 'add'"),
        ({"depth": "2"}, "type int"),
        ({"temporal_branches": 3}, "temporal_branches"),
        ({"spatial_strides": [1, 2]}, "spatial_strides"),
    ):
        with pytest.raises(InputError, match=match):
            config_from(wrong)


def test_dense_blocks_lower_to_dense_and_come_back() -> None:
    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = dense_block((2, 3, 4), 7, Neuron())
            self.second = dense_block((7, 1, 1), 5, Neuron(dv=1000))
            self.head = Readout(5, 3)

        def forward(self, x: Any) -> Any:
            return self.head(self.second(self.first(x)))

    torch.manual_seed(1)
    model = Mlp().eval()
    for block in (model.first, model.second):
        nn.init.constant_(block.norm.bias, 0.4)
        block.quantise()
    model.head.quantise()
    model.head.fix_bias(1)
    network = lower(model, name="mlp", steps=4, shape=(2, 3, 4))
    assert {p.post: type(p) for p in network.projections} == {
        "first": Dense, "second": Dense, "head": Conv,
    }  # fmt: skip
    x = torch.randint(0, 2, (4, 6, 2, 3, 4)).float()
    seen: dict[str, Any] = {}
    record(model, lambda name, s, _u, _v: seen.update({name: s}))
    model(x)
    trace = interpret.run(network, x.transpose(0, 1).numpy())
    for name in ("first", "second", "head"):
        np.testing.assert_array_equal(trace[name], seen[name].transpose(0, 1).numpy())
    assert trace["second"].any()
    digest = network.digest()
    with torch.no_grad():
        for block in (model.first, model.second):
            block.synapses[0].weight.zero_()
            block.take_integers(network)
    record(model, None)
    assert lower(model, name="mlp", steps=4, shape=(2, 3, 4)).digest() == digest
