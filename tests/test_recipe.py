"""Recipes: every key checked, overrides, and messages that help."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from stformer import recipe
from stformer.errors import InputError


def test_all_shipped_recipes_load() -> None:
    assert "digits" in recipe.available()
    for name in recipe.available():
        loaded = recipe.load(name)
        assert loaded.name == name
        assert recipe.from_plain(loaded.to_plain(), "again") == loaded


def test_overrides_replace_single_values_and_keep_types() -> None:
    changed = recipe.load(
        "digits",
        ["train.epochs=3", "train.lr=1", "model.residual=or", "model.spatial_strides=[1,1,1]"],
    )
    assert changed.train.epochs == 3
    assert changed.train.lr == 1.0
    assert isinstance(changed.train.lr, float)
    assert changed.model["residual"] == "or"
    assert changed.model["spatial_strides"] == [1, 1, 1]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epohcs=3", "Did you mean 'epochs'"),
        ("trian.epochs=3", "Did you mean 'train'"),
        ("train.epochs=three", "a value of type int"),
        ("train.epochs=0", "1 or more"),
        ("train.batch_size=0", "1 or more"),
        ("train.lr=-1", "0 or more"),
        ("train.shift=true", "a value of type int"),
        ("train.epochs", "no key=value"),
        ("=3", "no key=value"),
        ("name.x=3", "'name' is no table"),
        ("train=3", "a table"),
        ("epochs=3", "Did you mean 'train.epochs'"),
        ("train.amp=fp8", "'off', 'bf16', 'fp16'"),
        ("train.amp=bf61", "Did you mean 'bf16'"),
        ("train.policy=1", "'none', 'randaugment'"),
        ("train.flip=1.5", r"allowed: 0\.\.\.1"),
        ("train.validation=0.6", r"0\.\.\.0.5"),
        ("train.lr=nan", r"0\.\.\.100"),
        ("train.lr=inf", r"0\.\.\.100"),
        ("train.min_lr=0.1", "at most lr"),
        ("train.accumulate=3", "divisors of batch_size 64"),
        ("train.accumulate=0", "1 or more"),
        ("train.compile=1", "a value of type bool"),
        ("train.policy_magnitude=11", r"0\.\.\.10"),
        ("train.seed=-1", "0 or more"),
        ("train.seed=4294967296", r"0\.\.\.2147483647"),
    ],
)
def test_wrong_overrides(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe.load("digits", [override])


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"allowed: .*digits"):
        recipe.load("digtis")
    with pytest.raises(InputError, match="no such file"):
        recipe.load(str(tmp_path / "none.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"name = \xff")
    with pytest.raises(InputError, match="TOML"):
        recipe.load(str(broken))
    broken.write_text("name = 'x'\ndata = 'digits'\n[train]\n")
    with pytest.raises(InputError, match="no 'epochs'"):
        recipe.load(str(broken))
    broken.write_text("data = 'digits'\n[train]\nepochs = 1\n")
    with pytest.raises(InputError, match="name = None"):
        recipe.load(str(broken))


def test_every_number_and_word_has_a_range() -> None:
    """A key of TrainConfig without a docstring or with an impossible default shows here."""
    documented = recipe.TrainConfig.__doc__ or ""
    for field in fields(recipe.TrainConfig):
        assert re.search(rf"\b{field.name}\b[^:]*:", documented), field.name
    table = {f.name: f.default for f in fields(recipe.TrainConfig) if f.name != "epochs"}
    whole = {"name": "x", "data": "digits", "train": {"epochs": 1, **table}}
    assert recipe.from_plain(whole, "x").train == recipe.TrainConfig(epochs=1)
    assert set(recipe.LIMITS) <= {f.name for f in fields(recipe.TrainConfig)} | {"finetune_lr"}


def test_differences_name_the_keys_that_change_weights() -> None:
    one = recipe.load("digits")
    assert recipe.differences(one, recipe.load("digits", ["train.workers=2"])) == []
    other = recipe.load("digits", ["train.seed=5", "model.width=16", "train.workers=2"])
    assert recipe.differences(one, other) == ["model.width", "train.seed"]


@pytest.mark.parametrize("name", ["cifar10-4-384", "cifar100-4-384"])
def test_the_baselines_settings_for_cifar(name: str) -> None:
    loaded = recipe.load(name)
    t = loaded.train
    assert loaded.model["variant"] == "STFormer-4-384"
    assert loaded.model["classes"] == int(loaded.data.removeprefix("cifar"))
    assert (t.epochs, t.batch_size, t.warmup_epochs) == (400, 64, 20)
    assert (t.lr, t.min_lr, t.weight_decay, t.label_smoothing) == (5e-4, 1e-5, 0.06, 0.1)
    assert (t.policy, t.policy_ops, t.policy_magnitude) == ("randaugment", 1, 9)
    assert (t.flip, t.erasing, t.mixup, t.mix_prob, t.mix_epochs) == (0.5, 0.25, 0.5, 1.0, 200)
    assert t.amp != "off" and not t.cutmix and not t.events


@pytest.mark.parametrize(("name", "epochs"), [("cifar10dvs-2-256", 96), ("dvs128-2-256", 192)])
def test_the_baselines_settings_for_events(name: str, epochs: int) -> None:
    loaded = recipe.load(name)
    t = loaded.train
    assert loaded.model["variant"] == "STFormer-2-256" and loaded.model["dv"] == 2731
    assert (t.epochs, t.batch_size, t.warmup_epochs) == (epochs, 16, 10)
    assert (t.lr, t.min_lr, t.weight_decay, t.label_smoothing) == (1e-3, 1e-5, 0.06, 0.1)
    assert (t.flip, t.mixup, t.mix_prob, t.mix_epochs) == (0.5, 0.5, 0.5, 75)
    assert t.events and t.policy == "none" and t.amp != "off" and not t.erasing
