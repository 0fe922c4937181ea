"""Making bundles for laboratories: the network in every format, golden samples, reports.

`stformer.deploy.bundle` checks what is made here, `stformer.deploy.lab` runs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stformer import deploy, export, hardware_configs, storage
from stformer.deploy import bundle as bundles
from stformer.deploy import mapping
from stformer.errors import StformerError
from stformer.files import atomic_folder
from stformer.hardware_configs.write import to_toml
from stformer.machine import versions
from stformer.network import Network
from stformer.overflow import prove
from stformer.trace import Inputs, Probe, Trace, check_inputs
from stformer.verify import compare

PACKAGES = ("h5py", "lava-dl", "nir", "onnx", "onnxruntime")  # told beside the usual ones

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What the golden run is given.

    Attributes:
        inputs: population -> [S, T, *shape].
        labels: [S], or None.
    """

    inputs: Mapping[str, npt.NDArray[Any]]
    labels: npt.NDArray[Any] | None = None


def make(
    out: str | Path,
    network: Network,
    samples: Samples,
    hardware: str,
    *,
    backends: Sequence[str] = ("cpu",),
    provenance: Mapping[str, object] | None = None,
    say: Say = lambda _: None,
) -> bundles.Manifest:
    """Write a bundle, whole or not at all; the same arguments give the same bytes.

    Args:
        out: the folder.
        network: what the laboratory shall run.
        samples: what it shall run on; the reference's spikes for them are the golden ones.
        hardware: the target, by name or as a TOML file.
        backends: compared with the reference here already, for the proof in the bundle.
        provenance: of the network, see `stformer.storage.Document`.
        say: gets a line when a part begins.

    Raises:
        InputError: samples that do not fit, no such hardware, a place that cannot be written.
        Unavailable, Unsupported: a backend that cannot run here, or not this network.
    """
    for name in backends:
        deploy.ready(name, network)
    target = hardware_configs.load(hardware)
    frames = check_inputs(network, samples.inputs)
    with atomic_folder(out, bundles.MANIFEST) as folder:
        storage.save(folder / bundles.NETWORK, network, provenance=provenance)
        _write_samples(folder / bundles.SAMPLES, network, samples)
        say("running the reference")
        golden = deploy.run("reference", network, frames, probe=Probe())
        replace(golden, info={}).save(folder / bundles.GOLDEN)  # no seconds: the same bytes
        left_out = _exports(folder, network, say)
        _proofs(folder, network, golden, frames, backends, say)
        sums = mapping.measured_sums(network, provenance or {})
        _mapping(folder, mapping.map_network(network, target, sums=sums))
        manifest = bundles.Manifest(
            name=network.name,
            network=network.digest(),
            inputs=golden.inputs,
            samples=golden.samples,
            hardware=target.name,
            files={},
            left_out=left_out,
            versions=versions(*PACKAGES),
        )
        text = _readme(manifest)
        (folder / "README.md").write_text(text, "utf-8")
        (folder / "site.toml").write_text(SITE, "utf-8")
        inside = sorted(p for p in folder.rglob("*") if p.is_file())
        files = {p.relative_to(folder).as_posix(): bundles.sha256(p) for p in inside}
        manifest = replace(manifest, files=files)
        manifest = replace(manifest, seal=manifest.sealed())
        (folder / bundles.MANIFEST).write_text(manifest.text(), "utf-8")
        say("checking what was written")
        bundles.check(folder)
    return manifest


def _write_samples(path: Path, network: Network, samples: Samples) -> None:
    """An .npz as `--data` takes it; np.savez stamps no times."""
    names = [p.name for p in network.inputs]
    arrays = {"inputs" if len(names) == 1 else n: np.asarray(samples.inputs[n]) for n in names}
    if samples.labels is not None:
        arrays["labels"] = np.asarray(samples.labels)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _exports(folder: Path, network: Network, say: Say) -> dict[str, str]:
    """The network in every format that holds it; for the others, why not."""
    left_out: dict[str, str] = {}
    (folder / "exports").mkdir()
    for name in export.FORMATS:
        options = export.Options()
        try:
            format_ = export.ready(name, network, options)
            suffix = format_.suffix(network, options) or f".{name}"
            say(f"exporting {name}")
            export.export(name, network, folder / "exports" / f"network{suffix}", options)
        except StformerError as e:
            left_out[name] = str(e)
    return left_out


def _proofs(
    folder: Path,
    network: Network,
    golden: Trace,
    frames: Inputs,
    backends: Sequence[str],
    say: Say,
) -> None:
    """proof.json: what agrees with the golden spikes; overflow.json: what no input can do."""
    reports = []
    for name in backends:
        say(f"running {name}")
        trace = deploy.run(name, network, frames, probe=Probe())
        reports.append(compare(golden, trace, network))
    proven = bool(reports) and all(r.proven for r in reports)
    _write(folder / "proof.json", {"proven": proven, "reports": [r.to_json() for r in reports]})
    _write(folder / "overflow.json", prove(network).to_json())


def _mapping(folder: Path, found: mapping.Mapped) -> None:
    """The target in one file, and whether and how the network fits on it."""
    (folder / bundles.HARDWARE).write_text(to_toml(found.hardware), "utf-8")
    plain = mapping.to_json(found)
    del plain["files"]  # of the machine that made the bundle
    _write(folder / "mapping.json", plain)


def _write(path: Path, plain: Mapping[str, object]) -> None:
    path.write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n", "utf-8")


SITE = """\
# What the machines are called at your site; every value here is an example.
[loihi]
host = "slurm"                  # NxCore asks the batch system for a board; or "ethernet"
partition = "oheogulch"         # or board = "NAME", one of the two
# address = "10.0.0.2"          # of the board's host, for "ethernet"
generation = "N3B3"
timeout = 1500                  # seconds for each run on the chip
# backend = "lava-sim"          # a rehearsal without a chip
"""


def _readme(manifest: bundles.Manifest) -> str:
    left = "".join(f"* `{k}` is left out: {why}\n" for k, why in manifest.left_out.items())
    return f"""\
# {manifest.name}, for {manifest.hardware}

A spiking network in integers, and the spikes that it must give on your chip: {manifest.samples}
samples in `{bundles.SAMPLES}`, every spike of every population in `{bundles.GOLDEN}`.
Network {manifest.network}.

    pip install 'stformer[lava]=={manifest.versions["stformer"]}'   # Python 3.10; no torch
    stformer deploy . --check                # every byte is as it was made
    stformer deploy . --site site.toml -o ../run.sh
    bash ../run.sh --dry-run                 # what would be run
    bash ../run.sh ../results

Edit a copy of `site.toml` first: what the boards are called at your site. With
`backend = "lava-sim"` the script rehearses everything without a chip.
Its seven steps are environment, bundle, feasibility, this machine's CPU, the chip, measurements
(one run each), report. Run it again with the same results folder to go on after an interruption.
Results go outside this folder, which is checked for files that do not belong.

| file | what |
| --- | --- |
| `{bundles.NETWORK}` | the network, `stformer info` shows it |
| `{bundles.SAMPLES}`, `{bundles.GOLDEN}` | inputs, and what the reference makes of them |
| `exports/` | the same network for other software |
| `{bundles.HARDWARE}`, `mapping.json` | the target, and whether and how the network fits on it |
| `proof.json`, `overflow.json` | what agrees with the reference; what any input can do to it |
| `site.toml` | an example of a site file |
| `{bundles.MANIFEST}` | SHA-256 of every file |

{left}"""
