"""The paper's ablations (Tables 3, 4, 5 and 7) as changes of a recipe, and running them.

How the paper's rows are read, where it contradicts itself: docs/ablation.md. Nothing here imports
torch: who trains is an argument.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from stformer.config import STFormerConfig, config_from
from stformer.errors import InputError
from stformer.files import make_folder, write_text
from stformer.recipe import Recipe, differences, from_plain, nearest

# The paper's columns.
DATASETS = ("CIFAR10", "CIFAR100", "CIFAR10-DVS", "DVS128 Gesture")
RESULT = "ablation-result.json"  # of a finished run, beside what training leaves there

_BARE: dict[str, object] = {
    "spatial_kernel": 3,
    "rpe_skip": False,
    "temporal": False,
    "guided": True,  # no difference without the Temporal Core; one value, so that cases are equal
}
_FULL: dict[str, object] = {
    "spatial_kernel": 5,
    "rpe_skip": True,
    "temporal": True,
    "guided": True,
}
# Case -> what it sets in the recipe's [model]. The residual of Eq. 6 is in neither core: Eq. 4 is
# the Spatial Core, Eq. 7 the Temporal Core. It comes with the first of them.
CASES: dict[str, dict[str, object]] = {
    "baseline": _BARE,
    "spatial": _FULL | {"temporal": False},
    "temporal": _FULL | {"spatial_kernel": 3, "guided": False},
    "st-core": _FULL | {"guided": False},
    "no-core": _BARE | {"rpe_skip": True},
    "full": _FULL,
    **{f"kernel-{k}": _FULL | {"spatial_kernel": k} for k in (3, 7, 11, 31)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a table.

    Attributes:
        label: as the paper has it, or nearly.
        case: of `CASES`.
        paper: accuracy in per cent on each of `DATASETS`; None where the paper has none.
    """

    label: str
    case: str
    paper: tuple[float | None, float | None, float | None, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One of the paper's tables; the first row is what the others are compared with."""

    title: str
    rows: tuple[Row, ...]


_BASELINE = Row(label="baseline", case="baseline", paper=(95.95, 80.37, 80.9, 97.56))


def _kernel(label: str, case: str, cifar10: float, cifar100: float) -> Row:
    return Row(label=label, case=case, paper=(cifar10, cifar100, None, None))


TABLES: dict[str, Table] = {
    "core": Table(
        title="Tables 3 and 4: the Spatial and the Temporal Core",
        rows=(
            _BASELINE,
            Row(label="+ Spatial Core", case="spatial", paper=(95.96, 80.36, 81.4, 98.61)),
            Row(label="+ Temporal Core", case="temporal", paper=(96.32, 81.39, 82.9, 98.61)),
            Row(label="both (§4.3)", case="st-core", paper=(96.35, 81.39, 83.1, 98.61)),
        ),
    ),
    "sga": Table(
        title="Table 5: ST-Core and SGA",
        rows=(
            _BASELINE,
            Row(label="w/o ST-Core", case="no-core", paper=(96.04, 81.09, 82.1, 98.61)),
            Row(label="w/o SGA", case="st-core", paper=(96.35, 81.39, 82.9, 98.61)),
            Row(label="ST-Core + SGA", case="full", paper=(96.37, 81.45, 83.1, 98.61)),
        ),
    ),
    "kernels": Table(
        title="Table 7: the kernel of the Spatial Core",
        rows=(
            _kernel("conv3", "kernel-3", 95.95, 80.37),
            _kernel("conv5", "full", 96.45, 81.45),
            _kernel("conv7", "kernel-7", 92.32, 78.89),
            _kernel("conv11", "kernel-11", 90.85, 73.15),
            _kernel("conv31", "kernel-31", 88.56, 70.35),
        ),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one training gave, on the test split.

    Attributes:
        float_accuracy: 0...1, of the float network.
        integer_accuracy: 0...1, of the compiled one; None where it was not compiled.
        seconds: that it took, less what a run had before it was interrupted.
    """

    float_accuracy: float
    integer_accuracy: float | None
    seconds: float


# Case -> seed -> outcome.
Outcomes = dict[str, dict[int, Outcome]]
# Trains a recipe into a folder, going on where an earlier try stopped:
# (accuracy as float, accuracy as integers or None).
Trainer = Callable[[Recipe, Path], tuple[float, float | None]]
# Calls a function with each item, one after the other or at once, and `then` with
# (index, result) of what is done: `stformer.deploy.cluster.each` with its client.
Spread = Callable[[Callable[[Any], Any], Iterable[Any], Callable[[int, Any], None]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A run that is about to begin, or the end.

    Attributes:
        done, total: runs; those that were finished before count as done.
        case, seed: of the run; at the end "" and -1.
        remaining: seconds for what is left; None before anything has been timed.
    """

    done: int
    total: int
    case: str
    seed: int
    remaining: float | None


def tables_named(text: str) -> list[str]:
    """Keys of `TABLES` from "core,sga", in their own order.

    Raises:
        InputError: a name that is none.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in TABLES:
            do = nearest(name, list(TABLES))
            raise InputError("--tables", f"'{name}'", ",".join(TABLES), do)
    return [name for name in TABLES if name in names]


def cases_of(tables: Sequence[str]) -> list[str]:
    """The cases that these tables need, each once."""
    return list(dict.fromkeys(row.case for name in tables for row in TABLES[name].rows))


def check_overrides(overrides: Sequence[str]) -> None:
    """Raise InputError for `key=value` that every case would set anew, or the seeds do."""
    taken = {f"model.{key}" for key in _FULL} | {"train.seed"}
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in taken:
            do = "use --seeds" if key == "train.seed" else ""
            raise InputError(
                f"--set {override}", "a key that the ablation sets itself", "other keys", do
            )


def recipe_of(recipe: Recipe, case: str, seed: int) -> Recipe:
    """The recipe that trains a case from a seed."""
    return replace(
        recipe,
        model={**recipe.model, **CASES[case]},
        train=replace(recipe.train, seed=seed),
    )


def config_of(recipe: Recipe, case: str) -> STFormerConfig:
    """The checked model of a case; InputError for what is no transformer."""
    where = f"recipe '{recipe.name}', case '{case}'"
    config = config_from(recipe_of(recipe, case, 0).model, where)
    if config.kind != "stformer":
        raise InputError(
            where, f"a model of kind '{config.kind}'", "'stformer', whose parts these are"
        )
    return config


def folder_of(out: Path, case: str, seed: int) -> Path:
    """The run folder of a case and seed."""
    return out / case / f"seed-{seed}"


def finished(
    recipe: Recipe, out: Path, cases: Sequence[str], seeds: int, *, integers: bool
) -> Outcomes:
    """What lies in the folder of what was asked for.

    Args:
        recipe: of the ablation.
        out: its folder.
        cases: of `CASES`.
        seeds: their number.
        integers: leave out what was not compiled.

    Raises:
        InputError: results of another recipe, or damaged ones.
    """
    found: Outcomes = {case: {} for case in cases}
    for case in cases:
        for seed in range(seeds):
            path = folder_of(out, case, seed) / RESULT
            if path.is_file():
                outcome = _read(path, recipe_of(recipe, case, seed))
                if not integers or outcome.integer_accuracy is not None:
                    found[case][seed] = outcome
    return found


def run(
    recipe: Recipe,
    out: Path,
    trainer: Trainer,
    *,
    cases: Sequence[str],
    seeds: int,
    integers: bool,
    costs: Mapping[str, float],
    begin: Callable[[Step], None] = lambda _: None,
    update: Callable[[Outcomes], None] = lambda _: None,
    spread: Spread | None = None,
) -> Outcomes:
    """Train every case from every seed that the folder does not hold yet.

    All cases from one seed come before the next seed, so that a run that is stopped early has
    something to say of each.

    Args:
        recipe: its [model] is what the cases change.
        out: a folder for all runs.
        trainer: see `Trainer`.
        cases: of `CASES`.
        seeds: 0...seeds-1.
        integers: results without an integer accuracy are not finished.
        costs: of each case, for the time that remains; any unit.
        begin: called before every run and at the end; where runs are spread, as they are
            done, with the first that is not.
        update: called with all outcomes so far, after every run, and first where there are any.
        spread: see `Spread`; one run after the other by default. The trainer must be picklable
            then, and the folder the same for all workers.

    Raises:
        InputError: the folder holds results of another recipe; what the trainer raises.
    """
    done = finished(recipe, out, cases, seeds, integers=integers)
    total = len(cases) * seeds
    todo = [(c, seed) for seed in range(seeds) for c in cases if seed not in done[c]]
    make_folder(out)
    if len(todo) < total:
        update(done)
    left = list(todo)

    def tell() -> None:
        case, seed = left[0] if left else ("", -1)
        seconds = remaining([c for c, _ in left], done, costs)
        begin(Step(done=total - len(left), total=total, case=case, seed=seed, remaining=seconds))

    def finish(i: int, result: tuple[float, float | None, float]) -> None:
        case, seed = todo[i]
        outcome = Outcome(float_accuracy=result[0], integer_accuracy=result[1], seconds=result[2])
        plain = {**asdict(outcome), "recipe": recipe_of(recipe, case, seed).to_plain()}
        write_text(folder_of(out, case, seed) / RESULT, json.dumps(plain, indent=2) + "\n")
        done[case][seed] = outcome
        left.remove((case, seed))
        update(done)
        tell()

    tell()
    items = [(recipe_of(recipe, c, seed), folder_of(out, c, seed)) for c, seed in todo]
    (spread or _one_by_one)(partial(_timed, trainer), items, finish)
    return done


def _one_by_one(
    task: Callable[[Any], Any], items: Iterable[Any], then: Callable[[int, Any], None]
) -> None:
    for i, item in enumerate(items):
        then(i, task(item))


def _timed(trainer: Trainer, run: tuple[Recipe, Path]) -> tuple[float, float | None, float]:
    """(accuracy as float, as integers, seconds) of one run."""
    started = time.perf_counter()
    floating, whole = trainer(*run)
    return floating, whole, time.perf_counter() - started


def remaining(cases: Sequence[str], done: Outcomes, costs: Mapping[str, float]) -> float | None:
    """Seconds that runs of these cases will take: as long as the same case took, or as long as
    its cost says beside those that have been timed; None where nothing has."""
    timed = {case: [o.seconds for o in of.values()] for case, of in done.items() if of}
    if not timed:
        return None
    seconds = sum(sum(s) for s in timed.values())
    cost = sum(costs[case] * len(s) for case, s in timed.items())
    return sum(
        sum(timed[c]) / len(timed[c]) if c in timed else costs[c] * seconds / cost for c in cases
    )


def _read(path: Path, wanted: Recipe) -> Outcome:
    try:
        plain = json.loads(path.read_text("utf-8"))
        was = from_plain(plain["recipe"], str(path))
        whole = plain["integer_accuracy"]
        outcome = Outcome(
            float_accuracy=float(plain["float_accuracy"]),
            integer_accuracy=None if whole is None else float(whole),
            seconds=float(plain["seconds"]),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
        what = f"{type(e).__name__}: {e}"[:120]
        raise InputError(str(path), what, "a result of `stformer ablate`", "remove it") from None
    if differing := differences(was, wanted):
        raise InputError(
            str(path.parent),
            f"a run with another {', '.join(differing)}",
            "the recipe it began with",
            "use another -o, or remove the folder",
        )
    return outcome
