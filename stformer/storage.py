"""Network files (`.stf`), as HDF5 that is byte-deterministic and read without trust.

Reading follows no link out of the file, looks at every size before it allocates, and accepts
integer arrays and one JSON text only (`stformer.hdf5`). Writing goes to a file beside the
target, then renames (`stformer.files`).

A network file: root attributes format, version and digest; the text
{"network": structure, "provenance": ...}; each weight and bias under
"<population or projection>/<field>". Traces are `stformer.trace_file`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stformer import hdf5, jsontext
from stformer.errors import InputError
from stformer.files import write_bytes
from stformer.network import Network, from_plain, to_plain

NETWORK_FORMAT = "stformer-network"
TRACE_FORMAT = "stformer-trace"
VERSION = 1  # of a network file
NETWORK_LIMIT = 2**30  # bytes of a network's file and of its arrays
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
    check_size(where, sum(a.nbytes for a in arrays.values()), NETWORK_LIMIT)
    top: dict[str, object] = {
        "network": structure,
        "provenance": dict(provenance or {}),
    }
    content = hdf5.Content(
        attributes=attributes_of(NETWORK_FORMAT, VERSION, network.digest()),
        text=json_text(where, top),
        arrays=arrays,
    )
    write_bytes(path, hdf5.image(content))


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
    digest = check_attributes(where, content.attributes, NETWORK_FORMAT, VERSION)
    text = jsontext.parse_json(where, content.text)
    top = mapping(where, text, "network", "provenance")
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
    check_digest(where, digest, network.digest())
    return Document(network=network, provenance=provenance)


def attributes_of(format_: str, version: int, digest: str) -> dict[str, str | int]:
    """The root attributes of a file of ours."""
    return {"format": format_, "version": version, "digest": digest}


def json_text(where: str, value: dict[str, object]) -> str:
    """JSON with sorted keys, within what is read back; InputError for anything else."""
    try:
        text = json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as e:
        raise InputError(where, f"no JSON ({e})", "finite JSON values in the mappings") from e
    check_size(f"{where}, JSON text", len(text), hdf5.MAX_TEXT)
    jsontext.check_items(where, text)
    return text


def check_size(where: str, size: int, limit: int) -> None:
    """Raise InputError for more than `limit` bytes."""
    if size > limit:
        raise InputError(where, f"{size} bytes", f"up to {limit}", "record less at a time")


def check_attributes(
    where: str, attributes: Mapping[str, str | int], wanted: str, version: int
) -> str:
    """The digest that the file claims, once format and version are ours."""
    given = dict(attributes)
    found = given.get("format")
    if found != wanted:
        known = {NETWORK_FORMAT: "a network file", TRACE_FORMAT: "a trace file"}
        other = f"an HDF5 file of format {found!r:.80}"
        raise InputError(where, known.get(str(found), other), known[wanted])
    if given.get("version") != version:
        raise InputError(
            where,
            f"version {given.get('version')!r:.40} of its format",
            str(version),
            "install the stformer that wrote it",
        )
    digest = given.get("digest")
    if len(given) != 3 or not is_digest(digest):
        raise InputError(where, f"attributes {given!r:.200}", "format, version, digest")
    return str(digest)


def is_digest(value: object) -> bool:
    """Whether it reads like a SHA-256."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def check_digest(where: str, claimed: str, actual: str) -> None:
    """Raise InputError where a file is not what was written."""
    if claimed != actual:
        raise InputError(
            where,
            f"content of digest {actual[:12]} where {claimed[:12]} was written",
            "a file that nobody changed",
            "copy or write it again",
        )


def mapping(where: str, value: object, *keys: str) -> dict[str, object]:
    """A value of a JSON text that must be a mapping with exactly these keys."""
    if not isinstance(value, dict) or set(value) != set(keys):
        found = f"keys {sorted(value)!r:.200}" if isinstance(value, dict) else type(value).__name__
        raise InputError(f"{where}, JSON text", found, ", ".join(keys))
    return value
