"""Deep training: depths 1...8 of every residual on digits, several seeds.

`python benchmarks/depth.py` trains each float network into runs/depth/ (finished ones are not
trained again), and prints accuracies and the lowest and highest firing rate as a table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from stformer import recipe, train

RESIDUALS = ("iand", "or", "add", "ms")
DEPTHS = (1, 2, 4, 8)
SMALL = ("model.width=32", "train.epochs=20")


def measure(out: Path, residual: str, depth: int, seed: int, overrides: list[str]) -> Any:
    """The last row of a run's metrics: accuracy and rates on the test split."""
    chosen = recipe.load(
        "digits",
        [
            *SMALL,
            *overrides,
            f"model.residual={residual}",
            f"model.depth={depth}",
            f"train.seed={seed}",
        ],
    )
    folder = out / f"{residual}-{depth}-{seed}"
    train.train(chosen, folder, resume=True, device="cpu")
    return json.loads((folder / "metrics.jsonl").read_text("utf-8").splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--residual", action="append", choices=RESIDUALS)
    parser.add_argument("--depth", action="append", type=int, choices=DEPTHS)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/depth"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = []
    for residual in args.residual or RESIDUALS:
        for depth in args.depth or DEPTHS:
            rows = [
                measure(args.output, residual, depth, seed, args.set) for seed in range(args.seeds)
            ]
            rates = [rate for row in rows for rate in row["rates"].values()]
            accuracies = [row["test_accuracy"] for row in rows]
            found.append(
                {
                    "residual": residual,
                    "depth": depth,
                    "accuracies": accuracies,
                    "mean": statistics.fmean(accuracies),
                    "std": statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
                    "lowest_rate": min(rates),
                    "highest_rate": max(rates),
                    "dead": sorted({name for row in rows for name in row["dead"]}),
                }
            )
            print(*_line(found[-1]), file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        head = ["residual", "blocks", "accuracy, %", "lowest rate, %", "highest rate, %"]
        for line in (head, ["---"] * len(head), *map(_line, found)):
            print(f"| {' | '.join(line)} |")
    return 0


def _line(row: dict[str, Any]) -> list[str]:
    return [
        f"`{row['residual']}`",
        str(row["depth"]),
        f"{100 * row['mean']:.2f} ± {100 * row['std']:.2f}",
        f"{100 * row['lowest_rate']:.2f}",
        f"{100 * row['highest_rate']:.1f}",
    ]


if __name__ == "__main__":
    raise SystemExit(main())
