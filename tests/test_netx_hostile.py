"""Netx files that are ill or meant ill: an error of ours that says what is wrong, nothing else."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from stformer import export, testing
from stformer.errors import InputError, StformerError, Unsupported
from stformer.export import MANIFEST, Reading
from stformer.hdf5 import tree_image

NEURON = {"type": "CUBA", "iDecay": 4096, "vDecay": 300, "vThMant": 20}
GOOD: list[dict[str, Any]] = [
    {"type": "input", "shape": [1, 4, 4]},
    {
        "type": "conv",
        "shape": [2, 4, 4],
        "weight": np.ones((2, 1, 3, 3)),
        "stride": 1,
        "padding": [1, 1],
        "dilation": 1,
        "groups": 1,
        "bias": np.ones(2),
        "neuron": NEURON,
    },
    {"type": "flatten", "shape": [32]},
    {"type": "dense", "shape": [3], "weight": np.ones((3, 32)), "delay": 1, "neuron": NEURON},
]


def tree(values: Any) -> Any:
    if isinstance(values, dict):
        return {k: tree(v) for k, v in values.items()}
    return values if isinstance(values, str) else np.asarray(values)


def write(path: Path, layers: list[dict[str, Any]]) -> Path:
    path.write_bytes(tree_image({"layer": {str(i): tree(x) for i, x in enumerate(layers)}}))
    return path


def test_the_good_one_is_good(tmp_path: Path) -> None:
    network = export.read(write(tmp_path / "a.net", GOOD), Reading(steps=3)).network
    assert [p.name for p in network.populations if "@" not in p.name] == [
        "input",
        "layer1",
        "layer3",
    ]


def at(layer: int, key: str, value: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(layers: list[dict[str, Any]]) -> None:
        where, *rest = key.split("/")
        if rest:
            layers[layer][where][rest[0]] = value
        elif value is None:
            del layers[layer][where]
        else:
            layers[layer][where] = value

    return change


ILL: dict[str, tuple[Callable[[list[dict[str, Any]]], Any], str]] = {
    "no type": (at(1, "type", None), "layer 1, type: missing"),
    "a number as type": (at(1, "type", 3), "layer 1, type: missing or no text"),
    "another type": (at(1, "type", "pool"), "type 'pool'; read are input, flatten, dense, conv"),
    "recurrent": (at(3, "type", "dense_rec"), "type 'dense_rec'"),
    "no weight": (at(3, "weight", None), "layer 3, weight: missing"),
    "text weight": (at(3, "weight", "x"), "no real numbers"),
    "complex": (at(3, "weight", np.ones((3, 32), complex)), "no real numbers"),
    "NaN": (at(3, "weight", np.full((3, 32), np.nan)), "NaN or infinity"),
    "huge numbers": (at(3, "weight", np.full((3, 32), 1e30)), "very large numbers"),
    "beyond any synapse": (at(1, "weight", np.full((2, 1, 3, 3), 40000)), "beyond 15 bits"),
    "wrong rows": (at(3, "weight", np.ones((4, 32))), r"weight of shape \(4, 32\)"),
    "wrong columns": (at(3, "weight", np.ones((3, 31))), "31"),
    "no rows": (at(3, "weight", np.ones((0, 32))), "no real numbers|shape"),
    "zeros": (at(3, "weight", np.zeros((3, 32))), "netx itself loses such weights"),
    "kernel of three axes": (at(1, "weight", np.ones((2, 1, 3))), "weight of shape"),
    "another output shape": (at(1, "shape", [2, 5, 4]), "layer1"),
    "huge shape": (at(1, "shape", [2**30, 4, 4]), "layer.?1|neurons"),
    "negative shape": (at(0, "shape", [-1, 4, 4]), "input"),
    "huge input": (at(0, "shape", [1, 2**30, 2**30]), "input"),
    "zero stride": (at(1, "stride", 0), "layer 1, stride"),
    "three strides": (at(1, "stride", [1, 1, 1]), "layer 1, stride"),
    "huge padding": (at(1, "padding", 2**30), "padding"),
    "no groups": (at(1, "groups", 0), "groups"),
    "flat input of a conv": (at(0, "shape", [16]), "conv behind"),
    "no flatten": (lambda x: x.pop(2), "dense behind frames"),
    "a gap": (lambda x: x.insert(2, {}), "type"),
    "two inputs": (lambda x: x.insert(1, dict(x[0])), "one at most"),
    "nothing computes": (lambda x: x.__delitem__(slice(1, None)), "no layer that computes"),
    "no neuron": (at(1, "neuron", None), "layer 1, neuron: missing"),
    "another neuron": (at(1, "neuron/type", "SDNN"), "type 'SDNN'; allowed: CUBA or LOIHI"),
    "many decays": (at(1, "neuron/vDecay", [1, 2]), "2 numbers"),
    "no threshold": (at(1, "neuron/vThMant", 0), r"vThMant = 0; the register holds 1\.\.\."),
    "all of it decays": (at(1, "neuron/vDecay", 4096), "vDecay = 4096"),
    "no current decays": (at(1, "neuron/iDecay", 0), "iDecay - 1 = -1"),
    "bias of another shape": (at(1, "bias", np.ones(3)), r"bias: shape \(3,\)"),
    "large bias": (at(1, "bias", np.full(2, 9001)), "13 bits of a mantissa"),
    "negative delay": (at(3, "delay", -1), "delays"),
    "delays of another shape": (at(3, "delay", np.ones(7)), "delays of shape"),
}


@pytest.mark.parametrize("name", ILL)
def test_ill_files_are_refused_with_the_place_and_the_reason(name: str, tmp_path: Path) -> None:
    change, part = ILL[name]
    layers = deepcopy(GOOD)
    change(layers)
    path = write(tmp_path / "a.net", layers)
    tracemalloc.start()
    try:
        with pytest.raises((InputError, Unsupported), match=part):
            export.read(path, Reading(steps=3))
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_what_a_file_leaves_open_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.net", GOOD)
    with pytest.raises(InputError, match="no number of time steps"):
        export.read(path)
    with pytest.raises(InputError, match="steps"):
        export.read(path, Reading(steps=0))
    path.write_bytes(tree_image({"layer": {}}))
    with pytest.raises(InputError, match="no layers"):
        export.read(path, Reading(steps=3))


def test_links_are_not_followed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.net", GOOD)
    with h5py.File(path, "r+") as file:
        del file["layer/3/weight"]
        file["layer/3/weight"] = h5py.ExternalLink("b.h5", "/weight")
    with pytest.raises(InputError, match="a link"):
        export.read(path, Reading(steps=3))


def test_damage_anywhere_is_an_error_of_ours(tmp_path: Path) -> None:
    path = export.export("netx", testing.sample_network("conv"), tmp_path / "a.net").path
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(8, len(good), 200):
        bad = good[:place] + bytes([good[place] ^ int(rng.integers(1, 256))]) + good[place + 1 :]
        path.write_bytes(bad)
        with suppress(StformerError):
            export.read(path, Reading(steps=3))
        path.write_bytes(good[: int(place)])
        with pytest.raises(StformerError):
            export.read(path, Reading(steps=3))


# --- folders ----------------------------------------------------------------------------------


def _manifest(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        inner: Any = manifest
        *path, last = key.split("/")
        for step in path:
            inner = inner[int(step) if isinstance(inner, list) else step]
        inner[last] = value

    return change


FOLDERS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "version": (_manifest("version", 2), "version 2"),
    "no chains": (_manifest("chains", 3), "'chains'"),
    "too many chains": (_manifest("chains", [{}] * 9), "chain-002|chain-003|chain-00"),
    "no structure": (_manifest("structure", []), "'structure'"),
    "a path as a name": (
        _manifest("structure/populations/0/name", "../../x"),
        "name|array",
    ),
    "a huge bias": (
        _manifest("structure/populations/2/bias_mant", {"shape": [2**26, 2**26], "dtype": "x"}),
        "bias",
    ),
    "shape of no number": (
        _manifest("structure/populations/2/bias_mant", {"shape": ["a"], "dtype": "x"}),
        "shape",
    ),
    "exponent": (_manifest("chains/0/layers/0/bias_exp", 99), "'bias_exp'"),
    "no layers": (_manifest("chains/0/layers", []), "0 layers"),
    "another projection": (_manifest("chains/0/layers/0/projection", "x"), "'weight_exp'"),
    "digest": (_manifest("digest", "0" * 64), "other numbers in the files"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_ill_manifests_are_refused(name: str, tmp_path: Path) -> None:
    change, part = FOLDERS[name]
    folder = export.export("netx", testing.sample_network("readout"), tmp_path / "a").path
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=part):
            export.read(folder)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
