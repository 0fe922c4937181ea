"""Axes in another order: what a source, a kernel or a matrix is mistaken for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from stformer.network import Conv, Dense, Synapses


def orders(shape: tuple[int, ...]) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Ways to mistake the layout of [S, T, *shape]: (in words, the array as it is then read)."""
    if prod(shape) == 1:
        return
    if len(shape) == 3:
        c, h, w = shape
        for letters, axes in (("CWH", (0, 2, 1)), ("HWC", (1, 2, 0)), ("WHC", (2, 1, 0))):
            moved = tuple(shape[i] for i in axes)
            if [n for n in moved if n > 1] != [n for n in shape if n > 1] or (
                sum(n > 1 for n in shape) > 1 and _turns(shape, axes)
            ):
                yield f"in the order {letters}", _transposed(axes, shape)
        if h > 1 or w > 1:
            yield "with rows and columns reversed", lambda x: x[..., ::-1, ::-1]
        if c > 1:
            yield "with its channels reversed", lambda x: x[:, :, ::-1]
    else:
        yield "in reverse", lambda x: x[:, :, ::-1]


def _turns(shape: tuple[int, ...], axes: tuple[int, ...]) -> bool:
    """Whether the axes longer than 1 change their order."""
    long = [i for i in axes if shape[i] > 1]
    return long != sorted(long)


def _transposed(axes: tuple[int, ...], shape: tuple[int, ...]) -> Callable[[Any], Any]:
    whole = (0, 1, *(2 + i for i in axes))

    def read(x: Any) -> Any:
        return x.transpose(whole).reshape(*x.shape[:2], *shape)

    return read


def other_weights(p: Synapses) -> Iterator[tuple[str, Dense | Conv]]:
    """(In words, the projection) with kernels flipped or a square matrix transposed."""
    if not isinstance(p, (Dense, Conv)):
        return
    found = []
    if isinstance(p, Conv):
        found.append(("its kernels turned by 180 degrees", p.weight[..., ::-1, ::-1]))
    turned = p.weight.swapaxes(-1, -2)
    if turned.shape == p.weight.shape:
        found.append(("its weights transposed", turned))
    for detail, weight in found:
        if not np.array_equal(weight, p.weight):
            yield detail, replace(p, weight=np.ascontiguousarray(weight))
