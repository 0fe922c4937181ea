"""Accuracy of a model as it is, and how much each of its populations spikes meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stformer.augment import Numbers
from stformer.data import Frames, Split
from stformer.model import STFormer
from stformer.nn import Spiking
from stformer.training.batches import as_input
from stformer.training.precision import exact
from stformer.training.processes import Processes, total

EVAL_BATCH = 256
EVAL_VALUES = 2**22  # of a batch's input over all steps: larger frames come in fewer at a time
DEAD, SATURATED = 0.001, 0.95  # firing rates beyond which a population hardly says anything
WATCHED_BATCHES = 2  # enough for rates, and the hooks cost nothing in the others


def device_of(model: nn.Module) -> torch.device:
    """Where its weights are."""
    return next(model.parameters()).device


def to_tensor(model: STFormer, frames: Frames) -> Tensor:
    """Frames as the model takes them: float [T, B, C, H, W], on its device."""
    x = torch.from_numpy(np.ascontiguousarray(frames)).to(device_of(model))
    return as_input(x, model.config.steps)


@torch.no_grad()
def predict(model: STFormer, split: Split, numbers: Numbers | None = None) -> Tensor:
    """Logits [S, classes] in eval mode, on the CPU; float32 in both lives, integers exact.

    Args:
        model: in either life, on any device; left in eval mode.
        split: what to look at.
        numbers: of the samples, all by default.
    """
    return torch.cat([logits for _, logits in _predictions(model, split, numbers)])


def accuracy(model: STFormer, split: Split, numbers: Numbers | None = None) -> float:
    """Fraction of the split, or of these samples of it, that is classified rightly."""
    labels = split.labels if numbers is None else split.labels[numbers]
    return float((predict(model, split, numbers).argmax(1).numpy() == labels).mean())


@dataclass(slots=True)
class Rates:
    """Firing rates, by population.

    Attributes:
        spikes, places: how many there were, and how many there could have been.
    """

    spikes: dict[str, Tensor] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, out: Any) -> None:
        """Count a population's spikes; what is not binary has no rate."""
        if isinstance(out, Tensor) and bool(((out == 0) | (out == 1)).all()):
            self.spikes[name] = self.spikes.get(name, torch.tensor(0)) + out.sum().cpu()
            self.places[name] = self.places.get(name, 0) + out.numel()

    def mean(self) -> dict[str, float]:
        """Spikes per neuron and step, 0...1."""
        return {name: float(self.spikes[name]) / n for name, n in self.places.items()}


@torch.no_grad()
def watch(
    model: STFormer, split: Split, here: Processes, numbers: Numbers | None = None
) -> tuple[float, dict[str, float]]:
    """(accuracy, firing rates); the processes share the samples, the rates are the first's."""
    chosen = np.arange(len(split)) if numbers is None else numbers
    mine = chosen[here.rank :: here.size]
    rates, right = Rates(), 0
    with counted(model, rates) as counting:
        for batch, (of, logits) in enumerate(_predictions(model, split, mine)):
            right += int((logits.argmax(1).numpy() == split.labels[of]).sum())
            if batch + 1 == WATCHED_BATCHES:
                counting.clear()
    found = int(total(torch.tensor(right), here))
    return found / max(len(chosen), 1), rates.mean()


class Hooks(list[Any]):
    """Handles of hooks that are removed together."""

    def clear(self) -> None:
        for handle in self:
            handle.remove()
        super().clear()


@contextmanager
def counted(model: nn.Module, rates: Rates) -> Iterator[Hooks]:
    """Every population's spikes are counted in here, until the hooks are cleared."""
    hooks = Hooks()
    for name, module in model.named_modules():
        if isinstance(module, Spiking) and not module.graded:
            hooks.append(module.register_forward_hook(partial(_count, name, rates)))
    try:
        yield hooks
    finally:
        hooks.clear()


def _count(name: str, rates: Rates, _module: nn.Module, _inputs: Any, out: Any) -> None:
    rates.add(name, out)


def unhealthy(rates: dict[str, float]) -> tuple[list[str], list[str]]:
    """(dead populations, saturated ones)."""
    dead = [name for name, rate in rates.items() if rate < DEAD]
    return dead, [name for name, rate in rates.items() if rate > SATURATED]


def _predictions(
    model: STFormer, split: Split, numbers: Numbers | None
) -> Iterator[tuple[Numbers, Tensor]]:
    model.eval()
    chosen = np.arange(len(split)) if numbers is None else numbers
    values = model.config.steps * prod(split.frames.shape[-3:])
    size = max(min(EVAL_BATCH, EVAL_VALUES // values), 1)
    device = device_of(model)
    for start in range(0, len(chosen), size):
        some = chosen[start : start + size]
        x = to_tensor(model, split.frames[some])
        with exact(device, any_algorithm=not model.head.integer):
            yield some, model(x).float().cpu()
