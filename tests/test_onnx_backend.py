"""The backend `onnx`: every spike of the definition, however the samples are batched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from stformer import data, deploy, export, interpret, storage, testing
from stformer.config import PRESETS, config_from
from stformer.deploy import onnx as backend
from stformer.deploy.onnx import Onnx
from stformer.errors import Unavailable, Unsupported
from stformer.network import Dense, Input, Network, is_graded
from stformer.trace import Probe

SAMPLES = [*testing.SAMPLES, "recurrent"]


def sample(name: str) -> Network:
    return testing.recurrent_network() if name == "recurrent" else testing.sample_network(name)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("batch", [1, 2**28])
def test_samples(name: str, batch: int) -> None:
    network = sample(name)
    inputs = testing.inputs_for(network, 5, np.random.default_rng(1))
    expected = interpret.run(network, inputs)
    found = Onnx(batch_bytes=batch).run(network, inputs, probe=Probe())
    assert found.network == expected.network
    testing.assert_traces_equal(expected, found)
    assert {a.dtype for a in found.spikes.values()} <= {np.dtype("u1"), np.dtype("i4")}


@settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(testing.networks(), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_drawn_networks(network: Network, samples: int, seed: int) -> None:
    """Through the front, so that the export's own check runs on each of them too."""
    inputs = testing.inputs_for(network, samples, np.random.default_rng(seed))
    found = deploy.run("onnx", network, inputs)
    testing.assert_traces_equal(interpret.run(network, inputs), found)


def test_registry_info_and_probe() -> None:
    network = testing.sample_network("attention")
    inputs = testing.inputs_for(network, 3, np.random.default_rng(0))
    trace = deploy.run("onnx", network, inputs)
    assert trace.backend == "onnx"
    assert float(trace.info["seconds"]) > 0
    assert float(trace.info["file_bytes"]) > 1000
    for names in (("gate", "res"), ("x",), ()):
        probe = Probe(populations=names, states=True)
        some = Onnx().run(network, inputs, probe=probe)
        assert tuple(some.spikes) == names
        assert not some.u and not some.v  # documented: the file gives out none
        for name in names:
            np.testing.assert_array_equal(some[name], trace[name])


def test_progress() -> None:
    network = testing.sample_network("dense")
    inputs = testing.inputs_for(network, 4, np.random.default_rng(0))
    calls: list[tuple[int, int]] = []
    told = Onnx(lambda done, total: calls.append((done, total)), batch_bytes=1)
    told.run(network, inputs, probe=Probe())
    assert calls == [(i, 4) for i in range(1, 5)]


@pytest.mark.parametrize("absent", ["onnx", "onnxruntime"])
def test_missing(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Onnx().missing() is None
    from stformer.export import onnx as format_

    for module in (backend, format_):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == absent else name)
    assert Onnx().missing() == f"{absent} is not installed; pip install 'stformer[onnx]'"
    with pytest.raises(Unavailable, match=rf"{absent} is not installed.*stformer\[onnx\]"):
        deploy.ready("onnx", testing.sample_network("dense"))


def test_problems_are_those_of_the_file() -> None:
    n = 2**17
    weight = np.full((1, n), -128, np.int8)
    network = Network(
        name="n",
        steps=1,
        populations=(Input(name="in", shape=(n,), low=-(2**23)), testing.lif("a", (1,), 1)),
        projections=(Dense(name="d", pre="in", post="a", weight=weight, weight_exp=7),),
    )
    assert Onnx().problems(network) == export.load("onnx").problems(network, export.Options())
    with pytest.raises(Unsupported, match=r"population a: values up to"):
        deploy.ready("onnx", network)


def test_without_inputs() -> None:
    post = testing.lif("a", (2,), 3, bias_mant=np.array([100, 0]))
    network = Network(name="n", steps=5, populations=(post,), projections=())
    testing.assert_traces_equal(interpret.run(network, {}), deploy.run("onnx", network, {}))


def test_the_packaged_model() -> None:
    network = storage.load()
    frames, labels = data.packaged()
    found = deploy.run("onnx", network, frames)
    testing.assert_traces_equal(deploy.run("cpu", network, frames), found)
    (out,) = network.readouts
    logits = found[out.name][:, -1].reshape(len(labels), -1)
    assert (logits.argmax(axis=1) == labels).mean() > 0.9


PAPER = {"size": 16, "stem_stride": 2, "spatial_strides": (1, 1, 2), **PRESETS["paper"]}


@pytest.mark.parametrize(
    "choice", [{}, {"dv": 2731, "steps": 5}, PAPER], ids=["hw", "dv", "paper"]
)
def test_lowered_models(choice: dict[str, Any]) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from stformer.lower import lower_stformer
    from stformer.model import quantise
    from stformer.sane import random_frames, sane_model

    model = sane_model(config_from(choice))
    quantise(model)
    network = lower_stformer(model)
    frames = random_frames(model.config, 2).transpose(0, 1).numpy()
    expected = deploy.run("cpu", network, frames)
    testing.assert_traces_equal(expected, deploy.run("onnx", network, frames))
    spiking = [n for n, a in expected.spikes.items() if not is_graded(network[n]) and a.any()]
    assert len(spiking) > len(network.populations) // 2
