"""The checked reader behind `stformer.hdf5`: one open file, none of it trusted."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from stformer.errors import InputError
from stformer.network import IntArray

if TYPE_CHECKING:
    import h5py

MAGIC = b"\x89HDF\r\n\x1a\n"
TEXT = "document"  # the dataset that holds the JSON text
MAX_TEXT = 2**24  # bytes
MAX_OBJECTS = 2**17  # datasets in a file
MAX_ATTRIBUTE = 4096  # bytes
CHUNK = 2**20  # bytes
DTYPES = ("int8", "int16", "int32", "uint8")
TREE_CHUNK = 2**27  # bytes of a chunk in other programs' files, which are often one per array
TREE_LIMIT = 2**30  # bytes of such a file and of its arrays
TREE_DEPTH = 24  # groups

Tree: TypeAlias = "dict[str, Tree | npt.NDArray[Any] | str]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a file holds.

    Attributes:
        attributes: of the root; strings and integers.
        text: JSON.
        arrays: path -> integers (`DTYPES`), little-endian.
    """

    attributes: Mapping[str, str | int]
    text: str
    arrays: Mapping[str, IntArray]


@contextmanager
def opened(
    path: str | Path, limit: int, *, size: int | None = None
) -> Iterator[tuple[Reader, h5py.File]]:
    """An untrusted file, open, and what reads it; errors as `read`.

    Args:
        path: of the file.
        limit: bytes that may be read.
        size: bytes that the file may have; `limit` by default.
    """
    where = str(path)
    _check_file(where, limit if size is None else size)
    import h5py

    try:
        with h5py.File(where, "r", locking=False) as file:
            yield Reader(where, limit), file
    except InputError:
        raise
    except Exception as e:  # the library answers damage with nearly every exception there is
        reason = (str(e).splitlines() or [type(e).__name__])[0][:200]
        raise InputError(where, f"damaged HDF5 ({reason})", "a complete file") from e


def _check_file(where: str, limit: int) -> None:
    if not where or "\0" in where:
        raise InputError("path", repr(where), "the path of a file")
    path = Path(where)
    try:
        if path.is_dir():
            raise InputError(where, "a folder", "an HDF5 file")
        if path.exists() and not path.is_file():
            raise InputError(where, "a device or pipe", "an HDF5 file")
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
        size = path.stat().st_size
    except OSError as e:
        raise InputError(where, f"cannot be read ({e.strerror})", "an existing file") from e
    if not head:
        raise InputError(where, "an empty file", "an HDF5 file")
    if head != MAGIC:
        raise InputError(where, f"not HDF5 (it starts with {head!r})", "an HDF5 file")
    if size > limit:
        raise InputError(where, f"{size} bytes", f"up to {limit}")


