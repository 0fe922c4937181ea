"""HDF5 as plain data: some attributes, one JSON text, integer arrays; nothing else gets in or out.

Written files depend on their content only (no times, fixed format version). Read files are not
trusted: no link, external or virtual storage is followed, no filter but gzip and byte shuffle
runs, and every size is compared with a limit and with what is really stored before memory
is taken.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from stformer.errors import InputError
from stformer.network import IntArray

if TYPE_CHECKING:
    import h5py

MAGIC = b"\x89HDF\r\n\x1a\n"
TEXT = "document"  # the dataset that holds the JSON text
MAX_TEXT = 2**24  # bytes
MAX_ITEMS = 2**20  # values and containers in a JSON text: 16 MiB of "[]," would take a gigabyte
MAX_OBJECTS = 2**17  # datasets in a file
MAX_ATTRIBUTE = 4096  # bytes
CHUNK = 2**20  # bytes
DTYPES = ("int8", "int16", "int32", "uint8")


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


def image(content: Content, *, compress: bool) -> bytes:
    """The bytes of an HDF5 file; the same content gives the same bytes.

    Built in memory, so that a full disk is met by plain Python instead of by the HDF5 library,
    which cannot close a file that it cannot flush.

    Args:
        content: what to write; array paths have at most one group ("group/name").
        compress: gzip and byte shuffle, in chunks of 1 MiB over one-dimensional arrays.
    """
    import h5py

    # The low bound writes superblock 3 and new-style groups, which carry no time stamps.
    with h5py.File(
        "memory", "w", driver="core", backing_store=False, libver=("v110", "v110")
    ) as file:
        for key, value in content.attributes.items():
            file.attrs.create(
                key, np.bytes_(value.encode()) if isinstance(value, str) else np.int64(value)
            )
        text = content.text.encode()
        kind = h5py.string_dtype("utf-8", max(1, len(text)))
        file.create_dataset(TEXT, data=np.array(text, kind), dtype=kind, track_times=False)
        for path, array in content.arrays.items():
            data = array.astype(array.dtype.newbyteorder("<"), copy=False)
            options: dict[str, object] = {}
            if compress and data.size:
                count = min(data.size, CHUNK // data.dtype.itemsize)
                options = {"chunks": (count,), "compression": "gzip", "compression_opts": 4}
                options["shuffle"] = data.dtype.itemsize > 1
            file.create_dataset(path, data=data, track_times=False, **options)
        file.flush()
        return memoryview(file.id.get_file_image()).tobytes()


def read(path: str | Path, limit: int) -> Content:
    """Everything in a file.

    Args:
        path: of the file.
        limit: bytes that the file, and all its arrays together once unpacked, may have.

    Raises:
        InputError: no such file, not HDF5, truncated, damaged, too large, or holding anything
            but integer arrays, one text and plain attributes.
    """
    where = str(path)
    _check_file(where, limit)
    import h5py

    try:
        with h5py.File(where, "r", locking=False) as file:
            return _Reader(where, limit).content(file)
    except InputError:
        raise
    except Exception as e:  # the library answers damage with nearly every exception there is
        reason = (str(e).splitlines() or [type(e).__name__])[0][:200]
        raise InputError(where, f"damaged HDF5 ({reason})", "a complete file") from e


def parse_json(where: str, text: str) -> object:
    """JSON from an untrusted text of bounded size.

    Raises:
        InputError: not JSON, NaN or infinity, integers beyond 20 digits, a key twice, nesting
            deeper than Python's recursion, or more than `MAX_ITEMS` items.
    """

    def refuse(found: str) -> NoReturn:
        raise InputError(f"{where}, JSON text", found, "finite numbers, one value per key")

    def whole(digits: str) -> int:
        return int(digits) if len(digits) <= 20 else refuse(f"an integer of {len(digits)} digits")

    def real(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(digits[:40])

    def mapping(pairs: list[tuple[str, object]]) -> dict[str, object]:
        out = dict(pairs)
        return out if len(out) == len(pairs) else refuse("a key twice")

    check_items(where, text)
    try:
        return json.loads(
            text,
            parse_int=whole,
            parse_float=real,
            parse_constant=refuse,
            object_pairs_hook=mapping,
        )
    except RecursionError:
        raise InputError(f"{where}, JSON text", "very deep nesting", "a few levels") from None
    except ValueError as e:
        raise InputError(f"{where}, JSON text", str(e)[:200], "JSON") from e


def check_items(where: str, text: str) -> None:
    """Raise InputError for a JSON text with more than `MAX_ITEMS` items."""
    if sum(text.count(c) for c in "[{,") > MAX_ITEMS:
        raise InputError(f"{where}, JSON text", "too many items", f"up to {MAX_ITEMS}")


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


class _Reader:
    """Reads one file; counts the memory that it takes."""

    def __init__(self, where: str, limit: int) -> None:
        self.where, self.limit, self.left = where, limit, limit

    def refuse(self, what: str, found: str, allowed: str) -> NoReturn:
        raise InputError(f"{self.where}, {what}", found, allowed)

    def content(self, file: h5py.File) -> Content:
        attributes = {str(key): self.attribute(file, key) for key in file.attrs}
        datasets = dict(self.walk(file, "", 2))
        if TEXT not in datasets:
            self.refuse(f"dataset '{TEXT}'", "missing", "one in every file of ours")
        text = self.text(datasets.pop(TEXT))
        arrays = {name: self.array(name, data) for name, data in datasets.items()}
        return Content(attributes=attributes, text=text, arrays=arrays)

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

        if len(group) > MAX_OBJECTS:
            self.refuse(prefix or "/", f"{len(group)} objects", f"up to {MAX_OBJECTS}")
        for key in group:
            name = f"{prefix}{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                self.refuse(f"'{name:.200}'", "a link", "data in this very file")
            item = group[key]
            if isinstance(item, h5py.Dataset):
                yield name, item
            elif isinstance(item, h5py.Group) and depth > 0:
                yield from self.walk(item, f"{name}/", depth - 1)
            else:
                self.refuse(
                    f"'{name:.200}'", "an object of another kind", "arrays two groups deep"
                )

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
        if data.shape is None or data.maxshape != data.shape or not 1 <= len(data.shape) <= 4:
            self.refuse(what, f"shape {data.shape}", "1 to 4 axes of fixed length")
        size = math.prod(data.shape) * data.dtype.itemsize
        if size > self.left:
            self.refuse(what, f"shape {data.shape}", f"{self.limit} bytes in the whole file")
        self.left -= size
        self.stored_here(what, data, size)
        native = data.dtype.newbyteorder("=")
        out = self.chunked(what, data) if data.chunks else np.asarray(data[...])
        return out.astype(native, copy=False)

    def chunked(self, what: str, data: h5py.Dataset) -> IntArray:
        """Unpack chunk by chunk ourselves: HDF5 grows its buffer as long as a gzip bomb asks."""
        plist = data.id.get_create_plist()
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        if filters not in ([1], [2, 1]):  # deflate; shuffle, then deflate
            self.refuse(what, f"filters {filters}", "gzip, with or without shuffle")
        item, shape = data.dtype.itemsize, tuple(data.chunks or ())
        size = math.prod(shape) * item
        counts = [-(-n // c) for n, c in zip(data.shape, shape, strict=True)]
        if size > 2 * CHUNK or data.id.get_num_chunks() != math.prod(counts):
            self.refuse(what, f"chunks of shape {shape}", f"all there, up to {CHUNK} bytes each")
        out: IntArray = np.empty(data.shape, data.dtype)
        for index in product(*(range(n) for n in counts)):
            at = tuple(i * c for i, c in zip(index, shape, strict=True))
            mask, packed = data.id.read_direct_chunk(at)
            raw = zlib.decompressobj().decompress(packed, size + 1)
            if mask or len(raw) != size:
                self.refuse(what, f"a chunk of {len(raw)} bytes", f"{size}")
            values = np.frombuffer(raw, np.uint8)
            if 2 in filters:
                values = np.ascontiguousarray(values.reshape(item, -1).T)
            chunk: IntArray = values.view(data.dtype).reshape(shape)
            end = tuple(min(n - a, c) for n, a, c in zip(data.shape, at, shape, strict=True))
            out[tuple(slice(a, a + e) for a, e in zip(at, end, strict=True))] = chunk[
                tuple(slice(e) for e in end)
            ]
        return out
