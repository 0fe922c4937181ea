"""HDF5 as plain data: nothing but numbers and texts gets in or out.

Our own files (`image`, `read`, and `hdf5_rows` for large ones) are some attributes, one JSON text
and integer arrays; what other programs wrote (`read_tree`) or read (`tree_image`) is groups of
numbers and texts. Written files depend on their content only (no times, fixed format version).
Read files are not trusted: no link, external or virtual storage is followed, no filter but gzip
and byte shuffle runs, and every size is compared with a limit and with what is really stored
before memory is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stformer.hdf5_reader import (
    MAX_TEXT,
    TEXT,
    TREE_DEPTH,
    TREE_LIMIT,
    Content,
    Tree,
    opened,
)

if TYPE_CHECKING:
    import h5py

__all__ = [
    "MAX_TEXT",
    "TREE_LIMIT",
    "Content",
    "Tree",
    "image",
    "put",
    "read",
    "read_tree",
    "root_names",
]


def image(content: Content) -> bytes:
    """The bytes of an HDF5 file; the same content gives the same bytes.

    Built in memory, so that a full disk is met by plain Python instead of by the HDF5 library,
    which cannot close a file that it cannot flush.

    Args:
        content: what to write; array paths have at most one group ("group/name").
    """
    with _in_memory() as file:
        put(file, content)
        file.flush()
        return memoryview(file.id.get_file_image()).tobytes()


def put(file: h5py.File, content: Content) -> None:
    """Write content into an open file, arrays as they are."""
    for key, value in content.attributes.items():
        file.attrs.create(
            key, np.bytes_(value.encode()) if isinstance(value, str) else np.int64(value)
        )
    _put_text(file, TEXT, content.text)
    for path, array in content.arrays.items():
        data = array.astype(array.dtype.newbyteorder("<"), copy=False)
        file.create_dataset(path, data=data, track_times=False)


def tree_image(tree: Tree) -> bytes:
    """The bytes of an HDF5 file for another program; the same tree gives the same bytes.

    Args:
        tree: as `read_tree` gives it: groups as mappings, then numbers and texts, as they are.
    """
    with _in_memory() as file:
        _put_tree(file, tree)
        file.flush()
        return memoryview(file.id.get_file_image()).tobytes()


@contextmanager
def _in_memory() -> Iterator[h5py.File]:
    """A new file; its low bound is superblock 3 and new-style groups, without time stamps."""
    import h5py

    with h5py.File(
        "memory", "w", driver="core", backing_store=False, libver=("v110", "v110")
    ) as file:
        yield file


def _put_tree(group: h5py.Group, tree: Tree) -> None:
    for key, value in tree.items():
        if isinstance(value, dict):
            _put_tree(group.create_group(key), value)
        elif isinstance(value, str):
            _put_text(group, key, value)
        else:
            group.create_dataset(key, data=value, track_times=False)


def _put_text(group: h5py.Group, key: str, value: str) -> None:
    import h5py

    text = value.encode()
    kind = h5py.string_dtype("utf-8", max(1, len(text)))
    group.create_dataset(key, data=np.array(text, kind), dtype=kind, track_times=False)


def read(path: str | Path, limit: int) -> Content:
    """Everything in a file.

    Args:
        path: of the file.
        limit: bytes that the file, and all its arrays together once unpacked, may have.

    Raises:
        InputError: no such file, not HDF5, truncated, damaged, too large, or holding anything
            but integer arrays, one text and plain attributes.
    """
    with opened(path, limit) as (reader, file):
        return reader.content(file)


def read_tree(path: str | Path, limit: int = TREE_LIMIT) -> Tree:
    """Everything in a file of another program: groups as mappings, then numbers and texts.

    Args:
        path: of the file.
        limit: bytes that the file, and all its arrays together once unpacked, may have.

    Returns:
        Group and dataset names -> mappings, arrays of any integer, float, complex or boolean
        type (a number is an array without axes), texts or object arrays of them. Attributes are
        left out.

    Raises:
        InputError: as `read`, and for anything but groups, numbers and texts.
    """
    with opened(path, limit) as (reader, file):
        return reader.tree(file, "", TREE_DEPTH)


def root_names(path: str | Path) -> set[str]:
    """Names at the root of a file; InputError as `read`."""
    with opened(path, TREE_LIMIT) as (_, file):
        return set(file.keys())
