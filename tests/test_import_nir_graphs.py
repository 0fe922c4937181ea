"""Whole imported graphs against a plain simulation of them in floating point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from stformer.export import Imported, Reading
from stformer.export.nir_import import read_foreign
from stformer.hdf5 import Tree
from stformer.network import Conv, Dense, Lif, OneToOne, Readout
from stformer.testing_graphs import GRAPHS, affine, chain, gate, graph_of, neuron, tree_of

torch = pytest.importorskip("torch")

T, DT = 32, 1e-4
Array = npt.NDArray[Any]


def read(tree: Tree, dt: float | None = DT) -> Imported:
    return read_foreign(Path("x.nir"), tree, Reading(steps=T, dt=dt))


# --- a float simulation, which shares nothing with the import ---------------------------------


def weighed(node: Any, x: Any) -> Any:
    """What a node without memory makes of [S, *shape]."""

    def tensor(field: str) -> Any:
        return torch.from_numpy(np.array(node[field], np.float64))

    def ints(field: str) -> list[int]:
        return [int(n) for n in np.atleast_1d(node[field])]

    match node["type"]:
        case "Linear":
            return x.flatten(1) @ tensor("weight").T
        case "Affine":
            return x.flatten(1) @ tensor("weight").T + tensor("bias")
        case "Scale":
            return x * tensor("scale")
        case "Flatten":
            return x.flatten(1)
        case "Conv1d" | "Conv2d":
            conv = getattr(torch.nn.functional, node["type"].lower())
            keys = ("stride", "padding", "dilation")
            groups = ints("groups")[0]
            return conv(x, tensor("weight"), tensor("bias"), *(ints(k) for k in keys), groups)
        case "SumPool2d" | "AvgPool2d":
            size, keys = ints("kernel_size"), ("kernel_size", "stride", "padding")
            pooled = torch.nn.functional.avg_pool2d(x, *(ints(k) for k in keys))
            return pooled * (np.prod(size) if node["type"] == "SumPool2d" else 1)
        case _:
            return x


def simulate(tree: Any, frames: Array) -> dict[str, Array]:
    """Node -> [S, T, ...] of neurons and outputs, by forward Euler; loops see the step before."""
    nodes, edges = tree["node"]["nodes"], [tuple(e) for e in tree["node"]["edges"].tolist()]
    u: dict[str, Any] = {}
    v: dict[str, Any] = {}
    sent: dict[str, Any] = {}
    past: dict[str, list[Any]] = {k: [] for k in nodes}
    rows: dict[str, list[Array]] = {k: [] for k in nodes}
    order = ["input"]
    while len(order) < len(nodes):  # a neuron may come before what loops back to it
        ready = [
            k
            for k in nodes
            if k not in order and all(a in order for a, b in edges if b == k and a != f"{k}.rec")
        ]
        order += ready[:1]
    for key in nodes:
        if key.endswith(".rec"):  # before the first step nothing was sent: its bias is left
            sent[key] = weighed(
                nodes[key], torch.zeros(len(frames), nodes[key]["weight"].shape[1]).double()
            )
    for t in range(frames.shape[1]):
        for key in order:
            node = nodes[key]
            kind = node["type"]
            if kind == "Input":
                sent[key] = torch.from_numpy(frames[:, t].astype(np.float64))
                continue
            arriving = [sent[a] for a, b in edges if b == key and a in sent]
            x = sum(arriving[1:], arriving[0])
            field = {
                k: torch.from_numpy(np.array(a, np.float64))
                for k, a in node.items()
                if k != "type"
            }
            if kind == "Delay":
                past[key].append(x)
                wait = round(float(field["delay"].flatten()[0]) / DT)
                sent[key] = past[key][-1 - wait] if t >= wait else torch.zeros_like(x)
            elif kind in ("IF", "LIF", "CubaLIF"):
                start = field.get("v_reset", torch.zeros(1))
                w = v.get(key, start.expand(x.shape))
                if kind == "IF":
                    w = w + field["r"] * x
                else:
                    if kind == "CubaLIF":
                        before = u.get(key, torch.zeros_like(x))
                        x = u[key] = before + DT / field["tau_syn"] * (field["w_in"] * x - before)
                    tau = field["tau" if kind == "LIF" else "tau_mem"]
                    w = w + DT / tau * (field["v_leak"] - w + field["r"] * x)
                spikes = (w > field["v_threshold"]).double()
                v[key] = torch.where(spikes > 0, start.expand(w.shape), w)
                sent[key] = spikes
            else:
                sent[key] = weighed(node, x)
            rows[key].append(sent[key].numpy())
    return {k: np.stack(r, axis=1) for k, r in rows.items() if r}


def agreement(name: str, tree: Tree, bound: float) -> Imported:
    """Spikes of all neurons, of the integers and of the floats."""
    made = read(tree)
    network = made.network
    (source,) = network.inputs
    frames = (np.random.default_rng(0).random((4, T, *source.shape)) < 0.3).astype(np.uint8)
    found = network.run(frames, backend="reference" if network.recurrent else "cpu")
    nodes: Any = tree["node"]
    shape = tuple(nodes["nodes"]["input"]["shape"].tolist())
    wanted = simulate(tree, frames.reshape(4, T, *shape))
    neurons = [p.name for p in network.populations if isinstance(p, Lif) and p.name in wanted]
    assert neurons
    for key in neurons:
        equal = float((found[key] == wanted[key].reshape(found[key].shape)).mean())
        print(f"{name}, {key}: {equal:.2%} of {found[key].size} equal")
        assert wanted[key].any() and equal >= bound, (key, equal)
    return made


# What differs once differs for ever without a leak: five layers of IF with random weights are the
# worst case.


# --- graphs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bound"), [("lif", 0.99), ("rockpool", 0.99), ("cnn", 0.7), ("recurrent", 0.95)]
)
def test_whole_graphs(name: str, bound: float) -> None:
    tree: Any = GRAPHS[name]()
    if name == "recurrent":  # the name by which the simulation knows what loops back
        nodes = tree["node"]["nodes"]
        nodes["lif1.lif.rec"] = nodes.pop("lif1.w_rec")
        edges = tree["node"]["edges"]
        edges[edges == "lif1.w_rec"] = "lif1.lif.rec"
    agreement(name, tree, bound)


def lif(n: int, **more: Any) -> Tree:
    values: dict[str, Any] = {"tau": 1e-3, "r": 8.0, "v_leak": 0.0, "v_threshold": 1.0} | more
    return {"type": "LIF"} | {k: np.broadcast_to(np.float32(v), (n,)) for k, v in values.items()}


def dense(*more: tuple[str, Tree], n: int = 12, out: int = 20) -> Tree:
    """An Affine, then what is given."""
    rng = np.random.default_rng(5)
    return chain(("fc", affine(rng, n, out)), *more, shape=(n,), out=(out,))


NEURONS: dict[str, Tree] = {
    "LIF": lif(20),
    "v_leak": lif(20, v_leak=0.3),
    "v_reset": lif(20, v_reset=-0.5),
    "all of them": lif(20, v_leak=0.2, v_reset=0.3, v_threshold=1.2),
    "a threshold for each": lif(20, v_threshold=np.linspace(0.5, 2, 20)),
    "an r for each": lif(20, r=np.linspace(3, 12, 20)),
    "IF": neuron("IF", (20,), r=0.5, v_threshold=1.0),
    "CubaLIF": neuron(
        "CubaLIF", (20,), tau_mem=1e-3, tau_syn=3e-4, r=9.0, w_in=2.0, v_leak=0.1, v_threshold=1.0
    ),
}


@pytest.mark.parametrize("name", NEURONS)
def test_neurons(name: str) -> None:
    agreement(name, dense(("n", NEURONS[name])), 0.97)


def conv1d(rng: np.random.Generator) -> Tree:
    return {
        "type": "Conv1d",
        "weight": rng.normal(0, 1, (4, 2, 3)).astype(np.float32),
        "bias": rng.normal(0, 0.1, 4).astype(np.float32),
        "stride": np.array(2),
        "padding": np.array(1),
        "dilation": np.array(1),
        "groups": np.array(1),
        "input_shape": np.array(9),
    }


def pool(kind: str, size: int, stride: int) -> Tree:
    sizes = {"kernel_size": np.array([size] * 2), "stride": np.array([stride] * 2)}
    return {"type": kind, **sizes, "padding": np.array([0, 0])}


def conv2d(channels: tuple[int, int], padding: int, groups: int = 1) -> Tree:
    rng = np.random.default_rng(6)
    weight = rng.normal(0.1, 0.5, (channels[1], channels[0] // groups, 3, 3))
    return {
        "type": "Conv2d",
        "weight": weight.astype(np.float32),
        "bias": rng.normal(0, 0.1, channels[1]).astype(np.float32),
        "stride": np.array([1, 1]),
        "padding": np.array([padding, padding]),
        "dilation": np.array([1, 1]),
        "groups": np.array(groups),
    }


def fire(*shape: int) -> Tree:
    return neuron("LIF", shape, tau=1e-3, r=8.0, v_leak=0.0, v_threshold=1.0)


CHAINS: dict[str, tuple[Tree, type]] = {
    "Conv1d": (
        chain(
            ("c", conv1d(np.random.default_rng(0))), ("n", fire(4, 5)), shape=(2, 9), out=(4, 5)
        ),
        Conv,
    ),
    "groups": (
        chain(("c", conv2d((4, 8), 1, 4)), ("n", fire(8, 6, 6)), shape=(4, 6, 6), out=(8, 6, 6)),
        Conv,
    ),
    "AvgPool2d": (
        chain(
            ("p", pool("AvgPool2d", 3, 3)),
            ("c", conv2d((2, 4), 1)),
            ("n", fire(4, 3, 3)),
            shape=(2, 9, 9),
            out=(4, 3, 3),
        ),
        Conv,
    ),
    "windows that overlap": (
        chain(
            ("p", pool("SumPool2d", 3, 2)),
            ("c", conv2d((2, 4), 1)),
            ("n", fire(4, 4, 4)),
            shape=(2, 9, 9),
            out=(4, 4, 4),
        ),
        Dense,
    ),
    "convolution, Flatten, Linear": (
        chain(
            ("c", conv2d((2, 3), 0)),
            ("f", {"type": "Flatten", "start_dim": np.array(0), "end_dim": np.array(-1)}),
            ("l", affine(np.random.default_rng(1), 48, 10)),
            ("n", fire(10)),
            shape=(2, 6, 6),
            out=(10,),
        ),
        Dense,
    ),
    "Scale": (
        chain(
            ("s", {"type": "Scale", "scale": np.linspace(0.5, 2, 8)}),
            ("n", fire(8)),
            shape=(8,),
            out=(8,),
        ),
        Dense,
    ),
    "nothing between": (chain(("n", fire(8)), shape=(8,), out=(8,)), OneToOne),
    "Delay": (
        chain(
            ("d", {"type": "Delay", "delay": np.full(8, 3e-4)}),
            ("n", fire(8)),
            shape=(8,),
            out=(8,),
        ),
        OneToOne,
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_what_leads_to_neurons(name: str) -> None:
    tree, kind = CHAINS[name]
    made = agreement(name, tree, 0.95)
    q = next(q for q in made.network.projections if q.post == "n")
    assert isinstance(q, kind)
    assert len([q for q in made.network.projections if q.post == "n"]) == 1


def test_residual_paths_meet() -> None:
    """Two ways to one neuron, one through another population: `schedule` balances them."""
    rng = np.random.default_rng(7)
    nodes: dict[str, Tree] = {
        "input": gate("Input", 10),
        "a": affine(rng, 10, 10),
        "n": lif(10),
        "b": affine(rng, 10, 10),
        "m": lif(10),
        "output": gate("Output", 10),
    }
    edges = [("input", "a"), ("a", "n"), ("n", "b"), ("b", "m"), ("input", "m"), ("m", "output")]
    agreement("residual", tree_of(nodes, edges), 0.95)


def test_a_nested_graph_is_flattened() -> None:
    rng = np.random.default_rng(7)
    inner = graph_of(
        {"in": gate("Input", 6), "fc": affine(rng, 6, 5), "n": lif(5), "out": gate("Output", 5)},
        [("in", "fc"), ("fc", "n"), ("n", "out")],
    )
    nested = chain(("g", inner), ("fc", affine(rng, 5, 4)), ("n", lif(4)), shape=(6,), out=(4,))
    network = read(nested).network
    assert [p.name for p in network.populations] == ["input", "g.n", "n"]
    assert [(q.pre, q.post) for q in network.projections] == [("input", "g.n"), ("g.n", "n")]


def test_readouts_add_up() -> None:
    """An Output behind weights: after the last step it has the sum of what the Output gave."""
    rng = np.random.default_rng(8)
    tree = chain(("n", lif(10)), ("fc", affine(rng, 10, 4)), shape=(10,), out=(4,))
    made = read(tree)
    (readout,) = made.network.readouts
    note = next(n.what for n in made.notes if n.what.startswith("its unit is"))
    scale = float(note.split()[3])
    frames = (rng.random((4, T, 10)) < 0.3).astype(np.uint8)
    found = made.network.run(frames, backend="reference")[readout.name][:, -1] / 64 / scale
    wanted = simulate(tree, frames)["output"].sum(axis=1)
    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())
    kept = read(chain(("n", neuron("I", (3,), r=1.0)), shape=(3,), out=(3,))).network
    assert [type(p) for p in kept.populations][1:] == [Readout]
