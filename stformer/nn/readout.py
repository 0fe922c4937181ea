"""The classification head: mean over tokens and time, linear, as non-spiking accumulators."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stformer import fixedpoint as fx
from stformer.builder import Wire
from stformer.network import Conv, Network
from stformer.network import Readout as ReadoutPopulation
from stformer.nn.weighted import Spiking, bias_exponent, round_ste, to_numpy

# Synapses of one neuron: with more, no core holds a class (docs/decisions/0013).
MOST_SYNAPSES = 8192


class Readout(Spiking):
    """logits = W mean_{t, tokens}(x) + b (paper Eq. 12 read as GAP over N and T).

    The integer life sums instead of averaging: v after the last step, summed over places, is
    the logit times T * N * scale, which leaves the order of the classes alone. A class has one
    place where its neuron can read all tokens, else several that read some rows each.

    Args:
        channels: of the input.
        classes: number of logits.
    """

    scale: Tensor
    bias_exp: Tensor
    graded = True

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_buffer("scale", torch.tensor(0.0))
        self.register_buffer("bias_exp", torch.tensor(0))
        self.ones = 1.0
        self.integer = False
        self._name = ""
        self.largest_sum = 0
        self.watch_sums = False

    def forward(self, x: Any) -> Any:
        """[T, B, C, H, W] to logits [B, classes], in the float network's unit in both lives."""
        if isinstance(x, Wire):
            return self._lower(x)
        if not self.integer:
            return x.mean((0, 3, 4)) @ self.weight.T + self.bias
        v = self._membrane(x)
        return (v[-1].sum(-1) / (self.scale * self.ones * (len(x) << fx.SHIFT))).to(x.dtype)

    @torch.no_grad()
    def quantise(self) -> None:
        """Put weights and bias on the chip's grid; the largest weight becomes 127."""
        if self.integer:
            return
        scale = fx.WEIGHT_RANGE[1] / max(float(self.weight.abs().max()), 1e-6)
        self.weight.mul_(scale)
        self.bias.mul_(scale)  # still per token: _bias_steps multiplies
        self.scale.fill_(scale)
        self.integer = True

    def fix_bias(self, ones: float, least: int = 0) -> None:
        """Choose the bias exponent; called once, when quantising.

        Args:
            ones: what the tokens of the integer input add up to where the mean of the float
                one is 1: their number for spikes.
            least: smallest exponent, 0...7.
        """
        self.ones = ones
        largest = float(self.bias.detach().abs().max()) * ones
        self.bias_exp.fill_(max(least, bias_exponent(largest)))

    @torch.no_grad()
    def halve(self) -> None:
        """Halve weights and bias: the same logits on a coarser grid."""
        self.weight.mul_(0.5)
        self.bias.mul_(0.5)
        self.scale.mul_(0.5)

    def _bias_steps(self) -> Tensor:
        unit = 2.0 ** (int(self.bias_exp) - fx.SHIFT)
        low, high = fx.BIAS_MANT_RANGE
        return round_ste(self.bias * self.ones / unit).clamp(low, high)

    def _weights(self) -> Tensor:
        return round_ste(self.weight).clamp(*fx.WEIGHT_RANGE)

    def _rows(self, height: int, width: int) -> int:
        """Rows of tokens that one neuron reads: an equal share that fits, else one."""
        row = self.weight.shape[1] * width
        shares = [r for r in range(height, 0, -1) if height % r == 0]
        return next((r for r in shares if r * row <= MOST_SYNAPSES), 1)

    def _membrane(self, x: Tensor) -> Tensor:
        """v after every step, float64 [T, B, classes, places]: whole numbers below 2^23."""
        rows = self._rows(*x.shape[3:])
        parts = x.double().reshape(*x.shape[:3], -1, rows * x.shape[4])
        tokens = parts.sum(4).transpose(2, 3)
        a = (tokens @ self._weights().double().T).transpose(2, 3)
        bias = torch.zeros(a.shape[2:], dtype=torch.float64, device=a.device)
        bias[:, 0] = self._bias_steps().double() * 2.0 ** int(self.bias_exp)
        largest = fx.STATE_MAX - 1
        steps = [torch.zeros_like(a[0])]
        for current in fx.wrap(a * 2**fx.SHIFT):
            steps.append((steps[-1] + current + bias).clamp(-largest, largest))
        v = torch.stack(steps[1:])
        if self.watch_sums:
            # A membrane at its end counts as a sum at its: both halve the scale.
            full = int(v.detach().abs().max()) * (fx.ACCUMULATOR_MAX + 1) // largest
            self.largest_sum = max(self.largest_sum, int(a.detach().abs().max()), full)
        if self.recorder is not None:
            whole = v.round().to(torch.int64)[..., None]
            self.recorder(self.population, whole, None, whole)
        return v

    def _lower(self, wire: Wire) -> Wire:
        _, height, width = wire.shape
        weights = to_numpy(self._weights()).astype(np.int8)
        rows = self._rows(height, width)
        places = height // rows
        bias = np.zeros((len(weights), places, 1), np.int16)
        bias[:, 0, 0] = to_numpy(self._bias_steps())
        out = wire.builder.add(
            ReadoutPopulation(
                name=self.population,
                shape=bias.shape,
                bias_mant=bias,
                bias_exp=int(self.bias_exp),
            )
        )
        kernel = np.ascontiguousarray(
            np.broadcast_to(weights[:, :, None, None], (*weights.shape, rows, width))
        )
        stride = (rows, width) if places > 1 else (1, 1)
        self._name = wire.builder.connect(
            wire, self.population, Conv(name="", pre="", post="", weight=kernel, stride=stride)
        )
        return out

    @torch.no_grad()
    def take_integers(self, network: Network) -> None:
        """Become what the network holds; see `Block.take_integers`."""
        population = network[self.population]
        assert isinstance(population, ReadoutPopulation)
        (kernel,) = (
            p.weight
            for p in network.incoming(self.population)
            if p.name == self._name and isinstance(p, Conv)
        )
        self.ones = float(kernel.shape[2] * kernel.shape[3] * population.shape[1])
        self.weight.copy_(torch.from_numpy(kernel[:, :, 0, 0].astype(np.float32)))
        self.bias_exp.fill_(population.bias_exp)
        mant = torch.from_numpy(population.bias_mant[:, 0, 0].astype(np.float32))
        self.bias.copy_(mant * 2.0 ** (population.bias_exp - fx.SHIFT) / self.ones)
        self.scale.fill_(1.0)
        self.integer = True
