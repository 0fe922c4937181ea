"""Training the float network, and fine-tuning the integer one: one loop for both.

A run folder holds `recipe.json`, `checkpoint.pt` (loads with weights_only=True),
`metrics.jsonl`, `tensorboard/`, and at the end `result.json`. All chance depends on the seed and
the position alone, so a run that was interrupted at any moment and resumed gives the weights of
one that was not, bit for bit on a CPU, and on a GPU with `deterministic`.

`torchrun --nproc-per-node N -m stformer train ...` trains on N processes. The weights are those
of one process whose `accumulate` is N times as large: the same bits for two processes on a CPU,
up to the order of floating-point sums for more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stformer.augment import Numbers
from stformer.data import Split
from stformer.errors import InputError
from stformer.files import make_folder, write_text
from stformer.recipe import Recipe
from stformer.training import checkpoint
from stformer.training.batches import held_out, steps_of
from stformer.training.checkpoint import Position, Run, load_run
from stformer.training.evaluate import accuracy, predict, to_tensor, unhealthy, watch
from stformer.training.log import Log, opened
from stformer.training.precision import repeatable
from stformer.training.processes import Processes, alone, first_alone, joined, told
from stformer.training.setup import begin, check_parts, prepare
from stformer.training.step import (
    Progress,
    Training,
    make_optimizer,
    make_training,
    run_epoch,
    schedule,
)

__all__ = [
    "Report",
    "Run",
    "Tick",
    "Training",
    "accuracy",
    "alone",
    "epoch_text",
    "load_run",
    "make_optimizer",
    "make_training",
    "predict",
    "prepare",
    "run_epoch",
    "schedule",
    "to_tensor",
    "train",
]

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A sign of life after a step.

    Attributes:
        done, steps: of the whole training.
        epoch: from 1.
        samples_per_second: of all processes, over this epoch.
        remaining: seconds that the steps to come will take, evaluation left out.
    """

    done: int
    steps: int
    epoch: int
    samples_per_second: float
    remaining: float


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    device: str = "",
    report: Report = lambda _: None,
    tick: Callable[[Tick], None] = lambda _: None,
) -> Run:
    """Train a recipe's float network into a run folder.

    Args:
        recipe: what and how.
        out: the folder; made when it does not exist.
        resume: go on from its checkpoint, if there is one.
        device: "cpu", "cuda", "cuda:N"; by default a GPU if there is one.
        report: called after every epoch with its row of `metrics.jsonl`, by the first process.
        tick: called after every step, by the first process.

    Returns:
        The run; with `validation`, its model has the weights of the selected epoch.

    Raises:
        InputError: the folder holds a run already and `resume` is off, or holds another
            recipe's run; the data do not fit the model, or the processes the batches.
        stformer.training.finite.NotFinite: NaN or infinity, and where.
    """
    with joined(device) as here, repeatable(recipe.train.deterministic):
        check_parts(recipe.train, here)
        state = told(_state(recipe, out, resume, here) if here.first else None, here)
        with first_alone(here):
            model, splits = prepare(recipe)
        pool, held = held_out(splits["train"].labels, recipe.train.validation, recipe.train.seed)
        t = begin(
            model,
            splits["train"],
            recipe.train,
            here,
            pool=pool,
            parts=state["parts"] if state else None,
        )
        at = checkpoint.restore(state, t) if state else Position()
        job = _Job(recipe=recipe, out=out, t=t, test=splits["test"], held=held, tick=tick)
        if not here.first:
            return _run(job, at, None, report)
        make_folder(out)
        write_text(out / "recipe.json", json.dumps(recipe.to_plain(), indent=2) + "\n")
        with opened(out, at.epochs) as log:
            return _run(job, at, log, report)


