"""NIR graphs compute the network, by NIR's equations and the rules of the metadata block."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

nir = pytest.importorskip("nir")

from stformer import export, interpret, storage, testing  # noqa: E402
from stformer import fixedpoint as fx  # noqa: E402
from stformer.export import Options  # noqa: E402
from stformer.export.nir import Nir  # noqa: E402
from stformer.hdf5 import Tree, read_tree  # noqa: E402
from stformer.network import (  # noqa: E402
    Conv,
    Dense,
    Input,
    IntArray,
    Network,
    OneToOne,
    Readout,
)
from stformer.passes import assign_latency, schedule  # noqa: E402

SAMPLES = [*testing.SAMPLES, "recurrent"]
EXTENDED = {"product", "look-ahead"}
ALLOWED = Options(extensions=True)


def sample(name: str) -> Network:
    return testing.recurrent_network() if name == "recurrent" else testing.sample_network(name)


def nodes_input(n: int) -> Input:
    return Input(name="in", shape=(n,))


def written(network: Network, folder: Path, options: Options = Options()) -> Path:  # noqa: B008
    return export.export("nir", network, folder / "x.nir", options).path


def nodes_of(path: Path) -> dict[str, Any]:
    top: Any = read_tree(path)["node"]
    nodes: dict[str, Any] = top["nodes"]
    return nodes


# --- the graph, run by NIR's equations and the block's rules --------------------------------


def run_graph(tree: Tree, network: Network, inputs: Mapping[str, IntArray]) -> dict[str, IntArray]:
    """What each population's node sends, of nothing but the file, in whole numbers of 1/64."""
    top: Any = tree["node"]
    nodes, edges = top["nodes"], [tuple(e) for e in top["edges"].tolist()]
    keys = json.loads(top["metadata"]["stformer"]["nodes"])["populations"]
    dt = float(top["metadata"]["stformer"]["dt"])
    node_inputs = {keys[p.name]: inputs[p.name] for p in network.inputs}
    samples, steps = next(iter(inputs.values())).shape[:2]
    order, made = _order(nodes, edges), {key: [] for key in nodes}  # type: ignore[var-annotated]
    states: dict[str, Any] = {}
    for t in range(steps):
        for key in order:
            node, kind = nodes[key], nodes[key]["type"]
            if kind == "Input":
                made[key].append(
                    64 * node_inputs[key][:, t].astype(np.int64).reshape(samples, *node["shape"])
                )
                continue
            if kind == "Delay":
                (source,) = (a for a, b in edges if b == key)
                past = t - round(float(node["delay"].flat[0]) / dt)
                shape = (samples, *node["delay"].shape)
                made[key].append(made[source][past] if past >= 0 else np.zeros(shape, np.int64))
                continue
            arriving = sum(made[a][t] for a, b in edges if b == key)
            if np.max(np.abs(arriving)) > fx.STATE_MAX - 2**20:
                raise OverflowError  # the block's wrap and clip count a bias apart
            made[key].append(_step(node, kind, arriving, states, key, dt))
    out = {}
    for p in network.populations:
        record = np.stack(made[keys[p.name]], axis=1)
        record = record.cumsum(axis=1) if isinstance(p, Readout) else record // 64
        out[p.name] = record.reshape(samples, steps, *p.shape)
    return out


def _order(nodes: dict[str, Any], edges: list[tuple[str, str]]) -> list[str]:
    """Sources first; a delay of a step or more needs no source in its own step."""
    waits = {k for k, n in nodes.items() if n["type"] == "Delay" and n["delay"].flat[0] > 0}
    rest, order = list(nodes), []
    while rest:
        ready = [k for k in rest if k in waits or all(a in order for a, b in edges if b == k)]
        assert ready
        order += ready
        rest = [k for k in rest if k not in ready]
    return order


def _step(node: Any, kind: str, a: Any, states: dict[str, Any], key: str, dt: float) -> Any:
    """One node in one step; spikes and sums are in whole numbers of 1/64."""
    if kind in ("Linear", "Affine"):
        out = a @ node["weight"].astype(np.int64).T
        return out + _whole(node["bias"] * 64) if kind == "Affine" else out
    if kind == "Conv2d":
        conv = Conv(
            name="c",
            pre="a",
            post="b",
            weight=node["weight"],
            stride=tuple(node["stride"]),
            padding=tuple(node["padding"]),
            dilation=tuple(node["dilation"]),
        )
        out = interpret.synapse(conv, a, (0,))
        return out + _whole(node["bias"] * 64)[:, None, None]
    if kind == "SumPool2d":
        assert list(node["kernel_size"]) == list(a.shape[2:])
        return a.sum(axis=(2, 3), keepdims=True)
    if kind == "Flatten":
        assert node["start_dim"] == 0
        return a.reshape(len(a), -1)
    if kind == "Scale":
        return fx.clip(fx.truncate(a, 6 + round(-np.log2(node["scale"].flat[0])))) * 64
    if kind == "Output":
        return a
    assert kind == "CubaLIF"
    assert np.unique(node["v_threshold"]).size == 1
    mem, syn = (float(node[k].flat[0]) for k in ("r", "w_in"))
    np.testing.assert_allclose(node["tau_mem"] / dt, mem, rtol=1e-6)
    np.testing.assert_allclose(node["tau_syn"] / dt, syn, rtol=1e-6)
    dv = round(fx.DECAY_ONE / mem) if mem < 2**20 else 0
    u, v = states.get(key, (np.zeros_like(a), np.zeros_like(a)))
    spikes, u, v = fx.lif_step(
        u,
        v,
        a // 64,
        du=round(fx.DECAY_ONE / syn) - 1,
        dv=dv,
        vth=int(node["v_threshold"].flat[0]),
        bias=_whole(node["v_leak"] / mem * 64) + a % 64,  # a bias on the way in
    )
    states[key] = (u, v)
    return spikes.astype(np.int64) * 64


