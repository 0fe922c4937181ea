"""A trace as the tables of its file: a row a sample, spikes as bits; and their checks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TypeAlias, TypeGuard

import numpy as np

from stformer import hdf5_rows
from stformer.errors import InputError
from stformer.network import MAX_NEURONS, MAX_STEPS, IntArray
from stformer.storage import is_digest, mapping
from stformer.trace import Trace

WINDOW_BYTES = 2**26  # of a window, unpacked, where that is more than one sample
MOST_SAMPLES = 256  # of a window
KINDS = ("spikes", "u", "v")

Tables: TypeAlias = dict[str, IntArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is recorded of one population.

    Attributes:
        name: of the population.
        shape: of one sample, [T, *shape].
        graded: int32 instead of bits.
        states: those of u and v that are recorded.
    """

    name: str
    shape: tuple[int, ...]
    graded: bool
    states: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of one sample in memory."""
        return prod(self.shape) * ((4 if self.graded else 1) + 4 * len(self.states))


def records_of(trace: Trace) -> tuple[Record, ...]:
    """What a trace has of each population, in its order."""
    return tuple(
        Record(
            name=name,
            shape=tuple(a.shape[1:]),
            graded=a.dtype != np.uint8,
            states=tuple(k for k in KINDS[1:] if name in getattr(trace, k)),
        )
        for name, a in trace.spikes.items()
    )


def window_of(size: int) -> int:
    """Samples of a window: as many of this size as fit `WINDOW_BYTES`, at least one."""
    return min(max(WINDOW_BYTES // max(size, 1), 1), MOST_SAMPLES)


# --- tables ------------------------------------------------------------------------------------


def tables_of(trace: Trace, start: int, stop: int) -> Tables:
    """Path -> rows of some samples, as they are stored."""
    out: Tables = {}
    for kind in KINDS:
        for name, a in getattr(trace, kind).items():
            rows = a[start:stop].reshape(stop - start, -1)
            out[f"{kind}/{name}"] = np.packbits(rows, axis=1) if a.dtype == np.uint8 else rows
    return out


def untabled(head: Trace, records: tuple[Record, ...], tables: Tables) -> Trace:
    """The trace of some samples from their rows; the rest is as in `head`."""
    out: dict[str, Tables] = {kind: {} for kind in KINDS}
    for r in records:
        for kind in ("spikes", *r.states):
            rows = tables[f"{kind}/{r.name}"]
            if kind == "spikes" and not r.graded:
                bits = rows.astype(np.uint8, copy=False)  # as it is
                rows = np.unpackbits(bits, axis=1, count=prod(r.shape))
            out[kind][r.name] = rows.reshape(-1, *r.shape)
    return replace(head, spikes=out["spikes"], u=out["u"], v=out["v"])


def window_digest(tables: Tables) -> bytes:
    """SHA-256 over paths, types, shapes and rows of a window."""
    h = hashlib.sha256()
    for path in sorted(tables):
        a = tables[path]
        h.update(f"\0{path}\0{a.dtype.name}\0{a.shape}\0".encode())
        h.update(np.ascontiguousarray(a, a.dtype.newbyteorder("<")).data)
    return h.digest()


def file_digest(text: str, digests: IntArray) -> str:
    """Digest of a trace file from its text and those of its windows, [windows, 32] bytes."""
    return hashlib.sha256(text.encode() + b"\0" + digests.tobytes()).hexdigest()


# --- checks ------------------------------------------------------------------------------------


def records_in(
    where: str, value: object, rows: hdf5_rows.Reader
) -> tuple[tuple[Record, ...], int]:
    """What the text says that there is, and how many samples, compared with what there is."""
    if not isinstance(value, list):
        raise InputError(f"{where}, populations", type(value).__name__, "a list")
    out: list[Record] = []
    samples = 0
    left = set(rows.tables)
    for entry in value:
        item = mapping(where, entry, "name", "shape", "graded")
        name, shape, graded = item["name"], item["shape"], item["graded"]
        if not isinstance(name, str):
            raise InputError(f"{where}, populations", f"name {name!r:.80}", "a string")
        if not _is_shape(shape):
            raise InputError(f"{where}, '{name:.80}'", f"shape {shape!r:.80}", "[S, T, *shape]")
        if not isinstance(graded, bool):
            raise InputError(f"{where}, '{name:.80}'", f"graded {graded!r:.80}", "true or false")
        states = tuple(kind for kind in KINDS[1:] if f"{kind}/{name}" in left)
        record = Record(name=name, shape=tuple(shape[1:]), graded=graded, states=states)
        for kind in ("spikes", *states):
            if f"{kind}/{name}" not in left:
                found = f"no array '{kind}/{name:.200}'"
                raise InputError(where, found, "one per population, once")
            left.remove(f"{kind}/{name}")
            _check_table(f"{where}, {kind} of '{name}'", rows, kind, record, shape[0])
        if out and (shape[0], shape[1]) != (samples, out[0].shape[0]):
            raise InputError(f"{where}, '{name:.80}'", f"shape {shape!r:.80}", "samples, steps")
        samples = shape[0]
        out.append(record)
    odd = sorted([*left, *rows.arrays])
    if odd:
        raise InputError(where, f"arrays {odd!r:.200}", "those of its populations")
    return tuple(out), samples


def _check_table(
    where: str, rows: hdf5_rows.Reader, kind: str, record: Record, samples: int
) -> None:
    table = rows.tables[f"{kind}/{record.name}"]
    bits = kind == "spikes" and not record.graded
    columns = -(-prod(record.shape) // 8) if bits else prod(record.shape)
    dtype = "uint8" if bits else "int32"
    if (table.dtype, table.rows, table.columns) != (dtype, samples, columns):
        found = f"[{table.rows}, {table.columns}] of {table.dtype}"
        raise InputError(where, found, f"[{samples}, {columns}] of {dtype}")


def _is_shape(value: object) -> TypeGuard[list[int]]:
    if not isinstance(value, list) or not 3 <= len(value) <= 5:
        return False
    return all(type(n) is int and 1 <= n <= MAX_NEURONS for n in value)


def check_trace(where: str, trace: Trace) -> None:
    """Raise InputError for records, digests or info that no trace can have."""
    for what, digest in (("network", trace.network), ("inputs", trace.inputs)):
        if not is_digest(digest):
            raise InputError(f"{where}, {what}", f"{digest!r:.80}", "64 hexadecimal digits")
    if not isinstance(trace.backend, str) or not isinstance(trace.info, Mapping):
        raise InputError(f"{where}, backend", f"{trace.backend!r:.80}", "a name; info a mapping")
    for key, value in trace.info.items():
        if not isinstance(key, str) or not isinstance(value, (str, int, float, np.integer)):
            raise InputError(
                f"{where}, info '{key!s:.80}'", f"{value!r:.80}", "a number or string"
            )
    counts = {a.shape[:2] for a in trace.spikes.values()}
    if len(counts) > 1 or any(0 in c or c[1] > MAX_STEPS for c in counts):
        found = f"samples and steps {sorted(counts)!r:.80}"
        raise InputError(where, found, f"one pair, at least 1 each, up to {MAX_STEPS} steps")
    for name, a in trace.spikes.items():
        what = f"{where}, spikes of '{name}'"
        if a.dtype not in (np.uint8, np.int32):
            raise InputError(what, a.dtype.name, "uint8 or int32")
        if a.dtype == np.uint8 and a.max() > 1:
            raise InputError(what, str(a.max()), "0 and 1")
    for key, states in (("u", trace.u), ("v", trace.v)):
        for name, a in states.items():
            what = f"{where}, {key} of '{name}'"
            if name not in trace.spikes or a.shape != trace.spikes[name].shape:
                raise InputError(what, f"shape {a.shape}", "the shape of its spikes")
            if a.dtype != np.int32:
                raise InputError(what, a.dtype.name, "int32")
