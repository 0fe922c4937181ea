"""NIR files on the way back: the identical network, or a refusal with the reason."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("nir")

from stformer import export, storage, testing
from stformer.errors import InputError
from stformer.export import Options, Reading
from stformer.export.nir import Nir
from stformer.export.nir_block import restore
from stformer.hdf5 import read_tree
from stformer.network import Network
from stformer.testing_cli import Call

EXTENDED = {"product", "look-ahead"}


def written(network: Network, folder: Path, options: Options = Options()) -> Path:  # noqa: B008
    return export.export("nir", network, folder / "x.nir", options).path


@pytest.mark.parametrize("name", [*testing.SAMPLES, "recurrent"])
def test_the_same_network_comes_back(name: str, tmp_path: Path) -> None:
    recurrent = name == "recurrent"
    network = testing.recurrent_network() if recurrent else testing.sample_network(name)
    network = replace(network, source='{"of": "a test"}')
    imported = export.read(written(network, tmp_path, Options(extensions=name in EXTENDED)))
    assert imported.network.digest() == network.digest()
    assert (imported.network.name, imported.network.source) == (network.name, network.source)
    assert imported.notes == ()
    assert imported.info["digest"] == network.digest()
    for p, q in zip(imported.network.populations, network.populations, strict=True):
        assert (p.name, p.latency) == (q.name, q.latency)


# --- changed and damaged files --------------------------------------------------------------


def edited(path: Path, change: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def refusal(path: Path) -> str:
    """Why a file is not taken for the network of its block."""
    found = restore(str(path), read_tree(path))
    assert isinstance(found, str)
    return found


def put(file: h5py.File, name: str, value: object) -> None:
    del file[name]
    file[name] = value


BLOCK = "node/metadata/stformer"
CHANGES: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "a weight": (
        lambda f: put(f, "node/nodes/x>q/weight", f["node/nodes/x>q/weight"][()] ^ 1),
        "digest of another",
    ),
    "a weight's shape": (
        lambda f: put(f, "node/nodes/x>q/weight", np.zeros((1, 4, 1, 1), np.int8)),
        "damaged|larger",
    ),
    "a weight's type": (
        lambda f: put(f, "node/nodes/x>q/weight", np.zeros((4, 4, 1, 1), np.float32)),
        "a weight of type float32",
    ),
    "a threshold": (
        lambda f: put(f, "node/nodes/q/v_threshold", np.full((4, 2, 2), 4, np.float32)),
        "changed since: v_threshold of node q",
    ),
    "an edge": (lambda f: put(f, "node/edges", f["node/edges"][1:]), "changed since: other edges"),
    "a node": (lambda f: f["node/nodes"].move("q", "other"), "changed since: node other"),
    "a field": (
        lambda f: f["node/nodes/q"].move("r", "s"),
        "changed since: r of node q",
    ),
    "its version": (lambda f: put(f, f"{BLOCK}/version", 2), "of version 2, not 1"),
    "its digest": (lambda f: put(f, f"{BLOCK}/digest", "0" * 64), "digest of another"),
    "its structure": (lambda f: put(f, f"{BLOCK}/network", "{}"), "damaged"),
    "its names": (lambda f: put(f, f"{BLOCK}/nodes", "[]"), "damaged"),
    "a text": (lambda f: put(f, f"{BLOCK}/network", 3), "no text 'network'"),
    "a bias": (
        lambda f: put(f, f"{BLOCK}/bias_mant/q", np.ones((1, 1, 1), np.int16)),
        "digest of another",
    ),
}


def test_a_graph_that_others_wrote(tmp_path: Path) -> None:
    path = written(testing.sample_network("attention"), tmp_path)
    imported = export.read(edited(path, lambda f: f.pop(BLOCK)))
    assert imported.notes and "attention" not in imported.info.get("digest", "")


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_file_is_not_taken_for_ours(what: str, tmp_path: Path) -> None:
    path = written(testing.sample_network("attention"), tmp_path)
    change, why = CHANGES[what]
    assert re.search(why, refusal(edited(path, change)))


def test_a_huge_structure_takes_no_memory(tmp_path: Path) -> None:
    """The block tells of more than the graph holds: nothing of it is made."""
    path = written(testing.sample_network("dense"), tmp_path)

    def grow(file: h5py.File) -> None:
        structure = json.loads(file[f"{BLOCK}/network"][()])
        for p in structure["populations"]:
            p["shape"] = [2**26]
        structure["projections"] = [
            {"kind": "OneToOne", "name": "x", "pre": "in", "post": "a", "weight": 1}
            | {"weight_exp": 0, "delay": 0}
        ]
        put(file, f"{BLOCK}/network", json.dumps(structure))

    assert "tells of a larger one" in refusal(edited(path, grow))


def test_one_weight_is_not_many(tmp_path: Path) -> None:
    """A thousand projections that name one node would be a thousand copies of its weight."""
    path = written(testing.sample_network("dense"), tmp_path)

    def multiply(file: h5py.File) -> None:
        structure = json.loads(file[f"{BLOCK}/network"][()])
        keys = json.loads(file[f"{BLOCK}/nodes"][()])
        first = structure["projections"][0]
        names = [f"copy{i}" for i in range(1000)]
        structure["projections"] += [first | {"name": name} for name in names]
        keys["projections"] |= dict.fromkeys(names, keys["projections"][first["name"]])
        put(file, f"{BLOCK}/network", json.dumps(structure))
        put(file, f"{BLOCK}/nodes", json.dumps(keys))

    assert "more of them than the nodes have" in refusal(edited(path, multiply))


@pytest.mark.parametrize("size", [-1, 2**62, 10**19, "2", None])
def test_an_impossible_shape(size: object, tmp_path: Path) -> None:
    path = written(testing.sample_network("dense"), tmp_path)

    def change(file: h5py.File) -> None:
        structure = json.loads(file[f"{BLOCK}/network"][()])
        structure["projections"][0]["weight"]["shape"] = [size, 6]
        put(file, f"{BLOCK}/network", json.dumps(structure))

    assert "its block is damaged" in refusal(edited(path, change))


def test_check_notices_a_change(tmp_path: Path) -> None:
    network = testing.sample_network("attention")
    path = written(network, tmp_path)
    Nir().check(network, path, Options())
    edited(path, CHANGES["a threshold"][0])
    with pytest.raises(AssertionError, match="v_threshold of node q is another"):
        Nir().check(network, path, Options())
    with pytest.raises(AssertionError):
        Nir().check(network, written(testing.sample_network("iand"), tmp_path), Options())


def test_what_the_file_says_cannot_be_said_otherwise(tmp_path: Path) -> None:
    path = written(testing.sample_network("dense"), tmp_path)
    export.read(path, Reading(steps=4, dt=1e-4, shape=(6,)))
    for reading in (Reading(steps=5), Reading(dt=1e-3), Reading(shape=(7,))):
        with pytest.raises(InputError, match="as the file says"):
            export.read(path, reading)


def test_reading_needs_no_nir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = testing.sample_network("dense")
    path = written(network, tmp_path)
    monkeypatch.setitem(sys.modules, "nir", None)
    assert export.read(path).network.digest() == network.digest()


def test_the_command(tmp_path: Path, call: Call) -> None:
    out = tmp_path / "digits.nir"
    code, text, _ = call("export", "--to", "nir", "-o", out)
    assert code == 0 and "nir in" in text and "read back and compared" in text
    assert export.read(out).network.digest() == storage.load().digest()
    model = tmp_path / "p.stf"
    storage.save(model, testing.sample_network("product"))
    assert "--allow-extensions" in call.fails("export", model, "--to", "nir")
    assert call("export", model, "--to", "nir", "--allow-extensions", "-o", out)[0] == 0
    assert "--to nir" in call.fails("export", model, "--to", "onnx", "--allow-extensions")
