"""Run folders: the checkpoint, whole or the old one, and what can be read from it.

`checkpoint.pt` loads with weights_only=True. It holds all that the rest of a training depends
on; there is no state of any generator, since chance comes from the recipe's seed and the
position.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from stformer.config import config_from
from stformer.errors import InputError
from stformer.files import write_bytes
from stformer.model import STFormer
from stformer.recipe import Recipe, differences, from_plain
from stformer.training.step import Progress, Training

FORMAT = 2


@dataclass(slots=True)
class Position:
    """Where a training is, and what it found on the way.

    Attributes:
        epochs: whole ones done.
        progress: within the epoch that follows.
        seconds: spent in that epoch.
        selected: {} or {"epoch", "accuracy", "model"}: the epoch that was best on the
            validation samples, from 1, and its weights.
    """

    epochs: int = 0
    progress: Progress = field(default_factory=Progress)
    seconds: float = 0.0
    selected: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run folder's content: the recipe, and the model with its trained float weights.

    Attributes:
        recipe: what was trained.
        model: in eval mode, on the CPU: the epoch selected on the validation samples, or
            without any the last one.
        epochs_done: whole epochs.
        result: what `result.json` says; {} before the end.
    """

    recipe: Recipe
    model: STFormer
    epochs_done: int
    result: Mapping[str, Any] = field(default_factory=dict)


def save(out: Path, recipe: Recipe, t: Training, at: Position) -> None:
    """Write the checkpoint; it is the old one until it is the whole new one."""
    state = {
        "format": FORMAT,
        "recipe": json.dumps(recipe.to_plain()),
        "parts": t.parts,
        "epoch": at.epochs,
        "step": at.progress.steps,
        "loss": at.progress.loss,
        "samples": at.progress.samples,
        "seconds": at.seconds,
        "selected": at.selected,
        "model": t.model.state_dict(),
        "optimizer": t.optimizer.state_dict(),
        "scaler": t.scaler.state_dict(),
    }
    buffer = io.BytesIO()  # torch's own writer answers a full disk with no OSError
    torch.save(state, buffer)
    write_bytes(out / "checkpoint.pt", buffer.getvalue())


def read(folder: Path) -> dict[str, Any]:
    """A checkpoint's state, all keys there, tensors on the CPU.

    Raises:
        InputError: none there, or broken, or of another version.
    """
    path = folder / "checkpoint.pt"
    if not path.is_file():
        raise InputError(
            f"run folder {folder}", "no checkpoint.pt", "a folder of `stformer train`"
        )
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        version = state["format"]
        keys = "recipe parts epoch step loss samples seconds selected model optimizer scaler"
        _ = [state[key] for key in keys.split()]
    except Exception as e:  # torch raises anything for a broken file
        first = str(e).splitlines()[0][:120] if str(e) else type(e).__name__
        raise InputError(f"checkpoint {path}", first, "a file of `stformer train`") from None
    if version != FORMAT:
        raise InputError(f"checkpoint {path}", f"format {version!r}", str(FORMAT))
    return state


def check_same(out: Path, state: Mapping[str, Any], recipe: Recipe, processes: int) -> None:
    """Raise InputError where going on from a checkpoint would not be going on."""
    differing = differences(_recipe(out, state), recipe)
    if differing:
        raise InputError(
            f"run folder {out}",
            f"a run with another {', '.join(differing)}",
            "the recipe it began with",
        )
    if state["parts"] % processes:
        raise InputError(
            f"run folder {out}",
            f"{processes} processes for batches in {state['parts']} parts",
            "a number of processes that divides them",
        )


def restore(state: Mapping[str, Any], t: Training) -> Position:
    """Put a checkpoint into a training; returns where it was."""
    _load_model(t.model, state["model"])
    try:
        t.optimizer.load_state_dict(dict(state["optimizer"]))
        t.scaler.load_state_dict(dict(state["scaler"]))
    except (ValueError, KeyError, RuntimeError) as e:
        raise InputError("checkpoint", str(e).splitlines()[0], "one of this version") from None
    return Position(
        epochs=int(state["epoch"]),
        progress=Progress(
            steps=int(state["step"]), loss=float(state["loss"]), samples=int(state["samples"])
        ),
        seconds=float(state["seconds"]),
        selected=dict(state["selected"]),
    )


def load_run(folder: Path) -> Run:
    """The model of a run folder: selected weights, or those of its last checkpoint.

    Raises:
        InputError: no run folder, or a checkpoint that is broken.
    """
    state = read(folder)
    recipe = _recipe(folder, state)
    model = STFormer(config_from(recipe.model))
    _load_model(model, (state["selected"] or state)["model"])
    return Run(
        recipe=recipe,
        model=model.eval(),
        epochs_done=int(state["epoch"]),
        result=read_result(folder),
    )


def read_result(folder: Path) -> dict[str, Any]:
    """What `result.json` says; {} where there is none."""
    try:
        found = json.loads((folder / "result.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _recipe(folder: Path, state: Mapping[str, Any]) -> Recipe:
    try:
        plain = json.loads(state["recipe"])
    except (TypeError, ValueError):
        plain = {}
    return from_plain(plain, f"run folder {folder}")


def _load_model(model: STFormer, weights: Mapping[str, Any]) -> None:
    try:
        model.load_state_dict(dict(weights))
    except (RuntimeError, TypeError, ValueError) as e:
        first = str(e).splitlines()[0][:120]
        raise InputError("checkpoint", first, "weights of the recipe's model") from None
