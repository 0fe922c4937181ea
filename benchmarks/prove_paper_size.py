"""Paper-size variants: is overflow ruled out over all inputs, and what do bounds cost.

`python benchmarks/prove_paper_size.py` makes each variant with random weights in a process of its
own, so that peaks are its own, bounds it once with the scales that `compile` starts from and
once with those of `--scales bounds`, and tells what one random sample makes of the worst
population.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from stformer import overflow
from stformer.compile import ROOM, fit
from stformer.config import VARIANTS, config_from
from stformer.lower import lower_stformer
from stformer.model import STFormer, quantise
from stformer.network import Conv, Dense, Network
from stformer.sane import random_frames, sane_model

PRESETS = {name: ("hw", "paper") for name in VARIANTS if name.startswith("STFormer")}


def measure(variant: str, preset: str, samples: int) -> list[dict[str, Any]]:
    model = sane_model(config_from({"variant": variant, "preset": preset}))
    quantise(model)
    rows = [{"scales": "samples"} | _bounded(model, samples)]
    started = time.perf_counter()
    fit(model, room=ROOM)
    fitted = time.perf_counter() - started
    rows.append({"scales": "bounds"} | _bounded(model, samples) | {"fit_s": fitted})
    return [{"variant": variant, "preset": preset} | row for row in rows]


def _bounded(model: STFormer, samples: int) -> dict[str, Any]:
    network = lower_stformer(model)
    started = time.perf_counter()
    claims = overflow.prove(network)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB; Linux counts KiB
    worst = max(claims.populations, key=lambda c: max(r.largest / r.limit for r in c.registers))
    register = max(worst.registers, key=lambda r: r.largest / r.limit)
    row = {
        "populations": len(claims.populations),
        "proven": len(claims.populations) - len(claims.open),
        "within_24_bits": sum(
            all(r.fits for r in c.registers if r.what != overflow.SUM) for c in claims.populations
        ),
        "worst": f"{worst.name}, {register.what}",
        "bound": register.largest,
        "limit": register.limit,
        "weight_bits": _weight_bits(network),
        "seconds": seconds,
        "peak_gib": peak,
    }
    if samples:
        frames = random_frames(model.config, samples).transpose(0, 1).numpy()
        trace = network.run(frames)
        low, high = overflow.observe(network, trace)[worst.name][register.what]
        row["seen"] = max(-low, high)
    return row


def _weight_bits(network: Network) -> list[int]:
    """The fewest and the most bits, sign included, that a projection's weights take."""
    bits = [
        int(np.abs(p.weight.astype(np.int64)).max()).bit_length() + 1
        for p in network.projections
        if isinstance(p, (Conv, Dense))
    ]
    return [min(bits), max(bits)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("VARIANT", "PRESET"), help=argparse.SUPPRESS)
    parser.add_argument("--samples", type=int, default=1, help="to run beside the bounds; 0: none")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], args.one[1], args.samples)))
        return 0
    rows = []
    for variant, presets in PRESETS.items():
        for preset in presets:
            command = [sys.executable, __file__, "--one", variant, preset]
            command += ["--samples", str(args.samples)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            rows += json.loads(done.stdout)
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        head = "variant | preset | scales | proven | in 24 bits | worst | bound | limit | seen"
        print(f"| {head} | weights, bits | prove, s | peak, GiB |")
        print("| --- " * 12 + "|")
        print("\n".join(map(_line, rows)))
    return 0


def _line(row: dict[str, Any]) -> str:
    cells = [
        row["variant"],
        f"`{row['preset']}`",
        row["scales"],
        f"{row['proven']} of {row['populations']}",
        str(row["within_24_bits"]),
        row["worst"],
        f"{row['bound']:,}",
        f"{row['limit']:,}",
        f"{row['seen']:,}" if "seen" in row else "",
        "{}...{}".format(*row["weight_bits"]),
        f"{row['seconds']:.2f}",
        f"{row['peak_gib']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())
