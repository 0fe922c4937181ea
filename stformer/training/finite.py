"""Where a number stopped being one: spikes hide it, since NaN > 1 is false."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stformer.errors import StformerError
from stformer.nn import Spiking, Synapse


class NotFinite(StformerError):
    """Training met NaN or infinity and stopped; the last checkpoint is from before.

    Args:
        epoch, step: from 1.
        what: where it is first seen.
    """

    def __init__(self, epoch: int, step: int, what: str) -> None:
        self.what = what
        super().__init__(epoch, step, what)
        self.message = (
            f"training stopped in epoch {epoch}, step {step}: {what}. Try a smaller train.lr, "
            "train.clip_norm=1, more train.warmup_epochs or train.amp=off."
        )


def culprit(model: nn.Module, x: Tensor, run: Callable[[Tensor], Any]) -> str:
    """What is not finite first: a weight, the input, what arrives somewhere, or a gradient.

    Args:
        model: with the weights and gradients of the failed step.
        x: its input.
        run: calls the model as that step did; the model's buffers are restored after.
    """
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"the weights '{name}' are not finite"
    if not _finite(x):
        return "the input is not finite"
    order: list[tuple[str, bool]] = []
    with torch.no_grad(), _unchanged_buffers(model), _listening(model, order):
        run(x)
    populations = {name for name, m in model.named_modules() if isinstance(m, Spiking)}
    for name, finite in order:
        if not finite:
            return f"what arrives at population '{_owner(name, populations)}' is not finite"
    # Gradients come from behind: the last layer that has a bad one is where it began.
    bad = [n for n, p in model.named_parameters() if p.grad is not None and not _finite(p.grad)]
    if bad:
        owner = _owner(bad[-1], populations)
        return f"the gradient of '{bad[-1]}' (population '{owner}') is not finite"
    return "the loss is not finite"


def _finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())


def _owner(path: str, populations: set[str]) -> str:
    """The population that a synapse, norm or parameter belongs to."""
    parts = path.split(".")
    tries = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in tries if name in populations), path)


@contextmanager
def _listening(model: nn.Module, order: list[tuple[str, bool]]) -> Iterator[None]:
    """Note, in the order of calls, whether what synapses, norms and read-outs give is finite."""

    def note(name: str, _module: nn.Module, _inputs: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            order.append((name, _finite(out)))

    hooks = [
        module.register_forward_hook(partial(note, name))
        for name, module in model.named_modules()
        if isinstance(module, (Synapse, Spiking)) or not list(module.children())
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _unchanged_buffers(model: nn.Module) -> Iterator[None]:
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])
