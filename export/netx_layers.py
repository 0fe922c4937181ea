"""The values of a layer of a netx file, none of which is trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.errors import InputError
from stformer.export import Note
from stformer.hdf5 import Tree
from stformer.network import IntArray, Shape, no_bias

NEURONS = ("CUBA", "LOIHI")
LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Neuron:
    """A layer's neurons as netx reads them.

    Attributes:
        du: iDecay - 1; -1 keeps all current.
        dv, vth: vDecay and vThMant.
        ignored: what the file says and netx does not read, for notes.
    """

    du: int
    dv: int
    vth: int
    ignored: tuple[str, ...]

    @property
    def silent(self) -> bool:
        """Whether it only adds up: a clipped membrane stays below its threshold."""
        return self.vth > fx.VTH_RANGE[1] and self.dv == 0 and self.du == fx.NO_CURRENT


def kind_of(where: str, tree: Tree) -> str:
    """The text 'type', which may be in an array of its own."""
    value = tree.get("type")
    if isinstance(value, np.ndarray) and value.dtype == object and value.size:
        value = str(value.flat[0])
    if not isinstance(value, str):
        raise InputError(f"{where}, type", "missing or no text", "a text, such as 'dense'")
    return value


def neuron_of(where: str, layer: Tree) -> Neuron:
    """The neurons of a layer; InputError for missing values and other kinds than CUBA."""
    group = layer.get("neuron")
    if not isinstance(group, dict):
        raise InputError(f"{where}, neuron", "missing", "a group of neuron parameters")
    kind = kind_of(f"{where}, neuron", group)
    if kind not in NEURONS:
        raise InputError(f"{where}, neuron", f"type '{kind:.40}'", " or ".join(NEURONS))
    ignored = []
    for key, usual in (("refDelay", 1), ("gradedSpike", 0), ("weight_exp", 0), ("messageBits", 0)):
        value = group.get(key)
        if isinstance(value, np.ndarray) and value.size and (value != usual).any():
            ignored.append(f"its {key} is left out, as in netx")
    return Neuron(
        du=number(where, group, "iDecay") - 1,
        dv=number(where, group, "vDecay"),
        vth=number(where, group, "vThMant"),
        ignored=tuple(ignored),
    )


def number(where: str, tree: Tree, key: str) -> int:
    """One whole number, which may be in an array of its own."""
    array = integers(where, tree, key)
    if array.size != 1:
        raise InputError(f"{where}, {key}", f"{array.size} numbers", "one for the whole layer")
    return int(array.flat[0])


def pair(where: str, tree: Tree, key: str, least: int) -> tuple[int, int]:
    """(h, w) of one number for both, or of two."""
    array = integers(where, tree, key).reshape(-1)
    if array.size not in (1, 2) or array.min() < least:
        raise InputError(f"{where}, {key}", f"{array.tolist()!r:.40}", f"{least} or more, twice")
    return int(array[0]), int(array[-1])


def integers(where: str, tree: Tree, key: str) -> npt.NDArray[np.int64]:
    """Whole numbers of any shape, at least one."""
    return _whole(where, tree, key)[0]


def whole(where: str, tree: Tree, key: str, notes: list[Note], name: str) -> npt.NDArray[np.int64]:
    """Whole numbers; fractions are cut off, as netx does, with a note."""
    array, cut = _whole(where, tree, key)
    if cut:
        notes.append(Note(where=name, what=f"fractions of {key} are cut off, as in netx"))
    return array


def _whole(where: str, tree: Tree, key: str) -> tuple[npt.NDArray[np.int64], bool]:
    array = tree.get(key)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or not array.size:
        found = "missing" if key not in tree else "no real numbers"
        raise InputError(f"{where}, {key}", found, "whole numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{where}, {key}", "NaN or infinity", "finite numbers")
    if array.min() < -LARGEST or array.max() > LARGEST:
        raise InputError(f"{where}, {key}", "very large numbers", f"up to {LARGEST}")
    out = array.astype(np.int64)
    return out, bool(array.dtype.kind == "f" and (out != array).any())


def bias_mantissa(where: str, layer: Tree, shape: Shape, notes: list[Note], name: str) -> IntArray:
    """A layer's bias, zero where it says none, to broadcast to `shape`, as netx spreads it.

    Args:
        where, layer, notes, name: as above.
        shape: (n,) or (C, H, W) of the population.
    """
    if "bias" not in layer:
        return no_bias(shape)
    bias: npt.NDArray[Any] = whole(where, layer, "bias", notes, name)
    if bias.size == 1:
        return bias.reshape((1,) * len(shape))
    if bias.shape == shape[::-1]:  # netx has frames as W, H, C
        return bias.T
    if bias.shape == shape[:1]:
        return bias.reshape((-1,) + (1,) * (len(shape) - 1))
    raise InputError(f"{where}, bias", f"shape {bias.shape}", f"one for each of {shape}")


def parts(weight: IntArray) -> list[tuple[IntArray, int]] | None:
    """(int8 weight, exponent) whose sum is the given weight: one where that can be, else two."""
    low, high = fx.WEIGHT_RANGE
    least, most = int(weight.min()), int(weight.max())
    common = int(np.bitwise_or.reduce(weight, axis=None))
    for exponent in range(fx.WEIGHT_EXP_RANGE[1] + 1):
        if common % 2**exponent == 0 and low <= least >> exponent and most >> exponent <= high:
            return [((weight >> exponent).astype(np.int8), exponent)]
    for exponent in range(1, fx.WEIGHT_EXP_RANGE[1] + 1):
        upper = weight >> exponent
        if low <= least >> exponent and most >> exponent <= high:
            lower = weight - (upper << exponent)
            return [(upper.astype(np.int8), exponent), (lower.astype(np.int8), 0)]
    return None
