"""From a trained float network to integers: fold, quantise, fine-tune, calibrate, lower."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

from stformer import data, overflow, train
from stformer import fixedpoint as fx
from stformer.data import Split
from stformer.lower import lower_stformer
from stformer.model import STFormer, quantise
from stformer.network import Network
from stformer.nn import Block, Readout, Stream
from stformer.recipe import Recipe
from stformer.train import Report, Run
from stformer.training.batches import held_out
from stformer.training.processes import Processes

Scaled: TypeAlias = Block | Stream | Readout

ROOM = 1 / 8  # of each limit, for fine-tuning to move in: halving after it costs a whole bit
HALVINGS = 32  # after which nothing of a weight of 8 or a bias of 20 bits is left


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A compiled network and how accurate each stage was on the test split.

    Attributes:
        network: lowered and scheduled.
        model: the module in its integer life, which the network is.
        float_accuracy, quantised_accuracy, integer_accuracy: before, after rounding, after
            fine-tuning.
        largest_sums: population -> largest |arriving sum| over the training split.
    """

    network: Network
    model: STFormer
    float_accuracy: float
    quantised_accuracy: float
    integer_accuracy: float
    largest_sums: dict[str, int]

    def provenance(self, recipe: Recipe) -> dict[str, object]:
        """What the model file says of where it came from."""
        return {
            "recipe": recipe.to_plain(),
            "float_accuracy": self.float_accuracy,
            "integer_accuracy": self.integer_accuracy,
            "largest_sums": self.largest_sums,
        }


def compile_run(
    run: Run,
    *,
    finetune_epochs: int | None = None,
    scales: str = "",
    device: str = "",
    report: Report = lambda _: None,
) -> Compiled:
    """Compile a run's float network; the run's model becomes the integer one.

    Args:
        run: see `stformer.train.load_run`.
        finetune_epochs, scales: override the recipe's, see `stformer.recipe.CompileConfig`.
        device: where to fine-tune and evaluate, as for `stformer.train.train`; the model is
            on the CPU afterwards.
        report: called after every epoch of fine-tuning.
    """
    model, recipe = run.model, run.recipe
    splits = data.load(recipe.data, model.config.steps)
    here = train.alone(device)
    model.to(here.device)
    float_accuracy = train.accuracy(model, splits["test"])
    quantise(model)
    quantised_accuracy = train.accuracy(model, splits["test"])
    epochs = recipe.compile.finetune_epochs if finetune_epochs is None else finetune_epochs
    for_all = (scales or recipe.compile.scales) == "bounds"
    if for_all:  # what this costs is there to be learnt again
        fit(model, room=ROOM)
    _finetune(run, splits, epochs, here, report)
    if for_all:
        fit(model)
    largest = calibrate(model, splits["train"])
    integer_accuracy = train.accuracy(model, splits["test"])
    return Compiled(
        network=lower_stformer(model.cpu(), recipe.name),
        model=model,
        float_accuracy=float_accuracy,
        quantised_accuracy=quantised_accuracy,
        integer_accuracy=integer_accuracy,
        largest_sums=largest,
    )


def _finetune(
    run: Run, splits: dict[str, Split], epochs: int, here: Processes, report: Report
) -> None:
    """Straight-through training of the integers; thresholds stay, the rate falls to zero."""
    recipe = run.recipe
    # Whole numbers only: samples are not mixed, nothing is rounded to half precision.
    config = replace(recipe.train, epochs=epochs, mixup=0.0, cutmix=0.0, amp="off", compile=False)
    pool, _ = held_out(splits["train"].labels, config.validation, config.seed)
    optimizer = train.make_optimizer(run.model, recipe.compile.finetune_lr, 0.0)
    t = train.make_training(run.model, optimizer, splits["train"], pool, config, here)
    for epoch in range(epochs):
        rate = recipe.compile.finetune_lr * (1 + math.cos(math.pi * epoch / epochs)) / 2
        # Epochs go on counting where training stopped, so order and augmentation are new.
        loss = train.run_epoch(t, recipe.train.epochs + epoch, rate)
        accuracy = train.accuracy(run.model, splits["test"])
        report({"epoch": epoch + 1, "epochs": epochs, "loss": loss, "test_accuracy": accuracy})


def calibrate(model: STFormer, split: Split) -> dict[str, int]:
    """Largest |arriving sum| per population; halves a population's scale until it fits 16 bits.

    The sums are those of the split, not of every possible input.
    """
    watched = _scaled(model)
    while True:
        _watch(watched, True)
        train.predict(model, split)
        _watch(watched, False)
        too_large = [m for m in watched.values() if m.largest_sum > fx.ACCUMULATOR_MAX]
        if not too_large:
            return {n: m.largest_sum for n, m in watched.items()}
        _halve(too_large)


def fit(model: STFormer, *, room: float = 0.0) -> None:
    """Halve a population's scale until no input overflows anything, where that can be reached.

    The sums are those of every possible input (`stformer.overflow.prove`), so the grid may
    become much coarser than `calibrate` leaves it.

    Args:
        model: in its integer life.
        room: part of each limit to leave free, 0...1.
    """
    scaled = _scaled(model)
    device = next(model.parameters()).device
    for _ in range(HALVINGS):
        claims = overflow.prove(lower_stformer(model.cpu()))
        # What only reads a stream has no scale of its own: the stream is open with it.
        too_large = [
            scaled[c.name]
            for c in claims.populations
            if c.name in scaled and any(r.largest > (1 - room) * r.limit for r in c.registers)
        ]
        if not too_large:
            break
        _halve(too_large)
    model.to(device)


def _scaled(model: STFormer) -> dict[str, Scaled]:
    return {n: m for n, m in model.named_modules() if isinstance(m, (Block, Stream, Readout))}


def _halve(modules: list[Scaled]) -> None:
    """A stream has one scale, which is halved once, whoever overflowed."""
    owners = [m.shared_scale if isinstance(m, Stream) else m for m in modules]
    for owner in {id(owner): owner for owner in owners}.values():
        owner.halve()


def _watch(modules: dict[str, Scaled], on: bool) -> None:
    for module in modules.values():
        module.watch_sums = on
        if on:
            module.largest_sum = 0
