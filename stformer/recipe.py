"""Recipes: what to train, on what, and how; TOML files with every key checked."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from stformer.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How the float network is trained.

    Numbers outside the ranges of `LIMITS` are refused. All chance comes from `seed`, the epoch
    and the number of the sample or step, so that neither workers nor processes nor a resumed
    run change anything.

    Attributes:
        epochs: passes over the training split.
        batch_size: samples a step of the optimizer takes, over all processes.
        accumulate: parts that a process cuts its share of a batch into, one after the other:
            less memory, and batch norm sees a part at a time. `accumulate` times the number of
            processes must divide the batch; where this product is the same, so are the weights.
        lr, min_lr: AdamW's rate after the warm-up, and where its cosine ends.
        weight_decay: AdamW's, of weights; norms and biases do not decay.
        warmup_epochs: linear rise of the rate.
        clip_norm: longest gradient (its 2-norm over all parameters); 0 for no limit.
        label_smoothing: of the cross-entropy, 0...1.
        mixup, cutmix: alpha of the Beta distribution that mixes two samples; 0 for none. Where
            both are on, each batch takes one of them, with equal chance.
        mix_prob: chance of a batch to be mixed.
        mix_epochs: the first epochs only are mixed; 0 for all.
        policy: of image augmentation, "none", "randaugment" or "autoaugment" (CIFAR-10's
            policy); for 8-bit images of 1 or 3 channels.
        policy_prob: chance of a sample to go through it.
        policy_ops: operations a sample goes through, "randaugment" only.
        policy_magnitude: their strength, 0...10, "randaugment" only.
        flip: chance of a sample to be mirrored left to right.
        erasing: chance of a sample to lose a rectangle, 2...33 % of its area.
        shift: frames move by up to this many pixels each way.
        events: each sample goes through one of identity, shear in x, shift in x, shift in y,
            rotation and cutout, the same for all its steps.
        amp: arithmetic of convolutions, "off" (float32), "bf16" or "fp16"; neurons are float32
            in any case, and integers exact.
        channels_last: memory layout, faster on GPUs with tensor cores.
        compile: through torch.compile, which needs a C++ compiler, and on a GPU Triton.
        deterministic: only operations that give the same bits in every run on one machine;
            slower on a GPU. A CPU gives them in any case, with as many threads.
        workers: processes that load and augment, at most as many as there are cores; 0 does so
            between steps, which is best where data lie in memory and augmentation is slight.
        checkpoint_minutes: a checkpoint is also written after so many minutes within an epoch;
            0 for none.
        validation: fraction of each class of the training split that is held out, 0...0.5. The
            epoch that is best on it is selected; 0 for none, the last epoch counts then.
        seed: of initial weights, held-out samples, order and augmentation.
    """

    epochs: int
    batch_size: int = 64
    accumulate: int = 1
    lr: float = 5e-4
    min_lr: float = 1e-5
    weight_decay: float = 0.06
    warmup_epochs: int = 0
    clip_norm: float = 0.0
    label_smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    mix_epochs: int = 0
    policy: Literal["none", "randaugment", "autoaugment"] = "none"
    policy_prob: float = 1.0
    policy_ops: int = 1
    policy_magnitude: int = 9
    flip: float = 0.0
    erasing: float = 0.0
    shift: int = 0
    events: bool = False
    amp: Literal["off", "bf16", "fp16"] = "off"
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = False
    workers: int = 0
    checkpoint_minutes: float = 15.0
    validation: float = 0.0
    seed: int = 0


# Smallest and largest value of every number; what is not here may be 0...MANY.
MANY = 2**31 - 1
LIMITS: dict[str, tuple[float, float]] = {
    "epochs": (1, 100_000),
    "batch_size": (1, 2**20),
    "accumulate": (1, 2**20),
    "lr": (0, 100),
    "min_lr": (0, 100),
    "weight_decay": (0, 100),
    "label_smoothing": (0, 1),
    "mixup": (0, 100),
    "cutmix": (0, 100),
    "mix_prob": (0, 1),
    "policy_prob": (0, 1),
    "policy_ops": (1, 14),
    "policy_magnitude": (0, 10),
    "flip": (0, 1),
    "erasing": (0, 1),
    "shift": (0, 1024),
    "workers": (0, 1024),
    "validation": (0, 0.5),
    "finetune_lr": (0, 100),
}

# What may differ between a run and its continuation, since no weight depends on it.
FREE = ("train.checkpoint_minutes", "train.workers")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileConfig:
    """How the trained network becomes integers.

    Attributes:
        finetune_epochs: with the integer forward and straight-through gradients; 0 for none.
        finetune_lr: AdamW's rate, in weight steps (1 is one integer).
        scales: "samples": as large as the training split allows; "bounds": so small that no
            input overflows anything (`stformer.overflow`), on coarser weights where that asks
            for it.
        require_proof: write no network that some input may overflow.
    """

    finetune_epochs: int = 0
    finetune_lr: float = 0.05
    scales: Literal["samples", "bounds"] = "samples"
    require_proof: bool = False


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


def differences(one: Recipe, other: Recipe) -> list[str]:
    """Keys in which two recipes differ, as "train.seed"; those of `FREE` left out."""
    mine, its = _flat(one.to_plain()), _flat(other.to_plain())
    keys = dict.fromkeys([*mine, *its])
    return [k for k in keys if k not in FREE and mine.get(k) != its.get(k)]


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[key] = value
    return flat


def _section(cls: Any, table: Mapping[str, Any], where: str) -> Any:
    hints = get_type_hints(cls)
    _known(where, table, tuple(hints))
    values = {key: _value(where, key, value, hints[key]) for key, value in table.items()}
    if cls is TrainConfig:
        if "epochs" not in values:
            raise InputError(where, "no 'epochs'", "a number of epochs")
        _check_train(cls(**values), where)
    return cls(**values)


def _value(where: str, key: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            allowed = ", ".join(map(repr, get_args(hint)))
            near = nearest(value, get_args(hint)) if isinstance(value, str) else ""
            raise InputError(where, f"{key} = {value!r}", allowed, near)
        return value
    number = float(value) if hint is float and type(value) is int else value
    if type(number) is not hint:
        raise InputError(where, f"{key} = {value!r}", f"a value of type {hint.__name__}")
    if hint is bool:
        return number
    low, high = LIMITS.get(key, (0, MANY))
    if not low <= number <= high:  # nan is not either
        allowed = f"{low:g} or more" if number < low else f"{low:g}...{high:.10g}"
        raise InputError(where, f"{key} = {value!r}", allowed)
    return number


def _check_train(config: TrainConfig, where: str) -> None:
    """What two keys say of each other."""
    if config.batch_size % config.accumulate:
        raise InputError(
            where,
            f"accumulate = {config.accumulate}",
            f"divisors of batch_size {config.batch_size}",
        )
    if config.min_lr > config.lr:
        raise InputError(where, f"min_lr = {config.min_lr}", f"at most lr, {config.lr}")


def _known(where: str, table: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in table:
        if key not in keys:
            do = nearest(key, keys)
            if "train" in keys and key in get_type_hints(TrainConfig):
                do = f"did you mean 'train.{key}'?"
            raise InputError(where, f"the key '{key}'", ", ".join(keys), do)


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
