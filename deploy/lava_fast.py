"""Process models of ours for stock processes of Lava: the same integers, sooner.

Selected through the run configuration in place of the stock models; the processes, their ports
and their parameters stay Lava's. Bit-identical to the stock models wherever those are exact,
their wraps included (`tests/test_lava_fast.py`). Weights are read once, at the first message:
what a caller writes into a running process's weights (`Var.set`) is not seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.conv.models import PyConvModelFixed
from lava.proc.conv.process import Conv as LavaConv
from lava.proc.dense.models import PyDelayDenseModelBitAcc
from lava.proc.dense.process import DelayDense as LavaDelayDense
from lava.proc.sparse.models import PyDelaySparseModelBitAcc
from lava.proc.sparse.process import DelaySparse as LavaDelaySparse
from numpy.lib.stride_tricks import sliding_window_view

from stformer.bounds import FLOAT32_EXACT

Floats = npt.NDArray[Any]  # float32 or float64
Real = type[np.float32] | type[np.float64]


@implements(proc=LavaConv, protocol=LoihiProtocol)
@requires(CPU)
class PyConvModelFast(PyConvModelFixed):  # type: ignore[misc] # lava has no types
    """Lava's `Conv` as matrix products, one a group, in place of one loop per channel pair.

    Lava adds up in float64, casts to int32 and wraps to signed 24 bits; so does this, and in
    float32 where no sum can reach 2^24.
    """

    # Lava keeps these in int8, and computes with them there.
    kernel_size: Any = LavaPyType(np.ndarray, np.int32, precision=32)
    stride: Any = LavaPyType(np.ndarray, np.int32, precision=32)
    padding: Any = LavaPyType(np.ndarray, np.int32, precision=32)
    dilation: Any = LavaPyType(np.ndarray, np.int32, precision=32)
    groups: Any = LavaPyType(np.ndarray, np.int32, precision=32)
    a_buf: Any
    _matrices: dict[Real, Floats] | None = None
    _reach = 0

    def run_spk(self) -> None:
        """As Lava's: send what arrived in the last step, then convolve what arrives in this."""
        self.a_out.send(self.a_buf)
        message = self.s_in.recv()
        if not self.num_message_bits.item():
            message = message.astype(bool)
        self.a_buf = self._convolve(message) if message.any() else np.zeros_like(self.a_buf)

    def _convolve(self, message_WHC: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        if self._matrices is None:
            self._matrices = {}
            self._reach = int(np.abs(self.weight, dtype=np.int64).sum(axis=(1, 2, 3)).max())
        largest = int(np.abs(message_WHC, dtype=np.int64).max())
        exact: Real = np.float32 if self._reach * largest < FLOAT32_EXACT else np.float64
        if exact not in self._matrices:
            self._matrices[exact] = self._matrix(exact)
        patches = self._patches(message_WHC.astype(exact))
        sums = np.matmul(patches, self._matrices[exact])  # [group, W * H, C_out / groups]
        width, height, channels = self.a_out.shape
        out = sums.transpose(1, 0, 2).reshape(width, height, channels).astype(np.int32)
        wrapped: npt.NDArray[np.int32] = self.clamp_precision(out)
        return wrapped

    def _matrix(self, exact: Real) -> Floats:
        """[group, C_in / groups * kernel, C_out / groups]; a convolution flips its kernels."""
        groups = int(self.groups[0])
        flipped = self.weight[:, ::-1, ::-1, :].transpose(3, 1, 2, 0)
        matrix = flipped.reshape(-1, groups, self.weight.shape[0] // groups)
        return np.ascontiguousarray(matrix.transpose(1, 0, 2), exact)

    def _patches(self, message_WHC: Floats) -> Floats:
        """[group, W * H of the target, C_in / groups * kernel]: what each target neuron sees."""
        (pad_x, pad_y), (step_x, step_y) = self.padding.tolist(), self.stride.tolist()
        (gap_x, gap_y), groups = self.dilation.tolist(), int(self.groups[0])
        size_x, size_y = self.weight.shape[1:3]
        padded: Any = np.pad(message_WHC, ((pad_x, pad_x), (pad_y, pad_y), (0, 0)))
        reach = (gap_x * (size_x - 1) + 1, gap_y * (size_y - 1) + 1)
        windows: Any = sliding_window_view(padded, reach, (0, 1))  # type: ignore[call-overload]
        seen = windows[::step_x, ::step_y, :, ::gap_x, ::gap_y]
        patches: Floats = seen.reshape(seen.shape[0] * seen.shape[1], groups, -1)
        return patches.transpose(1, 0, 2)


@implements(proc=LavaDelayDense, protocol=LoihiProtocol)
@requires(CPU)
class PyDelayDenseModelFast(PyDelayDenseModelBitAcc):  # type: ignore[misc]
    """Lava's `DelayDense` with its weights spread over the delays once, not in every step."""

    a_buff: Any
    _spread: Any = None

    def calc_act(self, s_in: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What a step's messages add, [n_post, max_delay + 1]; silent columns are left out."""
        delays = self.a_buff.shape[-1]
        if self._spread is None:
            self._spread = self.get_delay_wgts_mat(self.weights, self.delays, delays - 1)
        sends = np.flatnonzero(s_in)
        added = np.sum(self._spread[:, sends] * s_in[sends], axis=1)
        by_delay: npt.NDArray[Any] = added.reshape(delays, -1).T
        return by_delay


@implements(proc=LavaDelaySparse, protocol=LoihiProtocol)
@requires(CPU)
class PyDelaySparseModelFast(PyDelaySparseModelBitAcc):  # type: ignore[misc]
    """Lava's `DelaySparse` with its weights spread over the delays once, not in every step."""

    a_buff: Any
    _spread: Any = None

    def calc_act(self, s_in: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What a step's messages add, [n_post, max_delay + 1]."""
        delays = self.a_buff.shape[-1]
        if self._spread is None:
            self._spread = self.get_delay_wgts_mat(self.weights, self.delays, delays - 1).tocsr()
        by_delay: npt.NDArray[Any] = self._spread.dot(s_in).reshape(delays, -1).T
        return by_delay