class Reader:
    """Reads one open file; counts the memory and the objects that it takes."""

    def __init__(self, where: str, limit: int) -> None:
        self.where, self.limit, self.left = where, limit, limit
        self.objects = 0

    def refuse(self, what: str, found: str, allowed: str) -> NoReturn:
        raise InputError(f"{self.where}, {what}", found, allowed)

    def content(self, file: h5py.File) -> Content:
        attributes = {str(key): self.attribute(file, key) for key in file.attrs}
        datasets = dict(self.walk(file, "", 2))
        text = self.take_text(datasets)
        arrays = {name: self.array(name, data) for name, data in datasets.items()}
        return Content(attributes=attributes, text=text, arrays=arrays)

    def take_text(self, datasets: dict[str, h5py.Dataset]) -> str:
        """The JSON text, which is taken out of the datasets."""
        if TEXT not in datasets:
            self.refuse(f"dataset '{TEXT}'", "missing", "one in every file of ours")
        return self.text(datasets.pop(TEXT))

    def attribute(self, file: h5py.File, key: str) -> str | int:
        what = f"attribute '{key:.80}'"
        found = file.attrs.get_id(key)
        if (
            found.shape != ()
            or found.dtype.itemsize > MAX_ATTRIBUTE
            or found.dtype.kind not in "Siu"
        ):
            self.refuse(
                what, f"{found.dtype} of shape {found.shape}", "one integer or short string"
            )
        value = np.empty((), found.dtype)
        found.read(value)
        item = value.item()
        return item.decode("ascii") if isinstance(item, bytes) else int(item)

    def walk(
        self, group: h5py.Group, prefix: str, depth: int
    ) -> Iterator[tuple[str, h5py.Dataset]]:
        """Datasets by path, over hard links only, `depth` groups deep."""
        import h5py

        for key, item in self.members(group, prefix):
            name = f"{prefix}{key}"
            if isinstance(item, h5py.Dataset):
                yield name, item
            elif isinstance(item, h5py.Group) and depth > 0:
                yield from self.walk(item, f"{name}/", depth - 1)
            else:
                self.refuse(
                    f"'{name:.200}'", "an object of another kind", "arrays two groups deep"
                )

    def members(self, group: h5py.Group, prefix: str) -> Iterator[tuple[str, Any]]:
        """What is in a group, by name, over hard links only."""
        import h5py

        self.objects += len(group)
        if self.objects > MAX_OBJECTS:
            self.refuse(prefix or "/", f"{self.objects} objects", f"up to {MAX_OBJECTS}")
        for key in group:
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                self.refuse(f"'{prefix}{key:.200}'", "a link", "data in this very file")
            yield key, group[key]

    def tree(self, group: h5py.Group, prefix: str, depth: int) -> Tree:
        """Groups, numbers and texts, `depth` groups deep."""
        import h5py

        out: Tree = {}
        for key, item in self.members(group, prefix):
            name = f"{prefix}{key}"
            if isinstance(item, h5py.Dataset):
                out[key] = self.leaf(name, item)
            elif isinstance(item, h5py.Group) and depth > 0:
                out[key] = self.tree(item, f"{name}/", depth - 1)
            else:
                self.refuse(
                    f"'{name:.200}'", "an object of another kind", f"groups up to {depth} deep"
                )
        return out

    def leaf(self, name: str, data: h5py.Dataset) -> npt.NDArray[Any] | str:
        """Numbers or texts of another program."""
        import h5py

        what = f"dataset '{name:.200}'"
        if h5py.check_string_dtype(data.dtype):
            return self.texts(what, data)
        if data.dtype.kind not in "biufc" or data.shape is None:
            self.refuse(what, f"type {data.dtype!s:.80}", "numbers or texts")
        self.count(what, data)
        if data.chunks:
            return self.chunked(what, data, TREE_CHUNK, plain=True)
        if data.id.get_storage_size():  # none: never written, HDF5 gives the fill value
            self.stored_here(what, data, math.prod(data.shape) * data.dtype.itemsize)
        else:
            self.stored_here(what, data, 0)
        return np.asarray(data[()])

    def texts(self, what: str, data: h5py.Dataset) -> npt.NDArray[Any] | str:
        """One text, or an array of them; one by one, since many may share their bytes."""
        if data.is_virtual or data.id.get_create_plist().get_external_count():
            self.refuse(what, "data in other files", "data in this very file")
        if data.shape is None or data.chunks or math.prod(data.shape) > MAX_OBJECTS:
            self.refuse(what, f"texts of shape {data.shape}", f"up to {MAX_OBJECTS}, not packed")
        strings = data.asstr()
        out = np.empty(data.shape, object)
        for at in np.ndindex(data.shape):
            self.left -= data.dtype.itemsize
            if self.left < 0 or data.dtype.itemsize > MAX_TEXT:
                self.refuse(what, "very long texts", f"{self.limit} bytes in the whole file")
            out[at] = str(strings[at])
            self.left -= len(out[at])
        return out if out.shape else str(out.item())

    def count(self, what: str, data: h5py.Dataset) -> int:
        """The bytes of a dataset, taken from what is left of the limit."""
        size = int(math.prod(data.shape) * data.dtype.itemsize)
        if size > self.left:
            self.refuse(what, f"shape {data.shape}", f"{self.limit} bytes in the whole file")
        self.left -= size
        return size

    def text(self, data: h5py.Dataset) -> str:
        what = f"dataset '{TEXT}'"
        if data.dtype.kind != "S" or data.shape != () or data.chunks:
            self.refuse(what, f"{data.dtype} of shape {data.shape}", "one string of fixed length")
        size = data.dtype.itemsize
        if size > MAX_TEXT:
            self.refuse(what, f"{size} bytes", f"up to {MAX_TEXT}")
        self.stored_here(what, data, size)
        value = data[()]
        assert isinstance(value, bytes)
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as e:
            self.refuse(what, f"no UTF-8 ({e.reason})", "UTF-8")

    def stored_here(self, what: str, data: h5py.Dataset, size: int) -> None:
        plist = data.id.get_create_plist()
        if data.is_virtual or plist.get_external_count():
            self.refuse(what, "data in other files", "data in this very file")
        if not data.chunks and data.id.get_storage_size() != size:
            self.refuse(what, f"{data.id.get_storage_size()} bytes stored", f"{size}, as declared")

    def array(self, name: str, data: h5py.Dataset) -> IntArray:
        what = f"dataset '{name:.200}'"
        if data.dtype.name not in DTYPES:
            self.refuse(what, f"type {data.dtype!s:.80}", ", ".join(DTYPES))
        shape = data.shape or ()
        fixed = data.maxshape in (shape, (None, *shape[-1:]))  # or it is a table of `hdf5_rows`
        if not fixed or not 1 <= len(shape) <= 4:
            self.refuse(what, f"shape {data.shape}", "1 to 4 axes of fixed length")
        self.stored_here(what, data, self.count(what, data))
        native = data.dtype.newbyteorder("=")
        out = self.chunked(what, data, 2 * CHUNK) if data.chunks else np.asarray(data[...])
        result: IntArray = out.astype(native, copy=False)
        return result

    def chunked(
        self, what: str, data: h5py.Dataset, most: int, *, plain: bool = False
    ) -> npt.NDArray[Any]:
        """All of a chunked dataset, after `packing` has looked at it."""
        return self.unpacked(what, data, self.packing(what, data, most, plain=plain))

    def packing(
        self, what: str, data: h5py.Dataset, most: int, *, plain: bool = False
    ) -> list[int]:
        """The filters of a chunked dataset that can be unpacked."""
        plist = data.id.get_create_plist()
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        # deflate; shuffle, then deflate
        if filters not in ([1], [2, 1]) and not (plain and not filters):
            self.refuse(what, f"filters {filters}", "gzip, with or without shuffle")
        shape = tuple(data.chunks or ())
        size = math.prod(shape) * data.dtype.itemsize
        counts = [-(-n // c) for n, c in zip(data.shape, shape, strict=True)]
        if size > most or data.id.get_num_chunks() != math.prod(counts):
            self.refuse(what, f"chunks of shape {shape}", f"all there, up to {most} bytes each")
        self.stored_here(what, data, 0)
        return filters

    def unpacked(
        self, what: str, data: h5py.Dataset, filters: list[int], rows: range | None = None
    ) -> npt.NDArray[Any]:
        """Unpack chunk by chunk ourselves: HDF5 grows its buffer as long as a gzip bomb asks.

        Args:
            rows: of the first axis; all by default. It starts where a chunk does.
        """
        item, shape = data.dtype.itemsize, (*(data.chunks or (0,)),)
        size = math.prod(shape) * item
        rows = range(data.shape[0]) if rows is None else rows
        whole = (rows.stop, *data.shape[1:])
        out: npt.NDArray[Any] = np.empty((len(rows), *data.shape[1:]), data.dtype)
        starts = [range(0, n, c) for n, c in zip(whole, shape, strict=True)]
        for at in product(range(rows.start, rows.stop, shape[0]), *starts[1:]):
            mask, packed = data.id.read_direct_chunk(at)
            raw = zlib.decompressobj().decompress(packed, size + 1) if filters else packed
            if mask or len(raw) != size:
                self.refuse(what, f"a chunk of {len(raw)} bytes", f"{size}")
            values = np.frombuffer(raw, np.uint8)
            if 2 in filters:
                values = np.ascontiguousarray(values.reshape(item, -1).T)
            chunk: npt.NDArray[Any] = values.view(data.dtype).reshape(shape)
            end = tuple(min(n - a, c) for n, a, c in zip(whole, at, shape, strict=True))
            to = (at[0] - rows.start, *at[1:])
            out[tuple(slice(a, a + e) for a, e in zip(to, end, strict=True))] = chunk[
                tuple(slice(e) for e in end)
            ]
        return out
