"""HDF5 as plain data: nothing but numbers and texts gets in or out.

Our own files (`image`, `read`, and `hdf5_rows` for large ones) are some attributes, one JSON text
and integer arrays; what other programs wrote (`read_tree`) is groups of numbers and texts.
Written files depend on their content only (no times, fixed format version). Read files are not
trusted: no link, external or virtual storage is followed, no filter but gzip and byte shuffle
runs, and every size is compared with a limit and with what is really stored before memory is
taken.
"""

from __future__ import annotations

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
    import h5py

    # The low bound writes superblock 3 and new-style groups, which carry no time stamps.
    with h5py.File(
        "memory", "w", driver="core", backing_store=False, libver=("v110", "v110")
    ) as file:
        put(file, content)
        file.flush()
        return memoryview(file.id.get_file_image()).tobytes()


def put(file: h5py.File, content: Content) -> None:
    """Write content into an open file, arrays as they are."""
    import h5py

    for key, value in content.attributes.items():
        file.attrs.create(
            key, np.bytes_(value.encode()) if isinstance(value, str) else np.int64(value)
        )
    text = content.text.encode()
    kind = h5py.string_dtype("utf-8", max(1, len(text)))
    file.create_dataset(TEXT, data=np.array(text, kind), dtype=kind, track_times=False)
    for path, array in content.arrays.items():
        data = array.astype(array.dtype.newbyteorder("<"), copy=False)
        file.create_dataset(path, data=data, track_times=False)


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
