"""Accuracy of recipes, float and integer, over several seeds: `python benchmarks/accuracy.py`.

Trains and compiles each recipe once per seed, prints a table and, with --json, the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from stformer import compile as compiling
from stformer import recipe, train

RECIPES = ("digits", "event-digits")


def measure(name: str, seed: int, overrides: list[str]) -> dict[str, float]:
    """Train and compile once; accuracies on the test split and seconds."""
    chosen = recipe.load(name, [*overrides, f"train.seed={seed}"])
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = train.train(chosen, Path(folder) / "run")
    trained = time.perf_counter()
    compiled = compiling.compile_run(run)
    return {
        "seed": seed,
        "float": compiled.float_accuracy,
        "quantised": compiled.quantised_accuracy,
        "integer": compiled.integer_accuracy,
        "train_seconds": trained - started,
        "compile_seconds": time.perf_counter() - trained,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--recipe",
        action="append",
        metavar="NAME",
        help=f"may be repeated; by default {', '.join(RECIPES)}",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = {}
    for name in args.recipe or RECIPES:
        rows = []
        for seed in range(args.seeds):
            rows.append(measure(name, seed, args.set))
            print(f"{name} {_line(str(seed), rows[-1])}", file=sys.stderr, flush=True)
        mean = {k: statistics.fmean(row[k] for row in rows) for k in rows[0]}
        found[name] = {"seeds": rows, "mean": mean}
        if not args.json:
            print(f"{name}\nseed    float  rounded  integer  train s  compile s")
            for row in rows:
                print(_line(f"{row['seed']:.0f}", row))
            print(_line("mean", mean), flush=True)
    if args.json:
        print(json.dumps(found, indent=2))
    return 0


def _line(label: str, row: dict[str, float]) -> str:
    accuracies = "".join(f"{100 * row[k]:9.2f}" for k in ("float", "quantised", "integer"))
    return f"{label:4}{accuracies}{row['train_seconds']:9.0f}{row['compile_seconds']:11.0f}"


if __name__ == "__main__":
    raise SystemExit(main())
