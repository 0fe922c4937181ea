"""The full-size STFormers as Lava processes, every spike of every population the reference's.

`python benchmarks/lava_full_size.py` runs each with random weights in a process of its own, one
after the other, and writes the comparison, seconds and memory of all processes to
benchmarks/results/lava_full_size.json. `--models stock` takes many minutes a sample, and the
preset `hw`: stock Lava convolves one channel pair after the other and has no products.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from stformer import deploy
from stformer.cli.progress import Progress
from stformer.config import config_from
from stformer.files import atomic_path
from stformer.lower import lower_stformer
from stformer.machine import cores, versions
from stformer.model import quantise
from stformer.network import Input, Network, neurons
from stformer.sane import random_frames, sane_model
from stformer.trace import Inputs, Probe, Trace
from stformer.verify import verify

SAMPLES = {"STFormer-4-384": 8, "STFormer-2-256": 2}
PRESETS = ("hw", "paper")
BACKENDS = {"stock": "lava-sim", "fast": "lava-sim-fast"}
RESULTS = Path(__file__).parent / "results" / "lava_full_size.json"
KIB_PER_GIB = 2**20


def measure(variant: str, preset: str, samples: int, backend: str, states: bool) -> dict[str, Any]:
    """Lower a variant, run it on Lava and on the reference, compare."""
    model = sane_model(config_from({"variant": variant, "preset": preset}))
    quantise(model)
    network = lower_stformer(model)
    inputs = random_frames(model.config, samples).transpose(0, 1).numpy()
    info: dict[str, Any] = {}

    def run(name: str, network: Network, inputs: Inputs, probe: Probe) -> Trace:
        with Progress(f"{variant} {preset} on {name}") as bar:
            trace = deploy.run(name, network, inputs, probe=probe, progress=bar.of)
        if name == backend:
            info.update(trace.info)
        return trace

    (report,) = verify(network, inputs, [backend], run=run, states=states)
    assert report.proven and not report.not_compared, report.to_text()
    quiet = [p.name for p in report.populations if not p.spikes]
    assert not quiet, f"equality of silence shows nothing: {quiet}"
    return {
        "variant": variant,
        "preset": preset,
        "backend": backend,
        "neurons": sum(neurons(p) for p in network.populations if not isinstance(p, Input)),
        "latency": network.depth,
        "cores": cores(),
        "versions": versions(),
        "seconds": {k: v for k, v in info.items() if k.endswith("seconds")},
        "lava_processes": info["lava_processes"],
        "lava_peak_gib": info["peak_memory_mib"] / 2**10,
        "caller_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_GIB,
        "report": report.to_json(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", choices=BACKENDS, default="fast")
    parser.add_argument("--variants", nargs="+", choices=SAMPLES, default=list(SAMPLES))
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--samples", type=int, help="of each; as SAMPLES says by default")
    parser.add_argument("--state", action="store_true", help="compare u and v too")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        (variant,), (preset,) = args.variants, args.presets
        row = measure(variant, preset, args.samples, BACKENDS[args.models], args.state)
        print(json.dumps(row))
        return 0
    rows = []
    for variant in args.variants:
        for preset in args.presets:
            command = [sys.executable, __file__, "--one", "--models", args.models]
            command += ["--variants", variant, "--presets", preset]
            command += ["--samples", str(args.samples or SAMPLES[variant])]
            command += ["--state"] if args.state else []
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            rows.append(json.loads(done.stdout))
            print(_line(rows[-1]), flush=True)
    args.output.parent.mkdir(exist_ok=True)
    with atomic_path(args.output) as path:
        path.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def _line(row: dict[str, Any]) -> str:
    start, run = (row["seconds"][f"lava_{part}_seconds"] for part in ("start", "run"))
    return (
        f"{row['variant']} {row['preset']}: {row['report']['verdict']}\n"
        f"  {row['lava_processes']} processes, {row['lava_peak_gib']:.2f} GiB at most, and "
        f"{row['caller_peak_gib']:.2f} GiB of the caller; "
        f"start {start:.1f} s, run {run:.1f} s"
    )


if __name__ == "__main__":
    raise SystemExit(main())
