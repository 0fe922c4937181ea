"""Bundles: all that a laboratory needs to run a network, bound by one manifest of SHA-256.

`stformer.bundle` makes them. This side reads and checks them, anywhere: NumPy and h5py only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stformer.errors import InputError
from stformer.jsontext import parse_json

FORMAT = "stformer-bundle"
VERSION = 1
MANIFEST = "manifest.json"
NETWORK, SAMPLES, GOLDEN = "network.stf", "samples.npz", "golden.trace"
HARDWARE = "hardware.toml"
MANIFEST_LIMIT = 2**20  # bytes
MAX_FILES = 4096

_HEX = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[\w@+-][\w.@+-]*")  # of a path: no "..", nothing hidden, no separators


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle holds.

    Attributes:
        name: of the network.
        network: its digest.
        inputs: digest of the samples (`stformer.trace.digest_inputs`).
        samples: how many.
        hardware: name of the target.
        files: path in the folder -> SHA-256, the manifest itself not among them.
        left_out: format -> why the network could not be written in it.
        versions: package -> version, of what made it.
        seal: SHA-256 of all of the above: whoever knows it knows every byte of the bundle.
    """

    name: str
    network: str
    inputs: str
    samples: int
    hardware: str
    files: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seal: str = ""

    def text(self) -> str:
        """The file's content; the same manifest gives the same text."""
        plain = asdict(self) | {"seal": self.sealed()}
        top = {"format": FORMAT, "version": VERSION, **plain}
        return json.dumps(top, indent=1, sort_keys=True) + "\n"

    def sealed(self) -> str:
        """The seal that belongs to the content."""
        plain = {k: v for k, v in asdict(self).items() if k != "seal"}
        text = json.dumps([FORMAT, VERSION, plain], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def check(folder: str | Path, seal: str | None = None) -> Manifest:
    """Every byte of a bundle, and that its parts belong to each other.

    Args:
        folder: the bundle.
        seal: what the manifest's must be; without it, one that was made anew, with other
            files, would pass.

    Raises:
        InputError: names the file that is missing, changed, or not of the bundle.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    if seal is not None and seal != manifest.seal:
        raise InputError(str(root), f"seal {manifest.seal}", seal, "this is another bundle")
    there = set(_walk(root))
    for name, sha in sorted(manifest.files.items()):
        where = str(root / name)
        if name not in there:
            raise InputError(where, "no such file", f"a file with SHA-256 {sha}")
        found = sha256(root / name)
        if found != sha:
            raise InputError(
                where, f"changed: SHA-256 {found}", sha, "get the bundle again, from its makers"
            )
    if more := there - set(manifest.files) - {MANIFEST}:
        raise InputError(
            str(root / min(more)), "not of the bundle", "only the files of its manifest"
        )
    _check_parts(root, manifest)
    return manifest


def read_manifest(root: Path) -> Manifest:
    """The manifest of a bundle, unbroken; its files are not looked at.

    Raises:
        InputError: no bundle, a damaged manifest, a version of another time.
    """
    path = root / MANIFEST
    where = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MANIFEST_LIMIT + 1)
        text = data.decode()
    except (OSError, ValueError) as e:
        found = f"no readable {MANIFEST} ({e})"[:200]
        raise InputError(str(root), found, "a folder that `stformer bundle` made") from e
    if len(data) > MANIFEST_LIMIT:
        raise InputError(where, "a very large file", f"up to {MANIFEST_LIMIT} bytes")
    top = parse_json(where, text)
    if not isinstance(top, dict) or top.get("format") != FORMAT:
        raise InputError(where, "no manifest of a bundle", f'one with "format": "{FORMAT}"')
    if top.get("version") != VERSION:
        raise InputError(where, f"version {top.get('version')!r:.40}", str(VERSION))
    manifest = Manifest(**_fields(where, top))
    if manifest.text() != text:
        raise InputError(
            where, "changed: its seal is broken", "the manifest as it was made", "get it again"
        )
    return manifest


def sha256(path: Path) -> str:
    """Of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _fields(where: str, top: Mapping[str, object]) -> dict[str, Any]:
    """Values of the right kinds, for every field of `Manifest`."""
    texts = ("name", "hardware", "network", "inputs", "seal")
    mappings = ("files", "left_out", "versions")
    wanted = {"format", "version", "samples", *texts, *mappings}
    if set(top) != wanted:
        odd = sorted(map(str, set(top) ^ wanted))
        raise InputError(where, f"missing or unknown: {', '.join(odd)}"[:200], ", ".join(wanted))
    for key in texts:
        value = top[key]
        if not isinstance(value, str) or (
            key not in ("name", "hardware") and not _HEX.fullmatch(value)
        ):
            raise InputError(f"{where}, {key}", repr(value)[:80], "a text, or SHA-256 in hex")
    samples = top["samples"]
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        raise InputError(f"{where}, samples", repr(samples)[:80], "a whole number from 1")
    for key in mappings:
        value = top[key]
        if (
            not isinstance(value, dict)
            or len(value) > MAX_FILES
            or not all(isinstance(v, str) for v in value.values())
        ):
            raise InputError(f"{where}, {key}", "no mapping of texts", "names and texts")
    files = top["files"]
    assert isinstance(files, dict)
    for name, sha in files.items():
        if not all(_PART.fullmatch(part) for part in name.split("/")):
            raise InputError(f"{where}, files", repr(name)[:80], "names of files in the bundle")
        if not _HEX.fullmatch(sha):
            raise InputError(f"{where}, {name}", repr(sha)[:80], "SHA-256 in hex")
    if lacking := {NETWORK, SAMPLES, GOLDEN, HARDWARE} - set(files):
        raise InputError(where, f"no {min(lacking)}", "every part of a bundle")
    return {key: top[key] for key in wanted - {"format", "version"}}


def _walk(root: Path) -> Iterator[str]:
    """Every file below a folder, as the manifest calls it; links and devices are refused."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder) / name
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise InputError(str(path), "a link or device", "plain files and folders")
        for name in files:
            yield (Path(folder) / name).relative_to(root).as_posix()


def _check_parts(root: Path, manifest: Manifest) -> None:
    """Network, samples and golden trace belong to each other, as the manifest says."""
    from stformer.storage import load
    from stformer.trace import Trace

    network = load(root / NETWORK)
    trace = Trace.load(root / GOLDEN)
    for where, found, wanted in (
        (NETWORK, network.digest(), manifest.network),
        (GOLDEN, trace.network, manifest.network),
        (GOLDEN, trace.inputs, manifest.inputs),
    ):
        if found != wanted:
            raise InputError(str(root / where), f"digest {found}", wanted)
    if trace.samples != manifest.samples:
        found = f"{trace.samples} samples"
        raise InputError(str(root / GOLDEN), found, str(manifest.samples))
