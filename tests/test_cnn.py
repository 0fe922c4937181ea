"""The plain chain of convolutions: what it is, and that it is one file of netx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from stformer import deploy, export, recipe  # noqa: E402
from stformer.config import config_from  # noqa: E402
from stformer.errors import InputError  # noqa: E402
from stformer.lower import lower_stformer, restore  # noqa: E402
from stformer.model import quantise  # noqa: E402
from stformer.network import Lif, Network, Readout  # noqa: E402
from stformer.sane import random_frames, sane_model  # noqa: E402
from stformer.testing import assert_traces_equal  # noqa: E402


def cnn(**changes: Any) -> Network:
    chosen = recipe.load("digits-cnn")
    model = sane_model(config_from({**chosen.model, "width": 16, **changes}))
    quantise(model)
    return lower_stformer(model)


def test_it_is_a_chain_and_one_standard_file(tmp_path: Path) -> None:
    network = cnn()
    names = [p.name for p in network.populations]
    assert names == ["input", "stem", *(f"spatial.layers.{i}" for i in range(3)), "head"]
    assert all(len(network.incoming(name)) == 1 for name in names[1:])
    for p in network.populations:
        if isinstance(p, (Lif, Readout)):
            assert p.bias_exp >= 6
            assert p.bias_mant.any() or p.name == "head"  # which begins without
    done = export.export("netx", network, tmp_path / "a.net")
    assert done.path.is_file()
    assert export.read(done.path).network.digest() == network.digest()


def test_finer_biases_make_a_folder(tmp_path: Path) -> None:
    network = cnn(bias_exp=0)
    assert export.export("netx", network, tmp_path / "a").path.is_dir()


def test_the_module_is_the_network() -> None:
    network = cnn()
    assert lower_stformer(restore(network)).digest() == network.digest()
    chosen = recipe.load("digits-cnn")
    frames = random_frames(config_from(chosen.model), 2).transpose(0, 1).numpy()
    expected = deploy.run("reference", network, frames)
    assert_traces_equal(expected, deploy.run("cpu", network, frames))
    found = deploy.run("torch", network, frames)
    for name, spikes in found.spikes.items():
        np.testing.assert_array_equal(spikes, expected[name])
        assert spikes.any()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"kind": "rnn"}, "'stformer', 'cnn'"),
        ({"residual": "ms"}, "which has no stream"),
        ({"bias_exp": 8}, r"model.bias_exp: 8; allowed: 0\.\.\.7"),
    ],
)
def test_what_it_cannot_be(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        config_from({"kind": "cnn", **changes})
