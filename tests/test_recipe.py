"""Recipes: every key checked, overrides, and messages that help."""

from __future__ import annotations

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
