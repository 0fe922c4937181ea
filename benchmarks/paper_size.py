"""Paper-size variants: seconds and peak memory of lowering, saving, loading and running.

`python benchmarks/paper_size.py` makes each variant with random weights in a process of its own,
so that peaks are its own, runs one sample on cpu, torch and reference, and requires equality.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stformer import deploy, storage
from stformer.config import VARIANTS, config_from
from stformer.lower import lower_stformer
from stformer.model import quantise
from stformer.network import neurons
from stformer.sane import random_frames, sane_model

T = TypeVar("T")
PRESETS = {
    name: ("paper",) if name.startswith("Spikingformer") else ("hw", "paper") for name in VARIANTS
}


def measure(variant: str, preset: str) -> dict[str, Any]:
    seconds: dict[str, float] = {}

    def timed(what: str, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = work()
        seconds[what] = time.perf_counter() - started
        return result

    model = sane_model(config_from({"variant": variant, "preset": preset}))
    quantise(model)
    network = timed("lower", lambda: lower_stformer(model))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.stf"
        timed("save", lambda: storage.save(path, network))
        size = path.stat().st_size
        network = timed("load", lambda: storage.load(path))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB; Linux counts KiB
    inputs = random_frames(model.config, 1).transpose(0, 1).numpy()
    traces = [
        timed(name, lambda name=name: deploy.run(name, network, inputs))  # type: ignore[misc]
        for name in ("cpu", "torch", "reference")
    ]
    both = set(traces[1].spikes)  # the module has no relays
    for name, values in traces[2].spikes.items():
        assert np.array_equal(traces[0][name], values), name
        assert name not in both or np.array_equal(traces[1][name], values), name
    return {
        "variant": variant,
        "preset": preset,
        "populations": len(network.populations),
        "neurons": sum(neurons(p) for p in network.populations[1:]),
        "latency": network.depth,
        "file_mib": size / 2**20,
        "peak_gib": peak,
        "seconds": seconds,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("VARIANT", "PRESET"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one)))
        return 0
    rows = []
    for variant, presets in PRESETS.items():
        for preset in presets:
            command = [sys.executable, __file__, "--one", variant, preset]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            rows.append(json.loads(done.stdout))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        head = "variant | preset | neurons | steps deep | file, MiB | lower + save, s | peak, GiB"
        print(f"| {head} | cpu, s | torch, s | reference, s |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        print("\n".join(map(_line, rows)))
    return 0


def _line(row: dict[str, Any]) -> str:
    s = row["seconds"]
    cells = [
        row["variant"],
        f"`{row['preset']}`",
        f"{row['neurons']:,}",
        str(row["latency"]),
        f"{row['file_mib']:.1f}",
        f"{s['lower'] + s['save']:.1f}",
        f"{row['peak_gib']:.2f}",
        *(f"{s[name]:.1f}" for name in ("cpu", "torch", "reference")),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())
