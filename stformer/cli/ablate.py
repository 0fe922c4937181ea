"""`stformer ablate`: the paper's ablations on any recipe."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stformer.cli.cluster import add_cluster, connected
from stformer.cli.common import emit, need_torch, positive, prepare_data, say
from stformer.cli.progress import Progress

if TYPE_CHECKING:
    from stformer.ablate import Outcomes, Step
    from stformer.ablation_tables import Subject
    from stformer.recipe import Recipe

SEEDS = 3


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
        "-o",
        "--output",
        metavar="DIR",
        help="the folder of all runs and of ablation.md and ablation.json; runs/ablate-RECIPE by "
        "default; what is finished in it is not run again",
    )
    parser.add_argument(
        "--seeds",
        metavar="N",
        type=positive,
        default=SEEDS,
        help=f"train each case from the seeds 0 to N-1; {SEEDS} by default",
    )
    parser.add_argument(
        "--tables",
        metavar="NAMES",
        help="core (Tables 3 and 4), sga (Table 5), kernels (Table 7), with commas; all by "
        "default",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--compile",
        action="store_true",
        help="also compile each run to integers, which is the default",
    )
    only.add_argument("--float-only", action="store_true", help="do not compile")
    add_cluster(parser, "the trainings")


def run(args: argparse.Namespace) -> int:
    need_torch("training")
    from stformer import ablate, recipe
    from stformer.ablation_tables import markdown, to_plain
    from stformer.files import write_text

    tables = ablate.tables_named(",".join(ablate.TABLES) if args.tables is None else args.tables)
    ablate.check_overrides(args.set)
    chosen = recipe.load(args.recipe, args.set)
    out = Path(args.output or Path("runs") / f"ablate-{chosen.name}")
    cases = ablate.cases_of(tables)
    subject = _subject(args, chosen, tables, cases)

    prepare_data(chosen.data, ablate.config_of(chosen, cases[0]).steps)
    with connected(args) as client, Progress("ablation") as progress:
        now = _Now(progress)

        def begin(step: Step) -> None:
            now.begin(step)
            if step.case:
                say(args, f"run {step.done + 1} of {step.total}: {now.title}")

        def update(outcomes: Outcomes) -> None:
            plain = to_plain(subject, outcomes)
            write_text(out / "ablation.json", json.dumps(plain, indent=2) + "\n")
            write_text(out / "ablation.md", markdown(subject, outcomes))

        trainer = partial(train_one, integers=subject.integers)
        spread = None
        if client is None:
            trainer = partial(trainer, note=now.note)
        else:
            from stformer.deploy import cluster

            spread = partial(cluster.each, client)
        outcomes = ablate.run(
            chosen,
            Path(os.path.abspath(out)),  # workers of a cluster may be in another folder
            trainer,
            cases=cases,
            seeds=args.seeds,
            integers=subject.integers,
            costs={case: size.operations for case, size in subject.sizes.items()},
            begin=begin,
            update=update,
            spread=spread,
        )
    text = f"{markdown(subject, outcomes)}\nruns and tables in {out}"
    emit(args, to_plain(subject, outcomes), text)
    return 0


class _Now:
    """The progress line: which run of all, where it is, and how long the rest will take."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.done, self.title = 0, ""

    def begin(self, step: Step) -> None:
        self.progress.total, self.done = step.total, step.done
        left = "" if step.remaining is None else f", {_duration(step.remaining)} left"
        self.title = f"{step.case}, seed {step.seed}{left}" if step.case else ""
        self.note("")

    def note(self, text: str) -> None:
        self.progress.update(self.done, f"{self.title}  {text}")


def train_one(
    chosen: Recipe,
    folder: Path,
    *,
    integers: bool,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[float, float | None]:
    """Training as `stformer train` and `stformer compile` do it."""
    from stformer import data, train
    from stformer.compile import compile_run

    def report(part: str) -> train.Report:
        return lambda row: note(
            f"{part}, epoch {row['epoch']:.0f} of {row['epochs']:.0f}: {train.epoch_text(row)}"
        )

    done = train.train(chosen, folder, resume=True, report=report("training"))
    if integers:
        compiled = compile_run(done, report=report("fine-tuning"))
        return compiled.float_accuracy, compiled.integer_accuracy
    test = data.load(chosen.data, done.model.config.steps)["test"]
    return train.accuracy(done.model, test), None


def _subject(
    args: argparse.Namespace, chosen: Recipe, tables: list[str], cases: list[str]
) -> Subject:
    from stformer import ablate
    from stformer.ablation_tables import Size, Subject
    from stformer.counts import count
    from stformer.machine import versions

    counted = {case: count(ablate.config_of(chosen, case)) for case in cases}
    return Subject(
        recipe=chosen,
        tables=tables,
        seeds=args.seeds,
        integers=not args.float_only,
        sizes={
            case: Size(parameters=c.parameters, operations=c.operations)
            for case, c in counted.items()
        },
        command=_command(args),
        versions={k: v for k, v in versions().items() if k != "lava-nc"},
        machine=f"{os.cpu_count()} cores ({platform.machine()})",
    )


def _command(args: argparse.Namespace) -> str:
    """What was called, without what changes no number."""
    words = ["stformer", "ablate", args.recipe, "--seeds", str(args.seeds)]
    for override in args.set:
        words += ["--set", override]
    if args.tables:
        words += ["--tables", args.tables]
    if args.float_only:
        words.append("--float-only")
    return shlex.join([*words, "-o", args.output] if args.output else words)


def _duration(seconds: float) -> str:
    """ "1 h 20 min", "3 min" or "12 s"."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min" if minutes >= 2 else f"{seconds:.0f} s"
