"""Recipes: what to train, on what, and how; TOML files with every key checked."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from stformer.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How the float network is trained.

    Attributes:
        epochs: passes over the training split.
        batch_size: samples a step.
        lr, min_lr: AdamW's rate after the warm-up, and where its cosine ends.
        weight_decay: AdamW's.
        warmup_epochs: linear rise of the rate.
        label_smoothing: of the cross-entropy, 0...1.
        shift: augmentation, frames move by up to this many pixels each way.
        seed: of initial weights, order and augmentation.
    """

    epochs: int
    batch_size: int = 64
    lr: float = 5e-4
    min_lr: float = 1e-5
    weight_decay: float = 0.06
    warmup_epochs: int = 0
    label_smoothing: float = 0.1
    shift: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileConfig:
    """How the trained network becomes integers.

    Attributes:
        finetune_epochs: with the integer forward and straight-through gradients; 0 for none.
        finetune_lr: AdamW's rate, in weight steps (1 is one integer).
    """

    finetune_epochs: int = 0
    finetune_lr: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A resolved recipe.

    Attributes:
        name: of the network it makes.
        data: name of a data set.
        model: keys of `stformer.model.STFormerConfig`, checked when the model is made.
        train, compile: see there.
    """

    name: str
    data: str
    model: Mapping[str, object]
    train: TrainConfig
    compile: CompileConfig

    def to_plain(self) -> dict[str, object]:
        """JSON types; `from_plain` reads them back."""
        return {
            "name": self.name,
            "data": self.data,
            "model": dict(self.model),
            "train": asdict(self.train),
            "compile": asdict(self.compile),
        }


def available() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(p.stem for p in FOLDER.glob("*.toml"))


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by name or path, with `key=value` overrides such as "train.epochs=3".

    Raises:
        InputError: no such recipe, no TOML, unknown keys (with the nearest known one), values
            of the wrong type.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(available())
        raise InputError(f"recipe '{name}'", "no such file or recipe", f"{known}, or a .toml file")
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise InputError(f"recipe {path}", str(e), "a readable TOML file") from None
    for override in overrides:
        apply_override(table, override)
    return from_plain(table, f"recipe '{name}'")


def from_plain(table: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from parsed TOML or JSON."""
    _known(where, table, ("name", "data", "model", "train", "compile"))
    for key in ("name", "data"):
        if not isinstance(table.get(key), str):
            raise InputError(where, f"{key} = {table.get(key)!r}", "a string")
    for key in ("model", "train", "compile"):
        if not isinstance(table.get(key, {}), dict):
            raise InputError(where, f"{key} = {table[key]!r}", f"a table [{key}]")
    return Recipe(
        name=table["name"],
        data=table["data"],
        model=dict(table.get("model", {})),
        train=_section(TrainConfig, table.get("train", {}), f"{where}, [train]"),
        compile=_section(CompileConfig, table.get("compile", {}), f"{where}, [compile]"),
    )


def _section(cls: Any, table: Mapping[str, Any], where: str) -> Any:
    hints = {f.name: f.type for f in fields(cls)}
    _known(where, table, tuple(hints))
    values = {}
    for key, value in table.items():
        number = float(value) if hints[key] == "float" and type(value) is int else value
        if type(number).__name__ != hints[key]:
            raise InputError(where, f"{key} = {value!r}", f"a value of type {hints[key]}")
        if number < 0:
            raise InputError(where, f"{key} = {value!r}", "0 or more")
        if key in ("epochs", "batch_size") and number < 1:
            raise InputError(where, f"{key} = {value!r}", "1 or more")
        values[key] = number
    if cls is TrainConfig and "epochs" not in values:
        raise InputError(where, "no 'epochs'", "a number of epochs")
    return cls(**values)


def _known(where: str, table: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in table:
        if key not in keys:
            raise InputError(where, f"the key '{key}'", ", ".join(keys), nearest(key, keys))


def nearest(key: str, keys: Sequence[str]) -> str:
    """A question with the nearest known name; nothing where none is near."""
    near = difflib.get_close_matches(key, keys, 1)
    return f"did you mean '{near[0]}'?" if near else ""


def apply_override(table: dict[str, Any], override: str) -> None:
    """Put one `key=value`, with tables as `table.key=value`, into parsed TOML."""
    path, eq, text = override.partition("=")
    *parents, key = path.strip().split(".")
    if not eq or not key:
        raise InputError(f"--set {override}", "no key=value", "for example train.epochs=3")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    where = table
    for parent in parents:
        where = where.setdefault(parent, {})
        if not isinstance(where, dict):
            raise InputError(
                f"--set {override}", f"'{parent}' is no table", "train, model, compile"
            )
    where[key] = value
