"""For tests: NIR graphs as other software writes them, as the trees that `hdf5.read_tree` gives.

They have the nodes, names and sizes of the graphs by Norse, Rockpool, sinabs and snnTorch that
come with the paper on NIR (Pedersen et al., 2024), with random weights.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stformer.hdf5 import Tree

Array: TypeAlias = npt.NDArray[Any]
Edges: TypeAlias = list[tuple[str, str]]


def tree_of(nodes: dict[str, Tree], edges: Edges, version: str = "1.0.8") -> Tree:
    """A whole file."""
    return {"node": graph_of(nodes, edges), "version": version}


def graph_of(nodes: dict[str, Tree], edges: Edges) -> Tree:
    """A graph, which may be a node of another."""
    rows = np.array(edges, dtype=object).reshape(-1, 2)
    return {"type": "NIRGraph", "nodes": dict(nodes), "edges": rows}


def chain(*nodes: tuple[str, Tree], shape: tuple[int, ...], out: tuple[int, ...]) -> Tree:
    """A file whose nodes follow each other between an Input and an Output."""
    ends = [("input", gate("Input", *shape)), *nodes, ("output", gate("Output", *out))]
    keys = [key for key, _ in ends]
    return tree_of(dict(ends), list(pairwise(keys)))


def gate(kind: str, *shape: int) -> Tree:
    """An Input or Output."""
    return {"type": kind, "shape": np.array(shape)}


def affine(rng: np.random.Generator, n_in: int, n_out: int, *, biased: bool = True) -> Tree:
    weight = rng.normal(0, 1.5 / np.sqrt(n_in), (n_out, n_in)).astype(np.float32)
    bias = rng.normal(0, 0.1, n_out) if biased else np.zeros(n_out)
    return {"type": "Affine", "weight": weight, "bias": bias.astype(np.float32)}


def conv(
    rng: np.random.Generator, channels: tuple[int, int], size: int, stride: int, frame: int
) -> Tree:
    """A Conv2d with a padding of 1, from and to a number of channels."""
    weight = rng.normal(0.02, 1 / np.sqrt(channels[0] * size**2), (*channels[::-1], size, size))
    return {
        "type": "Conv2d",
        "weight": weight.astype(np.float32),
        "bias": np.zeros(channels[1], np.float32),
        "stride": np.array([stride, stride]),
        "padding": np.array([1, 1]),
        "dilation": np.array([1, 1]),
        "groups": np.array(1),
        "input_shape": np.array([frame, frame]),
    }


def neuron(kind: str, shape: tuple[int, ...], **values: float) -> Tree:
    """An IF, LIF or CubaLIF of that shape, one value for all neurons."""
    fields: Tree = {k: np.full(shape, v, np.float32) for k, v in values.items()}
    return {"type": kind, **fields}


def lif_graph(*, rockpool: bool = False) -> Tree:
    """Affine and one LIF, as by Norse; or Linear and LIF with an Output of another shape."""
    weight = np.array([[0.04 if rockpool else 1.0]], np.float32)
    first: Tree = {"type": "Linear", "weight": weight}
    if not rockpool:
        first = {"type": "Affine", "weight": weight, "bias": np.zeros(1, np.float32)}
    r = 24.019737243652344 if rockpool else 1.0
    lif = neuron("LIF", (1,), tau=0.0025, r=r, v_leak=0.0, v_threshold=0.1)
    out = (1, 1, 1) if rockpool else (1,)
    return chain(("0", first), ("1", lif), shape=(1,), out=out)


def cnn_graph() -> Tree:
    """Convolutions, IF neurons, sum pools and two fully connected layers, as by sinabs."""
    rng = np.random.default_rng(2)

    def fire(*shape: int) -> Tree:
        return neuron("IF", shape, r=1.0, v_threshold=1.0)

    def pool() -> Tree:
        two, none = np.array([2, 2]), np.array([0, 0])
        return {"type": "SumPool2d", "kernel_size": two, "stride": two, "padding": none}

    flatten: Tree = {
        "type": "Flatten",
        "start_dim": np.array(0),
        "end_dim": np.array(-1),
        "input_type": np.array([8, 4, 4]),
    }
    steps = [
        conv(rng, (2, 16), 5, 2, 34),
        fire(16, 16, 16),
        conv(rng, (16, 16), 3, 1, 16),
        fire(16, 16, 16),
        pool(),
        conv(rng, (16, 8), 3, 1, 8),
        fire(8, 8, 8),
        pool(),
        flatten,
        affine(rng, 128, 256, biased=False),
        fire(256),
        affine(rng, 256, 10, biased=False),
        fire(10),
    ]
    named = [(str(i), step) for i, step in enumerate(steps)]
    return chain(*named, shape=(2, 34, 34), out=(10,))


def recurrent_graph() -> Tree:
    """Two layers of CubaLIF, the first with weights onto itself, as snnTorch's for Braille."""
    rng = np.random.default_rng(3)
    tau = {"tau_mem": 1e-3, "tau_syn": 1e-4 / 0.45, "r": 10.0, "w_in": 1 / 0.45}
    more = {"v_leak": 0.0, "v_threshold": 1.0}
    last = {"tau_mem": 1e-4 / 0.45, "tau_syn": 2e-4, "r": 1 / 0.45, "w_in": 2.0}
    nodes = {
        "input": gate("Input", 12),
        "fc1": affine(rng, 12, 38),
        "lif1.lif": neuron("CubaLIF", (38,), **tau, **more),
        "lif1.w_rec": affine(rng, 38, 38),
        "fc2": affine(rng, 38, 7),
        "lif2": neuron("CubaLIF", (7,), **last, **more),
        "output": gate("Output", 7),
    }
    edges = [("lif1.w_rec", "lif1.lif"), ("lif2", "output"), ("fc2", "lif2"), ("input", "fc1")]
    edges += [("fc1", "lif1.lif"), ("lif1.lif", "lif1.w_rec"), ("lif1.lif", "fc2")]
    return tree_of(nodes, edges)


GRAPHS = {
    "lif": lif_graph,
    "rockpool": lambda: lif_graph(rockpool=True),
    "cnn": cnn_graph,
    "recurrent": recurrent_graph,
}
