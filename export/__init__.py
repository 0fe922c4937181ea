"""Interchange formats: one protocol, a registry of names, nothing imported before it is used.

`export` writes a network for other people's software, reads what it wrote and compares, and only
then gives it its name. `read` makes a network of what other people's software wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from stformer.errors import InputError, Problem, Unavailable, Unsupported
from stformer.files import atomic_folder, atomic_path
from stformer.jsontext import parse_json
from stformer.network import Network

if __name__ != "stformer.export":  # two names would mean two copies of the registry
    raise ImportError(f"import 'stformer.export', not '{__name__}'")

MANIFEST = "manifest.json"  # of an export that is a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to export.

    Attributes:
        extensions: let the file hold nodes that are not of the format's standard (NIR).
        step: one time step with states going in and out, instead of a whole sample (ONNX).
    """

    extensions: bool = False
    step: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a file may leave open, for a network to be made of it.

    Attributes:
        steps: T of a sample, time steps; None where the file says it.
        dt: seconds of a time step; None where the file says it, or for the format's custom.
        shape: of the input where the file leaves it open.
    """

    steps: int | None = None
    dt: float | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a format could not carry, or what reading a file had to assume.

    Attributes:
        where: population, projection, node or "network".
        what: one sentence without a full stop.
    """

    where: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A finished export.

    Attributes:
        path: file or folder.
        format: its name.
        digest: of the network.
        notes: what the format could not carry.
        files: name -> SHA-256 of every file; one for an export that is a file.
    """

    path: Path
    format: str
    digest: str
    notes: tuple[Note, ...]
    files: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A network made of a file.

    Attributes:
        network: ready to run, latencies assigned.
        notes: every assumption, rounding and change; empty where the file said it all.
        info: what else the file tells (producer, version), for provenance.
    """

    network: Network
    notes: tuple[Note, ...] = ()
    info: dict[str, str] = field(default_factory=dict)


class Format(Protocol):
    """Writes networks; the same network gives the same bytes."""

    name: str

    def missing(self) -> str | None:
        """None where the format can be written here, else what is missing; how to get it."""
        ...

    def problems(self, network: Network, options: Options) -> list[Problem]:
        """What of this network the format cannot hold; empty when it can be written."""
        ...

    def notes(self, network: Network, options: Options) -> list[Note]:
        """What will be lost or said otherwise; also written into the file."""
        ...

    def suffix(self, network: Network, options: Options) -> str:
        """End of the file's name, with its dot; without one, the export is a folder."""
        ...

    def write(self, network: Network, path: Path, options: Options) -> None:
        """Write the file, or into the empty folder."""
        ...

    def check(self, network: Network, path: Path, options: Options) -> None:
        """Read what was written and compare it with the network.

        Raises:
            AssertionError: it is not the same.
        """
        ...


FORMATS: dict[str, str] = {
    "nir": "stformer.export.nir:Nir",
    "netx": "stformer.export.netx:Netx",
    "onnx": "stformer.export.onnx:Onnx",
}

# What can be read, and by which function (Path, Reading) -> Imported.
READERS: dict[str, str] = {
    "nir": "stformer.export.nir_read:read",
    "netx": "stformer.export.netx_read:read",
}


def load(name: str) -> Format:
    """The format of that name, whether or not it can be written here.

    Raises:
        InputError: no such format; lists those there are.
    """
    if name not in FORMATS:
        raise InputError("format", f"'{name}'", ", ".join(FORMATS))
    module, _, attribute = FORMATS[name].partition(":")
    format_: Format = getattr(import_module(module), attribute)()
    return format_


def available(name: str) -> Format:
    """The format of that name, if it can be written here.

    Raises:
        InputError: no such format.
        Unavailable: what writes it is not installed.
    """
    format_ = load(name)
    if reason := format_.missing():
        why, _, do = reason.partition("; ")
        raise Unavailable(f"format '{name}'", why, do)
    return format_