def _whole(values: Any) -> IntArray:
    out: IntArray = np.rint(values).astype(np.int64)
    np.testing.assert_allclose(out, values, rtol=1e-6)
    return out


def compare(network: Network, path: Path, samples: int, seed: int) -> None:
    inputs = testing.inputs_for(network, samples, np.random.default_rng(seed))
    expected = interpret.run(network, inputs)
    found = run_graph(read_tree(path), network, inputs)
    for name in expected.spikes:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("name", [n for n in SAMPLES if n not in EXTENDED])
def test_the_graph_computes_the_network(name: str, tmp_path: Path) -> None:
    network = sample(name)
    compare(network, written(network, tmp_path), 5, 1)


def test_the_packaged_graph_computes_the_network(tmp_path: Path) -> None:
    network = storage.load()
    compare(network, written(network, tmp_path), 2, 0)


@settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    testing.networks() | testing.networks(schedule_=False, stock=True), st.integers(0, 2**32 - 1)
)
def test_drawn_networks(
    tmp_path_factory: pytest.TempPathFactory, network: Network, seed: int
) -> None:
    beyond = Nir().problems(network, Options())
    if Nir().problems(network, ALLOWED):
        reject()
    path = written(network, tmp_path_factory.getbasetemp(), ALLOWED)
    assert export.read(path).network.digest() == network.digest()
    if not beyond:
        try:
            compare(network, path, 2, seed)
        except OverflowError:
            reject()


def test_names_that_meet(tmp_path: Path) -> None:
    """Populations and projections may share names, and tools read a dot as an underscore."""
    shape = (2,)
    network = assign_latency(
        Network(
            name="p",
            steps=3,
            populations=(
                nodes_input(2),
                testing.lif("a.b", shape, 2),
                testing.lif("a_b", shape, 2),
            ),
            projections=(
                OneToOne(name="a.b", pre="in", post="a.b", weight=3),
                OneToOne(name="q", pre="a.b", post="a_b", weight=3),
            ),
        )
    )
    path = written(network, tmp_path)
    names = [key.replace(".", "_") for key in nodes_of(path)]
    assert len(set(names)) == len(names)
    assert export.read(path).network.digest() == network.digest()
    compare(network, path, 2, 0)


def test_flat_populations_before_frames(tmp_path: Path) -> None:
    """Core NIR gives no axes back: what feeds frames has axes of length 1 in the graph."""
    network = assign_latency(
        Network(
            name="n",
            steps=3,
            populations=(
                nodes_input(3),
                testing.lif("flat", (4,), 5, bias_mant=np.array([64, 0, -64, 200])),
                testing.lif("frame", (2, 2, 3), 9, bias_mant=np.arange(12).reshape(2, 2, 3)),
                testing.lif("end", (3,), 5),
            ),
            projections=(
                Dense(name="1", pre="in", post="flat", weight=np.arange(12).reshape(4, 3)),
                Dense(name="2", pre="flat", post="frame", weight=np.arange(48).reshape(12, 4)),
                Dense(name="3", pre="frame", post="end", weight=np.ones((3, 12), np.int8)),
                Dense(name="4", pre="flat", post="end", weight=np.ones((3, 4), np.int8)),
            ),
        )
    )
    path = written(network, tmp_path)
    nodes = nodes_of(path)
    assert list(nodes["in"]["shape"]) == [3, 1, 1]
    assert nodes["2:unflatten"]["type"] == "Conv2d"
    assert nodes["4:flatten"]["type"] == "Flatten"
    compare(network, path, 3, 0)
    assert export.read(path).network.digest() == network.digest()


@pytest.mark.parametrize("target", [(3,), (2, 2, 3)])
def test_relays_of_flat_populations(target: tuple[int, ...], tmp_path: Path) -> None:
    """A Delay has its source's axes, and no weights, of which a square matrix would be many."""
    network = schedule(
        Network(
            name="n",
            steps=3,
            populations=(nodes_input(60), testing.lif("a", target, 3), testing.lif("b", (3,), 2)),
            projections=(
                Dense(name="1", pre="in", post="a", weight=np.ones((prod(target), 60), np.int8)),
                Dense(name="2", pre="in", post="b", weight=np.ones((3, 60), np.int8), delay=2),
            ),
        )
    )
    assert {p.name for p in network.populations} == {"in", "in@1", "in@2", "a", "b"}
    path = written(network, tmp_path)
    compare(network, path, 3, 0)
    assert export.read(path).network.digest() == network.digest()


def test_populations_of_two_axes(tmp_path: Path) -> None:
    """Are flat in the graph, or (n, 1, 1) where frames follow."""
    bias = np.array([[64, 0, -64], [0, 128, 0]])
    network = assign_latency(
        Network(
            name="n",
            steps=3,
            populations=(
                Input(name="in", shape=(2, 3)),
                testing.lif("a", (2, 3), 3, bias_mant=bias),
                testing.lif("b", (2, 3), 3, bias_mant=bias[:1]),
                testing.lif("frame", (2, 1, 2), 9),
            ),
            projections=(
                OneToOne(name="1", pre="in", post="a", weight=3),
                OneToOne(name="2", pre="in", post="b", weight=3),
                Dense(name="3", pre="b", post="frame", weight=np.arange(24).reshape(4, 6)),
            ),
        )
    )
    path = written(network, tmp_path)
    shapes = {name: nodes_of(path)[name]["r"].shape for name in "ab"}
    assert shapes == {"a": (6,), "b": (6, 1, 1)}
    compare(network, path, 3, 0)
    assert export.read(path).network.digest() == network.digest()
