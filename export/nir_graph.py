"""A network as a graph of NIR nodes, in plain data: numbers, texts, NumPy arrays.

Time in the graph is each population's own: a node answers in the step in which it is asked, and
only `Delay` waits. Values are in units of the arriving sum, which is the chip's membrane / 64::

    tau_syn / dt = 4096 / (du + 1)    w_in = tau_syn / dt    v_threshold = vth
    tau_mem / dt = 4096 / dv          r = tau_mem / dt       v_reset = v_leak = 0

so that one forward Euler step of NIR's equations is the chip's step, but for rounding, wrap and
clip. `tau_mem / dt = r` is what Lava's, Norse's and snnTorch's importers understand too.

Core NIR flattens and never gives axes back, so what follows a three-dimensional population is a
`Conv2d`, and convolutions have no groups, since two importers of three misread those.
docs/nir.md has the table of kinds and nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from stformer import fixedpoint as fx
from stformer.export.nir_weights import carried_bias, weights
from stformer.network import (
    Graded,
    Input,
    Lif,
    Network,
    Operand,
    Population,
    Product,
    Projection,
    Readout,
    Relay,
    Shape,
    bias_of,
    is_graded,
)

DT = 1e-4  # seconds of a step: the only one that snnTorch's importer knows
NO_LEAK = 2.0**30  # steps of the time constant that stands for none: no float32 sees it leak
PRODUCT = "StformerProduct"  # the one node that is not of NIR

Node: TypeAlias = dict[str, Any]
Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """What goes into a file.

    Attributes:
        nodes: key -> type and fields, as `nir.dict2NIRNode` takes them.
        edges: (from, to), in the order of the network.
        keys: population -> the node that sends what it sends; a projection -> the node that
            holds its weight.
    """

    nodes: dict[str, Node]
    edges: list[tuple[str, str]]
    keys: dict[str, dict[str, str]]


def build(network: Network) -> Graph:
    """The graph of a network in which `Nir.problems` finds nothing."""
    return _Builder(network).graph()


def graph_shapes(network: Network) -> dict[str, Shape]:
    """Population -> its shape in the graph: (C, H, W), or (n,) for all others.

    What feeds a three-dimensional population must itself have three axes: such a flat one, and
    those that feed it, are (n, 1, 1).
    """
    shapes: dict[str, Shape] = {
        p.name: p.shape if len(p.shape) == 3 else (prod(p.shape),) for p in network.populations
    }
    changed = True
    while changed:
        changed = False
        for q in reversed(network.projections):  # targets first: one round does, but for loops
            if len(shapes[q.post]) == 3 and len(shapes[q.pre]) == 1:
                shapes[q.pre] = (*shapes[q.pre], 1, 1)
                changed = True
    return shapes


class _Builder:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.shapes = graph_shapes(network)
        self.nodes: dict[str, Node] = {}
        self.edges: list[tuple[str, str]] = []
        self.taken: set[str] = set()
        self.populations = {p.name: self.key(p.name) for p in network.populations}
        self.projections: dict[str, str] = {}
        self.delays: dict[tuple[str, int], str] = {}

    def key(self, name: str) -> str:
        """A name that no node has, also for tools that read a dot as an underscore."""
        while name.replace(".", "_") in self.taken:
            name += "#"
        self.taken.add(name.replace(".", "_"))
        return name

    def graph(self) -> Graph:
        for p in self.network.populations:
            carrier = carried_bias(self.network, p)
            self.nodes[self.populations[p.name]] = self.population(p, carried=carrier is not None)
            for q in self.network.incoming(p.name):
                self.projection(p, q, carrier[1] if carrier and carrier[0] == q.name else None)
        back = {q.name for q in self.network.recurrent}
        heard = {q.pre for q in self.network.projections if q.name not in back}
        for name, key in self.populations.items():
            if name not in heard and self.nodes[key]["type"] != "Output":
                out = self.key(f"{name}:output")
                self.nodes[out] = {"type": "Output", "shape": np.array(self.shapes[name])}
                self.edges.append((key, out))
        keys = {"populations": self.populations, "projections": self.projections}
        return Graph(nodes=self.nodes, edges=self.edges, keys=keys)

    def population(self, p: Population, *, carried: bool) -> Node:
        shape = self.shapes[p.name]
        match p:
            case Input():
                return {"type": "Input", "shape": np.array(shape)}
            case Lif():
                mem = fx.DECAY_ONE / p.dv if p.dv else NO_LEAK
                rest = _full(shape, 0.0)
                if p.bias_mant.any() and not carried:
                    wide = np.broadcast_to(bias_of(p) / 2**fx.SHIFT * mem, p.shape)
                    rest = wide.astype(np.float32).reshape(shape)
                return _neurons(shape, p.vth, fx.DECAY_ONE / fx.current_decay(p.du), mem, rest)
            case Relay():
                (feed,) = self.network.incoming(p.name)
                if is_graded(self.network[feed.pre]):
                    return _neurons(shape, 1, 1.0, 1.0, _full(shape, 0.0))
                return {"type": "Delay", "delay": _full(shape, feed.delay * DT)}
            case Readout():
                return {"type": "Output", "shape": np.array(shape)}
            case Graded():
                return {"type": "Scale", "scale": _full(shape, 2.0**-p.shift)}
            case Product():
                ends = {q.port: q for q in self.network.incoming(p.name) if isinstance(q, Operand)}
                return {
                    "type": PRODUCT,
                    "mode": p.mode,
                    "heads": p.heads,
                    "shape": np.array(shape),
                    **{port: self.delayed(q) for port, q in sorted(ends.items())},
                }
            case _:
                assert_never(p)

    def projection(self, post: Population, q: Projection, bias: Array | None) -> None:
        target = self.populations[post.name]
        if isinstance(q, Operand):
            edge = (self.delayed(q), target)
            if edge not in self.edges:  # one population may be both factors
                self.edges.append(edge)
            return
        if self.nodes[target]["type"] == "Delay":
            self.edges.append((self.populations[q.pre], target))
            return
        source = self.delayed(q)
        for step in weights(q, self.shapes[q.pre], self.shapes[q.post], bias):
            key = self.key(q.name if step.own else f"{q.name}:{step.what}")
            if step.own:
                self.projections[q.name] = key
            self.nodes[key] = step.node
            self.edges.append((source, key))
            source = key
        self.edges.append((source, target))

    def delayed(self, q: Projection) -> str:
        """The node that sends what a projection's source sent `delay` steps ago."""
        source = self.populations[q.pre]
        if not q.delay:
            return source
        if (q.pre, q.delay) not in self.delays:
            key = self.key(f"{q.pre}@{q.delay}:delay")
            self.nodes[key] = {"type": "Delay", "delay": _full(self.shapes[q.pre], q.delay * DT)}
            self.edges.append((source, key))
            self.delays[q.pre, q.delay] = key
        return self.delays[q.pre, q.delay]


def _full(shape: Shape, value: object) -> Array:
    """A float32 array of one value, without memory of its own."""
    return np.broadcast_to(np.float32(value), shape)  # type: ignore[arg-type]


def _neurons(shape: Shape, vth: int, syn: float, mem: float, rest: Array) -> Node:
    """CubaLIF with time constants in steps; a bias that no weight carries is where v rests."""
    return {
        "type": "CubaLIF",
        "tau_syn": _full(shape, DT * syn),
        "tau_mem": _full(shape, DT * mem),
        "r": _full(shape, mem),
        "v_leak": rest,
        "v_threshold": _full(shape, vth),
        "v_reset": _full(shape, 0.0),
        "w_in": _full(shape, syn),
    }
