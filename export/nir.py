"""NIR: a network as a graph of the primitives that other simulators and chips read.

The graph is `stformer.export.nir_graph`, what NIR leaves open is in a metadata block
(`stformer.export.nir_block`); docs/nir.md specifies both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stformer.errors import Problem
from stformer.export import Note, Options
from stformer.export.nir_block import NAME, block, difference, restore
from stformer.export.nir_graph import PRODUCT, Graph, Node, build, graph_shapes, weight_counts
from stformer.export.nir_weights import carried_bias
from stformer.hdf5 import TREE_LIMIT, read_tree
from stformer.network import (
    BroadcastTokens,
    Conv,
    Graded,
    Input,
    Lif,
    Network,
    Population,
    Product,
    Readout,
    is_graded,
)

ALLOW = "--allow-extensions writes it as an extension, which only stformer reads"
NEURON_BYTES = 7 * 4  # of a CubaLIF's fields, per neuron


class Nir:
    """Writes core NIR; with `Options.extensions` also products and looking ahead."""

    name = "nir"

    def missing(self) -> str | None:
        if find_spec("nir") is None:
            return "nir is not installed; pip install 'stformer[nir]'"
        return None

    def problems(self, network: Network, options: Options) -> list[Problem]:
        return [
            *(() if options.extensions else _beyond_core(network)),
            *_without_place(network),
            *_too_large(network),
        ]

    def notes(self, network: Network, options: Options) -> list[Note]:
        return list(_notes(network))

    def suffix(self, network: Network, options: Options) -> str:
        return ".nir"

    def write(self, network: Network, path: Path, options: Options) -> None:
        import nir

        graph = build(network)
        metadata = {NAME: block(network, graph, self.notes(network, options))}
        made = nir.NIRGraph(
            nodes={key: _node(node) for key, node in graph.nodes.items()},
            edges=graph.edges,
            metadata=metadata,
            type_check=_types_fit(graph),
        )
        nir.write(path, made)

    def check(self, network: Network, path: Path, options: Options) -> None:
        """See `Format.check`; also lets nir itself read what it can read."""
        import nir

        tree, graph = read_tree(path), build(network)
        change = difference(graph, tree)
        assert not change, f"{change} is another"
        found = restore(str(path), tree)
        assert isinstance(found, Network), found
        assert found.digest() == network.digest(), "another network's digest"
        assert (found.name, found.source) == (network.name, network.source)
        if all(node["type"] != PRODUCT for node in graph.nodes.values()):
            theirs = nir.read(path, type_check=_types_fit(graph))
            assert sorted(theirs.nodes) == sorted(graph.nodes), "nir reads other nodes"


def _node(node: Node) -> Any:
    import nir

    if node["type"] == PRODUCT:
        return _product()(**{k: v for k, v in node.items() if k != "type"})
    return nir.dict2NIRNode(dict(node))


def _product() -> Any:
    """The class of the extension, made here since its base is nir's."""
    import nir

    @dataclass(eq=False)
    class StformerProduct(nir.NIRNode):  # type: ignore[misc]
        """A product of what two nodes send in one step, as `stformer.network.Product`."""

        mode: str
        heads: int
        shape: npt.NDArray[np.integer[Any]]
        left: str
        right: str

        def __post_init__(self) -> None:
            self.input_type = {"input": None}
            self.output_type = {"output": self.shape}

    return StformerProduct


def _types_fit(graph: Graph) -> bool:
    """Whether nir's own inference of shapes is right for all nodes.

    nir 1.0.8 takes the kernel's height for its width, and knows no product.
    """
    return all(
        node["type"] != PRODUCT
        and not (node["type"] == "Conv2d" and len(set(node["weight"].shape[2:])) > 1)
        for node in graph.nodes.values()
    )


# --- what can't be written ------------------------------------------------------------------


def _beyond_core(network: Network) -> Iterator[Problem]:
    for p in network.populations:
        if isinstance(p, Product):
            why = f"NIR has no product of two inputs; {ALLOW}"
            yield Problem(where=f"population {p.name}", why=why)
    for q in network.projections:
        if q.delay < 0:
            why = f"it looks {-q.delay} steps ahead, and a NIR delay can't; {ALLOW}"
            yield Problem(where=f"projection {q.name}", why=why)


def _without_place(network: Network) -> Iterator[Problem]:
    if not network.inputs:
        yield Problem(where="network", why="a NIR graph begins at an Input, and it has none")
    for p in network.populations:
        if not isinstance(p, Input) and not network.incoming(p.name):
            why = "nothing leads to it, and a NIR graph begins at Inputs only"
            yield Problem(where=f"population {p.name}", why=why)
        elif isinstance(p, (Readout, Graded)) and p.bias_mant.any() and not _carried(network, p):
            why = "a bias for each place needs a Dense onto it, or membranes; NIR has no other"
            yield Problem(where=f"population {p.name}", why=why)


def _carried(network: Network, p: Population) -> bool:
    return carried_bias(network, p) is not None


def _too_large(network: Network) -> Iterator[Problem]:
    size = 2 * weight_counts(network)
    size += sum(NEURON_BYTES * prod(p.shape) for p in network.populations)
    if size > TREE_LIMIT:
        why = f"{size / 2**30:.1f} GiB of arrays; up to {TREE_LIMIT / 2**30:.0f} can be read back"
        yield Problem(where="network", why=why)


# --- what is said otherwise -----------------------------------------------------------------


def _notes(network: Network) -> Iterator[Note]:
    shapes = graph_shapes(network)
    yield Note(
        where="network",
        what="dt, rounding, reset, ties, wrap and clip have no place in NIR: they stand in the "
        "metadata block, which other tools don't read; in floating point a tie or a rounded decay "
        "may give another spike",
    )
    yield Note(where="network", what="latencies are metadata only: every node is in its own time")
    for p in network.populations:
        if isinstance(p, Lif) and p.dv == 0:
            what = "without a leak: its time constant is 2^30 steps"
            yield Note(where=p.name, what=what)
        if isinstance(p, Lif) and p.bias_mant.any() and not _carried(network, p):
            what = "its bias is where the membrane rests (v_leak), which Norse also adds to the "
            what += "current, and snnTorch refuses"
            yield Note(where=p.name, what=what)
        if isinstance(p, Readout):
            what = "its Output gives what arrives in a step; the sum over the steps is the logit"
            yield Note(where=p.name, what=what)
        if isinstance(p, Graded):
            yield Note(where=p.name, what="a Scale, which doesn't round toward zero or clip")
        if isinstance(p, Product):
            yield Note(where=p.name, what="an extension of NIR, which only stformer reads")
        if isinstance(p, Input) and is_graded(p):
            yield Note(where=p.name, what=f"NIR can't say that frames are {p.low} to {p.high}")
        if p.shape != shapes[p.name]:
            what = f"{p.shape} in the network is {shapes[p.name]} in the graph"
            yield Note(where=p.name, what=what)
    for q in network.projections:
        if q.delay < 0:
            yield Note(where=q.name, what="a Delay of a negative time, an extension of NIR")
        if isinstance(q, Conv) and q.groups > 1:
            what = "groups are written out as zeros, since Norse and snnTorch misread them"
            yield Note(where=q.name, what=what)
        kernel = q.weight.shape[2:] if isinstance(q, Conv) else shapes[q.post][1:]
        if isinstance(q, (Conv, BroadcastTokens)) and len(set(kernel)) > 1:
            what = "nir infers a wrong shape for a kernel that isn't square: read with "
            yield Note(where=q.name, what=what + "type_check=False")
