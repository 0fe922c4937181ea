"""onnx beside cpu and torch: milliseconds a sample, as ratios of one run.

`python benchmarks/onnx_speed.py` takes turns between the backends on the packaged model and on
STFormer-4-384 of both presets with random weights, requires equal spikes, and prints medians.
Export and checks are not in the times of `onnx`; they have columns of their own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from stformer import data, deploy, export, storage
from stformer.config import config_from
from stformer.lower import lower_stformer
from stformer.model import quantise
from stformer.network import Network
from stformer.sane import random_frames, sane_model

BACKENDS = ("onnx", "cpu", "torch")


def large(preset: str, samples: int) -> tuple[Network, Any]:
    model = sane_model(config_from({"variant": "STFormer-4-384", "preset": preset}))
    quantise(model)
    return lower_stformer(model), random_frames(model.config, samples).transpose(0, 1).numpy()


def measure(name: str, network: Network, inputs: Any, repeats: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        sample = export.export("onnx", network, Path(folder) / "x.onnx").path
        exported = time.perf_counter() - started
        size = sample.stat().st_size
    seconds: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    for _ in range(repeats):
        traces = {backend: deploy.run(backend, network, inputs) for backend in BACKENDS}
        for backend, trace in traces.items():
            seconds[backend].append(float(trace.info["seconds"]))
            for population, values in trace.spikes.items():
                assert np.array_equal(values, traces["onnx"][population]), population
    each = {b: 1000 * statistics.median(s) / len(inputs) for b, s in seconds.items()}
    return {
        "model": name,
        "samples": len(inputs),
        "milliseconds": each,
        "ratio": {b: each[b] / each["onnx"] for b in BACKENDS},
        "export_seconds": exported,
        "file_mib": size / 2**20,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=8, help="of the large networks")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    models = {
        "packaged": lambda: (storage.load(), data.packaged()[0]),
        "STFormer-4-384 `hw`": lambda: large("hw", args.samples),
        "STFormer-4-384 `paper`": lambda: large("paper", args.samples),
    }
    rows = []
    for name, make in models.items():
        rows.append(measure(name, *make(), args.repeats))
        print(_line(rows[-1]), file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        print("| model | samples | onnx, ms | cpu / onnx | torch / onnx | export, s | file, MiB |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        print("\n".join(map(_line, rows)))
    return 0


def _line(row: dict[str, Any]) -> str:
    cells = [
        row["model"],
        str(row["samples"]),
        f"{row['milliseconds']['onnx']:.2f}",
        f"{row['ratio']['cpu']:.2f}",
        f"{row['ratio']['torch']:.2f}",
        f"{row['export_seconds']:.1f}",
        f"{row['file_mib']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())
