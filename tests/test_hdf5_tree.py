"""Reading other programs' HDF5: numbers and texts come out, and nothing else is touched."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

from stformer.errors import InputError
from stformer.hdf5 import read_tree, root_names


def made(path: Path, fill: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def test_numbers_and_texts_come_out(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)

    def fill(file: h5py.File) -> None:
        file["a/weight"] = weight
        file["a/packed"] = file.create_dataset(
            "packed", data=weight, compression="gzip", shuffle=True, chunks=(3, 2)
        )
        file["a/chunked"] = file.create_dataset("chunked", data=weight, chunks=(2, 5))
        file["a/number"] = 3
        file["a/flag"] = True
        file["a/text"] = "größer"
        file["a/bytes"] = np.bytes_(b"CUBA")
        file["edges"] = [("a", "b"), ("b", "c")]
        file["empty"] = np.zeros((0, 3))
        file.create_dataset("never", shape=(4,), dtype="i8")

    tree = read_tree(made(tmp_path / "a.h5", fill))
    group = tree["a"]
    assert isinstance(group, dict)
    for name in ("weight", "packed", "chunked"):
        found = group[name]
        assert isinstance(found, np.ndarray) and found.dtype == np.float32
        assert np.array_equal(found, weight)
    assert (int(group["number"]), bool(group["flag"])) == (3, True)  # type: ignore[arg-type]
    assert (group["text"], group["bytes"]) == ("größer", "CUBA")
    edges = tree["edges"]
    assert isinstance(edges, np.ndarray) and edges.tolist() == [["a", "b"], ["b", "c"]]
    assert isinstance(tree["empty"], np.ndarray) and tree["empty"].shape == (0, 3)
    assert isinstance(tree["never"], np.ndarray) and not tree["never"].any()
    assert root_names(tmp_path / "a.h5") == {"a", "chunked", "packed", "edges", "empty", "never"}


def _deep(file: h5py.File) -> None:
    file["/".join("x" * 40)] = 1


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "i4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    file.create_virtual_dataset("x", layout)


def _outside(file: h5py.File) -> None:
    file.create_dataset("x", (64,), "u1", external=[("secret", 0, 64)])


HOSTILE: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "soft link": (lambda f: f.__setitem__("x", h5py.SoftLink("/y")), "a link"),
    "external link": (lambda f: f.__setitem__("x", h5py.ExternalLink("o.h5", "/")), "a link"),
    "virtual": (_virtual, "other files"),
    "external storage": (_outside, "other files"),
    "deep": (_deep, "another kind"),
    "compound": (lambda f: f.create_dataset("x", (2,), "i4,f4"), "numbers or texts"),
    "reference": (lambda f: f.create_dataset("x", (2,), h5py.ref_dtype), "numbers or texts"),
    "huge": (lambda f: f.create_dataset("x", (2**40,), "f8", chunks=(2**20,)), "whole file"),
    "sparse": (
        lambda f: f.create_dataset("x", (2**21,), "f8", chunks=(2**20,), fillvalue=1.0),
        "all there",
    ),
    "filter": (lambda f: f.create_dataset("x", data=np.zeros(99), compression="lzf"), "filters"),
    "texts": (lambda f: f.create_dataset("x", (4000,), "S20000"), "very long"),
    "named type": (lambda f: f.__setitem__("x", np.dtype("f8")), "another kind"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 64)
    fill, part = HOSTILE[name]
    path = made(tmp_path / "a.h5", fill)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=part):
            read_tree(path, limit=2**25)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_a_chunk_that_unpacks_to_more_than_it_says(tmp_path: Path) -> None:
    import zlib

    def fill(file: h5py.File) -> None:
        data = file.create_dataset("x", (1000,), "u1", chunks=(1000,), compression="gzip")
        data.id.write_direct_chunk((0,), zlib.compress(b"\0" * 2**26))

    with pytest.raises(InputError, match="a chunk of 1001 bytes"):
        read_tree(made(tmp_path / "a.h5", fill))


def test_damage_anywhere_is_an_error_of_ours(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["node/weight"] = np.arange(40.0).reshape(5, 8)
        file["node/type"] = "Affine"
        file["node/edges"] = [("a", "b")]

    path = made(tmp_path / "a.h5", fill)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in rng.integers(1, len(good), 40):
        path.write_bytes(good[:cut])
        with pytest.raises(InputError):
            read_tree(path)
    for at in rng.integers(8, len(good), 300):
        path.write_bytes(
            good[:at] + bytes([good[at] ^ int(rng.integers(1, 256))]) + good[at + 1 :]
        )
        with suppress(InputError):
            read_tree(path)
