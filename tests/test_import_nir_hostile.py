"""Damaged and hostile graphs of others: our errors, with the node's name, and nothing else."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stformer import export
from stformer.errors import InputError, StformerError, Unsupported
from stformer.export import Reading
from stformer.hdf5 import Tree
from stformer.network import Network
from stformer.testing_nir import (
    cuba,
    ends,
    graph,
    lif,
    link,
    node,
    nodes,
    plain_tree,
    random,
    read,
    texts,
)

REFUSED: dict[str, tuple[Any, str]] = {
    "no graph": (lambda t: t.pop("node"), "no graph"),
    "no nodes": (lambda t: t["node"]["nodes"].clear(), "no nodes"),
    "a missing node": (lambda t: t["node"]["nodes"].pop("w"), "no node 'w'"),
    "version": (lambda t: t.update(version="7.1"), "version '7.1'"),
    "an unknown kind": (lambda t: nodes(t)["w"].update(type="Magic"), "node w: a Magic"),
    "no type": (lambda t: nodes(t)["w"].pop("type"), "node w: no type"),
    "NaN": (lambda t: nodes(t)["w"].update(weight=np.full((6, 8), np.nan)), "node w.*NaN"),
    "infinite": (lambda t: nodes(t)["n"].update(r=np.full(6, np.inf)), "node n: r with NaN"),
    "a text for weights": (lambda t: nodes(t)["w"].update(weight="x"), "weight of type"),
    "complex": (
        lambda t: nodes(t)["w"].update(weight=np.ones((6, 8), complex)),
        "of type complex",
    ),
    "no weight": (lambda t: nodes(t)["w"].pop("weight"), "no field 'weight'"),
    "another shape": (lambda t: nodes(t)["w"].update(weight=np.ones((6, 9))), r"\(n, 8\)"),
    "parameters": (lambda t: nodes(t)["n"].update(r=np.ones(4)), "shapes"),
    "huge": (lambda t: nodes(t)["input"].update(shape=np.array([2**40])), "up to 67108864"),
    "negative": (lambda t: nodes(t)["input"].update(shape=np.array([-8])), "1 to 3 axes"),
    "tau": (lambda t: nodes(t)["n"].update(tau=np.zeros(6)), "time constant above 0"),
    "threshold": (lambda t: nodes(t)["n"].update(v_threshold=np.zeros(6)), "thresholds above"),
    "decays": (lambda t: nodes(t)["n"].update(tau=np.linspace(1e-3, 1e-2, 6)), "6 different"),
    "dots": (lambda t: nodes(t).update({"..": node("Scale", scale=1)}), "a node called"),
    "slashes": (lambda t: nodes(t).update({"a/b": node("Scale", scale=1)}), "a node called"),
    "edges": (lambda t: t["node"].update(edges=np.ones((2, 2))), "pairs of names"),
    "no input": (lambda t: nodes(t)["input"].update(type="Scale", scale=1), "no Input"),
    "unfed": (lambda t: nodes(t).update(x=lif(6)), "node x: no edge to it"),
    "from an output": (lambda t: link(t, "output", "w"), "node output: an edge from it"),
    "to an input": (lambda t: link(t, "w", "input"), "node input: an edge into it"),
    "a loop without neurons": (lambda t: link(t, "w", "w"), "loop without neurons"),
    "Threshold": (lambda t: nodes(t)["n"].update(type="Threshold"), "node n: a Threshold"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_ill_graphs_are_refused_by_name(what: str) -> None:
    tree, (change, match) = plain_tree(), REFUSED[what]
    change(tree)
    with pytest.raises((InputError, Unsupported), match=match):
        read(tree)


def test_an_edge_twice_counts_once_and_is_told() -> None:
    tree = plain_tree()
    link(tree, "input", "w")
    imported = read(tree)
    assert len(imported.network.incoming("n")) == 1
    assert any("2 times" in n.what for n in imported.notes)


def test_a_lattice_of_paths_ends() -> None:
    """Forty diamonds in a row would be 2^40 paths."""
    made = {f"{i}{side}": node("Scale", scale=1.0) for i in range(40) for side in "ab"}
    made |= {f"{i}c": node("Scale", scale=1.0) for i in range(40)}
    edges = ["input>0c", "39c>n", "n>output"]
    for i in range(39):
        edges += [f"{i}c>{i}a", f"{i}c>{i}b", f"{i}a>{i + 1}c", f"{i}b>{i + 1}c"]
    made = {k: v for k, v in made.items() if k not in ("39a", "39b")}
    with pytest.raises(InputError, match="paths"):
        read(graph(" ".join(edges), n=lif(4), **made, **ends([4], [4])))


def test_bad_readings_are_refused() -> None:
    for reading, match in (
        ({"steps": 0}, "steps"),
        ({"dt": -1.0}, "dt"),
        ({"dt": float("nan")}, "dt"),
        ({"shape": (9,)}, r"\(9,\) was given"),
    ):
        with pytest.raises(StformerError, match=match):
            read(plain_tree(), **reading)


# --- any change of a valid tree -----------------------------------------------------------

VALUES: list[Any] = [
    *(np.asarray(x) for x in (0, -1, 1, 7, 2**40, -(2**62), 0.5, 1e-300, 1e300, np.nan, np.inf)),
    *(np.full(6, x) for x in (0.0, 1e29, -1e29, 1e-29)),
    np.zeros((0,)),
    np.ones((6, 0)),
    np.ones((3, 2, 3, 3)),
    np.ones((6, 8), complex),
    np.array([True]),
    texts([("input", "n"), ("n", "n")]),
    texts([]),
    "Conv2d",
    "NIRGraph",
    "Delay",
    "same",
    "",
    {},
    {"type": "Input"},
]


def places(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    out = []
    for key, value in tree.items():
        out.append((*path, key))
        if isinstance(value, dict):
            out += places(value, (*path, key))
    return out


def rich_tree() -> Tree:
    conv = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    return graph(
        "input>c c>p p>m m>f f>w w>n n>v v>n n>t t>s s>output",
        c=node(
            "Conv2d", weight=random(1, 2, 2, 3, 3), bias=np.ones(2), input_shape=[4, 4], **conv
        ),
        p=node("SumPool2d", kernel_size=[2, 2], stride=[2, 2], padding=[0, 0]),
        m=node("IF", r=np.ones((2, 2, 2)), v_threshold=np.ones((2, 2, 2))),
        f=node("Flatten", start_dim=0, end_dim=-1, input_type=[2, 2, 2]),
        w=node("Affine", weight=random(1, 6, 8), bias=np.ones(6)),
        n=cuba(6),
        v=node("Linear", weight=random(2, 6, 6)),
        t=node("Delay", delay=np.full(6, 2e-4)),
        s=node("Scale", scale=np.full(6, 2.0)),
        **ends([2, 4, 4], [6]),
    )


PLACES = places(rich_tree())


def test_the_tree_that_is_mutated_is_valid() -> None:
    assert isinstance(read(rich_tree()).network, Network)


@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(["drop", *range(len(VALUES))])),
        min_size=1,
        max_size=3,
    )
)
def test_any_change_gives_a_network_or_our_error(changes: list[tuple[Any, Any]]) -> None:
    tree: Any = rich_tree()
    for path, change in changes:
        group = tree
        for key in path[:-1]:
            group = group.get(key) if isinstance(group, dict) else None
        if not isinstance(group, dict):
            continue
        if change == "drop":
            group.pop(path[-1], None)
        else:
            group[path[-1]] = VALUES[change]
    with suppress(StformerError):
        assert isinstance(read(tree).network, Network)


# --- files --------------------------------------------------------------------------------


def saved(tree: Any, path: Path) -> Path:
    """The tree as an HDF5 file, as nir writes it."""

    def put(group: Any, values: Any) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                put(group.create_group(key), value)
            elif isinstance(value, np.ndarray) and value.dtype == "O":
                group.create_dataset(key, data=value.tolist(), dtype=h5py.string_dtype())
            else:
                group[key] = value

    with h5py.File(path, "w") as file:
        put(file, tree)
    return path


def test_a_file_is_read_as_its_tree(tmp_path: Path) -> None:
    network = export.read(saved(rich_tree(), tmp_path / "graph.nir"), Reading(steps=12)).network
    assert network.digest() == read(rich_tree()).network.digest()


def outside(file: h5py.File) -> None:
    del file["node/nodes/w/weight"]
    file["node/nodes/w/weight"] = h5py.ExternalLink("other.h5", "/weight")


def bomb(file: h5py.File) -> None:
    del file["node/nodes/w/weight"]
    file.create_dataset(
        "node/nodes/w/weight", (2**16, 2**16), "f4", chunks=(2**10, 2**10), compression="gzip"
    )


@pytest.mark.parametrize("change", [outside, bomb])
def test_links_and_bombs_are_not_followed(change: Any, tmp_path: Path) -> None:
    path = saved(plain_tree(), tmp_path / "graph.nir")
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(InputError, match=r"a link|whole file"):
        export.read(path)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    whole = saved(plain_tree(), tmp_path / "graph.nir").read_bytes()
    for size in (0, 7, 100, len(whole) // 2, len(whole) - 8):
        path = tmp_path / "cut.nir"
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            export.read(path)
