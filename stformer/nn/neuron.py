"""The training neuron: an integer or float LIF forward, a surrogate gradient backward.

Shapes: T time steps, B batch, the rest is the population's shape.

The integer forward is `stformer.fixedpoint`, the code that the reference interpreter runs. The
float forward is the same equation on real numbers, with the threshold at 1. Both fire on `>`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stformer import fixedpoint as fx

SURROGATE_SLOPE = 4.0  # of the sigmoid, as in the paper's baseline


@dataclass(frozen=True, kw_only=True)  # no slots: torch.compile needs weak references
class Neuron:
    """What a user chooses of an LIF population (paper Eq. 1-3).

    Attributes:
        dv: membrane decay, 0...4095; the paper's tau is 4096 / dv.
        v_th: threshold in the baseline's unit (1 normally, 0.5 behind attention sums). The
            float neuron's threshold is 1 whatever v_th is; v_th scales the argument of the
            surrogate, (v - theta)/tau in units of theta, without which deep networks stall
            (docs/decisions/0004).
    """

    dv: int = 2048
    v_th: float = 1.0

    @property
    def gain(self) -> float:
        """1/tau: what the baseline multiplies its input with; the initial scale of norms."""
        return self.dv / fx.DECAY_ONE


@dataclass(frozen=True, slots=True)
class Spikes:
    """Result of a LIF run: spikes as 0/1 floats [T, B, ...]; states int64, when recorded."""

    s: Tensor
    u: Tensor | None = None
    v: Tensor | None = None


def lif(
    a: Tensor, neuron: Neuron, *, bias: Tensor | float = 0.0, vth: int | None = None
) -> Tensor:
    """Spikes of an LIF population, with gradients.

    Args:
        a: arriving sums [T, B, ...]. With `vth`, whole numbers below 2^24 in magnitude.
            Mixed precision ends here: half-precision sums become float32, and so do spikes.
        neuron: decay and surrogate.
        bias: broadcastable to a step of `a`; with `vth`, whole numbers in units of 1/64.
        vth: threshold mantissa; None runs the float neuron (threshold 1).

    Returns:
        0/1 floats of a's shape, float32 at least.
    """
    if a.dtype in (torch.float16, torch.bfloat16):
        a = a.float()
    bias = torch.as_tensor(bias, dtype=a.dtype, device=a.device)
    out: Tensor = _Lif.apply(a, bias, neuron, vth)  # type: ignore[no-untyped-call]
    return out


def lif_states(a: Tensor, neuron: Neuron, bias: Tensor | float, vth: int) -> Spikes:
    """Integer LIF without gradients: spikes, and u and v after every step, as int64."""
    sums = _whole(a)
    bias_ = _whole(torch.as_tensor(bias, dtype=torch.float64))
    u = v = torch.zeros_like(sums[0])
    steps = []
    for a_t in sums:
        s, u, v = fx.lif_step(u, v, a_t, du=fx.NO_CURRENT, dv=neuron.dv, vth=vth, bias=bias_)
        steps.append((s, u, v))
    s_, u_, v_ = (torch.stack(column) for column in zip(*steps, strict=True))
    return Spikes(s_.to(a.dtype), u_, v_)


def _whole(x: Tensor) -> Tensor:
    return x.detach().round().to(torch.int64)


class _Lif(torch.autograd.Function):
    """Backward of v_t = k v_{t-1} (1 - s_{t-1}) + x_t, s_t = H(v_t - theta), reset detached."""

    @staticmethod
    def forward(ctx, a, bias, neuron, vth):  # type: ignore[no-untyped-def]
        keep = a.requires_grad or bias.requires_grad
        spikes = torch.empty_like(a)
        over = torch.empty_like(a) if keep else None  # v / theta - 1, before the reset
        if vth is None:
            theta, v = 1.0, torch.zeros_like(a[0])
            for t in range(len(a)):
                v = v * (1 - neuron.gain) + a[t] + bias
                s = v > theta
                spikes[t] = s
                if over is not None:
                    over[t] = v - 1
                v = v * ~s
        else:
            theta = float(vth << fx.SHIFT)
            sums, bias_ = _whole(a), _whole(bias)
            u = v = torch.zeros_like(sums[0])
            for t in range(len(a)):
                u = fx.current(u, sums[t], fx.NO_CURRENT)
                v = fx.membrane(v, u, neuron.dv, bias_)
                if over is not None:
                    over[t] = v.to(a.dtype) / theta - 1
                s, v = fx.fire(v, vth)
                spikes[t] = s
        if keep:
            ctx.save_for_backward(spikes, over)
            ctx.neuron, ctx.bias_shape = neuron, bias.shape
            ctx.per_sum = 1.0 if vth is None else 1.0 / vth  # d(v/theta) / da
            ctx.per_bias = 1.0 / theta
        return spikes

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        spikes, over = ctx.saved_tensors
        p = torch.sigmoid(SURROGATE_SLOPE * ctx.neuron.v_th * over)
        slope = SURROGATE_SLOPE * ctx.neuron.v_th * p * (1 - p)
        k = 1 - ctx.neuron.gain
        out = torch.empty_like(grad)
        carry = torch.zeros_like(grad[0])
        for t in range(len(grad) - 1, -1, -1):
            g = grad[t] * slope[t] + carry * (1 - spikes[t])
            out[t] = g
            carry = k * g
        grad_bias = None
        if ctx.needs_input_grad[1]:
            grad_bias = sum_to(out, ctx.bias_shape) * ctx.per_bias
        return out * ctx.per_sum, grad_bias, None, None


def sum_to(x: Tensor, shape: torch.Size) -> Tensor:
    """Sum a gradient back to the shape that was broadcast."""
    while x.dim() > len(shape):
        x = x.sum(0)
    for axis, size in enumerate(shape):
        if size == 1 and x.shape[axis] != 1:
            x = x.sum(axis, keepdim=True)
    return x
