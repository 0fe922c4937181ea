"""The very network back from what `stformer.export.netx` wrote, or none; nothing is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.errors import InputError
from stformer.export import MANIFEST
from stformer.hdf5 import Tree, read_tree
from stformer.jsontext import parse_json
from stformer.network import MAX_NEURONS, IntArray, Network, from_plain

VERSION = 1  # of the manifest
REST = "rest.h5"  # arrays of what is outside of the chains
ARRAYS = "arrays"  # their group in it
EXTRA = "stformer"  # group of a .net that netx does not look at
MAX_MANIFEST = 2**24  # bytes


def chain_file(index: int) -> str:
    """Name of a chain's file in a folder."""
    return f"chain-{index:03d}.net"


def restore_folder(folder: Path) -> Network:
    """The network that was exported into a folder.

    Raises:
        InputError: a file is missing, damaged, or not the one that was exported.
    """
    where = str(folder / MANIFEST)
    try:
        with (folder / MANIFEST).open("rb") as file:
            text = file.read(MAX_MANIFEST).decode()
    except (OSError, ValueError) as e:
        raise InputError(where, "cannot be read as text", "a manifest of `stformer export`") from e
    manifest = parse_json(where, text)
    files = range(len(_list(where, manifest, "chains")))
    trees = [read_tree(folder / chain_file(i)) for i in files]
    rest = read_tree(folder / REST).get(ARRAYS)
    outside: dict[str, IntArray] = {}
    for name, fields in (rest if isinstance(rest, dict) else {}).items():
        for field, array in (fields if isinstance(fields, dict) else {}).items():
            if isinstance(array, np.ndarray):
                outside[f"{name}/{field}"] = array
    network = restore(where, manifest, trees, outside)
    if network.digest() != _get(where, manifest, "digest", str):
        raise InputError(
            where,
            "other numbers in the files than were exported",
            "the files of one export, unchanged",
            "export again, or import the single .net files",
        )
    return network


def restore_file(where: str, tree: Tree) -> Network | None:
    """The network that one `.net` says it holds; None where it says nothing, or holds another.

    Args:
        where: the file, for messages.
        tree: all that is in it.
    """
    extra = tree.get(EXTRA)
    text = extra.get(MANIFEST) if isinstance(extra, dict) else None
    if not isinstance(text, str):
        return None
    try:
        manifest = parse_json(where, text)
        network = restore(where, manifest, [tree], {})
    except InputError:
        return None
    held = manifest.get("digest") if isinstance(manifest, dict) else None
    return network if network.digest() == held else None


def restore(
    where: str, manifest: object, trees: list[Tree], outside: Mapping[str, IntArray]
) -> Network:
    """A network from its manifest and the chains' files; its digest is not compared.

    Raises:
        InputError: anything is missing or has another form.
    """
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if version != VERSION:
        raise InputError(where, f"version {version!r:.40}", f"{VERSION}")
    structure = _get(where, manifest, "structure", dict)
    objects = [
        entry
        for key in ("populations", "projections")
        for entry in _list(where, structure, key)
        if isinstance(entry, dict)
    ]
    by_name = {(e.get("name"), "pre" in e): e for e in objects if isinstance(e.get("name"), str)}
    arrays = dict(outside)
    for chain, tree in zip(_list(where, manifest, "chains"), trees, strict=True):
        layers = _computing(tree)
        entries = _list(where, chain, "layers")
        if len(layers) != len(entries):
            raise InputError(where, f"{len(entries)} layers", f"{len(layers)}, as in the file")
        for layer, entry in zip(layers, entries, strict=True):
            name = _get(where, entry, "projection", str)
            projection = by_name.get((name, True), {})
            arrays[f"{name}/weight"] = _weight(where, layer, projection)
            name = _get(where, entry, "population", str)
            exponent = _number(where, entry, "bias_exp", fx.BIAS_EXP_RANGE)
            population = by_name.get((name, False), {})
            arrays[f"{name}/bias_mant"] = _bias(where, layer, population, exponent)
    return from_plain(where, structure, arrays)


def _computing(tree: Tree) -> list[Tree]:
    """The layers of a file that have weights, in order."""
    group = tree.get("layer")
    layers = [group.get(str(i)) for i in range(len(group))] if isinstance(group, dict) else []
    return [x for x in layers if isinstance(x, dict) and isinstance(x.get("weight"), np.ndarray)]


def _weight(where: str, layer: Tree, projection: dict[str, Any]) -> IntArray:
    weight = _integers(where, layer, "weight")
    exponent = _number(where, projection, "weight_exp", fx.WEIGHT_EXP_RANGE)
    shape = _shape(where, projection, "weight")
    if prod(shape) != weight.size:
        raise InputError(where, f"a weight of shape {weight.shape}", f"{shape}")
    return (weight >> exponent).reshape(shape)


def _bias(where: str, layer: Tree, population: dict[str, Any], exponent: int) -> IntArray:
    """bias_mant in the network's shape; a file says none where all are zero."""
    shape, rows = _shape(where, population, "bias_mant"), len(_integers(where, layer, "weight"))
    if "bias" not in layer:
        if prod(shape) > rows:
            raise InputError(where, f"no bias of shape {shape}", "one in the file")
        return np.zeros(shape, np.int16)
    file = _integers(where, layer, "bias")
    full = population.get("shape")
    if not isinstance(full, list) or not all(type(n) is int and n > 0 for n in full):
        raise InputError(where, f"a population of shape {full!r:.80}", "positive integers")
    spread = file.T if file.ndim == 3 else file
    if spread.size != prod(full):  # one for each channel
        full = [file.size] + [1] * (len(full) - 1)
    if spread.size != prod(full) or len(shape) != len(full):
        raise InputError(where, f"a bias of shape {file.shape}", f"one for {shape}")
    whole = spread.reshape(full).astype(np.int64) << exponent
    some = whole[tuple(slice(0, 1) if n == 1 else slice(None) for n in shape)]
    if some.shape != shape:
        raise InputError(where, f"a bias of shape {file.shape}", f"one for {shape}")
    return some >> _number(where, population, "bias_exp", fx.BIAS_EXP_RANGE)


# --- plain data that is not trusted -------------------------------------------------------


def _get(where: str, value: object, key: str, kind: type[Any]) -> Any:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        raise InputError(f"{where}, '{key}'", f"{found!r:.80}", f"a value of type {kind.__name__}")
    return found


def _list(where: str, value: object, key: str) -> list[Any]:
    found: list[Any] = _get(where, value, key, list)
    return found


def _number(where: str, value: object, key: str, allowed: tuple[int, int]) -> int:
    found = value.get(key) if isinstance(value, dict) else None
    if type(found) is not int or not allowed[0] <= found <= allowed[1]:
        raise InputError(f"{where}, '{key}'", f"{found!r:.80}", f"{allowed[0]}...{allowed[1]}")
    return found


def _shape(where: str, entry: dict[str, Any], key: str) -> tuple[int, ...]:
    """Shape of an array of the structure."""
    shape = _list(where, entry.get(key), "shape")
    if not all(type(n) is int and 0 < n <= MAX_NEURONS for n in shape):
        raise InputError(f"{where}, '{key}'", f"shape {shape!r:.80}", "positive integers")
    return tuple(shape)


def _integers(where: str, layer: Tree, key: str) -> npt.NDArray[np.integer[Any]]:
    array = layer.get(key)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu" or not array.ndim:
        raise InputError(f"{where}, '{key}'", "no integers", "an array of integers")
    return array
