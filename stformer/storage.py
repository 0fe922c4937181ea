"""Files: networks (`.stf`) and traces, as HDF5 that is byte-deterministic and read without trust.

Reading follows no link out of the file, looks at every size before it allocates, and accepts
integer arrays and one JSON text only (`stformer.hdf5`). Writing goes to a file beside the
target, then renames (`stformer.files`).

A network file: root attributes format, version and digest; the text
{"network": structure, "provenance": ...}; each weight and bias under
"<population or projection>/<field>". A trace file: root attributes format, version and digest
(of its content); the text {"network", "inputs", "backend", "info", "populations"}; under
"spikes/", "u/" and "v/" each population's record, flat in [S, T, *shape] order, spikes as
bits (`numpy.packbits`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TypeGuard

import numpy as np

from stformer import hdf5, jsontext
from stformer.errors import InputError
from stformer.files import write_bytes
from stformer.network import MAX_NEURONS, MAX_STEPS, IntArray, Network, from_plain, to_plain
from stformer.trace import Trace

NETWORK_FORMAT = "stformer-network"
TRACE_FORMAT = "stformer-trace"
VERSION = 1
NETWORK_LIMIT = 2**30  # bytes of a network's file and of its arrays
TRACE_LIMIT = 2**32  # bytes of a trace's file and of its unpacked records
PACKAGED = Path(__file__).parent / "packaged" / "digits.stf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A network file.

    Attributes:
        network: the integers.
        provenance: where it comes from (data set, accuracy, versions), JSON values.
    """

    network: Network
    provenance: dict[str, object] = field(default_factory=dict)


def save(
    path: str | Path,
    network: Network,
    *,
    provenance: Mapping[str, object] | None = None,
) -> None:
    """Write a network, whole or not at all; the same arguments give the same bytes.

    Args:
        path: of the file, by custom `.stf`.
        network: what to write.
        provenance: JSON values, see `Document`.

    Raises:
        InputError: the path cannot be written, the network is larger than `load` accepts,
            provenance is no JSON mapping.
    """
    where = str(path)
    structure, arrays = to_plain(network)
    _check_size(where, sum(a.nbytes for a in arrays.values()), NETWORK_LIMIT)
    top: dict[str, object] = {
        "network": structure,
        "provenance": dict(provenance or {}),
    }
    content = hdf5.Content(
        attributes=_attributes(NETWORK_FORMAT, network.digest()),
        text=_text(where, top),
        arrays=arrays,
    )
    write_bytes(path, hdf5.image(content, compress=False))


def load(path: str | Path | None = None) -> Network:
    """The network of a file; of the packaged model when there is no path.

    Raises:
        InputError: anything that is not a whole and legal network file of this version.
    """
    return load_document(path).network


def load_document(path: str | Path | None = None) -> Document:
    """A network file with its provenance; see `load`."""
    where = str(PACKAGED if path is None else path)
    content = hdf5.read(where, NETWORK_LIMIT)
    digest = _check_attributes(where, content, NETWORK_FORMAT)
    text = jsontext.parse_json(where, content.text)
    top = _mapping(where, text, "network", "provenance")
    provenance = top["provenance"]
    if not isinstance(provenance, dict):
        raise InputError(f"{where}, provenance", type(provenance).__name__, "a mapping")
    try:
        network = from_plain(where, top["network"], content.arrays)
    except InputError as e:
        if e.where.startswith(where):
            raise
        raise InputError(f"{where}, {e.where}", e.found, e.allowed, e.do) from e
    except (TypeError, ValueError, AttributeError) as e:  # values of types no field can have
        raise InputError(f"{where}, network", str(e)[:200], "the fields of its kinds") from e
    odd = sorted(set(content.arrays) - set(to_plain(network)[1]))
    if odd:
        raise InputError(where, f"arrays {odd!r:.200}", "one array per weight and bias")
    _check_digest(where, digest, network.digest())
    return Document(network=network, provenance=provenance)


