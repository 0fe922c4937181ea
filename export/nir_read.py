"""Read a NIR file: the identical network where we wrote it, else the nearest legal one."""

from __future__ import annotations

from pathlib import Path

from stformer.errors import InputError, Unsupported
from stformer.export import Imported, Reading, check_reading
from stformer.export.nir_block import block_of, restore
from stformer.export.nir_graph import DT
from stformer.export.nir_import import read_foreign
from stformer.hdf5 import read_tree
from stformer.network import Network


def read(path: Path, reading: Reading) -> Imported:
    """The network of a file; see `stformer.export.read`."""
    tree = read_tree(path)
    found = restore(str(path), tree)
    if isinstance(found, Network):
        _check_reading(path, found, reading)
        version = tree.get("version")
        told = {"nir": version} if isinstance(version, str) else {}
        return Imported(network=found, info={"format": "nir", "digest": found.digest(), **told})
    if block_of(tree) is None:
        return read_foreign(path, tree, reading)
    why = f"{found}; without its node/metadata/stformer it is read as a graph that others wrote"
    raise Unsupported("import of nir", str(path), why)


def _check_reading(path: Path, network: Network, reading: Reading) -> None:
    """What the file says can't be said otherwise."""
    check_reading(str(path), network, reading)
    if reading.dt not in (None, DT):
        raise InputError(str(path), f"dt given as {reading.dt}", f"{DT}, as the file says")
