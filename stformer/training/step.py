"""One training: model, optimizer and what a step does with a batch; float and integer alike.

The parts of a step start from the same running statistics of batch norm, and the step leaves
their mean, so that it does not matter which process saw which part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional as F

from stformer.augment import Numbers, mix
from stformer.data import Split
from stformer.model import STFormer
from stformer.recipe import TrainConfig
from stformer.training.batches import (
    Batch,
    Part,
    Samples,
    as_input,
    epoch_parts,
    load_parts,
)
from stformer.training.finite import NotFinite, culprit
from stformer.training.memory import keep_freed
from stformer.training.precision import exact, mixed, scaler
from stformer.training.processes import Processes, shared, total


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a step works on.

    Attributes:
        model: as it is saved; `forward` runs it, compiled or shared between processes.
        optimizer, scaler: see there; the scaler does nothing but for fp16.
        split, pool: the numbers of the samples of `split` that are trained on.
        config: how.
        here: this process.
        parts: that a batch is cut into, over all processes.
    """

    model: STFormer
    forward: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    scaler: GradScaler
    split: Split
    pool: Numbers
    config: TrainConfig
    here: Processes
    parts: int

    @property
    def own_parts(self) -> int:
        """Parts of a batch that this process computes."""
        return self.parts // self.here.size

    @property
    def integer(self) -> bool:
        return self.model.head.integer


@dataclass(slots=True)
class Progress:
    """How far an epoch is.

    Attributes:
        steps: done.
        loss: sum over the samples.
        samples: seen, by all processes.
        grad_norm: of the last step.
    """

    steps: int = 0
    loss: float = 0.0
    samples: int = 0
    grad_norm: float = 0.0


def make_training(
    model: STFormer,
    optimizer: torch.optim.Optimizer,
    split: Split,
    pool: Numbers,
    config: TrainConfig,
    here: Processes,
    *,
    parts: int | None = None,
) -> Training:
    """A training of a model that is on its device already."""
    if here.device.type == "cpu":
        keep_freed()
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward: Any = shared(model, here)
    if config.compile:
        forward = torch.compile(forward)
    return Training(
        model=model,
        forward=forward,
        optimizer=optimizer,
        scaler=scaler(config, here.device),
        split=split,
        pool=pool,
        config=config,
        here=here,
        parts=config.accumulate * here.size if parts is None else parts,
    )


def make_optimizer(model: nn.Module, lr: float, decay: float) -> torch.optim.Optimizer:
    """AdamW; weights of convolutions decay, norms and biases do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr)


def schedule(config: TrainConfig, epoch: int) -> float:
    """Learning rate of an epoch: linear warm-up, then a cosine down to min_lr."""
    if epoch < config.warmup_epochs:
        return config.lr * (epoch + 1) / config.warmup_epochs
    rest = max(config.epochs - config.warmup_epochs, 1)
    cosine = (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / rest)) / 2
    return config.min_lr + (config.lr - config.min_lr) * cosine


def run_epoch(
    t: Training,
    epoch: int,
    rate: float,
    progress: Progress | None = None,
    after_step: Callable[[Progress], None] = lambda _: None,
) -> float:
    """One pass over the split, or what is left of one; returns the mean loss.

    Args:
        t: the training.
        epoch: from 0; order and augmentation depend on it.
        rate: of the optimizer.
        progress: of an epoch that was begun; updated.
        after_step: called with it after every step.

    Raises:
        NotFinite: NaN or infinity in the loss or a gradient.
    """
    done = Progress() if progress is None else progress
    t.model.train()
    for group in t.optimizer.param_groups:
        group["lr"] = rate
    for step in _steps(t, epoch, done.steps):
        loss, samples, norm = _step(t, step)
        done.steps += 1
        done.loss += loss * samples
        done.samples += samples
        done.grad_norm = norm
        after_step(done)
    return done.loss / done.samples


def _steps(t: Training, epoch: int, first: int) -> Iterator[list[tuple[Part, Batch]]]:
    """The parts of this process, a step's together."""
    begin = t.here.rank * t.own_parts
    steps = epoch_parts(t.pool, t.config, epoch, t.parts)[first:]
    mine = [part for step in steps for part in step[begin : begin + t.own_parts]]
    samples = Samples(t.split, t.config, t.model.config.largest_input)
    loaded = load_parts(samples, mine, pin=t.here.device.type == "cuda")
    for _ in steps:
        yield [next(loaded) for _ in range(t.own_parts)]


