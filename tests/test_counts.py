"""The counts of docs/model.md, and the baseline's own."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from stformer.config import STFormerConfig, config_from
from stformer.counts import Counts, count
from stformer.errors import InputError
from stformer.model import STFormer


def counts(**values: object) -> Counts:
    return count(config_from(values))


@pytest.mark.parametrize(
    ("variant", "classes", "published"),
    [
        ("Spikingformer-4-384", 10, 9_326_266),
        ("Spikingformer-4-384", 100, 9_360_916),
        ("Spikingformer-2-256", 10, 2_568_714),
        ("Spikingformer-2-256", 11, 2_568_971),
    ],
)
def test_the_baseline_has_its_published_parameters(
    variant: str, classes: int, published: int
) -> None:
    found = counts(variant=variant, classes=classes)
    assert found.parameters + found.unused == published
    assert found.unused == {"4": 6144, "2": 2048}[variant.split("-")[1]]


@pytest.mark.parametrize(
    ("variant", "preset", "parameters", "operations"),
    [
        ("STFormer-4-384", "hw", 11_892_922, 3.837),
        ("STFormer-4-384", "paper", 18_823_354, 8.492),
        ("STFormer-2-256", "hw", 3_711_498, 5.239),
        ("STFormer-2-256", "paper", 6_791_690, 16.123),
        ("Spikingformer-4-384", "paper", 9_320_122, 3.736),
        ("Spikingformer-2-256", "paper", 2_566_666, 6.057),
    ],
)
def test_named_variants(variant: str, preset: str, parameters: int, operations: float) -> None:
    found = counts(variant=variant, preset=preset)
    assert found.parameters == parameters
    assert found.operations / 1e9 == pytest.approx(operations, abs=0.0005)


def test_parts_are_the_model_and_add_up() -> None:
    config = STFormerConfig()
    found = count(config)
    model = STFormer(config)
    assert found.parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    parts = {p.name: p for p in found.parts}
    # 3x3 from 1 to 6 channels on 8x8, norm of two numbers a channel, 4 steps.
    width = config.width // 8
    assert parts["stem"].parameters == 9 * width + 2 * width
    assert parts["stem"].operations == 4 * 64 * 9 * width
    assert list(parts) == ["stem", "spatial", "rpe", "temporal", "attention", "mlp", "head"]
    tokens, d = 16, config.width
    assert parts["mlp"].operations == 4 * config.depth * tokens * 8 * d * d
    assert parts["head"].operations == 4 * 10 * d


def test_products_count() -> None:
    config = {"residual": "ms", "attention": "product", "depth": 1, "temporal": False}
    with_product = counts(**config)
    gated = counts(**config | {"attention": "gated"})
    tokens, d = 16, STFormerConfig().width
    parts = [{p.name: p.operations for p in c.parts} for c in (with_product, gated)]
    assert parts[0]["attention"] - parts[1]["attention"] == 4 * 2 * tokens * tokens * d


def test_unknown_variants_and_presets_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        InputError, match=r"model\.variant: 'STFormer-4-348'.*Did you mean 'STFormer-4-384'\?"
    ):
        config_from({"variant": "STFormer-4-348"})
    with pytest.raises(InputError, match=r"model\.preset: 'papre'.*hw, paper"):
        config_from({"preset": "papre"})
    with pytest.raises(InputError, match=r"model\.variant: 3"):
        config_from({"variant": 3})


def test_values_override_the_preset_and_the_preset_the_variant() -> None:
    config = config_from({"variant": "Spikingformer-4-384"})
    assert (config.residual, config.attention, config.temporal) == ("ms", "product", False)
    config = config_from({"variant": "Spikingformer-4-384", "preset": "hw", "dv": 7})
    assert (config.residual, config.temporal, config.dv) == ("iand", False, 7)
    config = config_from({"variant": "STFormer-2-256", "preset": "paper", "residual": "add"})
    assert (config.residual, config.temporal_kernel, config.steps) == ("add", 3, 16)
