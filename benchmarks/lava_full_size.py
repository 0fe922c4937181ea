"""The two full-size STFormers as Lava processes, every spike of every population the reference's.

`python benchmarks/lava_full_size.py` runs each with random weights in a process of its own, one
after the other, and writes the comparison, seconds and memory of all processes to
benchmarks/results/lava_full_size.json. `--models stock` takes hours: stock Lava convolves one
channel pair after the other.
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
from stformer.demo import versions
from stformer.files import atomic_path
from stformer.lower import lower_stformer
from stformer.machine import cores
from stformer.model import quantise
from stformer.network import Input, Network, neurons
from stformer.sane import random_frames, sane_model
from stformer.trace import Inputs, Probe, Trace
from stformer.verify import verify

SAMPLES = {"STFormer-4-384": 8, "STFormer-2-256": 2}
BACKENDS = {"stock": "lava-sim", "fast": "lava-sim-fast"}
RESULTS = Path(__file__).parent / "results" / "lava_full_size.json"
GIB = 2**20  # KiB, in which Linux counts


def measure(variant: str, samples: int, models: str) -> dict[str, Any]:
    """Lower a variant of the preset `hw`, run it on both sides, compare."""
    model = sane_model(config_from({"variant": variant, "preset": "hw"}))
    quantise(model)
    network = lower_stformer(model)
    inputs = random_frames(model.config, samples).transpose(0, 1).numpy()
    info: dict[str, object] = {}

    def run(name: str, network: Network, inputs: Inputs, probe: Probe) -> Trace:
        with Progress(f"{variant} on {name}") as bar:
            trace = deploy.run(name, network, inputs, probe=probe, progress=bar.of)
        if name == BACKENDS[models]:
            info.update(trace.info)
        return trace

    (report,) = verify(network, inputs, [BACKENDS[models]], run=run)
    quiet = [p.name for p in report.populations if not p.spikes]
    assert report.proven and not report.not_compared, report.to_text()
    assert not quiet, f"equality of silence shows nothing: {quiet}"
    seconds = {key: float(str(v)) for key, v in info.items() if key.endswith("seconds")}
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB
    return {
        "variant": variant,
        "models": models,
        "neurons": sum(neurons(p) for p in network.populations if not isinstance(p, Input)),
        "latency": network.depth,
        "cores": cores(),
        "versions": versions(),
        "seconds": seconds,
        "lava_processes": info["lava_processes"],
        "lava_peak_gib": float(str(info["peak_memory_mib"])) / 2**10,
        "caller_peak_gib": ours,
        "report": report.to_json(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", choices=BACKENDS, default="fast")
    parser.add_argument("--variants", nargs="+", choices=SAMPLES, default=list(SAMPLES))
    parser.add_argument("--samples", type=int, help="of each; as SAMPLES says by default")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    parser.add_argument("--one", metavar="VARIANT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.samples, args.models)))
        return 0
    rows = []
    for variant in args.variants:
        samples = args.samples or SAMPLES[variant]
        command = [sys.executable, __file__, "--one", variant, "--models", args.models]
        command += ["--samples", str(samples)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        rows.append(json.loads(done.stdout))
        print(_line(rows[-1]), flush=True)
    args.output.parent.mkdir(exist_ok=True)
    with atomic_path(args.output) as path:
        path.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def _line(row: dict[str, Any]) -> str:
    report, seconds = row["report"], row["seconds"]
    return (
        f"{row['variant']}: {report['verdict']}\n"
        f"  {row['lava_processes']} processes, {row['lava_peak_gib']:.2f} GiB at most, and "
        f"{row['caller_peak_gib']:.2f} GiB of the caller;\n"
        f"  start {seconds['lava_start_seconds']:.1f} s, run {seconds['lava_run_seconds']:.1f} s, "
        f"in all {seconds['seconds']:.1f} s"
    )


if __name__ == "__main__":
    raise SystemExit(main())