def save_trace(path: str | Path, trace: Trace, *, limit: int = TRACE_LIMIT) -> None:
    """Write a trace, whole or not at all; the same trace gives the same bytes.

    Args:
        path: of the file.
        trace: what to write.
        limit: bytes that the records may take unpacked; `load_trace` has the same one.

    Raises:
        InputError: the path cannot be written, records that are no trace's (`Trace`), or more
            bytes than `limit`.
    """
    where = str(path)
    _check_trace(where, trace)
    records = (trace.spikes, trace.u, trace.v)
    _check_size(where, sum(a.nbytes for r in records for a in r.values()), limit)
    top: dict[str, object] = {
        "network": trace.network,
        "inputs": trace.inputs,
        "backend": trace.backend,
        "info": {k: v.item() if isinstance(v, np.generic) else v for k, v in trace.info.items()},
        "populations": [
            {"name": name, "shape": list(a.shape), "graded": a.dtype != np.uint8}
            for name, a in trace.spikes.items()
        ],
    }
    text = _text(where, top)
    arrays: dict[str, IntArray] = {}
    for name, a in trace.spikes.items():
        arrays[f"spikes/{name}"] = np.packbits(a) if a.dtype == np.uint8 else a.reshape(-1)
    for key, states in (("u", trace.u), ("v", trace.v)):
        arrays |= {f"{key}/{name}": a.reshape(-1) for name, a in states.items()}
    attributes = _attributes(TRACE_FORMAT, _content_digest(text, arrays))
    content = hdf5.Content(attributes=attributes, text=text, arrays=arrays)
    write_bytes(path, hdf5.image(content, compress=True))


