"""Training the float network, and fine-tuning the integer one: one loop for both.

A run folder holds `recipe.json`, `checkpoint.pt` (loads with weights_only=True) and
`metrics.jsonl`. An epoch's order and augmentation depend on the seed and the epoch alone, so a
run that was interrupted and resumed gives the weights of one that was not.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stformer import data
from stformer.config import config_from
from stformer.data import Split
from stformer.errors import InputError
from stformer.files import make_folder, write_bytes, write_text
from stformer.model import STFormer
from stformer.recipe import Recipe, TrainConfig, from_plain

Report = Callable[[dict[str, float]], None]
EVAL_BATCH = 256


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder's content: the recipe, and the model with its trained float weights."""

    recipe: Recipe
    model: STFormer
    epochs_done: int


def train(
    recipe: Recipe, out: Path, *, resume: bool = False, report: Report = lambda _: None
) -> Run:
    """Train a recipe's float network into a run folder.

    Args:
        recipe: what and how.
        out: the folder; made when it does not exist.
        resume: go on from its checkpoint, if there is one.
        report: called after every epoch with its metrics.

    Raises:
        InputError: the folder holds a run already and `resume` is off, or holds another
            recipe's run; the data do not fit the model.
    """
    model, splits = prepare(recipe)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists() and not resume:
        raise InputError(
            f"run folder {out}", "a run", "a new folder", "use --resume to go on, or another -o"
        )
    optimizer = make_optimizer(model, recipe.train.lr, recipe.train.weight_decay)
    done = 0
    if checkpoint.exists():
        done = _restore(out, recipe, model, optimizer)
    make_folder(out)
    write_text(out / "recipe.json", json.dumps(recipe.to_plain(), indent=2) + "\n")
    metrics = _metrics_until(out, done)
    for epoch in range(done, recipe.train.epochs):
        started = time.perf_counter()
        rate = schedule(recipe.train, epoch)
        loss = run_epoch(model, optimizer, splits["train"], recipe.train, epoch, rate)
        if not math.isfinite(loss):
            raise InputError(
                f"run folder {out}",
                f"loss {loss} in epoch {epoch + 1}",
                "finite losses",
                "lower lr",
            )
        row = {
            "epoch": epoch + 1,
            "epochs": recipe.train.epochs,
            "loss": loss,
            "lr": rate,
            "test_accuracy": accuracy(model, splits["test"]),
            "seconds": time.perf_counter() - started,
        }
        metrics.append(row)
        _save(out, recipe, model, optimizer, epoch + 1)
        write_text(out / "metrics.jsonl", "".join(json.dumps(m) + "\n" for m in metrics))
        report(row)
    return Run(recipe, model.eval(), recipe.train.epochs)


def prepare(recipe: Recipe) -> tuple[STFormer, dict[str, Split]]:
    """A fresh model and the data, checked against each other."""
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
    torch.manual_seed(recipe.train.seed)
    return STFormer(config), data.load(recipe.data, config.steps)


def make_optimizer(model: STFormer, lr: float, decay: float) -> torch.optim.Optimizer:
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
    model: STFormer,
    optimizer: torch.optim.Optimizer,
    split: Split,
    config: TrainConfig,
    epoch: int,
    rate: float,
) -> float:
    """One pass over the split; returns the mean loss."""
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = rate
    total, count = 0.0, 0
    for x, y in batches(model, split, config, epoch):
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y, label_smoothing=config.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.item() * len(y)
        count += len(y)
    return total / count


def batches(
    model: STFormer, split: Split, config: TrainConfig, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented ([T, B, C, H, W], [B]) pairs."""
    rng = np.random.default_rng([config.seed, epoch])
    order = rng.permutation(len(split))
    for start in range(0, len(order), config.batch_size):
        chosen = order[start : start + config.batch_size]
        frames = _shifted(split.frames[chosen], config.shift, rng)
        yield to_tensor(model, frames), torch.from_numpy(split.labels[chosen])


def _shifted(frames: Any, most: int, rng: np.random.Generator) -> Any:
    """Each sample moved by up to `most` pixels in both directions, zeros moving in."""
    if not most:
        return frames
    height, width = frames.shape[-2:]
    edge = [(0, 0)] * (frames.ndim - 2) + [(most, most)] * 2
    padded = np.pad(frames, edge)
    offsets = rng.integers(0, 2 * most + 1, (len(frames), 2))
    moved = [
        p[..., dy : dy + height, dx : dx + width]
        for p, (dy, dx) in zip(padded, offsets, strict=True)
    ]
    return np.stack(moved)


def to_tensor(model: STFormer, frames: Any) -> Tensor:
    """Frames as the model takes them: float [T, B, C, H, W]."""
    coded = data.in_time(frames, model.config.steps)
    return torch.from_numpy(coded.astype(np.float32)).transpose(0, 1).contiguous()


@torch.no_grad()
def predict(model: STFormer, split: Split) -> Tensor:
    """Logits [S, classes] in eval mode."""
    model.eval()
    parts = [
        model(to_tensor(model, split.frames[i : i + EVAL_BATCH]))
        for i in range(0, len(split), EVAL_BATCH)
    ]
    return torch.cat(parts)


def accuracy(model: STFormer, split: Split) -> float:
    """Fraction of the split that is classified rightly."""
    return float((predict(model, split).argmax(1).numpy() == split.labels).mean())


def epoch_text(row: dict[str, float]) -> str:
    """An epoch's metrics on one line."""
    return f"loss {row['loss']:.3f}, accuracy {100 * row['test_accuracy']:.2f} %"


# --- run folders ------------------------------------------------------------------------


def _save(
    out: Path, recipe: Recipe, model: STFormer, optimizer: torch.optim.Optimizer, done: int
) -> None:
    state = {
        "recipe": json.dumps(recipe.to_plain()),
        "epochs_done": done,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    buffer = io.BytesIO()  # torch's own writer answers a full disk with no OSError
    torch.save(state, buffer)
    write_bytes(out / "checkpoint.pt", buffer.getvalue())


def load_run(folder: Path) -> Run:
    """The model of a run folder, with the weights of its last checkpoint.

    Raises:
        InputError: no run folder, or a checkpoint that is broken.
    """
    state = _read(folder)
    recipe = from_plain(json.loads(state["recipe"]), f"run folder {folder}")
    model = STFormer(config_from(recipe.model))
    model.load_state_dict(state["model"])
    return Run(recipe, model.eval(), state["epochs_done"])


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "checkpoint.pt"
    if not path.is_file():
        raise InputError(
            f"run folder {folder}", "no checkpoint.pt", "a folder of `stformer train`"
        )
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        _ = state["recipe"], state["epochs_done"], state["model"], state["optimizer"]
    except Exception as e:  # torch raises anything for a broken file
        first = str(e).splitlines()[0][:120] if str(e) else type(e).__name__
        raise InputError(f"checkpoint {path}", first, "a file of `stformer train`") from None
    return state


def _restore(out: Path, recipe: Recipe, model: STFormer, optimizer: torch.optim.Optimizer) -> int:
    state = _read(out)
    was = json.loads(state["recipe"])
    now = recipe.to_plain()
    if was != now:
        differing = [k for k in now if was.get(k) != now[k]]
        raise InputError(
            f"run folder {out}",
            f"a run with another {', '.join(differing)}",
            "the recipe it began with",
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epochs_done"])


def _metrics_until(out: Path, done: int) -> list[dict[str, float]]:
    path = out / "metrics.jsonl"
    if not done or not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [row for row in rows if row["epoch"] <= done]
