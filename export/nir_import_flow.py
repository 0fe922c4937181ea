"""What arrives at every node of a graph: linear maps from populations, and constants."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

from stformer.errors import InputError, Unsupported
from stformer.export import Note, Reading
from stformer.export import nir_import_maps as maps
from stformer.export.nir_import_maps import Diagonal, Kernel, Map, Matrix, three_axes
from stformer.export.nir_import_neurons import own_shape
from stformer.export.nir_import_tree import NEURONS, STAGE, Graph, Node, declared_shape
from stformer.network import Shape

MAX_MAPS = 4096  # paths between populations; a lattice of nodes has exponentially many
MAX_MADE = 2**26  # weights that products have more of than the file: thin factors make large ones
MAX_WEIGHT = 1e100  # of a product: far beyond what weights can be, far below an overflow

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Value:
    """The sum that a node gives or gets in a step.

    Attributes:
        shape: of the sum.
        paths: one map for every path from a population.
        constant: added in every step; of no axes or of `shape`.
    """

    shape: Shape
    paths: tuple[Map, ...]
    constant: Array


class Flow:
    """Values of all nodes.

    Attributes:
        before, after: node -> nodes with an edge to and from it.
        arriving: node -> what arrives there, Inputs left out.
        shapes: Input or node of neurons -> shape of the population.
    """

    def __init__(self, graph: Graph, reading: Reading, dt: float) -> None:
        self.graph, self.reading, self.dt, self.notes = graph, reading, dt, graph.notes
        self.before: dict[str, list[str]] = {name: [] for name in graph.nodes}
        self.after: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for a, b in graph.edges:
            self.after[a].append(b)
            self.before[b].append(a)
        self.given: dict[str, Value] = {}
        self.arriving: dict[str, Value] = {}
        self.shapes: dict[str, Shape] = {}
        self.made = self.weights = 0
        self._check_ends()
        self._spread()

    def _check_ends(self) -> None:
        kinds = {node.kind for node in self.graph.nodes.values()}
        if "Input" not in kinds:
            raise InputError("graph", "no Input", "at least one")
        for node in self.graph.nodes.values():
            if node.kind == "Input" and self.before[node.name]:
                node.refuse(
                    f"an edge into it from {self.before[node.name][0]}", "none to an Input"
                )
            if node.kind == "Output" and self.after[node.name]:
                node.refuse(
                    f"an edge from it to {self.after[node.name][0]}", "none from an Output"
                )
            if node.kind != "Input" and not self.before[node.name]:
                node.refuse("no edge to it", "one at least, or nothing ever arrives")

    def _spread(self) -> None:
        """Give every node its value, from what needs nothing on; each once."""
        waiting = deque(self.graph.nodes)
        while waiting:
            name = waiting.popleft()
            node = self.graph.nodes[name]
            if name in self.given or not self._ready(node):
                continue
            self.given[name] = self._give(node)
            waiting.extend(self.after[name])
        if left := [name for name in self.graph.nodes if name not in self.given]:
            found = f"a loop without neurons through {', '.join(left)[:200]}"
            raise InputError("graph", found, "loops with neurons in them")
        for name, node in self.graph.nodes.items():
            if node.kind in NEURONS:
                self.arriving[name] = self._arriving(node, self.shapes[name])

    def _ready(self, node: Node) -> bool:
        if node.kind == "Input":
            return True
        if node.kind in NEURONS:
            known = own_shape(node) is not None
            return known or any(b in self.given for b in self.before[node.name])
        return all(b in self.given for b in self.before[node.name])

    def _give(self, node: Node) -> Value:
        zero = np.asarray(0.0)
        if node.kind == "Input" or node.kind in NEURONS:
            shape = self._population_shape(node)
            self.shapes[node.name] = shape
            path = Map(
                pre=node.name,
                pre_shape=shape,
                shape=shape,
                linear=Diagonal(scale=np.asarray(1.0)),
            )
            return Value(shape=shape, paths=(path,), constant=zero)
        value = self._arriving(node, None)
        self.arriving[node.name] = value
        with np.errstate(over="ignore", invalid="ignore"):  # `_count` looks for what overflows
            result = self._through(node, value)
        self._count(node, result)
        self.made += len(result.paths)
        if self.made > MAX_MAPS:
            raise InputError("graph", "too many paths between neurons", f"up to {MAX_MAPS}")
        return result

    def _count(self, node: Node, result: Value) -> None:
        """Refuse products that are many times what is stored, or beyond numbers."""
        stored = np.size(node.fields.get("weight", 0))
        for m in result.paths:
            values = m.linear.scale if isinstance(m.linear, Diagonal) else m.linear.weight
            self.weights += max(0, values.size - stored)
            if self.weights > MAX_MADE:
                node.refuse("products with very many weights", f"up to {MAX_MADE} in all")
            if not np.abs(values).max(initial=0.0) <= MAX_WEIGHT:
                node.refuse("a product of very large weights", f"up to {MAX_WEIGHT:g}")

    def _population_shape(self, node: Node) -> Shape:
        if node.kind == "Input":
            declared, asked = declared_shape(node), self.reading.shape
            shape = declared or asked
            if shape is None:
                node.refuse("no shape", "one in the file, or given: --shape")
            if asked and three_axes(shape) != three_axes(asked):
                node.refuse(f"shape {shape}, and {asked} was given", "the file's shape")
        else:
            own = own_shape(node)
            known = [self.given[b].shape for b in self.before[node.name] if b in self.given]
            # Parameters may be stored flat, or once for all.
            same = [s for s in known if own is None or prod(s) == prod(own)]
            shape = same[0] if same else own
            assert shape is not None  # `_ready`
        shape = three_axes(shape)
        if len(shape) > 3:
            raise Unsupported(STAGE, f"node {node.name}", f"{len(shape)} axes; up to 3 are held")
        return shape

    def _arriving(self, node: Node, shape: Shape | None) -> Value:
        """The sum over all edges into a node, of one shape."""
        values = [self.given[b] for b in self.before[node.name]]
        shape = shape or values[0].shape
        constant = np.asarray(0.0)
        paths: list[Map] = []
        for b, value in zip(self.before[node.name], values, strict=True):
            if prod(value.shape) != prod(shape):
                node.refuse(f"{value.shape} from {b}", f"{prod(shape)} elements, for {shape}")
            reshaped = _reshaped(value, shape, node.name)
            paths += reshaped.paths
            constant = constant + reshaped.constant
        if len(paths) > MAX_MAPS:
            node.refuse(f"{len(paths)} paths into it", f"up to {MAX_MAPS}")
        return Value(shape=shape, paths=tuple(paths), constant=np.asarray(constant))

    def _through(self, node: Node, value: Value) -> Value:
        """What a node without state makes of what arrives."""
        match node.kind:
            case "Output" | "Through":
                declared = declared_shape(node)
                if declared and prod(declared) != prod(value.shape):
                    node.refuse(f"shape {declared}", f"{value.shape}, which arrives")
                return value
            case "Scale":
                return self._scale(node, value)
            case "Linear" | "Affine":
                return self._linear(node, value)
            case "Conv1d" | "Conv2d" | "SumPool2d" | "AvgPool2d":
                return self._convolve(node, value)
            case "Flatten":
                return _reshaped(value, three_axes(_flat(node, value.shape)), node.name)
            case "Delay":
                return self._delay(node, value)
        raise AssertionError(node.kind)

    def _scale(self, node: Node, value: Value) -> Value:
        scale = node.numbers("scale")
        if scale.size == 1:
            scale = scale.reshape(())
        elif scale.size == prod(value.shape):
            scale = scale.reshape(value.shape)
        else:
            node.refuse(f"scale of shape {scale.shape}", f"{value.shape}, which arrives")
        paths = tuple(maps.scaled(node.name, m, scale) for m in value.paths)
        return replace(value, paths=paths, constant=value.constant * scale)

    def _linear(self, node: Node, value: Value) -> Value:
        weight = node.numbers("weight")
        if weight.ndim != 2 or 0 in weight.shape or weight.shape[1] != prod(value.shape):
            node.refuse(f"weight of shape {weight.shape}", f"(n, {prod(value.shape)})")
        paths = tuple(maps.multiplied(node.name, m, weight) for m in value.paths)
        constant = np.asarray(0.0)
        if value.constant.any():
            constant = weight @ np.broadcast_to(value.constant, value.shape).reshape(-1)
        if node.kind == "Affine":
            bias = node.numbers("bias")
            if bias.size not in (1, len(weight)):
                node.refuse(f"bias of shape {bias.shape}", f"({len(weight)},)")
            constant = constant + bias.reshape(-1)
        if constant.size not in (1, len(weight)):
            constant = np.broadcast_to(constant, (len(weight),))
        return Value(shape=(len(weight),), paths=paths, constant=_narrow(constant))

    def _convolve(self, node: Node, value: Value) -> Value:
        kernel = kernel_of(node, value.shape)
        shape = maps.kernel_output(node.name, kernel, value.shape)
        own = node.kind in ("Conv1d", "Conv2d")
        paths = tuple(maps.convolved(node.name, m, kernel, own=own) for m in value.paths)
        constant = np.asarray(0.0)
        if value.constant.any():
            constant = maps.apply(kernel, node.name, value.constant, value.shape)
        if own and "bias" in node.fields:
            bias = node.numbers("bias")
            if bias.size not in (1, shape[0]):
                node.refuse(f"bias of shape {bias.shape}", f"({shape[0]},)")
            if bias.any():
                constant = np.broadcast_to(constant + bias.reshape(-1, 1, 1), shape)
        return Value(shape=shape, paths=paths, constant=_narrow(constant))

    def _delay(self, node: Node, value: Value) -> Value:
        seconds = np.unique(node.numbers("delay"))
        if seconds.size != 1:
            why = f"{seconds.size} different delays; a projection has one. Split the node"
            raise Unsupported(STAGE, f"node {node.name}", why)
        steps = float(seconds[0]) / self.dt
        if not -0.5 <= steps < 1e6:
            node.refuse(f"a delay of {seconds[0]:g} s", "0 or more, within the sample")
        whole = round(steps)
        if abs(whole - steps) > 1e-4:
            what = f"{steps:g} steps of {self.dt:g} s, rounded to {whole}"
            self.notes.append(Note(where=node.name, what=what))
        if value.constant.any():
            what = "what is constant passes without the delay, from the first step on"
            self.notes.append(Note(where=node.name, what=what))
        return replace(value, paths=tuple(replace(m, delay=m.delay + whole) for m in value.paths))


def kernel_of(node: Node, shape: Shape) -> Kernel:
    """The convolution that a node is for what arrives, (C, H, W)."""
    if len(shape) != 3:
        node.refuse(f"{shape} arrives", "(C, H, W), or (C, L) for one dimension")
    one = node.kind == "Conv1d"

    def pair(key: str, low: int, default: int | None = None) -> tuple[int, int]:
        if one:
            (value,) = node.integers(key, 1, low, default)
            return (low, value)
        a, b = node.integers(key, 2, low, default)
        return (a, b)

    if node.kind in ("SumPool2d", "AvgPool2d"):
        size, padding = pair("kernel_size", 1), pair("padding", 0, 0)
        limits = [n + 2 * p for n, p in zip(shape[1:], padding, strict=True)]
        if size[0] > limits[0] or size[1] > limits[1]:
            node.refuse(f"a window of {size}", f"up to {tuple(limits)}")
        factor = 1.0 if node.kind == "SumPool2d" else 1.0 / prod(size)
        weight = np.broadcast_to(factor, (shape[0], 1, *size))
        return Kernel(
            weight=weight,
            stride=pair("stride", 1),
            padding=padding,
            dilation=(1, 1),
            groups=shape[0],
        )
    weight = node.numbers("weight")
    if weight.ndim != (3 if one else 4) or 0 in weight.shape:
        node.refuse(f"weight of shape {weight.shape}", "[C_out, C_in / groups, kernel]")
    weight = weight[:, :, None] if one else weight
    (groups,) = node.integers("groups", 1, 1, 1)
    stride, dilation = pair("stride", 1, 1), pair("dilation", 1, 1)
    said = node.fields.get("padding", 0)
    if isinstance(said, str) and said == "valid":
        padding = (0, 0)
    elif isinstance(said, str):
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if said != "same" or stride != (1, 1) or any(r % 2 for r in reach):
            node.refuse(f"padding {said!r:.40}", "numbers, 'valid', or 'same' that is symmetric")
        padding = (reach[0] // 2, reach[1] // 2)
    else:
        padding = pair("padding", 0, 0)
    return Kernel(weight=weight, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _flat(node: Node, shape: Shape) -> Shape:
    """What `Flatten` makes of a shape; NIR's shapes have no batch axis."""
    (first,), (last,) = (
        node.integers(key, 1, -8, default) for key, default in (("start_dim", 0), ("end_dim", -1))
    )
    start, end = (v + len(shape) if v < 0 else v for v in (first, last))
    if not 0 <= start <= end < len(shape):
        # A tool that counts the batch axis starts at 1, and means all of them.
        if len(shape) > 1:
            node.refuse(f"axes {first} to {last} of {shape}", "axes that there are")
        return shape
    return (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])


def _reshaped(value: Value, shape: Shape, name: str) -> Value:
    """The same elements in the same order, under another shape."""
    if value.shape == shape:
        return value
    paths = []
    for m in value.paths:
        linear = m.linear
        if isinstance(linear, Kernel):
            linear = Matrix(weight=maps.matrix(name, m))
        elif isinstance(linear, Diagonal) and linear.scale.size > 1:
            linear = Diagonal(scale=linear.scale.reshape(shape))
        paths.append(replace(m, shape=shape, linear=linear))
    constant = value.constant
    if constant.size > 1:
        constant = constant.reshape(shape)
    return Value(shape=shape, paths=tuple(paths), constant=constant)


def _narrow(constant: Array) -> Array:
    """Without axes where all are the same."""
    flat = constant.reshape(-1)
    return flat[:1].reshape(()) if (flat == flat[0]).all() else constant
