"""HDF5 tables that are written and read a window of rows at a time, in bounded memory.

A file of ours as in `stformer.hdf5` (attributes, one JSON text, integer arrays, nothing else),
whose larger arrays are tables [rows, columns] in chunks of one window of rows. Rows are added
at the end; nothing that was written is changed again, so that the same rows give the same bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stformer.files import atomic_path
from stformer.hdf5 import Content, put
from stformer.hdf5_reader import CHUNK, DTYPES, opened
from stformer.hdf5_reader import Reader as FileReader
from stformer.machine import cores
from stformer.network import IntArray

if TYPE_CHECKING:
    import h5py
    from typing_extensions import Buffer as ReadableBuffer

LEVEL = 2  # of gzip: twice as fast as 4, and 4 % larger
MAX_FILE = 2**46  # bytes


class _Disk(FileIO):
    """A raw file that never fails to HDF5, which cannot let go of what it cannot flush.

    The first error is kept, for `writing` to raise; what comes after it is lost, as the file is.
    """

    error: OSError | None = None

    def write(self, data: ReadableBuffer) -> int:
        left = memoryview(data)
        try:
            while left and self.error is None:  # HDF5 does not look at what was taken
                left = left[super().write(left) :]
        except OSError as e:
            self.error = e
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size) if self.error is None else 0
        except OSError as e:
            self.error = e
            return 0


class Writer:
    """Adds rows to the tables of one file; see `writing`."""

    def __init__(self, file: h5py.File) -> None:
        self._file, self.rows = file, 0

    def append(self, window: int, tables: Mapping[str, IntArray]) -> None:
        """Add one window of rows to all tables; fewer rows only at the end.

        Args:
            window: rows of a chunk, each time the same.
            tables: path -> [rows, columns], each time the same paths, columns and types.
        """
        count = len(next(iter(tables.values())))
        assert 1 <= count <= window and self.rows % window == 0, "a short window ends the tables"
        jobs: list[tuple[h5py.Dataset, int, IntArray]] = []
        for path, rows in tables.items():
            data = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
            assert len(data) == count
            if not self.rows:
                self._create(path, data, window)
            table = self._file[path]
            table.resize(self.rows + count, axis=0)
            width = table.chunks[1]
            for column in range(0, data.shape[1], width):
                jobs.append((table, column, data[:, column : column + width]))
        # zlib lets go of the interpreter; the chunks are written in order, whoever packed them.
        with ThreadPoolExecutor(cores()) as pool:
            packed = pool.map(lambda job: _packed(job[0].chunks, job[2]), jobs)
            for (table, column, _), chunk in zip(jobs, packed, strict=True):
                table.id.write_direct_chunk((self.rows, column), chunk)
        self.rows += count

    def _create(self, path: str, data: IntArray, window: int) -> None:
        columns, item = data.shape[1], data.dtype.itemsize
        width = min(columns, max(1, CHUNK // (window * item)))
        self._file.create_dataset(
            path,
            shape=(0, columns),
            maxshape=(None, columns),
            chunks=(window, width),
            dtype=data.dtype,
            compression="gzip",
            compression_opts=LEVEL,
            shuffle=item > 1,
            track_times=False,
        )

    def finish(self, content: Content) -> None:
        """Write what is known only now: attributes, text and small arrays."""
        put(self._file, content)


def _packed(shape: tuple[int, int], part: IntArray) -> bytes:
    """A chunk as HDF5's filters pack it: the bytes of each significance together, then deflate."""
    chunk = np.zeros(shape, part.dtype)
    chunk[: part.shape[0], : part.shape[1]] = part
    raw = chunk.view(np.uint8).reshape(-1, chunk.dtype.itemsize)
    return zlib.compress(np.ascontiguousarray(raw.T).data, LEVEL)


@contextmanager
def writing(path: str | Path) -> Iterator[Writer]:
    """Write a file that appears, whole, when the block ends well, and else leaves nothing.

    Args:
        path: of the file.

    Raises:
        InputError: the place cannot be written, or the disk is full.
    """
    import h5py

    with atomic_path(path) as temporary, _Disk(temporary, "r+b") as disk:
        try:
            # The low bound writes superblock 3 and new-style groups, without time stamps.
            with h5py.File(disk, "w", libver=("v110", "v110")) as file:
                yield Writer(file)
        finally:
            if disk.error:
                raise disk.error


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What a table is like before any of it is read.

    Attributes:
        dtype: name of its integers.
        rows, columns: its shape.
        window: rows of a chunk.
    """

    dtype: str
    rows: int
    columns: int
    window: int


class Reader:
    """Reads rows of the tables of one file; see `reading`."""

    def __init__(self, reader: FileReader, file: h5py.File) -> None:
        self._reader = reader
        self.attributes = {str(key): reader.attribute(file, key) for key in file.attrs}
        datasets = dict(reader.walk(file, "", 2))
        self.text = reader.take_text(datasets)
        self._tables: dict[str, tuple[h5py.Dataset, list[int]]] = {}
        self.arrays: dict[str, IntArray] = {}
        self.tables: dict[str, Table] = {}
        for path, data in datasets.items():
            if data.chunks and data.shape and len(data.shape) == 2:
                self.tables[path] = self._table(path, data)
            else:
                self.arrays[path] = reader.array(path, data)

    def _table(self, path: str, data: h5py.Dataset) -> Table:
        what = f"dataset '{path:.200}'"
        if data.dtype.name not in DTYPES:
            self._reader.refuse(what, f"type {data.dtype!s:.80}", ", ".join(DTYPES))
        if 0 in data.shape:
            self._reader.refuse(what, f"shape {data.shape}", "rows and columns")
        self._tables[path] = data, self._reader.packing(what, data, 2 * CHUNK)
        rows, columns = data.shape
        return Table(dtype=data.dtype.name, rows=rows, columns=columns, window=data.chunks[0])

    def rows(self, path: str, start: int, stop: int) -> IntArray:
        """Rows of a table, [stop - start, columns]; `start` is a multiple of its window.

        Their size is the caller's to bound.
        """
        data, filters = self._tables[path]
        out = self._reader.unpacked(f"dataset '{path:.200}'", data, filters, range(start, stop))
        native: IntArray = out.astype(data.dtype.newbyteorder("="), copy=False)
        return native


@contextmanager
def reading(path: str | Path, limit: int) -> Iterator[Reader]:
    """Open a file of tables.

    Args:
        path: of the file.
        limit: bytes that its small arrays may take.

    Raises:
        InputError: as `hdf5.read`, at once or when rows are read.
    """
    with opened(path, limit, size=MAX_FILE) as (reader, file):
        yield Reader(reader, file)
