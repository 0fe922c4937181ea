"""The nearest legal network of a NIR graph that others wrote, with a note for every change.

Nodes of neurons become populations, everything between two of them one projection. Values are
measured in units of each neuron's threshold and then rounded to int8 weights of one scale per
population (`stformer.export.nir_import_numbers`). docs/import.md says what each node becomes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.errors import InputError
from stformer.export import Imported, Note, Reading
from stformer.export import nir_import_maps as maps
from stformer.export.nir_graph import DT
from stformer.export.nir_import_flow import Flow, Value
from stformer.export.nir_import_maps import Diagonal, Kernel, Map, Matrix
from stformer.export.nir_import_neurons import Neurons, neurons_of
from stformer.export.nir_import_numbers import (
    Limits,
    bias_numbers,
    is_plain,
    projection_of,
    scale_of,
)
from stformer.export.nir_import_order import back_edges, order, reach
from stformer.export.nir_import_tree import NEURONS, Graph, graph_of
from stformer.hdf5 import Tree
from stformer.network import (
    MAX_STEPS,
    Input,
    Lif,
    Network,
    Population,
    Projection,
    Readout,
    Shape,
    no_bias,
)
from stformer.passes import schedule

TIMES = ("tau", "tau_mem", "tau_syn")  # of neurons
STEPS = 100  # time steps of a sample where nobody says: NIR's graphs have no length

Array = npt.NDArray[np.float64]


def read_foreign(path: Path, tree: Tree, reading: Reading) -> Imported:
    """The nearest legal network of a graph without our metadata block.

    Args:
        path: of the file, for its name and messages.
        tree: what `stformer.hdf5.read_tree` gives; not trusted.
        reading: steps (100 by default), dt (by `custom_dt`), shape of an Input without one.

    Raises:
        InputError: damaged, contradictory or without meaning; names the node.
        Unsupported: a node that no network expresses, and why.
    """
    steps = STEPS if reading.steps is None else reading.steps
    if not 1 <= steps <= MAX_STEPS:
        raise InputError("steps", str(steps), f"1...{MAX_STEPS}")
    if reading.dt is not None and not 1e-12 <= reading.dt <= 1e6:
        raise InputError("dt", f"{reading.dt:g} s", "1e-12...1e6 s")
    graph = graph_of(str(path), tree)
    dt, why = custom_dt(graph) if reading.dt is None else (reading.dt, "")
    notes = graph.notes
    if reading.steps is None:
        notes.append(Note(where="network", what=f"a sample is taken to have {STEPS} steps"))
    if why:
        notes.append(Note(where="network", what=f"a step is taken to be {dt:g} s, {why}"))
    flow = Flow(graph, reading, dt)
    network = schedule(_Building(flow, _name(path), steps, dt).network())
    info = {"format": "nir", "digest": network.digest()}
    return Imported(
        network=network,
        notes=tuple(dict.fromkeys(notes)),
        info=info | ({"nir": graph.version} if graph.version else {}),
    )


def custom_dt(graph: Graph) -> tuple[float, str]:
    """(seconds of a step, why) where nobody says: the graph's own custom."""
    fields = (node.fields.get(key) for node in graph.nodes.values() for key in TIMES)
    times = [t for t in fields if isinstance(t, np.ndarray) and t.size and t.dtype.kind in "iuf"]
    if times and all((t >= 1).all() for t in times):
        return 1.0, "since all time constants are 1 or more: they count steps, as sinabs's do"
    return DT, "as most tools that read NIR do"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """A population to be, and what arrives there in the file's units."""

    node: str
    shape: Shape
    value: Value
    neurons: Neurons


