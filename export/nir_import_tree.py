"""The nodes and edges of a NIR file that others wrote, checked; sub-graphs opened out.

Nothing here trusts the file: what comes out has known kinds, finite numbers and edges between
nodes that exist.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from stformer.errors import InputError, Unsupported
from stformer.export import Note
from stformer.hdf5 import Tree
from stformer.network import MAX_NEURONS, Shape

STAGE = "import of nir"
MAX_NODES = 4096  # of a file: far above any published graph, and little work
MAX_EDGES = 4 * MAX_NODES

NEURONS = ("CubaLIF", "LIF", "IF", "LI", "CubaLI", "I")
WEIGHTS = ("Linear", "Affine", "Conv1d", "Conv2d", "Scale")
SHAPING = ("Flatten", "SumPool2d", "AvgPool2d", "Delay")
ENDS = ("Input", "Output")
THROUGH = "Through"  # an end of a sub-graph: passes on what arrives
GRAPH = "NIRGraph"
KINDS = (*ENDS, *NEURONS, *WEIGHTS, *SHAPING, GRAPH)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of a graph without sub-graphs.

    Attributes:
        name: keys from the outermost graph inwards, joined by dots.
        kind: its type in NIR, or `THROUGH`.
        fields: as the file has them; read through `numbers` and `integers`.
    """

    name: str
    kind: str
    fields: Mapping[str, Any]

    def refuse(self, found: str, allowed: str) -> NoReturn:
        raise InputError(f"node {self.name}", found, allowed)

    def numbers(self, key: str, default: float | None = None) -> Array:
        """A field as finite float64, of any shape.

        Raises:
            InputError: missing without a default, no numbers, NaN or infinite.
        """
        value = self.fields.get(key, default)
        if value is None:
            self.refuse(f"no field '{key}'", f"one in every {self.kind}")
        if isinstance(value, (str, dict)) or np.asarray(value).dtype.kind not in "biuf":
            found = np.asarray(value).dtype.name if not isinstance(value, dict) else "a group"
            self.refuse(f"{key} of type {found}", "numbers")
        out = np.asarray(value, np.float64)
        if not np.isfinite(out).all() or np.abs(out).max(initial=0.0) > 1e30:
            self.refuse(f"{key} with NaN, infinite or huge values", "finite numbers up to 1e30")
        return out

    def integers(self, key: str, count: int, low: int, default: int | None = None) -> Shape:
        """A field of `count` integers, or one for all, low...2^15.

        Raises:
            InputError: as `numbers`, and for fractions and anything out of range.
        """
        value = self.numbers(key, default)
        flat = value.reshape(-1)
        if flat.size not in (1, count) or (flat != np.rint(flat)).any():
            self.refuse(f"{key} of shape {value.shape}", f"{count} integers")
        if (flat < low).any() or (flat > 2**15).any():
            self.refuse(f"{key} = {flat.tolist()}", f"{low}...{2**15}")
        return tuple(int(i) for i in np.broadcast_to(flat, (count,)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Nodes by name, edges (from, to) without doubles, and what reading assumed."""

    nodes: dict[str, Node]
    edges: list[tuple[str, str]]
    notes: list[Note]
    version: str


def graph_of(where: str, tree: Tree) -> Graph:
    """The graph in a file.

    Raises:
        InputError: another version, no graph, nodes of no type, dangling edges.
        Unsupported: a kind of node that is unknown here.
    """
    notes: list[Note] = []
    version = tree.get("version")
    if not isinstance(version, str):
        notes.append(Note(where="network", what="the file has no NIR version; read as 1.0"))
        version = ""
    elif version.split(".")[0] not in ("0", "1"):
        raise InputError(where, f"NIR version {version!r:.40}", "0.x and 1.x")
    opened = _Opened(where, notes)
    opened.open(tree.get("node"), "")
    return Graph(nodes=opened.nodes, edges=opened.edges, notes=notes, version=version)


def declared_shape(node: Node) -> Shape | None:
    """The shape of an Input or Output; None where the file leaves it open.

    Raises:
        InputError: no shape of 1 to 3 axes and at most 2^26 elements.
    """
    if "shape" not in node.fields:
        return None
    value = node.numbers("shape")
    flat = [int(n) if n == np.rint(n) else 0 for n in value.reshape(-1).tolist()]
    if not 1 <= len(flat) <= 4 or min(flat) < 1 or prod(flat) > MAX_NEURONS:
        node.refuse(f"shape {flat!r:.80}", f"1 to 3 axes, up to {MAX_NEURONS} elements")
    return tuple(flat)


class _Opened:
    """Collects nodes, sub-graphs replaced by what is in them."""

    def __init__(self, where: str, notes: list[Note]) -> None:
        self.where, self.notes = where, notes
        self.nodes: dict[str, Node] = {}
        self.edges: list[tuple[str, str]] = []

    def open(self, group: object, prefix: str) -> tuple[str, str]:
        """Add a graph's nodes and edges; returns where edges into and out of it lead."""
        where = f"{self.where}, graph '{prefix.rstrip('.')}'" if prefix else self.where
        kind = group.get("type") if isinstance(group, dict) else None
        if not isinstance(group, dict) or not isinstance(kind, str) or kind != GRAPH:
            raise InputError(where, "no graph at 'node'", f"a group of type {GRAPH}")
        listed = group.get("nodes")
        if not isinstance(listed, dict) or not listed:
            raise InputError(where, "no nodes", "a group 'nodes' with at least one")
        ends: dict[str, tuple[str, str]] = {}
        inside: dict[str, list[str]] = {kind: [] for kind in ENDS}
        for key, fields in listed.items():
            name = f"{prefix}{key}"
            _check_key(self.where, key, name)
            kind = fields.get("type") if isinstance(fields, dict) else None
            if not isinstance(fields, dict) or not isinstance(kind, str):
                raise InputError(f"node {name:.200}", "no type", "one of NIR's node types")
            if kind == GRAPH:
                ends[key] = self.open(fields, f"{name}.")
                self.notes.append(Note(where=name, what="a sub-graph, opened out"))
                continue
            if kind not in KINDS:
                raise Unsupported(
                    STAGE, f"node {name}", f"a {kind:.80}; known: {', '.join(KINDS)}"
                )
            if kind in ENDS:
                inside[kind].append(name)
            if name in self.nodes or len(self.nodes) >= MAX_NODES:
                found = f"'{name}' twice" if name in self.nodes else f"over {MAX_NODES} nodes"
                raise InputError(self.where, found, f"up to {MAX_NODES}, each of its own name")
            self.nodes[name] = Node(
                name=name, kind=THROUGH if prefix and kind in ENDS else kind, fields=fields
            )
            ends[key] = (name, name)
        self.connect(where, group.get("edges"), ends)
        if not prefix:
            return "", ""
        for kind, found_names in inside.items():
            if len(found_names) != 1:
                why = f"a sub-graph with {len(found_names)} nodes {kind}; one can be read"
                raise Unsupported(STAGE, f"node {prefix.rstrip('.')}", why)
        return inside["Input"][0], inside["Output"][0]

    def connect(self, where: str, value: object, ends: dict[str, tuple[str, str]]) -> None:
        pairs = value if isinstance(value, np.ndarray) else np.empty((0, 0))
        right = pairs.size == 0 or (pairs.ndim == 2 and pairs.shape[1] == 2 and pairs.dtype == "O")
        if not isinstance(value, np.ndarray) or not right:
            raise InputError(
                f"{where}, edges", f"{type(value).__name__} of no pairs", "pairs of names"
            )
        counted = Counter((str(a), str(b)) for a, b in pairs.tolist()) if pairs.size else Counter()
        if len(self.edges) + len(counted) > MAX_EDGES:
            raise InputError(f"{where}, edges", f"{len(counted)}", f"up to {MAX_EDGES}")
        for (a, b), times in sorted(counted.items()):
            for end in (a, b):
                if end not in ends:
                    raise InputError(
                        f"{where}, edge {a:.80} to {b:.80}",
                        f"no node '{end:.80}'",
                        "ends that are nodes of the same graph",
                    )
            if times > 1:
                what = f"its edge to {b} is there {times} times and counts once, as in nir itself"
                self.notes.append(Note(where=a, what=what))
            self.edges.append((ends[a][1], ends[b][0]))


def _check_key(where: str, key: object, name: str) -> None:
    ok = isinstance(key, str) and key and key.strip(".") and len(name) <= 160
    if not ok or any(c in str(key) for c in "/\\\0"):
        raise InputError(
            where, f"a node called {key!r:.80}", "a name without slashes, not only dots"
        )
