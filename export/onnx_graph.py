"""A thin layer over ONNX's protobuf: nodes one after the other, constants and names once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from stformer import __version__
from stformer.network import IntArray, Shape

OPSET = 18  # the first whose Pad takes axes; onnxruntime has run it since 1.14
IR_VERSION = 8  # the one that came with it

Array = npt.NDArray[Any]
Dim = int | str
Body = tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto], onnx.GraphProto]


class Graph:
    """One graph that grows; a body of a Scan sees its names and constants.

    Attributes:
        constants: name -> array, the initializers.
        nodes: of the graph, or of the body that is being written.
    """

    def __init__(self) -> None:
        self.constants: dict[str, Array] = {}
        self.nodes: list[onnx.NodeProto] = []
        self._taken: set[str] = set()
        self._known: dict[str, str] = {}

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
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=label, **attributes))
        return outputs

    def output(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> None:
        """A node whose output has a name that is already taken for it."""
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"{name}/out", **attributes))

    def once(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """As `add`, but a second call with the same name returns the first one's output."""
        if name not in self._known:
            self._known[name] = self.add(op, inputs, name, **attributes)
        return self._known[name]

    def parameter(self, name: str, value: IntArray) -> str:
        """A constant of the network, under its own name, in the type it has there."""
        self.constants[name] = value
        return name

    def constant(self, value: Any, dtype: Any) -> str:
        """A constant of the format (a shape, a factor), shared by all who need the same."""
        array = np.asarray(value, dtype)
        name = f"{array.dtype.name}/{array.tolist()}".replace(" ", "")
        self.constants[name] = array
        return name

    def cast(self, x: str, dtype: Any, name: str, found: Any = None) -> str:
        """x in another type; x itself where it is `found` to have that type already."""
        return x if found is dtype else self.add("Cast", [x], name, to=element(dtype))

    def reshape(self, x: str, shape: Sequence[int], name: str) -> str:
        return self.add("Reshape", [x, self.constant(shape, np.int64)], name)

    @contextmanager
    def body(self) -> Iterator[list[onnx.NodeProto]]:
        """Nodes that are added in the block go into a body; what was known once, is not there."""
        outer = self.nodes, self._known
        self.nodes, self._known = [], dict(self._known)
        try:
            yield self.nodes
        finally:
            self.nodes, self._known = outer


def element(dtype: Any) -> int:
    """ONNX's number of a NumPy type."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def value(name: str, dtype: Any, shape: Sequence[Dim]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element(dtype), list(shape))


def model(
    graph: Graph,
    name: str,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    metadata: dict[str, str],
    lanes: str,
) -> onnx.ModelProto:
    """A model with every shape in it.

    Args:
        lanes: what to call a first axis that inference has no name for; a second one is the
            batch.

    Raises:
        onnx.shape_inference.InferenceError: our own mistake.
    """
    initializers = [numpy_helper.from_array(a, n) for n, a in sorted(graph.constants.items())]
    proto = helper.make_model(
        helper.make_graph(graph.nodes, name, inputs, outputs, initializers),
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