def _step(t: Training, parts: Sequence[tuple[Part, Batch]]) -> tuple[float, int, float]:
    """(mean loss, samples, norm of the gradient) of a step, over all processes."""
    t.optimizer.zero_grad(set_to_none=True)
    losses = []
    statistics = _Statistics(t.model, t.parts, t.here)
    for i, (part, batch) in enumerate(parts):
        x, y = _on_device(t, part, batch)
        statistics.begin_part()
        with _gradients_shared(t, last=i + 1 == len(parts)):
            loss = _loss(t, x, y)
            t.scaler.scale(loss / len(parts)).backward()  # type: ignore[no-untyped-call]
        statistics.end_part()
        losses.append(loss.detach())
    mean = statistics.end_step(losses)
    t.scaler.unscale_(t.optimizer)
    norm = _clip(t)
    # fp16 gradients may overflow: the scaler leaves the step out, and scales less.
    tolerated = t.scaler.is_enabled() and t.scaler.get_scale() > 1
    if not math.isfinite(mean) or not (math.isfinite(norm) or tolerated):
        raise NotFinite(parts[0][0].epoch + 1, parts[0][0].step + 1, _blame(t, parts))
    t.scaler.step(t.optimizer)
    t.scaler.update()
    return mean, t.parts * len(parts[0][0].numbers), norm


def _on_device(t: Training, part: Part, batch: Batch) -> Batch:
    frames, y = (tensor.to(t.here.device, non_blocking=True) for tensor in batch)
    x, y = mix(
        frames.float() if t.config.mixup or t.config.cutmix else frames,
        y,
        t.config,
        classes=t.model.config.classes,
        key=(part.epoch, part.step, part.part),
    )
    return as_input(x, t.model.config.steps), y


def _loss(t: Training, x: Tensor, y: Tensor) -> Tensor:
    device = t.here.device
    with exact(device, any_algorithm=True) if t.integer else mixed(t.config, device):
        logits = t.forward(x)
    return F.cross_entropy(logits.float(), y, label_smoothing=t.config.label_smoothing)


def _gradients_shared(t: Training, *, last: bool) -> AbstractContextManager[Any]:
    """Processes exchange gradients once a step, with its last part."""
    model = getattr(t.forward, "_orig_mod", t.forward)  # torch.compile's wrapper
    if last or not isinstance(model, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return model.no_sync()


def _clip(t: Training) -> float:
    """The 2-norm of the whole gradient, which is shortened to the recipe's limit."""
    parameters = [p for p in t.model.parameters() if p.grad is not None]
    if t.config.clip_norm:
        return float(nn.utils.clip_grad_norm_(parameters, t.config.clip_norm))
    norms = [torch.linalg.vector_norm(p.grad) for p in parameters if p.grad is not None]
    return float(torch.linalg.vector_norm(torch.stack(norms)))


def _blame(t: Training, parts: Sequence[tuple[Part, Batch]]) -> str:
    """What is not finite in the failed step."""
    what = "the loss is not finite"
    for part, batch in parts:
        x, _ = _on_device(t, part, batch)
        with mixed(t.config, t.here.device):
            what = culprit(t.model, x, t.model)
        if what != "the loss is not finite":
            break
    return what


class _Statistics:
    """Batch norm's running statistics over the parts of one step."""

    def __init__(self, model: nn.Module, parts: int, here: Processes) -> None:
        self.parts, self.here = parts, here
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        buffers = [(n.running_mean, n.running_var) for n in norms if parts > 1]
        self.buffers = [b for pair in buffers for b in pair if b is not None]
        counts = [n.num_batches_tracked for n in norms if parts > 1]
        self.counts = [(c, c + 1) for c in counts if c is not None]
        self.before = [b.clone() for b in self.buffers]
        self.sums = [torch.zeros_like(b) for b in self.buffers]

    def begin_part(self) -> None:
        for buffer, before in zip(self.buffers, self.before, strict=True):
            buffer.copy_(before)

    def end_part(self) -> None:
        for buffer, sums in zip(self.buffers, self.sums, strict=True):
            sums.add_(buffer)

    def end_step(self, losses: list[Tensor]) -> float:
        """Leave the mean of all parts' statistics; returns the mean of their losses."""
        loss = torch.stack(losses).sum().reshape(1)
        flat = total(torch.cat([*self.sums, loss]), self.here) / self.parts
        *means, loss = torch.split(flat, [*map(len, self.sums), 1])
        for buffer, mean in zip(self.buffers, means, strict=True):
            buffer.copy_(mean)
        for count, after in self.counts:
            count.copy_(after)
        return float(loss)
