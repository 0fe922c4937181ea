"""A head too large for one core is read in several places, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from stformer import deploy, hardware_configs, storage
from stformer.compile import calibrate
from stformer.config import STFormerConfig, config_from
from stformer.data import Split
from stformer.deploy.demand import Demand, Fan
from stformer.deploy.mapping import map_network
from stformer.deploy.tiling import cut
from stformer.lower import lower_stformer, restore
from stformer.model import STFormer, quantise
from stformer.network import Conv, Network, Readout
from stformer.nn import readout
from stformer.sane import random_frames, sane_model
from stformer.testing import assert_traces_equal
from stformer.trace import Probe, logits

SMALL = STFormerConfig(channels=2, size=16, width=16, depth=1, heads=4, classes=3, largest_input=3)
PLACES = 4


def integers(config: STFormerConfig) -> STFormer:
    model = sane_model(config)
    model.head.bias.data.uniform_(-1, 1)
    quantise(model)
    frames = random_frames(config, 2).transpose(0, 1).numpy().astype(np.uint8)
    calibrate(model, Split(frames=frames, labels=np.zeros(2, np.int64)))
    return model


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> tuple[Network, Network, STFormer]:
    """One model's network as it is, and with a head in PLACES places; the limit stays small."""
    model = integers(SMALL)
    whole = lower_stformer(model)
    side = int(model.tokens**0.5)
    assert side % PLACES == 0
    monkeypatch.setattr(readout, "MOST_SYNAPSES", 16 * side * side // PLACES)
    return whole, lower_stformer(model), model


def test_only_the_head_differs(both: tuple[Network, Network, STFormer]) -> None:
    whole, split, _ = both
    assert whole["head"].shape == (3, 1, 1)
    head = split["head"]
    assert isinstance(head, Readout) and head.shape == (3, PLACES, 1)
    assert head.bias_mant[:, 0].all() and not head.bias_mant[:, 1:].any()  # it counts once
    (kernel,) = split.incoming("head")
    assert isinstance(kernel, Conv) and kernel.stride == kernel.weight.shape[2:]
    assert [p.name for p in whole.populations] == [p.name for p in split.populations]
    assert whole.digest() != split.digest()


def test_the_logits_are_the_same_numbers(both: tuple[Network, Network, STFormer]) -> None:
    whole, split, _ = both
    frames = random_frames(SMALL, 3).transpose(0, 1).numpy()
    probe = Probe(states=True)
    one = deploy.run("reference", whole, frames, probe=probe)
    several = deploy.run("reference", split, frames, probe=probe)
    assert logits(one["head"]).any()
    np.testing.assert_array_equal(logits(one["head"]), logits(several["head"]))
    for name in one.populations[:-1]:
        np.testing.assert_array_equal(one[name], several[name], err_msg=name)


@pytest.mark.parametrize("backend", ["cpu", "torch", "onnx", "lava-sim"])
def test_every_backend_runs_it(backend: str, both: tuple[Network, Network, STFormer]) -> None:
    if reason := deploy.load(backend).missing():
        pytest.skip(reason)
    _, split, _ = both
    frames = random_frames(SMALL, 2).transpose(0, 1).numpy()
    probe = Probe(states=backend != "onnx")
    expected = deploy.run("reference", split, frames, probe=probe)
    got = deploy.run(backend, split, frames, probe=probe)
    if backend == "torch":  # which knows no relays
        np.testing.assert_array_equal(got["head"], expected["head"])
        np.testing.assert_array_equal(got.v["head"], expected.v["head"])
    else:
        assert_traces_equal(expected, got, states=probe.states)


def test_its_module_comes_back(both: tuple[Network, Network, STFormer]) -> None:
    _, split, _ = both
    assert lower_stformer(restore(split)).digest() == split.digest()


def test_the_limit_is_within_what_cores_hold() -> None:
    """As many classes as fit are another matter: this is of one."""
    fan = Fan(
        projection="x>y",
        pre="x",
        taps=readout.MOST_SYNAPSES,
        sources=readout.MOST_SYNAPSES,
        size=(readout.MOST_SYNAPSES, 1),
        reach=(readout.MOST_SYNAPSES, 1),
    )
    one = Demand(population="y", kind="Readout", shape=(1, 1, 1), flat=False, fans=(fan,))
    for name in ("loihi2-oheo-gulch", "loihi2-kapoho-point", "loihi2-hala-point"):
        assert cut(hardware_configs.load(name), one).cores == 1


def test_the_packaged_model_has_one_place() -> None:
    network = storage.load()
    assert network["head"].shape == (10, 1, 1)
    assert lower_stformer(restore(network)).digest() == network.digest()


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["STFormer-4-384", "STFormer-2-256"])
def test_paper_size_fits_kapoho_point(variant: str) -> None:
    network = lower_stformer(integers(config_from({"variant": variant, "preset": "hw"})))
    mapped = map_network(network, hardware_configs.load("loihi2-kapoho-point"))
    assert mapped.fits, mapped.findings
