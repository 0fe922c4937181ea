"""`stformer train`: a recipe's float network into a run folder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stformer.cli.common import emit, need_torch, note, positive, prepare_data, say
from stformer.cli.progress import Progress
from stformer.errors import InputError

if TYPE_CHECKING:
    from stformer.recipe import Recipe
    from stformer.train import Tick

DRY_STEPS = 10


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
    parser.add_argument(
        "--device", metavar="D", default="", help="cpu, cuda or cuda:N; a GPU if there is one"
    )
    parser.add_argument(
        "--data",
        choices=["synthetic"],
        help="a dry run: a few steps on random frames of the recipe's data set, to see how fast "
        "it is and whether it fits; nothing is written",
    )
    parser.add_argument(
        "--steps",
        metavar="N",
        type=positive,
        help=f"steps that a dry run times; {DRY_STEPS} by default",
    )


def run(args: argparse.Namespace) -> int:
    need_torch("training")
    from stformer import recipe

    seed = [] if args.seed is None else [f"train.seed={args.seed}"]
    chosen = recipe.load(args.recipe, [*args.set, *seed])
    if args.data:
        return _dry(args, chosen)
    if args.steps:
        raise InputError("--steps", "no dry run", "--data synthetic with it", "set train.epochs")
    return _train(args, chosen)


def _dry(args: argparse.Namespace, chosen: Recipe) -> int:
    from stformer.training.dry import dry_run

    for flag, given in (("--output", args.output), ("--resume", args.resume)):
        if given:
            raise InputError(flag, "a dry run", "a training; a dry run writes nothing")
    speed, first = dry_run(chosen, steps=args.steps or DRY_STEPS, device=args.device)
    if first:
        text = (
            f"{chosen.name}: {speed.samples_per_second:,.1f} samples/s on {speed.device} "
            f"({speed.steps} steps of {chosen.train.batch_size} in {speed.seconds:.2f} s, "
            f"{speed.processes} process{'es' if speed.processes > 1 else ''})\n"
            f"peak memory {speed.peak_bytes / 2**20:,.0f} MiB ({speed.memory})\n"
            f"mean loss {speed.loss:.3f}, on random labels"
        )
        emit(args, {"recipe": chosen.name, **speed.to_plain()}, text)
    return 0


def _train(args: argparse.Namespace, chosen: Recipe) -> int:
    from stformer import train
    from stformer.config import config_from

    out = Path(args.output or Path("runs") / chosen.name)
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes: it speaks for all
    if first:
        steps = config_from(chosen.model, f"recipe '{chosen.name}', [model]").steps
        prepare_data(chosen.data, steps)
    rows: list[dict[str, Any]] = []
    with Progress("training") as progress:
        last = ""
        ill: list[list[str]] = [[], []]

        def report(row: dict[str, Any]) -> None:
            nonlocal last, ill
            rows.append(row)
            last = train.epoch_text(row)
            say(args, f"epoch {row['epoch']} of {row['epochs']}: {last}")
            if [row["dead"], row["saturated"]] != ill:  # told when it changes, not every epoch
                ill = [row["dead"], row["saturated"]]
                progress.clear()
                note(f"epoch {row['epoch']}: {_health(*ill)}")

        def tick(at: Tick) -> None:
            progress.total = at.steps
            speed = f"epoch {at.epoch}, {at.samples_per_second:.0f} samples/s, "
            left = f"{_duration(at.remaining)} left"
            progress.update(at.done, f"{speed}{left}  {last}")

        done = train.train(
            chosen, out, resume=args.resume, device=args.device, report=report, tick=tick
        )
    if not first:
        return 0
    result = done.result
    plain = {
        "run": str(out),
        "epochs": done.epochs_done,
        "trained_epochs": len(rows),
        "test_accuracy": result.get("selected", result["last"])["test_accuracy"],
        **result,
        "seconds": sum(row["seconds"] for row in rows),
    }
    text = (
        f"trained {len(rows)} of {done.epochs_done} epochs in {plain['seconds']:.0f} s, "
        f"accuracy {100 * result['last']['test_accuracy']:.2f} % (float, test)\n"
    )
    if chosen_epoch := result.get("selected"):
        text += (
            f"epoch {chosen_epoch['epoch']} is best on held-out samples "
            f"({100 * chosen_epoch['validation_accuracy']:.2f} %): "
            f"{100 * chosen_epoch['test_accuracy']:.2f} % (test)\n"
        )
    text += f"run in {out}; next: stformer compile {out} -o {chosen.name}.stf"
    emit(args, plain, text)
    return 0


def _health(dead: list[str], saturated: list[str]) -> str:
    """One line on populations that say hardly anything."""
    parts = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for kind, names in (("hardly spiking", dead), ("always spiking", saturated))
        if names
    ]
    return f"populations {' and '.join(parts)}" if parts else "every population spikes again"


def _duration(seconds: float) -> str:
    """ "1 h 20 min", "3 min" or "12 s"."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min" if minutes >= 2 else f"{seconds:.0f} s"