class _Building:
    """Makes populations and projections of the values that flow between neurons."""

    def __init__(self, flow: Flow, name: str, steps: int, dt: float) -> None:
        self.flow, self.name, self.steps = flow, name, steps
        self.notes = flow.notes
        self.targets = self._targets(dt)
        heard = {t: sorted({m.pre for m in v.value.paths}) for t, v in self.targets.items()}
        inputs = [n.name for n in flow.graph.nodes.values() if n.kind == "Input"]
        self.order = order(inputs, list(self.targets), heard)
        self.names = self._names()
        self.taken: set[str] = set()
        self.populations: list[Population] = []
        self.projections: list[Projection] = []
        self.back = back_edges(self.order, heard)
        self.steps_back = reach(self.order, heard, self.back)

    def network(self) -> Network:
        for node in self.order:
            if node in self.targets:
                self._add(self.targets[node])
                continue
            what = "frames are taken to be spikes, 0 and 1"
            self.notes.append(Note(where=node, what=what))
            self.populations.append(Input(name=self.names[node], shape=self.flow.shapes[node]))
        return Network(
            name=self.name,
            steps=self.steps,
            populations=tuple(self.populations),
            projections=tuple(self.projections),
        )

    def _targets(self, dt: float) -> dict[str, _Target]:
        nodes, out = self.flow.graph.nodes, {}
        quiet: set[str] = set()
        for node in nodes.values():
            if node.kind in NEURONS:
                shape = self.flow.shapes[node.name]
                neurons = neurons_of(node, shape, dt, self.notes)
                if not neurons.spiking:
                    quiet.add(node.name)
                out[node.name] = _Target(
                    node=node.name,
                    shape=shape,
                    value=self.flow.arriving[node.name],
                    neurons=neurons,
                )
        for node in nodes.values():
            value = self.flow.arriving.get(node.name)
            if node.kind == "Output" and value and not _is_spikes(value):
                what = "it is no neuron's; a readout adds up what arrives there over the sample"
                self.notes.append(Note(where=node.name, what=what))
                one, zero = np.asarray(1.0), np.asarray(0.0)
                out[node.name] = _Target(
                    node=node.name,
                    shape=maps.three_axes(value.shape),
                    value=value,
                    neurons=Neurons(
                        spiking=False, du=fx.NO_CURRENT, dv=0, gain=one, drive=zero, threshold=one
                    ),
                )
        for target in out.values():
            for m in target.value.paths:
                if m.pre in quiet:
                    found = f"what arrives from {m.pre}, which sends no spikes"
                    allowed = "integrators that lead to an Output alone"
                    raise InputError(f"node {target.node}", found, allowed)
        return out

    def _names(self) -> dict[str, str]:
        """Node -> name of its population: the same where a network can have it."""
        out: dict[str, str] = {}
        for node in self.order:
            plain = _plain(node)
            while plain in out.values():
                plain += "#"
            if plain != node:
                self.notes.append(Note(where=node, what=f"called '{plain}' here"))
            out[node] = plain
        return out

    def _add(self, t: _Target) -> None:
        n = t.neurons
        name = self.names[t.node]
        paths = [self._path(t, m) for m in t.value.paths]
        drive = n.drive
        constant = np.asarray(t.value.constant * n.gain)
        if constant.any() and n.du < fx.NO_CURRENT:
            paths.append(self._always(t, name, constant))
        else:
            drive = np.asarray(drive + constant)
        threshold = n.threshold.reshape(-1)
        limits = Limits(
            threshold=float(threshold[0]) if n.threshold.size == 1 and n.spiking else 0.0,
            kept=fx.DECAY_ONE / fx.current_decay(n.du),
            adds=0 if n.spiking else self.steps,
            bias=float(np.abs(drive).max()),
        )
        scale = scale_of(t.node, paths, limits)
        for m in paths:
            self._project(t, m, name, scale)
        mant, exp, error = (
            bias_numbers(drive, scale, t.shape) if drive.any() else (no_bias(t.shape), 0, 0.0)
        )
        if error > 1e-6:
            what = f"what it gets in every step is rounded by up to {error:.2g}"
            self.notes.append(Note(where=t.node, what=f"{what} of {_unit(n)}"))
        if not n.spiking:
            self.notes.append(Note(where=t.node, what=f"its unit is {scale:.6g} of the readout's"))
            self.populations.append(
                Readout(name=name, shape=t.shape, bias_mant=mant, bias_exp=exp)
            )
            return
        vth = max(1, round(scale))
        ratio = scale / limits.threshold if limits.threshold else scale
        what = f"threshold {vth}: {ratio:.6g} of the chip's units for one of the file's"
        if abs(vth - scale) > 1e-6 * scale:
            what += f", rounded by {abs(vth - scale) / scale:.2g} of it"
        self.notes.append(Note(where=t.node, what=what))
        self.populations.append(
            Lif(
                name=name,
                shape=t.shape,
                vth=vth,
                du=n.du,
                dv=n.dv,
                bias_mant=mant,
                bias_exp=exp,
            )
        )

    def _path(self, t: _Target, m: Map) -> Map:
        """A map in units of the threshold, in a form that projections have."""
        scaled = maps.scaled(t.node, m, np.asarray(t.neurons.gain))
        scaled = replace(scaled, via=m.via)
        linear = scaled.linear
        if isinstance(linear, Diagonal) and (linear.scale == linear.scale.reshape(-1)[0]).all():
            linear = Diagonal(scale=linear.scale.reshape(-1)[:1].reshape(()))
        scaled = replace(scaled, linear=linear)
        if not is_plain(scaled, t.shape):
            channel = (
                maps.per_channel(linear.scale, m.shape) if isinstance(linear, Diagonal) else None
            )
            if channel is not None and m.pre_shape == t.shape:
                linear = Kernel(
                    weight=channel.reshape(-1, 1, 1, 1),
                    stride=(1, 1),
                    padding=(0, 0),
                    dilation=(1, 1),
                    groups=len(channel),
                )
            else:
                linear = Matrix(weight=maps.matrix(t.node, scaled))
            scaled = replace(scaled, linear=linear)
        if (m.pre, t.node) not in self.back:
            return scaled
        needed = self.steps_back[m.pre, t.node] + 1
        if m.delay < needed:
            what = f"what comes back from {m.pre} waits {needed} steps, not {m.delay}"
            what += ": every synapse of a loop takes one"
            self.notes.append(Note(where=t.node, what=what))
        return replace(scaled, delay=max(m.delay, needed))

    def _always(self, t: _Target, name: str, constant: Array) -> Map:
        """A constant that the current keeps too, as spikes of one neuron that always fires."""
        source = f"{name}:always"
        while source in self.names.values():
            source += "#"
        self.names[source] = source
        self.populations.append(
            Lif(
                name=source,
                shape=(1,),
                vth=1,
                dv=fx.MEMORYLESS,
                bias_mant=np.array([fx.BIAS_MANT_RANGE[1]], np.int16),
            )
        )
        what = (
            f"its bias charges a current, so it comes as spikes of '{source}', which always fires"
        )
        self.notes.append(Note(where=t.node, what=what))
        wide = np.broadcast_to(constant, t.shape).reshape(-1, 1)
        return Map(pre=source, pre_shape=(1,), shape=t.shape, linear=Matrix(weight=wide))

    def _project(self, t: _Target, m: Map, post: str, scale: float) -> None:
        pre = self.names[m.pre]
        stem = _plain(m.via or f"{pre}>{post}")
        name, count = stem, 1
        while name in self.taken:
            count += 1
            name = f"{stem}#{count}"
        self.taken.add(name)
        synapses, error = projection_of(name, replace(m, pre=pre), post, scale)
        if error > 1e-6:
            what = f"weights onto {post} are rounded by up to {error:.2g} of the largest"
            self.notes.append(Note(where=m.via or t.node, what=what))
        self.projections.append(synapses)


def _is_spikes(value: Value) -> bool:
    """Whether an Output gives what populations send, each as it is."""
    return not value.constant.any() and all(
        isinstance(m.linear, Diagonal) and not m.delay and (m.linear.scale == 1).all()
        for m in value.paths
    )


def _unit(n: Neurons) -> str:
    return "the threshold" if n.spiking else "the file's unit"


def _plain(name: str) -> str:
    """A node's name with the characters that a network's names have."""
    kept = (c if c.isascii() and (c.isalnum() or c in "._-+@>#:") else "_" for c in name)
    return "".join(kept)


def _name(path: Path) -> str:
    stem = _plain(path.stem)[:100]
    return stem if stem.strip("._") else "imported"
