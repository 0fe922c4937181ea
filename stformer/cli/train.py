"""`stformer train`: a recipe's float network into a run folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from stformer.cli.common import emit, need_torch, prepare_data, say
from stformer.cli.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a name that `stformer recipes` lists, or a .toml file"
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change one value of the recipe, as train.epochs=3; may be repeated",
    )
    parser.add_argument(
        "-o", "--output", metavar="RUN", help="the run folder; runs/RECIPE by default"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the folder's checkpoint")
    parser.add_argument("--seed", metavar="N", type=int, help="the same as --set train.seed=N")


def run(args: argparse.Namespace) -> int:
    need_torch("training")
    from stformer import recipe, train
    from stformer.config import config_from

    seed = [] if args.seed is None else [f"train.seed={args.seed}"]
    chosen = recipe.load(args.recipe, [*args.set, *seed])
    out = Path(args.output or Path("runs") / chosen.name)
    rows: list[dict[str, float]] = []
    prepare_data(chosen.data, config_from(chosen.model, f"recipe '{chosen.name}', [model]").steps)
    with Progress("training", chosen.train.epochs) as progress:

        def report(row: dict[str, float]) -> None:
            rows.append(row)
            text = train.epoch_text(row)
            progress.update(int(row["epoch"]), text)
            say(args, f"epoch {row['epoch']:.0f} of {row['epochs']:.0f}: {text}")

        done = train.train(chosen, out, resume=args.resume, report=report)
    accuracy = rows[-1]["test_accuracy"] if rows else None
    plain = {
        "run": str(out),
        "epochs": done.epochs_done,
        "trained_epochs": len(rows),
        "test_accuracy": accuracy,
        "seconds": sum(row["seconds"] for row in rows),
    }
    last = "" if accuracy is None else f", accuracy {100 * accuracy:.2f} % (float, test)"
    text = (
        f"trained {len(rows)} of {done.epochs_done} epochs in {plain['seconds']:.0f} s{last}\n"
        f"run in {out}; next: stformer compile {out} -o {chosen.name}.stf"
    )
    emit(args, plain, text)
    return 0
