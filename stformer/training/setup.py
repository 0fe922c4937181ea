"""From a recipe to a model and data that fit each other, on their device."""

from __future__ import annotations

import numpy as np
import torch

from stformer import augment, data
from stformer.augment import Numbers
from stformer.config import config_from
from stformer.data import Split
from stformer.errors import InputError
from stformer.model import STFormer
from stformer.recipe import Recipe, TrainConfig
from stformer.training.processes import Processes
from stformer.training.step import Training, make_optimizer, make_training


def prepare(recipe: Recipe) -> tuple[STFormer, dict[str, Split]]:
    """A fresh model and the data, checked against each other."""
    model = fresh_model(recipe)
    return model, data.load(recipe.data, model.config.steps)


def fresh_model(recipe: Recipe) -> STFormer:
    """The recipe's model with the weights that its seed gives, checked against its data set.

    Raises:
        InputError: channels, size, classes or values of another data set; an augmentation
            that its frames cannot have.
    """
    config = config_from(recipe.model, f"recipe '{recipe.name}', [model]")
    dataset = data.find(recipe.data)
    for what, wanted, found in (
        ("channels", dataset.shape[0], config.channels),
        ("size", dataset.shape[1], config.size),
        ("classes", dataset.classes, config.classes),
        ("largest_input", dataset.largest, config.largest_input),
    ):
        if wanted != found:
            raise InputError(
                f"recipe '{recipe.name}', model.{what}",
                str(found),
                f"{wanted} for '{recipe.data}'",
            )
    augment.check(recipe.train, dataset.shape, dataset.largest)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.train.seed)
        return STFormer(config)


def check_parts(config: TrainConfig, here: Processes) -> None:
    """Raise InputError where the processes cannot share a batch evenly."""
    parts = config.accumulate * here.size
    if config.batch_size % parts:
        raise InputError(
            "train.batch_size",
            f"{config.batch_size} for {here.size} processes of {config.accumulate} parts",
            f"a multiple of {parts}",
        )


def begin(
    model: STFormer,
    split: Split,
    config: TrainConfig,
    here: Processes,
    *,
    pool: Numbers | None = None,
    parts: int | None = None,
) -> Training:
    """A training from its first step; the model moves to the process's device.

    Args:
        model: float or integer.
        split: the training split.
        config: how.
        here: this process.
        pool: numbers of the samples to train on; all by default.
        parts: that a batch is cut into; see `TrainConfig.accumulate` by default.
    """
    model.to(here.device)
    chosen = np.arange(len(split)) if pool is None else pool
    needed = config.accumulate * here.size if parts is None else parts
    if len(chosen) < needed:
        raise InputError(
            "training split", f"{len(chosen)} samples", f"{needed} or more, one for each part"
        )
    optimizer = make_optimizer(model, config.lr, config.weight_decay)
    return make_training(model, optimizer, split, chosen, config, here, parts=parts)
