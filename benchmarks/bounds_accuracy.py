"""What `--scales bounds` costs in accuracy: `python benchmarks/bounds_accuracy.py`.

Trains networks, once per seed, and compiles each run with both kinds of scales. Prints a row a
network: mean and standard deviation of accuracies over the seeds, and the fewest populations
that were proven.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from stformer import compile as compiling
from stformer import overflow, recipe, train

SCALES = ("samples", "bounds")
CASES = {
    "digits": ("digits", []),
    "digits, width 96": ("digits", ["model.width=96"]),
    "digits, `paper`": ("digits", ["model.preset=paper"]),
    "event-digits, `paper`": ("event-digits", ["model.preset=paper"]),
}


def measure(name: str, overrides: list[str], seed: int) -> dict[str, tuple[float, ...]]:
    """Scales -> integer accuracy and populations proven and in all; and "float"."""
    chosen = recipe.load(name, [*overrides, f"train.seed={seed}"])
    out: dict[str, tuple[float, ...]] = {}
    with tempfile.TemporaryDirectory() as folder:
        train.train(chosen, Path(folder) / "run")
        for scales in SCALES:
            compiled = compiling.compile_run(train.load_run(Path(folder) / "run"), scales=scales)
            claims = overflow.prove(compiled.network)
            proven = len(claims.populations) - len(claims.open)
            out[scales] = (compiled.integer_accuracy, proven, len(claims.populations))
            out["float"] = (compiled.float_accuracy,)
    print(name, *overrides, seed, out, file=sys.stderr, flush=True)
    return out


def _accuracy(rows: list[dict[str, tuple[float, ...]]], key: str) -> str:
    values = [100 * row[key][0] for row in rows]
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, default=3, help="2 or more")
    args = parser.parse_args()
    print("| network | float | " + " | ".join(f"{s} | proven" for s in SCALES) + " |")
    print("| --- " * (2 + 2 * len(SCALES)) + "|")
    for case in args.cases:
        rows = [measure(*CASES[case], seed) for seed in range(args.seeds)]
        cells = [case, _accuracy(rows, "float")]
        for scales in SCALES:
            fewest = min(row[scales][1] for row in rows)
            cells += [_accuracy(rows, scales), f"{fewest:.0f} of {rows[0][scales][2]:.0f}"]
        print("| " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
