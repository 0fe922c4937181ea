"""A Lava process that reads the states of many others after every step.

Lava's own means cost one process for each variable (`io.sink.Read`, `Monitor`), or two
(`io.extractor.VarWire`), and `Var.get` hands results over one number at a time. This one reads
any number of variables through RefPorts, as those do, in the same phase of the step, and sends
them on as one vector. It only reads, and computes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyOutPort, PyRefPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import OutPort, RefPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


def make_tap(read: list[Any], anchors: list[Any]) -> tuple[Any, type[Any]]:
    """A tap on the given Vars.

    Args:
        read: Vars whose values it sends, one after the other, after every step.
        anchors: Vars that it is merely connected to: Lava runs only what hangs together.

    Returns:
        (the process, its model). Its `out` port sends int32 [sum of sizes], or nothing at all
        when there is nothing to read.
    """
    names = [f"state_{i}" for i in range(len(read) + len(anchors))]
    size = max(1, sum(int(np.prod(var.shape)) for var in read))

    class Tap(AbstractProcess):  # type: ignore[misc] # lava has no types
        def __init__(self) -> None:
            super().__init__(read=names[: len(read)])
            self.out = OutPort(shape=(size,))
            for name, var in zip(names, [*read, *anchors], strict=True):
                setattr(self, name, RefPort(var.shape))

    ports = {name: LavaPyType(PyRefPort.VEC_DENSE, np.int32) for name in names}
    model = type("PyTapModel", (_TapModel,), ports)
    model = implements(proc=Tap, protocol=LoihiProtocol)(requires(CPU)(model))
    tap = Tap()
    for name, var in zip(names, [*read, *anchors], strict=True):
        getattr(tap, name).connect_var(var)
    return tap, model


class _TapModel(PyLoihiProcessModel):  # type: ignore[misc]
    out: Any = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    proc_params: Any

    def post_guard(self) -> Any:
        """Whether this process wants the management phase, where states may be read."""
        return bool(self.proc_params["read"])

    def run_post_mgmt(self) -> None:
        # Flat as they are; frames of netx are W, H, C, and leave as C, H, W.
        values = [getattr(self, name).read().T.ravel() for name in self.proc_params["read"]]
        self.out.send(np.concatenate(values).astype(np.int32))
