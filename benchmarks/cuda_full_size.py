"""The full-size STFormers on a GPU, every spike and state of every population those of `cpu`.

`python benchmarks/cuda_full_size.py` needs an NVIDIA GPU; it prints the comparison and the time
of both, and writes benchmarks/results/cuda_full_size.json. Random weights, norms calibrated so
that every population fires.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stformer import deploy
from stformer.config import config_from
from stformer.files import write_text
from stformer.lower import lower_stformer
from stformer.machine import versions
from stformer.model import quantise
from stformer.network import Network
from stformer.sane import random_frames, sane_model
from stformer.trace import Inputs, Probe, Trace
from stformer.training.pretended import pretended
from stformer.verify import verify

Run = Callable[..., Trace]
SAMPLES = {"STFormer-4-384": 8, "STFormer-2-256": 1}
RESULTS = Path(__file__).parent / "results" / "cuda_full_size.json"


def _pretended(backend: str, network: Network, inputs: Inputs, *, probe: Probe) -> Trace:
    with pretended():
        return deploy.load(backend).run(network, inputs, probe=probe)


def measure(variant: str, preset: str, backend: str, other: Run) -> dict[str, Any]:
    """Lower a variant, run it on the GPU and on the simulator `cpu`, compare."""
    model = sane_model(config_from({"variant": variant, "preset": preset}))
    quantise(model)
    network = lower_stformer(model)
    inputs = random_frames(model.config, SAMPLES[variant]).transpose(0, 1).numpy()
    infos: dict[str, dict[str, Any]] = {}

    def run(name: str, network: Network, inputs: Inputs, probe: Probe) -> Trace:
        engine = other if name == backend else deploy.run
        trace = engine(name, network, inputs, probe=probe)
        infos[name] = dict(trace.info)
        return trace

    (report,) = verify(network, inputs, [backend], run=run, against="cpu", states=True)
    assert report.proven, report.to_text()
    print(f"{variant} {preset}: {report.verdict}; {infos}", flush=True)
    plain = {"variant": variant, "preset": preset, "infos": infos, "versions": versions()}
    return plain | {"report": report.to_json()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="torch-cuda", help="torch tries it without a GPU")
    parser.add_argument(
        "--pretend",
        action="store_true",
        help="on the CPU, with tensors that say they are on a GPU (stformer.training.pretended)",
    )
    parser.add_argument("--variants", nargs="+", choices=SAMPLES, default=list(SAMPLES))
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    other = _pretended if args.pretend else deploy.run
    rows = [measure(v, p, args.backend, other) for v in args.variants for p in ("hw", "paper")]
    write_text(args.output, json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
