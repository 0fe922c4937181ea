"""NIR files: what is in them, and what is refused or said otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

nir = pytest.importorskip("nir")

from stformer import export, storage, testing  # noqa: E402
from stformer import fixedpoint as fx  # noqa: E402
from stformer.config import PRESETS, config_from  # noqa: E402
from stformer.errors import Unsupported  # noqa: E402
from stformer.export import Options  # noqa: E402
from stformer.export.nir import Nir  # noqa: E402
from stformer.export.nir_block import block_of  # noqa: E402
from stformer.hdf5 import read_tree  # noqa: E402
from stformer.network import (  # noqa: E402
    Conv,
    Dense,
    Input,
    Lif,
    Network,
    OneToOne,
    Readout,
)
from stformer.passes import assign_latency  # noqa: E402

SAMPLES = [*testing.SAMPLES, "recurrent"]
EXTENDED = {"product", "look-ahead"}
CORE = {
    *("Input", "Output", "Conv2d", "Affine", "Linear", "CubaLIF", "LIF"),
    *("Flatten", "Delay", "SumPool2d"),
}
ALLOWED = Options(extensions=True)


def sample(name: str) -> Network:
    return testing.recurrent_network() if name == "recurrent" else testing.sample_network(name)


def written(network: Network, folder: Path, options: Options = Options()) -> Path:  # noqa: B008
    return export.export("nir", network, folder / "x.nir", options).path


def nodes_of(path: Path) -> dict[str, Any]:
    top: Any = read_tree(path)["node"]
    nodes: dict[str, Any] = top["nodes"]
    return nodes


# --- what is in the file --------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in SAMPLES if n not in EXTENDED | {"stream"}])
def test_core_primitives_only(name: str, tmp_path: Path) -> None:
    nodes = nodes_of(written(sample(name), tmp_path))
    assert {node["type"] for node in nodes.values()} <= CORE


def test_the_packaged_model_is_core_and_int8(tmp_path: Path) -> None:
    network = storage.load()
    path = written(network, tmp_path)
    graph = nir.read(path)
    assert {type(node).__name__ for node in graph.nodes.values()} <= CORE
    for q in network.projections:
        if isinstance(q, Conv):
            weight = graph.nodes[q.name].weight
            assert weight.dtype == np.int8
            np.testing.assert_array_equal(weight, q.weight)
    kinds = {p.name: type(graph.nodes[p.name]).__name__ for p in network.populations}
    assert kinds["rpe@1"] == kinds["rpe@2"] == "Delay"  # temporal taps
    assert kinds["blocks.0.attention.kv"] == kinds["blocks.0.join1"] == "CubaLIF"  # gates
    assert kinds["head"] == "Output"
    gate = graph.nodes["blocks.0.attention.kv"]
    assert set(gate.v_threshold.flat) == {3}
    sums = [b for a, b in graph.edges if b == "blocks.0.attention.q"]
    assert len(sums) == 2  # edges into one node add up


def test_shifted_weights_are_whole_numbers_too(tmp_path: Path) -> None:
    weight = np.array([[-128, 127], [1, 0]])
    network = assign_latency(
        Network(
            name="n",
            steps=2,
            populations=(nodes_input(2), testing.lif("a", (2,), 3)),
            projections=(Dense(name="d", pre="in", post="a", weight=weight, weight_exp=7),),
        )
    )
    path = written(network, tmp_path)
    stored = nodes_of(path)["d"]["weight"]
    assert stored.dtype == np.int16
    np.testing.assert_array_equal(stored, weight << 7)
    assert export.read(path).network.digest() == network.digest()


def nodes_input(n: int) -> Input:
    return Input(name="in", shape=(n,))


def test_the_block(tmp_path: Path) -> None:
    """As docs/nir.md specifies it, also where nir itself reads the file."""
    network = testing.sample_network("attention")
    path = written(network, tmp_path)
    block: Any = block_of(read_tree(path))
    assert set(block) == {
        *("version", "digest", "dt", "steps", "latency", "network", "nodes", "notes"),
        *("discretisation", "rounding", "overflow", "reset", "tie", "samples", "readout"),
        *("delay", "bias_mant"),
    }
    assert (int(block["version"]), float(block["dt"]), int(block["steps"])) == (1, 1e-4, 4)
    assert block["digest"] == network.digest()
    assert json.loads(block["latency"]) == {p.name: p.latency for p in network.populations}
    q = next(p for p in json.loads(block["network"])["populations"] if p["name"] == "q")
    lif = network["q"]
    assert isinstance(lif, Lif)
    assert (q["vth"], q["dv"], q["du"], q["bias_exp"]) == (lif.vth, lif.dv, lif.du, 0)
    assert "toward zero" in block["rounding"] and "v > v_threshold" in block["tie"]
    notes = json.loads(block["notes"])
    assert [n["what"] for n in notes] == [n.what for n in Nir().notes(network, Options())]
    theirs = nir.read(path).metadata["stformer"]
    assert theirs["digest"] == network.digest() and int(theirs["version"]) == 1
    np.testing.assert_array_equal(theirs["bias_mant"]["q"], lif.bias_mant)


def test_the_equations_are_the_chips(tmp_path: Path) -> None:
    """One Euler step of NIR's equations is the neuron's step, but for rounding."""
    network = testing.sample_network("current")
    path = written(network, tmp_path)
    node, lif = nir.read(path).nodes["a"], network["a"]
    assert isinstance(lif, Lif)
    i = v = 0.0
    u_chip = v_chip = np.int64(0)
    for a in (20, 0, 7, -9, 3):
        i += 1e-4 / node.tau_syn[0] * (-i + node.w_in[0] * a)
        v += 1e-4 / node.tau_mem[0] * (node.v_leak[0] - v + node.r[0] * i)
        _, u_chip, v_chip = fx.lif_step(
            u_chip, v_chip, np.int64(a), du=lif.du, dv=lif.dv, vth=2000, bias=np.int64(0)
        )
        assert abs(i - u_chip / 64) < 5 / 64 and abs(v - v_chip / 64) < 12 / 64
    assert set(node.v_threshold) == {lif.vth}


def test_bytes_are_the_same_every_time(tmp_path: Path) -> None:
    network = testing.sample_network("temporal")
    one = written(network, tmp_path).read_bytes()
    code = (
        "from stformer import export, testing\n"
        f"path = {str(tmp_path / 'again.nir')!r}\n"
        "export.export('nir', testing.sample_network('temporal'), path)\n"
    )
    for seed in ("1", "2"):  # of the order of sets
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        assert (tmp_path / "again.nir").read_bytes() == one
    assert written(testing.sample_network("iand"), tmp_path).read_bytes() != one


# --- what is refused or said ----------------------------------------------------------------


def refused(network: Network, match: str, options: Options = Options()) -> None:  # noqa: B008
    with pytest.raises(Unsupported, match=match):
        export.ready("nir", network, options)


def test_what_core_nir_cannot_say(tmp_path: Path) -> None:
    product = testing.sample_network("product")
    refused(product, r"population scores: NIR has no product .*--allow-extensions")
    ahead = testing.sample_network("look-ahead")
    refused(ahead, r"projection tap-1: it looks 1 steps ahead.*--allow-extensions")
    path = written(product, tmp_path, ALLOWED)
    node = nodes_of(path)["scores"]
    assert (node["type"], node["mode"], int(node["heads"])) == ("StformerProduct", "scores", 2)
    assert (node["left"], node["right"]) == ("q", "k")
    with pytest.raises(AssertionError):
        nir.read(path)  # others refuse it, rather than compute something else
    delay = nodes_of(written(ahead, tmp_path, ALLOWED))["in@-1:delay"]
    assert delay["type"] == "Delay" and set(delay["delay"].flat) == {np.float32(-1e-4)}


def test_what_has_no_place() -> None:
    silent = Network(name="n", steps=1, populations=(testing.lif("a", (2,), 1),), projections=())
    refused(silent, "network: a NIR graph begins at an Input")
    lone = replace(silent, populations=(nodes_input(2), *silent.populations))
    refused(lone, "population a: nothing leads to it")
    shape = (1, 2, 2)
    bias = np.arange(4).reshape(shape)
    post = Readout(name="out", shape=shape, bias_mant=bias)
    placed = Network(
        name="n",
        steps=1,
        populations=(replace(nodes_input(2), shape=shape), post),
        projections=(OneToOne(name="q", pre="in", post="out", weight=1),),
    )
    refused(placed, "population out: a bias for each place")
    n = 2**15
    large = Network(
        name="n",
        steps=1,
        populations=(nodes_input(n), testing.lif("a", (n,), 1)),
        projections=(OneToOne(name="q", pre="in", post="a", weight=1),),
    )
    refused(large, r"network: 2\.0 GiB of arrays")


def test_notes_name_what_is_said_otherwise() -> None:
    def noted(name: str) -> dict[str, str]:
        return {n.where: n.what for n in Nir().notes(sample(name), Options())}

    assert "sum over the steps" in noted("readout")["out"]
    assert "Scale" in noted("stream")["x0"]
    assert "-7 to 255" in noted("graded")["in"]
    notes = Nir().notes(sample("conv"), Options())
    assert "groups" in next(n.what for n in notes if n.where == "a>b")
    for name, where in (("conv", "b>c"), ("broadcast-tokens", "in>a")):
        assert "type_check=False" in noted(name)[where]


PAPER = {"size": 16, "stem_stride": 2, "spatial_strides": (1, 1, 2), **PRESETS["paper"]}


@pytest.mark.parametrize(
    "choice", [{}, {"dv": 2731, "steps": 5}, PAPER], ids=["hw", "dv", "paper"]
)
def test_lowered_models(choice: dict[str, Any], tmp_path: Path) -> None:
    """Preset `hw` is core NIR; `paper` is refused, or comes back from the extension."""
    pytest.importorskip("torch", reason="torch is not installed")
    from stformer.lower import lower_stformer
    from stformer.model import quantise
    from stformer.sane import sane_model

    model = sane_model(config_from(choice))
    quantise(model)
    network = lower_stformer(model)
    options = Options()
    if choice is PAPER:
        refused(network, "--allow-extensions")
        options = ALLOWED
    path = written(network, tmp_path, options)
    assert export.read(path).network.digest() == network.digest()
    kinds = {node["type"] for node in nodes_of(path).values()}
    assert kinds <= CORE or choice is PAPER
    assert ("StformerProduct" in kinds) == (choice is PAPER)
