"""A thin layer over ONNX's protobuf: nodes one after the other, constants and names once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from stformer import __version__
from stformer.network import Shape

OPSET = 18  # the first whose Pad takes axes; onnxruntime has run it since 1.14
IR_VERSION = 8  # the one that came with it

Array = npt.NDArray[Any]
Dim = int | str


class Graph:
    """One graph that grows, and the bodies of its Scans, one at a time.

    A body has constants of its own: tools that cut graphs lose those of the graph around it.
    """

    def __init__(self) -> None:
        self._scope = _Scope(prefix="")
        self._taken: set[str] = set()

    def reserve(self, names: Sequence[str]) -> None:
        """Keep names for `output`."""
        self._taken |= set(names)

    def fresh(self, name: str) -> str:
        """This name, or the next one to it that is still free."""
        while name in self._taken:
            name += "'"
        self._taken.add(name)
        return name

    def add(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """A node of one output; returns the output's name, which is `name` if that is free."""
        return self.add_many(op, inputs, [name], **attributes)[0]

    def add_many(
        self,
        op: str,
        inputs: Sequence[str],
        names: Sequence[str],
        *,
        label: str = "",
        **attributes: Any,
    ) -> list[str]:
        """A node of several outputs, called `label`, or else as its last output."""
        outputs = [self.fresh(name) for name in names]
        label = label or outputs[-1]  # onnxruntime wants them to differ
        self._scope.nodes.append(
            helper.make_node(op, list(inputs), outputs, name=label, **attributes)
        )
        return outputs

    def output(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> None:
        """A node whose output has a name that is already taken for it."""
        self._scope.nodes.append(
            helper.make_node(op, list(inputs), [name], name=f"{name}/out", **attributes)
        )

    def once(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """As `add`, but a second call with the same name returns the first one's output."""
        if name not in self._scope.known:
            self._scope.known[name] = self.add(op, inputs, name, **attributes)
        return self._scope.known[name]

    def parameter(self, name: str, value: Array) -> str:
        """A constant of the network, under its own name, in the type it has there."""
        self._scope.constants[name] = value
        return name

    def constant(self, value: Any, dtype: Any) -> str:
        """A constant of the format (a shape, a factor), shared by all who need the same."""
        array = np.asarray(value, dtype)
        return self.parameter(f"{self._scope.prefix}{constant_name(array)}", array)

    def cast(self, x: str, dtype: Any, name: str, found: Any = None) -> str:
        """x in another type; x itself where it is `found` to have that type already."""
        return x if found is dtype else self.add("Cast", [x], name, to=element(dtype))

    def reshape(self, x: str, shape: Sequence[int], name: str) -> str:
        return self.add("Reshape", [x, self.constant(shape, np.int64)], name)

    @contextmanager
    def body(self, prefix: str) -> Iterator[None]:
        """What is added in the block goes into a body, which `finish` ends there."""
        outer = self._scope
        self._scope = _Scope(prefix=f"{prefix}/")
        try:
            yield
        finally:
            self._scope = outer

    def finish(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.GraphProto:
        """The graph, or the body, of what was added."""
        constants = sorted(self._scope.constants.items())
        held = [numpy_helper.from_array(array, key) for key, array in constants]
        return helper.make_graph(self._scope.nodes, name, inputs, outputs, held)


@dataclass(slots=True, kw_only=True)
class _Scope:
    """A graph or body that is being written.

    Attributes:
        prefix: of shared constants, so that no body's hides one of the graph's.
        known: what `once` has made.
    """

    prefix: str
    constants: dict[str, Array] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    known: dict[str, str] = field(default_factory=dict)


def constant_name(array: Array) -> str:
    """What a shared constant is called: by its value."""
    return f"{array.dtype.name}/{array.tolist()}".replace(" ", "")


def element(dtype: Any) -> int:
    """ONNX's number of a NumPy type."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def value(name: str, dtype: Any, shape: Sequence[Dim]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element(dtype), list(shape))


def model(graph: onnx.GraphProto, metadata: dict[str, str], lanes: str) -> onnx.ModelProto:
    """A model with every shape in it.

    Args:
        lanes: what to call a first axis that inference has no name for; a second one is the
            batch.

    Raises:
        onnx.shape_inference.InferenceError: our own mistake.
    """
    proto = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="stformer",
        producer_version=__version__,
    )
    helper.set_model_props(proto, metadata)
    proto = onnx.shape_inference.infer_shapes(
        proto, check_type=True, strict_mode=True, data_prop=True
    )
    _name_axes(proto.graph, lanes)
    return proto


def _name_axes(graph: onnx.GraphProto, lanes: str) -> None:
    for info in graph.value_info:
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") and dim.dim_param != "batch":
                dim.dim_param = "batch" if axis else lanes
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _name_axes(attribute.g, lanes)


def only_shape(shape: Shape) -> list[int]:
    """For Reshape: the first axis takes what there is."""
    return [-1, *shape]
