"""Lava processes of ours, for what stock Lava has no process for, and their models.

Real processes with ports of their own: `lava-sim-fast` puts them between stock ones.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from stformer import fixedpoint as fx
from stformer.network import Graded, IntArray, Product, Shape, bias_of, neurons


class Axon(AbstractProcess):  # type: ignore[misc] # lava has no types
    """Hands on what it is given, late, and drops what would reach another sample.

    It takes no step of its own, as a synapse does: with `wait` 0, a message leaves in the step
    in which it came.

    Args:
        shape: of its messages.
        wait: steps.
        keep: one truth value a step of a sample; what comes in Lava's time step t (from 1) is
            handed on where keep[(t - 1) % len(keep)].
    """

    def __init__(self, *, name: str, shape: Shape, wait: int, keep: list[bool]) -> None:
        super().__init__(name=name, wait=wait, keep=keep)
        self.s_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)


class GradedSums(AbstractProcess):  # type: ignore[misc]
    """The population `Graded`: sends what arrives, biased and shifted, in the same step."""

    def __init__(self, p: Graded) -> None:
        bias = np.broadcast_to(bias_of(p), p.shape).reshape(-1)
        super().__init__(name=p.name)
        self.a_in = InPort(shape=(neurons(p),))
        self.s_out = OutPort(shape=(neurons(p),))
        self.bias = Var(shape=bias.shape, init=bias)
        self.shift = Var(shape=(1,), init=p.shift)


class MatrixProduct(AbstractProcess):  # type: ignore[misc]
    """The population `Product`: the product of what came in the step before.

    Args:
        p: the population.
        left, right: shapes of its factors, which come flat.
    """

    def __init__(self, p: Product, *, left: Shape, right: Shape) -> None:
        super().__init__(name=p.name, mode=p.mode, left_shape=left, right_shape=right)
        self.left = InPort(shape=(int(np.prod(left)),))
        self.right = InPort(shape=(int(np.prod(right)),))
        self.s_out = OutPort(shape=(neurons(p),))
        self.heads = Var(shape=(1,), init=p.heads)


@implements(proc=Axon, protocol=LoihiProtocol)
@requires(CPU)
class PyAxonModel(PyLoihiProcessModel):  # type: ignore[misc]
    s_in: Any = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: Any = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.keep: list[bool] = proc_params["keep"]
        self.line: deque[IntArray | None] = deque([None] * proc_params["wait"])

    def run_spk(self) -> None:
        message = self.s_in.recv()
        passes = self.keep[(self.time_step - 1) % len(self.keep)]
        self.line.append(message if passes else None)
        due = self.line.popleft()
        self.s_out.send(np.zeros_like(message) if due is None else due)


@implements(proc=GradedSums, protocol=LoihiProtocol)
@requires(CPU)
class PyGradedSumsModel(PyLoihiProcessModel):  # type: ignore[misc]
    a_in: Any = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: Any = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    bias: Any = LavaPyType(np.ndarray, np.int32, precision=24)
    shift: Any = LavaPyType(np.ndarray, np.int32, precision=5)

    def run_spk(self) -> None:
        sums = self.a_in.recv().astype(np.int64)
        self.s_out.send(fx.graded(sums, self.bias.astype(np.int64), int(self.shift[0])))


@implements(proc=MatrixProduct, protocol=LoihiProtocol)
@requires(CPU)
class PyMatrixProductModel(PyLoihiProcessModel):  # type: ignore[misc]
    left: Any = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    right: Any = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: Any = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    heads: Any = LavaPyType(np.ndarray, np.int32, precision=17)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.due: IntArray | None = None

    def run_spk(self) -> None:
        """Send first, as Lava's synapses do: a product may be part of a loop."""
        self.s_out.send(np.zeros(self.s_out.shape, np.int32) if self.due is None else self.due)
        left, right = (port.recv().astype(np.int64) for port in (self.left, self.right))
        self.due = self._multiply(left, right) if left.any() and right.any() else None

    def _multiply(self, left: IntArray, right: IntArray) -> IntArray:
        channels, *size = self.proc_params["right_shape"]
        heads, tokens = int(self.heads[0]), int(np.prod(size))
        right_HDM = right.reshape(heads, channels // heads, tokens)
        if self.proc_params["mode"] == "scores":
            product = left.reshape(right_HDM.shape).transpose(0, 2, 1) @ right_HDM
        else:
            product = right_HDM @ left.reshape(heads, tokens, tokens).transpose(0, 2, 1)
        clipped: IntArray = fx.clip(product).reshape(-1)
        return clipped