def epoch_text(row: dict[str, Any]) -> str:
    """An epoch's metrics on one line."""
    accuracies = [
        f"{name.removesuffix('test_accuracy').replace('_', ' ')}{100 * row[name]:.2f} %"
        for name in ("test_accuracy", "validation_accuracy")
        if name in row
    ]
    text = f"loss {row['loss']:.3f}, accuracy {accuracies[0].replace('validation ', '')}"
    if "samples_per_second" in row:
        text += f", {row['samples_per_second']:.0f} samples/s"
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What stays the same throughout a training."""

    recipe: Recipe
    out: Path
    t: Training
    test: Split
    held: Numbers
    tick: Callable[[Tick], None]


def _state(recipe: Recipe, out: Path, resume: bool, here: Processes) -> dict[str, Any] | None:
    """The checkpoint to go on from, checked; None to begin."""
    if not (out / "checkpoint.pt").exists():
        return None
    if not resume:
        raise InputError(
            f"run folder {out}", "a run", "a new folder", "use --resume to go on, or another -o"
        )
    state = checkpoint.read(out)
    checkpoint.check_same(out, state, recipe, here.size)
    return state


def _run(job: _Job, at: Position, log: Log | None, report: Report) -> Run:
    recipe, t = job.recipe, job.t
    while at.epochs < recipe.train.epochs:
        row = _epoch(job, at)
        at.epochs, at.progress, at.seconds = at.epochs + 1, Progress(), 0.0
        if log is not None:
            # The row goes first: one without a checkpoint is dropped and comes again.
            log.add(row)
            checkpoint.save(job.out, recipe, t, at)
            report(row)
    result = _result(job, at)
    if log is not None:
        write_text(job.out / "result.json", json.dumps(result, indent=2) + "\n")
    return Run(recipe=recipe, model=t.model.cpu().eval(), epochs_done=at.epochs, result=result)


def _epoch(job: _Job, at: Position) -> dict[str, Any]:
    """Train the rest of the epoch, evaluate, select; returns its metrics."""
    t, config = job.t, job.recipe.train
    rate = schedule(config, at.epochs)
    clock = _Clock(job, at)
    loss = run_epoch(t, at.epochs, rate, at.progress, clock.after_step)
    seconds = clock.seconds
    numbers = job.held if len(job.held) else None
    split = t.split if len(job.held) else job.test
    found, rates = watch(t.model, split, t.here, numbers)
    if len(job.held) and found > at.selected.get("accuracy", -1.0):
        weights = {k: v.detach().cpu().clone() for k, v in t.model.state_dict().items()}
        at.selected = {"epoch": at.epochs + 1, "accuracy": found, "model": weights}
    dead, saturated = unhealthy(rates)
    return {
        "epoch": at.epochs + 1,
        "epochs": config.epochs,
        "loss": loss,
        "lr": rate,
        "grad_norm": at.progress.grad_norm,
        "validation_accuracy" if len(job.held) else "test_accuracy": found,
        "seconds": clock.total(),
        "samples_per_second": clock.samples / max(seconds, 1e-9),
        "dead": dead,
        "saturated": saturated,
        "rates": rates,
    }


class _Clock:
    """Times an epoch, and writes a checkpoint when the recipe's minutes are over."""

    def __init__(self, job: _Job, at: Position) -> None:
        self.job, self.at = job, at
        self.before = at.seconds  # spent in this epoch before an interruption
        self.started = self.saved = time.perf_counter()
        self.first = at.progress.samples
        self.samples, self.seconds = 0, 0.0
        config, t = job.recipe.train, job.t
        self.steps = steps_of(len(t.pool), config.batch_size, t.parts)
        self.begun = at.progress.steps

    def total(self) -> float:
        """Seconds spent in this epoch so far."""
        return self.before + time.perf_counter() - self.started

    def after_step(self, progress: Progress) -> None:
        """Report the step, and save if it is time to; the last step is saved with the epoch."""
        if not self.job.t.here.first:
            return
        now = time.perf_counter()
        self.samples = progress.samples - self.first
        self.seconds = now - self.started
        config = self.job.recipe.train
        steps = self.steps * config.epochs
        done = self.at.epochs * self.steps + progress.steps
        each = self.seconds / max(progress.steps - self.begun, 1)
        self.job.tick(
            Tick(
                done=done,
                steps=steps,
                epoch=self.at.epochs + 1,
                samples_per_second=self.samples / max(self.seconds, 1e-9),
                remaining=each * (steps - done),
            )
        )
        minutes = config.checkpoint_minutes
        if minutes and now - self.saved >= 60 * minutes and progress.steps < self.steps:
            self.at.seconds = self.total()
            checkpoint.save(self.job.out, self.job.recipe, self.job.t, self.at)
            self.saved = time.perf_counter()


def _result(job: _Job, at: Position) -> dict[str, Any]:
    """Test accuracies of the last weights and of the selected ones, which the model keeps."""
    t = job.t
    last, _ = watch(t.model, job.test, t.here)
    result: dict[str, Any] = {"last": {"epoch": at.epochs, "test_accuracy": last}}
    if at.selected:
        t.model.load_state_dict(at.selected["model"])
        found, _ = watch(t.model, job.test, t.here)
        result["selected"] = {
            "epoch": at.selected["epoch"],
            "validation_accuracy": at.selected["accuracy"],
            "test_accuracy": found,
        }
    return result