def ready(name: str, network: Network, options: Options) -> Format:
    """The format of that name, if it can be written here and hold this network.

    Raises:
        Unsupported: it cannot; names the first object and the reason. And as `available`.
    """
    format_ = available(name)
    for problem in format_.problems(network, options):
        raise Unsupported(f"format '{name}'", problem.where, problem.why)
    return format_


def export(
    name: str, network: Network, path: str | Path | None = None, options: Options | None = None
) -> Exported:
    """Write a network, read it back, compare, and only then give it its name.

    Args:
        name: of the format, see `FORMATS`.
        network: what to write.
        path: file or folder; the network's name with the format's ending by default.
        options: see `Options`.

    Raises:
        InputError, Unavailable, Unsupported: as `ready`; InputError for a path that cannot be
            written.
    """
    options = options or Options()
    format_ = ready(name, network, options)
    suffix = format_.suffix(network, options)
    target = Path(path) if path else Path(f"{network.name}{suffix or f'.{name}'}")
    with atomic_path(target) if suffix else atomic_folder(target, MANIFEST) as beside:
        format_.write(network, beside, options)
        format_.check(network, beside, options)
        inside = sorted(beside.rglob("*")) if not suffix else []
        written = {str(p.relative_to(beside)): p for p in inside if p.is_file()}
        files = {
            key: sha256(file.read_bytes()).hexdigest()
            for key, file in (written or {target.name: beside}).items()
        }
    return Exported(
        path=target,
        format=name,
        digest=network.digest(),
        notes=tuple(format_.notes(network, options)),
        files=files,
    )


@contextmanager
def exported(name: str, network: Network, options: Options | None = None) -> Iterator[Path]:
    """An export that is gone with the block, for the backends that run files."""
    with TemporaryDirectory(prefix="stformer-") as folder:
        yield export(name, network, Path(folder) / "network", options).path


def read(path: str | Path, reading: Reading | None = None) -> Imported:
    """Make a network of a file or folder that other software, or `export`, wrote.

    Args:
        path: an HDF5 file of NIR or netx, or a folder of the latter; told apart by content.
        reading: what the file may leave open.

    Raises:
        InputError: not such a file, damaged, hostile, or holding what no network can.
        Unsupported: a node that no network expresses, and why.
    """
    kind = _kind(Path(path))
    module, _, attribute = READERS[kind].partition(":")
    imported: Imported = getattr(import_module(module), attribute)(
        Path(path), reading or Reading()
    )
    return imported


def check_reading(where: str, network: Network, reading: Reading) -> None:
    """Raise InputError for what was given and stands in the file otherwise."""
    shape = network.inputs[0].shape if len(network.inputs) == 1 else None
    for what, given, said in (
        ("steps", reading.steps, network.steps),
        ("an input's shape", reading.shape, shape),
    ):
        if given not in (None, said):
            raise InputError(where, f"{what} given as {given}", f"{said}, as the file says")


def _kind(path: Path) -> str:
    """The format of a file, by what is at its root; of a folder, by its manifest."""
    from stformer.hdf5 import root_names

    if path.is_dir():
        try:
            with (path / MANIFEST).open("rb") as file:
                text = file.read(2**24).decode()
        except (OSError, ValueError) as e:
            found = f"a folder without a readable {MANIFEST}"
            raise InputError(str(path), found, "a folder that `stformer export` wrote") from e
        manifest = parse_json(str(path / MANIFEST), text)
        kind = manifest.get("format") if isinstance(manifest, dict) else None
        if isinstance(kind, str) and kind in READERS:
            return kind
        raise InputError(str(path), f"{MANIFEST} of format {kind!r:.80}", ", ".join(READERS))
    names = root_names(path)
    if "node" in names:
        return "nir"
    if "layer" in names:
        return "netx"
    raise InputError(
        str(path),
        f"HDF5 with {', '.join(sorted(names)[:8]) or 'nothing'} at its root",
        "'node' (NIR) or 'layer' (netx)",
    )
