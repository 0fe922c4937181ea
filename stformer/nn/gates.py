"""Blocks without weights to train: gates, joins, pools of spikes, and sums over tokens.

Every one is an LIF population with fixed weights of +-2 (threshold 1 for "any", 3 for "both"),
memoryless (dv 4095) except the sums. On tensors the gates compute products, which are the same
spikes and have the gradients that training needs.

Shape legend: T steps, B batch, C channels, H, W.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from stformer import fixedpoint as fx
from stformer.builder import Wire
from stformer.network import (
    BroadcastTokens,
    Conv,
    Lif,
    OneToOne,
    Projection,
    Shape,
    SumTokens,
    conv_output,
    no_bias,
)
from stformer.nn.neuron import Neuron, lif, lif_states
from stformer.nn.weighted import Spiking, over_time

UNIT = 2  # weight of a gate's synapse: 2 << 6 exceeds a threshold of 1 << 6
ANY, BOTH = 1, 3  # thresholds

Residual = Literal["iand", "or", "add"]


def _template(
    kind: type[OneToOne] | type[SumTokens] | type[BroadcastTokens], w: int
) -> Projection:
    return kind(name="", pre="", post="", weight=w)


class Fixed(Spiking):
    """Base of populations whose synapses are fixed: one population, any number of inputs."""

    vth = ANY
    neuron = Neuron(dv=fx.MEMORYLESS)

    def _add(self, wire: Wire, shape: Shape) -> Wire:
        return wire.builder.add(
            Lif(
                name=self.population,
                shape=shape,
                vth=self.vth,
                dv=self.neuron.dv,
                bias_mant=no_bias(shape),
            )
        )

    def _record(self, a: Tensor) -> None:
        if self.recorder is not None:
            result = lif_states(a, self.neuron, 0.0, self.vth)
            self.recorder(self.population, result.s, result.u, result.v)


class Gate(Fixed):
    """x and y, per neuron; y may be one spike per channel, [T, B, C, 1, 1], for all tokens."""

    vth = BOTH

    def forward(self, x: Any, y: Any) -> Any:
        if isinstance(x, Wire):
            out = self._add(x, x.shape)
            x.builder.connect(x, self.population, _template(OneToOne, UNIT))
            kind = OneToOne if y.shape == x.shape else BroadcastTokens
            x.builder.connect(y, self.population, _template(kind, UNIT))
            return _single(out, x, y)
        self._record(UNIT * x + UNIT * y)
        return x * y


class HeadGate(Fixed):
    """x and y, where y has one spike per head and token, [T, B, heads, H, W] (QKFormer)."""

    vth = BOTH

    def forward(self, x: Any, y: Any) -> Any:
        if isinstance(x, Wire):
            heads, channels = y.shape[0], x.shape[0]
            out = self._add(x, x.shape)
            x.builder.connect(x, self.population, _template(OneToOne, UNIT))
            spread = np.full((channels, 1, 1, 1), UNIT, np.int8)
            x.builder.connect(
                y, self.population, Conv(name="", pre="", post="", weight=spread, groups=heads)
            )
            return _single(out, x, y)
        y = y.repeat_interleave(x.shape[2] // y.shape[2], dim=2)
        self._record(UNIT * x + UNIT * y)
        return x * y


class Join(Fixed):
    """Residual junction of a skip x and a branch r.

    Args:
        kind: "iand" x and not r; "or" either; "add" the sum 0, 1, 2..., which needs no
            population: whatever follows gets one more projection.
    """

    def __init__(self, kind: Residual) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Any, r: Any) -> Any:
        if self.kind == "add":
            return x + r
        sign = -1 if self.kind == "iand" else 1
        if isinstance(x, Wire):
            out = self._add(x, x.shape)
            x.builder.connect(x, self.population, _template(OneToOne, UNIT))
            x.builder.connect(r, self.population, _template(OneToOne, sign * UNIT))
            return _single(out, x, r)
        self._record(UNIT * x + sign * UNIT * r)
        return x * (1 - r) if self.kind == "iand" else x + r - x * r


class Pool(Fixed):
    """Max-pooling of spikes: an OR over a window.

    Args:
        kernel, stride, padding: of the window; the baseline's is 3, 2, 1.
    """

    def __init__(self, kernel: int = 3, stride: int = 2, padding: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Any) -> Any:
        if isinstance(x, Wire):
            conv = Conv(
                name="",
                pre="",
                post="",
                weight=np.full((x.shape[0], 1, self.kernel, self.kernel), UNIT, np.int8),
                stride=(self.stride, self.stride),
                padding=(self.padding, self.padding),
                groups=x.shape[0],
            )
            out = self._add(x, (x.shape[0], *conv_output(conv, *x.shape[1:])))
            x.builder.connect(x, self.population, conv)
            return _single(out, x)
        if self.recorder is not None:
            ones = x.new_full((x.shape[2], 1, self.kernel, self.kernel), UNIT)
            self._record(
                over_time(
                    lambda s: F.conv2d(
                        s, ones, stride=self.stride, padding=self.padding, groups=s.shape[1]
                    ),
                    x,
                )
            )
        return over_time(lambda s: F.max_pool2d(s, self.kernel, self.stride, self.padding), x)


class TokenSum(Fixed):
    """SN of the sum over all tokens, per channel: [T, B, C, H, W] to [T, B, C, 1, 1].

    Args:
        neuron: v_th = 0.5 for the paper's half threshold: with tau 2 the membrane, which
            counts spikes, fires above 1.
    """

    def __init__(self, neuron: Neuron) -> None:
        super().__init__()
        self.neuron = neuron
        self.vth = sum_threshold(neuron)

    def forward(self, x: Any) -> Any:
        if isinstance(x, Wire):
            out = self._add(x, (x.shape[0], 1, 1))
            x.builder.connect(x, self.population, _template(SumTokens, UNIT))
            return out
        a = UNIT * x.sum((-2, -1), keepdim=True)
        self._record(a)
        return lif(a, self.neuron, vth=self.vth)


class HeadSum(Fixed):
    """SN of the sum over the channels of each head: [T, B, C, H, W] to [T, B, heads, H, W]."""

    def __init__(self, heads: int, neuron: Neuron) -> None:
        super().__init__()
        self.heads, self.neuron = heads, neuron
        self.vth = sum_threshold(neuron)

    def forward(self, x: Any) -> Any:
        if isinstance(x, Wire):
            out = self._add(x, (self.heads, *x.shape[1:]))
            gather = np.full((self.heads, x.shape[0] // self.heads, 1, 1), UNIT, np.int8)
            x.builder.connect(
                x,
                self.population,
                Conv(name="", pre="", post="", weight=gather, groups=self.heads),
            )
            return out
        a = UNIT * x.unflatten(2, (self.heads, -1)).sum(3)
        self._record(a)
        return lif(a, self.neuron, vth=self.vth)


def sum_threshold(neuron: Neuron, scale: float = 1.0) -> int:
    """Threshold, in weight units, of a population that counts: tau * v_th of scale * count."""
    return max(round(UNIT * neuron.v_th / (neuron.gain * scale)), 1)


def _single(out: Wire, *inputs: Wire) -> Wire:
    """`out`, after making sure that each input is one population's spikes."""
    for wire in inputs:
        _ = wire.only
    return out
