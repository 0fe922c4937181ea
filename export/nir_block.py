"""The metadata block: what NIR leaves open, and what makes the identical network of the graph.

It stands at `node/metadata/stformer` of the file, where `nir.read` gives it back as
`graph.metadata["stformer"]`. docs/nir.md is its specification.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stformer.errors import InputError
from stformer.export import Note
from stformer.export.nir_graph import DT, Graph, Node, build, weight_counts
from stformer.export.nir_weights import weight_of
from stformer.hdf5 import Tree
from stformer.jsontext import parse_json
from stformer.network import (
    Conv,
    Dense,
    Graded,
    IntArray,
    Lif,
    Network,
    Readout,
    from_plain,
    neurons,
    to_plain,
)

VERSION = 1
NAME = "stformer"
RULES = {
    "discretisation": "one forward Euler step of dt: u += (dt / tau_syn) * (w_in * a - u), then "
    "v += (dt / tau_mem) * (r * u + v_leak - v) with the new u, in the step in which a arrives",
    "rounding": "u and v are whole numbers of 1/64; what a decay leaves is rounded toward zero",
    "overflow": "u wraps around at 24 bits, v stops at 24 bits, counted in 1/64",
    "reset": "v is 0 after a spike, in the same step; u is kept",
    "tie": "a neuron fires where v > v_threshold; at v = v_threshold it does not",
    "samples": "every sample begins with u = v = 0, and nothing passes from one to the next",
    "readout": "a readout's logits are the running sum of its Output node over the steps",
    "delay": "a Delay counts steps of dt; other nodes answer in the step in which they are asked",
}

Array: TypeAlias = npt.NDArray[Any]


def block(network: Network, graph: Graph, notes: list[Note]) -> Node:
    """The block of a network, as plain data that `nir.write` takes."""
    structure, arrays = to_plain(network)
    return {
        "version": VERSION,
        "digest": network.digest(),
        "dt": DT,
        "steps": network.steps,
        **RULES,
        "latency": _json({p.name: p.latency for p in network.populations}),
        "network": _json(structure),
        "nodes": _json(graph.keys),
        "notes": _json([{"where": n.where, "what": n.what} for n in notes]),
        "bias_mant": {
            p.name: arrays[f"{p.name}/bias_mant"]
            for p in network.populations
            if isinstance(p, (Lif, Readout, Graded))
        },
    }


def block_of(tree: Tree) -> Tree | None:
    """The block of a file's tree; None where there is none of ours."""
    place: Any = tree
    for name in ("node", "metadata", NAME):
        place = place.get(name) if isinstance(place, dict) else None
    return place if isinstance(place, dict) else None


def restore(where: str, tree: Tree) -> Network | str:
    """The network that a file was written of.

    Args:
        where: the file, for messages.
        tree: of the file, with a block.

    Returns:
        The network; or why the block can't be believed: another version, damaged, or the graph
        was changed since.
    """
    found = block_of(tree)
    if found is None:
        return "it has no block of stformer's"
    version = found.get("version")
    if not isinstance(version, np.ndarray) or version.shape:
        return "its block has no version"
    if version != VERSION:
        return f"its block is of version {version}, not {VERSION}"
    try:
        network = _network(where, tree, found)
        if _size(network) > _stored(tree):
            return "its graph was changed since: the block tells of a larger one"
        if found.get("digest") != network.digest():
            return "its block has the digest of another network"
        if change := difference(build(network), tree):
            return f"its graph was changed since: {change}"
    except InputError as e:
        return f"its block is damaged ({e.where}: {e.found})"
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as e:
        return f"its block is damaged ({str(e)[:120]})"
    return network


def difference(graph: Graph, tree: Tree) -> str:
    """The first place where a file's graph is not this one; empty where it is the same."""
    top = tree.get("node")
    nodes = top.get("nodes") if isinstance(top, dict) else None
    edges = top.get("edges") if isinstance(top, dict) else None
    if not isinstance(nodes, dict) or not isinstance(edges, np.ndarray):
        return "no nodes or edges"
    if odd := sorted(set(nodes) ^ set(graph.nodes)):
        return f"node {odd[0]}"
    if [tuple(e) for e in edges.tolist()] != graph.edges:
        return "other edges"
    for key, wanted in graph.nodes.items():
        if field := _node_difference(wanted, nodes[key]):
            return f"{field} of node {key}"
    return ""


def _node_difference(wanted: Mapping[str, Any], found: object) -> str:
    if not isinstance(found, dict):
        return "kind"
    if odd := sorted(set(wanted) ^ (set(found) - {"metadata"})):
        return odd[0]
    for field, value in wanted.items():
        stored = found[field]
        if isinstance(value, str) or isinstance(stored, (str, dict)):
            same = isinstance(stored, str) and stored == value
        else:
            array = np.asarray(value)
            same = array.dtype.kind == stored.dtype.kind and np.array_equal(array, stored)
            same = same and (array.dtype.kind == "i" or array.dtype == stored.dtype)
        if not same:
            return field
    return ""


def _network(where: str, tree: Tree, found: Tree) -> Network:
    """Structure and biases of the block, weights of the graph."""
    # Of whatever type they are: `restore` takes the errors of a wrong one for damage.
    structure: Any = parse_json(where, _text(found, "network"))
    keys: Any = parse_json(where, _text(found, "nodes"))
    biases: Any = found.get("bias_mant", {})
    top: Any = tree["node"]
    nodes: Any = top["nodes"]
    arrays: dict[str, IntArray] = {f"{name}/bias_mant": a for name, a in biases.items()}
    weights: dict[str, Array] = {}
    for entry in structure["projections"]:
        if entry["kind"] in (Dense.__name__, Conv.__name__):
            name = entry["name"]
            weights[name] = nodes[keys["projections"][name]]["weight"]
            # Zeros without memory of their own, until the shapes are known to be legal.
            shape = tuple(entry["weight"]["shape"])
            arrays[f"{name}/weight"] = np.broadcast_to(np.int8(0), shape)
    _check_counts(arrays, weights, _stored(nodes))
    empty = from_plain(where, structure, arrays)
    projections = tuple(
        replace(q, weight=weight_of(q, weights[q.name])) if isinstance(q, (Dense, Conv)) else q
        for q in empty.projections
    )
    return Network(
        name=empty.name,
        steps=empty.steps,
        populations=empty.populations,
        projections=projections,
        source=empty.source,
    )


def _check_counts(
    arrays: Mapping[str, IntArray], weights: Mapping[str, Array], stored: int
) -> None:
    """What the block claims must not be more than what is stored, of one node or of all."""
    if sum(arrays[f"{name}/weight"].size for name in weights) > stored:
        raise InputError("weights", "more of them than the nodes have", "one for each node")
    for name, array in weights.items():
        if array.dtype.kind != "i":
            raise InputError(name, f"a weight of type {array.dtype}", "integers")
        if arrays[f"{name}/weight"].size > array.size:
            raise InputError(name, "a weight larger than its node's", "one that fits")


def _size(network: Network) -> int:
    """Numbers in a network's graph, about: weights and six for a neuron; never too many."""
    cells = sum(neurons(p) for p in network.populations if isinstance(p, Lif))
    return weight_counts(network) + 6 * cells


def _stored(value: object) -> int:
    """Numbers in a tree."""
    if isinstance(value, dict):
        return sum(map(_stored, value.values()))
    return value.size if isinstance(value, np.ndarray) else 0


def _text(found: Tree, key: str) -> str:
    value = found.get(key)
    if not isinstance(value, str):
        raise InputError("block", f"no text '{key}'", "one in every block")
    return value


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)
