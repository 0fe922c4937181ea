"""Trace files: HDF5 that grows a window of samples at a time, and is read the same way.

A file has root attributes format, version and digest; the text {"network", "inputs", "backend",
"info", "window", "populations"}; under "spikes/", "u/" and "v/" a table for each population, a
row a sample, flat in [T, *shape] order, spikes as bits (`numpy.packbits` of each row); and the
array "digests" [windows, 32], the SHA-256 of each window of samples. The digest of the file is
that of the text and of "digests", so that a reader needs no more than one window to know that
nobody changed it. Neither writing nor reading holds more than a window or what was handed in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from stformer import hdf5, hdf5_rows, jsontext
from stformer.errors import InputError
from stformer.storage import (
    TRACE_FORMAT,
    attributes_of,
    check_attributes,
    check_digest,
    check_size,
    json_text,
    mapping,
)
from stformer.trace import Trace, added, cut, joined
from stformer.trace_tables import (
    check_trace,
    file_digest,
    records_in,
    records_of,
    tables_of,
    untabled,
    window_digest,
    window_of,
)

VERSION = 2
LIMIT = 2**32  # bytes of one window, or of a whole trace in memory, unpacked
SMALL = 2**28  # bytes of all that is no table
DIGESTS = "digests"

# --- writing -----------------------------------------------------------------------------------


class TraceWriter:
    """Takes the parts of a trace, see `writing`."""

    def __init__(self, where: str, rows: hdf5_rows.Writer, inputs: str) -> None:
        self._where, self._rows, self._inputs = where, rows, inputs
        self._first: Trace | None = None  # the part that the others must be like
        self._waiting: Trace | None = None  # less than a window
        self._info: dict[str, float | str] = {}
        self._digests: list[bytes] = []
        self._window = 0

    def append(self, part: Trace) -> None:
        """Write the next samples.

        Raises:
            InputError: a part that is no trace (`Trace`), or unlike the ones before.
        """
        check_trace(self._where, part)
        if self._first is None:
            self._first = cut(part, 0, 0)
            self._window = window_of(sum(r.size for r in records_of(part)))
        elif _likeness(part) != _likeness(self._first):
            raise InputError(self._where, "parts of different runs", "one network, one probe")
        self._info = added(self._info, part.info)
        ready = part if self._waiting is None else joined((self._waiting, part), self._inputs)
        whole = ready.samples - ready.samples % self._window
        for start in range(0, whole, self._window):
            self._put(ready, start, start + self._window)
        left = ready.samples - whole
        self._waiting = cut(ready, whole, ready.samples) if left else None

    def _put(self, trace: Trace, start: int, stop: int) -> None:
        tables = tables_of(trace, start, stop)
        self._digests.append(window_digest(tables))
        self._rows.append(self._window, tables)

    def finish(self) -> None:
        """Write what is left and what makes it a file."""
        if self._first is None:
            raise InputError(self._where, "no part of a trace", "at least one")
        if self._waiting is not None:
            # A short trace is one window of its own length: no chunk is filled up with zeros.
            self._window = self._window if self._digests else self._waiting.samples
            self._put(self._waiting, 0, self._waiting.samples)
        first, info = self._first, self._info
        top: dict[str, object] = {
            "network": first.network,
            "inputs": self._inputs,
            "backend": first.backend,
            "info": {k: v.item() if isinstance(v, np.generic) else v for k, v in info.items()},
            "window": self._window,
            "populations": [
                {"name": r.name, "shape": [self._rows.rows, *r.shape], "graded": r.graded}
                for r in records_of(first)
            ],
        }
        text = json_text(self._where, top)
        digests = np.frombuffer(b"".join(self._digests), np.uint8).reshape(-1, 32)
        attributes = attributes_of(TRACE_FORMAT, VERSION, file_digest(text, digests))
        content = hdf5.Content(attributes=attributes, text=text, arrays={DIGESTS: digests})
        self._rows.finish(content)


@contextmanager
def writing(path: str | Path, *, inputs: str) -> Iterator[TraceWriter]:
    """Write a trace part by part; the file appears, whole, when the block ends well.

        with writing("cpu.trace", inputs=digest_inputs(frames)) as file:
            for part in parts:
                file.append(part)

    The bytes depend on the samples and not on how they were parted (but for `info`). Whatever
    ends the block (an error, a full disk, Ctrl-C) leaves no half of a file.

    Args:
        path: of the file.
        inputs: digest of the inputs of all parts together.

    Raises:
        InputError: the place cannot be written, or a part is no trace or unlike the others.
    """
    with hdf5_rows.writing(path) as rows:
        writer = TraceWriter(str(path), rows, inputs)
        yield writer
        writer.finish()


def save_trace(path: str | Path, trace: Trace) -> None:
    """Write a trace that is in memory, see `writing`."""
    with writing(path, inputs=trace.inputs) as file:
        file.append(trace)


# --- reading -----------------------------------------------------------------------------------


class TraceReader:
    """A trace file, read a few samples at a time; see `reading`.

    Attributes:
        network, inputs, backend, info: as of `Trace`.
        records: what there is, in the network's order.
        samples: in the file.
        window: samples that are read at once.
        head: the trace without a record.
    """

    def __init__(self, where: str, rows: hdf5_rows.Reader, limit: int) -> None:
        self._where, self._rows = where, rows
        claimed = check_attributes(where, rows.attributes, TRACE_FORMAT, VERSION)
        keys = ("network", "inputs", "backend", "info", "window", "populations")
        top = mapping(where, jsontext.parse_json(where, rows.text), *keys)
        digests = rows.arrays.pop(DIGESTS, None)
        if digests is None or digests.dtype != np.uint8 or digests.shape[1:] != (32,):
            raise InputError(where, f"no array '{DIGESTS}'", "one, [windows, 32] of uint8")
        check_digest(where, claimed, file_digest(rows.text, digests))
        self._digests = [row.tobytes() for row in digests]
        self.records, self.samples = records_in(where, top["populations"], rows)
        self.window = self._check_window(top["window"], limit)
        self.head = Trace(  # whose fields the next line checks
            network=top["network"],  # type: ignore[arg-type]
            inputs=top["inputs"],  # type: ignore[arg-type]
            backend=top["backend"],  # type: ignore[arg-type]
            info=top["info"],  # type: ignore[arg-type]
            spikes={},
        )
        check_trace(where, self.head)
        self.network, self.inputs = self.head.network, self.head.inputs
        self.backend, self.info = self.head.backend, self.head.info
        self._at, self._held = -1, self.head  # the window that was read last

    def _check_window(self, window: object, limit: int) -> int:
        if type(window) is not int or window < 1:
            raise InputError(self._where, f"a window of {window!r:.80}", "1 or more samples")
        check_size(f"{self._where}, a window", window * self.size, limit)
        if len(self._digests) != -(-self.samples // window):
            found = f"{len(self._digests)} digests for {self.samples} samples"
            raise InputError(self._where, found, f"one per {window}")
        for path, table in self._rows.tables.items():
            if table.window != window:
                found = f"'{path:.200}' in chunks of {table.window} samples"
                raise InputError(self._where, found, str(window))
        return window

    @property
    def size(self) -> int:
        """Bytes of one sample in memory."""
        return sum(r.size for r in self.records)

    def part(self, start: int, stop: int, names: Collection[str] | None = None) -> Trace:
        """Samples start...stop - 1; `inputs` is all samples'.

        Args:
            start, stop: 0 <= start <= stop <= samples; of no samples it is `head`.
            names: populations whose records stay, of those that there are; None for all.

        Raises:
            InputError: they are damaged, or not what was written.
        """
        parts = []
        for index in range(start // self.window, -(-stop // self.window)):
            first = index * self.window
            whole = self._read(index)
            low, high = max(start - first, 0), min(stop - first, whole.samples)
            uncut = names is None and high - low == whole.samples
            parts.append(whole if uncut else cut(whole, low, high, names))
        if len(parts) < 2:
            return parts[0] if parts else self.head
        return replace(joined(parts, self.inputs), info=self.info)

    def _read(self, index: int) -> Trace:
        if index != self._at:
            self._at, self._held = -1, self.head  # let the old one go first
            start = index * self.window
            stop = min(start + self.window, self.samples)
            tables = {path: self._rows.rows(path, start, stop) for path in self._rows.tables}
            claimed, actual = self._digests[index], window_digest(tables)
            where = f"{self._where}, samples {start}...{stop - 1}"
            check_digest(where, claimed.hex(), actual.hex())
            self._held = untabled(self.head, self.records, tables)
            self._at = index
        return self._held


@contextmanager
def reading(path: str | Path, *, limit: int = LIMIT) -> Iterator[TraceReader]:
    """Open a trace file.

    Args:
        path: of the file.
        limit: bytes that a window of it may take unpacked.

    Raises:
        InputError: anything that is not a whole trace file of this version, at once or when
            the samples are read.
    """
    with hdf5_rows.reading(path, SMALL) as rows:
        yield TraceReader(str(path), rows, limit)


def load_trace(path: str | Path, *, limit: int = LIMIT) -> Trace:
    """All of a trace file.

    Args:
        path: of the file.
        limit: bytes that its unpacked records may take.

    Raises:
        InputError: anything that is not a whole trace file of this version, or a larger one.
    """
    with reading(path, limit=limit) as file:
        size = file.samples * file.size
        if size > limit:
            do = "`stformer.trace_file.reading` reads it window by window"
            raise InputError(str(path), f"{size} bytes unpacked", f"up to {limit}", do)
        return file.part(0, file.samples)


def _likeness(trace: Trace) -> tuple[object, ...]:
    return trace.network, trace.backend, records_of(trace)
