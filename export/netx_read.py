"""Networks from netx files: our own ones back as they were, others as netx itself runs them.

What netx ignores is ignored here too, and what it changes is changed, each with a note: the
network gives the spikes that `lava.lib.dl.netx.hdf5.Network` gives in Lava.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import NoReturn

import numpy as np

from stformer import fixedpoint as fx
from stformer.errors import InputError, Unsupported
from stformer.export import Imported, Note, Reading, check_reading
from stformer.export.netx_chains import BIAS_EXP
from stformer.export.netx_layers import (
    Neuron,
    bias_mantissa,
    integers,
    kind_of,
    neuron_of,
    number,
    pair,
    parts,
    whole,
)
from stformer.export.netx_restore import restore_file, restore_folder
from stformer.export.netx_weights import loaded
from stformer.hdf5 import Tree, read_tree
from stformer.network import (
    Conv,
    Dense,
    Input,
    IntArray,
    Lif,
    Network,
    OneToOne,
    Population,
    Projection,
    Readout,
    Shape,
)
from stformer.passes import schedule

INPUT_WEIGHT = 64  # of an input layer that says none (netx/hdf5.py:268)
MOST_DELAY = 62  # netx cuts longer ones down to it (netx/hdf5.py:427)
MAX_SPLIT = 2**28  # weights times delays: each delay is a projection of its own
KINDS = ("input", "flatten", "dense", "conv")


def read(path: Path, reading: Reading) -> Imported:
    """See `stformer.export.read`.

    Raises:
        InputError, Unsupported: as there.
    """
    found = _read(path, reading)
    check_reading(str(path), found.network, reading)
    if reading.dt is not None:
        raise InputError(str(path), f"dt given as {reading.dt}", "none: netx counts steps")
    return found


def _read(path: Path, reading: Reading) -> Imported:
    if path.is_dir():
        return Imported(network=restore_folder(path), info={"producer": "stformer"})
    tree = read_tree(path)
    if network := restore_file(str(path), tree):
        return Imported(network=network, info={"producer": "stformer"})
    return _foreign(path, tree, reading)


def _foreign(path: Path, tree: Tree, reading: Reading) -> Imported:
    where = str(path)
    layers = tree.get("layer")
    if not isinstance(layers, dict) or not layers:
        raise InputError(where, "no layers", "a group 'layer' with the layers 0, 1, ...")
    if reading.steps is None:
        raise InputError(
            where,
            "no number of time steps: netx files hold none",
            "a T of 1 or more",
            "give --steps",
        )
    b = _Builder(where, reading)
    for i in range(len(layers)):
        layer = layers.get(str(i))
        if not isinstance(layer, dict):
            raise InputError(f"{where}, layer {i}", "missing, or no group", "layers without a gap")
        b.add(i, layer)
    if all(isinstance(p, Input) for p in b.populations):
        raise InputError(where, "no layer that computes", "a dense or conv layer")
    network = Network(
        name=_name(path.stem),
        steps=reading.steps,
        populations=tuple(b.populations),
        projections=tuple(b.projections),
    )
    if any(isinstance(p, (Lif, Readout)) and p.bias_mant.any() for p in b.populations):
        offset = int(b.spikes_in)
        b.note(
            "network",
            "biases start with the sample in every layer, as in netx with "
            f"reset_interval={reading.steps} and reset_offset={offset}",
        )
    return Imported(
        network=schedule(network), notes=tuple(b.notes), info={"producer": "netx", "file": where}
    )


def _name(stem: str) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem)[:200]
    return kept if kept.strip(".") else "netx"


@dataclass
class _Builder:
    """What has been read so far.

    Attributes:
        flattened: a flatten layer stands before the next.
        flat: netx gives the last layer one axis.
        spikes_in: nothing is fed through the bias of an input layer.
    """

    where: str
    reading: Reading
    populations: list[Population] = field(default_factory=list)
    projections: list[Projection] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    flattened: bool = False
    flat: bool = False
    spikes_in: bool = True

    def note(self, where: str, what: str) -> None:
        self.notes.append(Note(where=where, what=what))

    def refuse(self, name: str, why: str) -> NoReturn:
        raise Unsupported("import from netx", f"{self.where}, {name}", why)

    def add(self, i: int, layer: Tree) -> None:
        name, where = f"layer{i}", f"{self.where}, layer {i}"
        kind = kind_of(where, layer)
        if any(isinstance(p, Readout) for p in self.populations):
            raise InputError(where, "a layer behind one without spikes", "nothing behind it")
        match kind:
            case "input":
                self.input(i, name, where, layer)
            case "flatten":
                self.flattened = True
            case "dense":
                self.dense(name, where, layer)
            case "conv":
                self.conv(name, where, layer)
            case _:
                self.refuse(name, f"a layer of type '{kind:.40}'; read are {', '.join(KINDS)}")

    def input(self, i: int, name: str, where: str, layer: Tree) -> None:
        if i:
            raise InputError(where, "an input layer", "one at most, the first")
        shape = tuple(int(n) for n in integers(where, layer, "shape").reshape(-1))
        if "neuron" not in layer:
            self.source(shape)
            return
        neuron = neuron_of(where, layer)
        weight = number(where, layer, "weight") if "weight" in layer else INPUT_WEIGHT
        exponent = next(
            (e for e in range(8) if weight % 2**e == 0 and -128 <= weight >> e <= 127), None
        )
        if exponent is None or not weight:
            self.refuse(name, f"a weight of {weight}; a synapse holds an int8, shifted by up to 7")
        # netx adds weight * x + bias to the membrane, past the current, whose decay is nothing.
        most = ((fx.STATE_MAX - 1) >> fx.SHIFT) // abs(weight)
        self.populations.append(Input(name="input", shape=shape, low=-most, high=most))
        self.note(
            "input",
            f"whole numbers x up to {most}; netx is fed bias_mant = {weight} * x + bias instead",
        )
        bias = bias_mantissa(where, layer, (1,) * len(shape), self.notes, name)
        self.neurons(name, where, layer, neuron, shape, bias, du=fx.NO_CURRENT)
        self.projections.append(
            OneToOne(
                name=f"input>{name}",
                pre="input",
                post=name,
                weight=weight >> exponent,
                weight_exp=exponent,
            )
        )
        self.spikes_in, self.flat = False, len(shape) == 1

    def source(self, shape: Shape) -> None:
        """An input of spikes."""
        self.populations.append(Input(name="input", shape=shape))
        self.note("input", "taken as spikes, which netx is too where input_message_bits is 0")

    def dense(self, name: str, where: str, layer: Tree) -> None:
        weight = whole(where, layer, "weight", self.notes, name)
        count = prod(int(n) for n in integers(where, layer, "shape").reshape(-1))
        if weight.ndim == 1 and count > 0 and weight.size % count == 0:
            weight = weight.reshape(count, -1)
        if weight.ndim != 2 or len(weight) != count or not weight.size:
            raise InputError(where, f"a weight of shape {weight.shape}", f"({count}, inputs)")
        if not self.populations:
            given = self.reading.shape
            self.source(given if given and prod(given) == weight.shape[1] else (weight.shape[1],))
        before = self.populations[-1]
        if not (self.flat or self.flattened or isinstance(before, Input)):
            raise InputError(
                where, f"dense behind frames {before.shape}", "a flatten between them"
            )
        found = loaded(weight)
        if found is None:
            self.refuse(
                name, "netx itself loses such weights: all zero, or of one sign beyond 8 bit"
            )
        if changed := int((found != weight).sum()):
            self.note(name, f"{changed} of {weight.size} weights as netx and Lava change them")
        delay = self.delays(name, where, layer, weight.shape)
        for steps in np.unique(delay):
            rows = found if delay.size == 1 else np.where(delay == steps, found, 0)
            for tag, part, exponent in self.split(name, rows):
                self.projections.append(
                    Dense(
                        name=f"{before.name}>{name}{f'@{steps}' if steps else ''}{tag}",
                        pre=before.name,
                        post=name,
                        weight=part,
                        weight_exp=exponent,
                        delay=int(steps),
                    )
                )
        bias = bias_mantissa(where, layer, (count,), self.notes, name)
        neuron = neuron_of(where, layer) if "neuron" in layer else None
        self.neurons(name, where, layer, neuron, (count,), bias)
        self.flat, self.flattened = True, False

    def delays(self, name: str, where: str, layer: Tree, shape: Shape) -> IntArray:
        """Delays of a dense layer that broadcast to its weight, cut to what netx makes of them."""
        if "delay" not in layer:
            return np.zeros((1, 1), np.int64)
        delay = whole(where, layer, "delay", self.notes, name)
        if delay.size and delay.max() > MOST_DELAY:
            self.note(name, f"delays of up to {int(delay.max())} cut to {MOST_DELAY}, as in netx")
        delay = delay.clip(max=MOST_DELAY)
        if delay.ndim == 1:  # of the targets, or else of the sources
            delay = delay[:, None] if len(delay) == shape[0] else delay[None, :]
        delay = delay.reshape((1, 1)) if delay.ndim == 0 else delay
        fits = delay.ndim == 2 and all(
            d in (1, n) for d, n in zip(delay.shape, shape, strict=True)
        )
        if not fits or not delay.size or delay.min() < 0:
            raise InputError(where, f"delays of shape {delay.shape}", f"0 or more, for {shape}")
        if len(np.unique(delay)) * prod(shape) > MAX_SPLIT:
            raise InputError(where, f"many delays of {prod(shape)} synapses", "a smaller layer")
        return delay

    def split(self, name: str, weight: IntArray) -> Iterator[tuple[str, IntArray, int]]:
        """(ending of the name, int8 weight, exponent) of the projections that add up to it."""
        found = parts(weight)
        if found is None:
            self.refuse(name, "weights beyond 15 bits")
        if len(found) > 1:
            self.note(name, "weights beyond 8 bits, as two projections")
        for n, (part, exponent) in enumerate(found):
            yield "+" * n, part, exponent

    def conv(self, name: str, where: str, layer: Tree) -> None:
        weight = whole(where, layer, "weight", self.notes, name)
        if weight.ndim < 4 or prod(weight.shape[4:]) != 1 or not weight.size:
            raise InputError(where, f"a weight of shape {weight.shape}", "(C_out, C_in, h, w)")
        weight = weight.reshape(weight.shape[:4])
        if not self.populations:
            if self.reading.shape is None:
                raise InputError(where, "no shape of the input", "(C, H, W)", "give --shape")
            self.source(self.reading.shape)
        before = self.populations[-1]
        if self.flat or self.flattened or len(before.shape) != 3:
            raise InputError(where, f"conv behind {before.shape}, flat", "frames (C, H, W)")
        shape = tuple(int(n) for n in integers(where, layer, "shape").reshape(-1))
        if len(shape) != 3:
            raise InputError(where, f"shape {shape}", "(C, H, W)")
        if "delay" in layer and whole(where, layer, "delay", self.notes, name).any():
            self.note(name, "its delay is left out, as in netx")
        for tag, part, exponent in self.split(name, weight):
            self.projections.append(
                Conv(
                    name=f"{before.name}>{name}{tag}",
                    pre=before.name,
                    post=name,
                    weight=part,
                    weight_exp=exponent,
                    stride=pair(where, layer, "stride", 1),
                    padding=pair(where, layer, "padding", 0),
                    dilation=pair(where, layer, "dilation", 1),
                    groups=number(where, layer, "groups"),
                )
            )
        bias = bias_mantissa(where, layer, shape, self.notes, name)
        self.neurons(name, where, layer, neuron_of(where, layer), shape, bias)

    def neurons(
        self,
        name: str,
        where: str,
        layer: Tree,
        neuron: Neuron | None,
        shape: Shape,
        bias: IntArray,
        du: int | None = None,
    ) -> None:
        """Add the population of a layer; a dense layer may name no neuron."""
        for what in neuron.ignored if neuron else ():
            self.note(name, what)
        mantissa, exponent = bias, BIAS_EXP
        low, high = fx.BIAS_MANT_RANGE
        if mantissa.min() < low or mantissa.max() > high:
            if (mantissa % 2).any() or mantissa.min() < 2 * low or mantissa.max() > 2 * high:
                self.refuse(name, f"a bias outside of {low}...{high}, the 13 bits of a mantissa")
            mantissa, exponent = mantissa // 2, BIAS_EXP + 1
        if neuron is None:
            if mantissa.any():
                self.refuse(name, "a bias and no neuron; netx would not add it up")
            self.note(name, "no neuron: what netx adds up in u is read as a readout's v")
        elif neuron.silent:
            self.note(name, "a threshold that no membrane exceeds: a readout, whose v is sent")
        if neuron is None or neuron.silent:
            self.populations.append(
                Readout(name=name, shape=shape, bias_mant=mantissa, bias_exp=exponent)
            )
            return
        current = neuron.du if du is None else du
        for what, value, allowed in (
            ("iDecay - 1", current, fx.DU_RANGE),
            ("vDecay", neuron.dv, fx.DV_RANGE),
            ("vThMant", neuron.vth, fx.VTH_RANGE),
        ):
            if not allowed[0] <= value <= allowed[1]:
                self.refuse(
                    name, f"{what} = {value}; the register holds {allowed[0]}...{allowed[1]}"
                )
        self.populations.append(
            Lif(
                name=name,
                shape=shape,
                vth=neuron.vth,
                du=current,
                dv=neuron.dv,
                bias_mant=mantissa,
                bias_exp=exponent,
            )
        )
