"""Stands in for the adapters of Intel's extension: they pass messages on, some steps late."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class _Adapter(AbstractProcess):  # type: ignore[misc]
    def __init__(self, *, shape: tuple[int, ...], wait: int) -> None:
        super().__init__(wait=wait)
        self.inp = InPort(shape=shape)
        self.out = OutPort(shape=shape)


class PyToNxAdapter(_Adapter):
    def __init__(self, *, shape: tuple[int, ...]) -> None:
        super().__init__(shape=shape, wait=int(os.environ.get("STAND_IN_INPUT", "0")))


class NxToPyAdapter(_Adapter):
    def __init__(self, *, shape: tuple[int, ...]) -> None:
        super().__init__(shape=shape, wait=int(os.environ.get("STAND_IN_OUTPUT", "0")))


class _Model(PyLoihiProcessModel):  # type: ignore[misc]
    inp: Any = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    out: Any = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.line: deque[Any] = deque([None] * proc_params["wait"])

    def run_spk(self) -> None:
        message = self.inp.recv()
        self.line.append(message)
        due = self.line.popleft()
        self.out.send(np.zeros_like(message) if due is None else due)


@implements(proc=PyToNxAdapter, protocol=LoihiProtocol)
@requires(CPU)
class PyToNxModel(_Model):
    pass


@implements(proc=NxToPyAdapter, protocol=LoihiProtocol)
@requires(CPU)
class NxToPyModel(_Model):
    pass
