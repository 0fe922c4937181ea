"""NIR graphs whose few bytes claim much: refused by node, before the memory is taken."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stformer.errors import InputError
from stformer.export import Reading
from stformer.export.nir_import import read_foreign
from stformer.hdf5 import Tree

LIF = {"type": "LIF"} | {
    key: np.array(value) for key, value in (("tau", 1e-3), ("r", 1.0), ("v_leak", 0.0))
}


def chain(nodes: list[Any], *shape: int) -> Tree:
    """Nodes one after another, behind an Input."""
    named: dict[str, Any] = {"0": {"type": "Input", "shape": np.array(shape)}}
    named |= {str(i + 1): node for i, node in enumerate(nodes)}
    edges = np.array([(str(i), str(i + 1)) for i in range(len(nodes))], dtype=object)
    return {"version": "1.0.8", "node": {"type": "NIRGraph", "nodes": named, "edges": edges}}


def neuron() -> dict[str, Any]:
    return LIF | {"v_threshold": np.array(1.0)}


def many_products(value: float = 1e-3) -> Tree:
    """Thin weights, whose products are 16 million weights each."""
    pair = [
        {"type": "Linear", "weight": np.full((1, 4000), value)},
        {"type": "Linear", "weight": np.full((4000, 1), value)},
    ]
    return chain([*pair * 100, {"type": "Linear", "weight": np.ones((1, 4000))}, neuron()], 4000)


def large_products() -> Tree:
    large = {"type": "Linear", "weight": np.full((2, 2), 1e29)}
    return chain([large] * 20 + [neuron()], 2)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (many_products, "products with very many weights"),
        (large_products, "a product of very large weights"),
    ],
)
def test_few_bytes_that_claim_much(make: Callable[[], Tree], found: str) -> None:
    tree = make()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=found):
            read_foreign(Path("x.nir"), tree, Reading(steps=4))
        assert tracemalloc.get_traced_memory()[1] < 2**30
    finally:
        tracemalloc.stop()