def load_trace(path: str | Path, *, limit: int = TRACE_LIMIT) -> Trace:
    """A trace file.

    Args:
        path: of the file.
        limit: bytes that the file and its unpacked records may take.

    Raises:
        InputError: anything that is not a whole trace file of this version.
    """
    where = str(path)
    content = hdf5.read(where, limit)
    digest = _check_attributes(where, content, TRACE_FORMAT)
    text = jsontext.parse_json(where, content.text)
    top = _mapping(where, text, "network", "inputs", "backend", "info", "populations")
    _check_digest(where, digest, _content_digest(content.text, content.arrays))
    arrays = dict(content.arrays)
    spikes: dict[str, IntArray] = {}
    states: dict[str, dict[str, IntArray]] = {"u": {}, "v": {}}
    for name, shape, graded in _records(where, top["populations"], limit):
        if f"spikes/{name}" not in arrays:
            raise InputError(where, f"no array 'spikes/{name:.200}'", "one per population, once")
        stored, what = arrays.pop(f"spikes/{name}"), f"{where}, spikes of '{name}'"
        if graded:
            spikes[name] = _shaped(what, stored, shape, np.int32)
        else:
            bits = _shaped(what, stored, (-(-prod(shape) // 8),), np.uint8).astype(np.uint8)
            spikes[name] = np.unpackbits(bits, count=prod(shape)).reshape(shape)
        for key, found in states.items():
            state = arrays.pop(f"{key}/{name}", None)
            if state is not None:
                found[name] = _shaped(f"{where}, {key} of '{name}'", state, shape, np.int32)
    if arrays:
        raise InputError(where, f"arrays {sorted(arrays)!r:.200}", "those of its populations")
    trace = Trace(  # whose fields the next line checks
        network=top["network"],  # type: ignore[arg-type]
        inputs=top["inputs"],  # type: ignore[arg-type]
        backend=top["backend"],  # type: ignore[arg-type]
        info=top["info"],  # type: ignore[arg-type]
        spikes=spikes,
        u=states["u"],
        v=states["v"],
    )
    _check_trace(where, trace)
    return trace


def _attributes(format_: str, digest: str) -> dict[str, str | int]:
    return {"format": format_, "version": VERSION, "digest": digest}


def _text(where: str, value: dict[str, object]) -> str:
    try:
        text = json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as e:
        raise InputError(where, f"no JSON ({e})", "finite JSON values in the mappings") from e
    _check_size(f"{where}, JSON text", len(text), hdf5.MAX_TEXT)
    jsontext.check_items(where, text)
    return text


def _check_size(where: str, size: int, limit: int) -> None:
    if size > limit:
        raise InputError(where, f"{size} bytes", f"up to {limit}", "record less at a time")


def _check_attributes(where: str, content: hdf5.Content, wanted: str) -> str:
    """The digest that the file claims, once format and version are ours."""
    given = dict(content.attributes)
    found = given.get("format")
    if found != wanted:
        known = {NETWORK_FORMAT: "a network file", TRACE_FORMAT: "a trace file"}
        other = f"an HDF5 file of format {found!r:.80}"
        raise InputError(where, known.get(str(found), other), known[wanted])
    if given.get("version") != VERSION:
        raise InputError(
            where,
            f"version {given.get('version')!r:.40} of its format",
            str(VERSION),
            "install the stformer that wrote it",
        )
    digest = given.get("digest")
    if len(given) != 3 or not _is_digest(digest):
        raise InputError(where, f"attributes {given!r:.200}", "format, version, digest")
    return str(digest)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _check_digest(where: str, claimed: str, actual: str) -> None:
    if claimed != actual:
        raise InputError(
            where,
            f"content of digest {actual[:12]} where {claimed[:12]} was written",
            "a file that nobody changed",
            "copy or write it again",
        )


def _mapping(where: str, value: object, *keys: str) -> dict[str, object]:
    if not isinstance(value, dict) or set(value) != set(keys):
        found = f"keys {sorted(value)!r:.200}" if isinstance(value, dict) else type(value).__name__
        raise InputError(f"{where}, JSON text", found, ", ".join(keys))
    return value


def _content_digest(text: str, arrays: Mapping[str, IntArray]) -> str:
    h = hashlib.sha256(text.encode())
    for key in sorted(arrays):
        a = arrays[key]
        h.update(f"\0{key}\0{a.dtype.name}\0{a.shape}\0".encode())
        h.update(np.ascontiguousarray(a, a.dtype.newbyteorder("<")).data)
    return h.hexdigest()


def _records(where: str, value: object, limit: int) -> list[tuple[str, tuple[int, ...], bool]]:
    """(population, shape of its record, graded) in the order written."""
    if not isinstance(value, list):
        raise InputError(f"{where}, populations", type(value).__name__, "a list")
    out: list[tuple[str, tuple[int, ...], bool]] = []
    total = 0
    for entry in value:
        item = _mapping(where, entry, "name", "shape", "graded")
        name, shape, graded = item["name"], item["shape"], item["graded"]
        if not isinstance(name, str):
            raise InputError(f"{where}, populations", f"name {name!r:.80}", "a string")
        if not _is_shape(shape):
            raise InputError(f"{where}, '{name:.80}'", f"shape {shape!r:.80}", "[S, T, *shape]")
        if not isinstance(graded, bool):
            raise InputError(f"{where}, '{name:.80}'", f"graded {graded!r:.80}", "true or false")
        dims = tuple(shape)
        total += prod(dims) * (4 if graded else 1)
        _check_size(where, total, limit)
        out.append((name, dims, graded))
    return out


def _is_shape(value: object) -> TypeGuard[list[int]]:
    if not isinstance(value, list) or not 3 <= len(value) <= 5:
        return False
    return all(type(n) is int and 1 <= n <= MAX_NEURONS for n in value)


def _shaped(where: str, a: IntArray, shape: tuple[int, ...], dtype: type[np.generic]) -> IntArray:
    if a.dtype != dtype or a.size != prod(shape):
        raise InputError(
            where, f"{a.size} of {a.dtype.name}", f"{prod(shape)} of {np.dtype(dtype).name}"
        )
    return a.reshape(shape)


def _check_trace(where: str, trace: Trace) -> None:
    for what, digest in (("network", trace.network), ("inputs", trace.inputs)):
        if not _is_digest(digest):
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
