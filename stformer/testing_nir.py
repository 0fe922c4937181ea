"""NIR graphs as other tools write them, as `stformer.hdf5.read_tree` gives them, for tests."""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from stformer.export import Imported, Reading
from stformer.export.nir_import import read_foreign
from stformer.hdf5 import Tree

Fields = dict[str, Any]


def peer(name: str) -> Any:
    """A module of another tool, for the file of tests that needs it.

    Where it is missing the file is skipped; with STFORMER_PEERS=1, as CI has it, it fails.
    """
    if os.environ.get("STFORMER_PEERS") == "1":
        with warnings.catch_warnings():  # as importorskip does: theirs are not our errors
            warnings.simplefilter("ignore")
            return import_module(name)
    import pytest

    return pytest.importorskip(name)


def texts(pairs: list[tuple[str, str]]) -> Any:
    out = np.empty((len(pairs), 2), object)
    for i, pair in enumerate(pairs):
        out[i] = pair
    return out


def graph(edges: str, **nodes: Fields) -> Tree:
    """`edges` as "a>b b>c"; nodes by name, `x_y` for "x.y"."""
    pairs = [(a, b) for a, _, b in (edge.partition(">") for edge in edges.split())]
    return {
        "version": "1.0.8",
        "node": {
            "type": "NIRGraph",
            "nodes": {name: dict(fields) for name, fields in nodes.items()},
            "edges": texts(pairs),
        },
    }


def node(kind: str, **fields: Any) -> Fields:
    return {
        "type": kind,
        **{k: v if isinstance(v, (str, dict)) else np.asarray(v) for k, v in fields.items()},
    }


def ends(n: Any, m: Any) -> dict[str, Fields]:
    return {"input": node("Input", shape=n), "output": node("Output", shape=m)}


def lif(n: int, tau: float = 1e-3, r: float = 1.0, th: float = 0.1) -> Fields:
    one = np.ones(n)
    return node("LIF", tau=tau * one, r=r * one, v_leak=0 * one, v_threshold=th * one)


def cuba(n: int, syn: float = 4e-4, mem: float = 1e-3, **more: Any) -> Fields:
    one = np.ones(n)
    fields = {"tau_syn": syn * one, "tau_mem": mem * one, "r": mem / 1e-4 * one}
    fields |= {"v_leak": 0 * one, "v_threshold": one, "w_in": syn / 1e-4 * one}
    return node("CubaLIF", **(fields | more))


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape) * 0.5


def read(tree: Tree, **reading: Any) -> Imported:
    values: dict[str, Any] = {"steps": 12} | reading
    return read_foreign(Path("graph.nir"), tree, Reading(**values))


def nodes(tree: Any) -> dict[str, Fields]:
    found: dict[str, Fields] = tree["node"]["nodes"]
    return found


def link(tree: Any, a: str, b: str) -> None:
    pairs = [tuple(p) for p in tree["node"]["edges"].tolist()]
    tree["node"]["edges"] = texts([*pairs, (a, b)])


def plain_tree() -> Tree:
    return graph(
        "input>w w>n n>output",
        w=node("Linear", weight=random(1, 6, 8)),
        n=lif(6),
        **ends([8], [6]),
    )
