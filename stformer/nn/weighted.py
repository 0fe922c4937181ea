"""What trains: convolutions onto a population and the norm over their sum.

Every population with weights has three lives:

* float: convolutions and batch norm on real numbers, for training;
* integer: folded, quantised weights held as whole numbers, for fine-tuning and evaluation,
  exactly the lowered network;
* wires: called with `Wire`s instead of tensors it adds its populations and projections to a
  network. There is one `forward`, so the lowered graph cannot differ from the trained one.

Shape legend: T steps, B batch, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stformer import fixedpoint as fx
from stformer.builder import Wire
from stformer.network import Conv, Dense, Graded, IntArray, Lif, Network, Shape, conv_output
from stformer.nn.neuron import sum_to

Recorder = Callable[[str, Tensor, "Tensor | None", "Tensor | None"], None]

BIAS_ROOM = 1.25  # for fine-tuning to move a bias


def round_ste(x: Tensor) -> Tensor:
    """Round to the nearest whole number (ties to even); the gradient passes straight through."""
    return x + (x.round() - x).detach()


class _Graded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, bias, shift):  # type: ignore[no-untyped-def]
        ctx.shift, ctx.bias_shape = shift, bias.shape
        whole = fx.graded(a.round().to(torch.int64), bias.round().to(torch.int64), shift)
        return whole.to(a.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        out = grad / 2.0**ctx.shift
        return out, sum_to(out, ctx.bias_shape) / 2**fx.SHIFT, None


def graded(a: Tensor, bias: Tensor, shift: int) -> Tensor:
    """`fixedpoint.graded` of whole-numbered floats; the gradient is that without rounding."""
    out: Tensor = _Graded.apply(a, bias, shift)  # type: ignore[no-untyped-call]
    return out


def over_time(fn: Callable[[Tensor], Tensor], x_TBCHW: Tensor) -> Tensor:
    """Apply a function of batches to every time step at once."""
    y = fn(x_TBCHW.flatten(0, 1))
    return y.reshape(*x_TBCHW.shape[:2], *y.shape[1:])


def delayed(x_TBCHW: Tensor, steps: int) -> Tensor:
    """x `steps` time steps later (negative: earlier), zeros where there is none."""
    if not steps:
        return x_TBCHW
    if abs(steps) >= len(x_TBCHW):
        return torch.zeros_like(x_TBCHW)
    if steps > 0:
        return torch.cat([torch.zeros_like(x_TBCHW[:steps]), x_TBCHW[:-steps]])
    return torch.cat([x_TBCHW[-steps:], torch.zeros_like(x_TBCHW[steps:])])


class Spiking(nn.Module):
    """Base of everything that is a population: it has a name, and reports what it did.

    Attributes:
        population: its name in the network; `stformer.lower` gives it the module's path.
        recorder: called with (name, what it sends, u, v), integer life only; None records nothing.
        graded: whether it sends numbers and not only spikes.
    """

    population: str = ""
    recorder: Recorder | None = None
    graded: bool = False
    forward: Callable[..., Any]

    def take_integers(self, network: Network) -> None:
        """Become, in the integer life, what the network holds; nothing where all is fixed."""


class Synapse(nn.Module):
    """One convolution onto a block's population, from one of the block's inputs.

    Args:
        c_in, c_out: channels.
        kernel: (h, w).
        source: index of the block's input.
        stride, padding, groups: as in torch.
        delay: time steps (a tap of a temporal convolution); negative looks ahead.
        first: index of the first of the population's channels that it reaches.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: tuple[int, int],
        *,
        source: int = 0,
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
        groups: int = 1,
        delay: int = 0,
        first: int = 0,
    ) -> None:
        super().__init__()
        self.source, self.stride, self.padding, self.groups = source, stride, padding, groups
        self.delay, self.first, self.c_out = delay, first, c_out
        self.weight = nn.Parameter(torch.empty(c_out, c_in // groups, *kernel))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x_TBCHW: Tensor, weight: Tensor, channels: int) -> Tensor:
        """Arriving sums [T, B, channels, H, W] for the given (float or whole) weights."""
        y = over_time(
            lambda x: F.conv2d(
                x, weight, stride=self.stride, padding=self.padding, groups=self.groups
            ),
            delayed(x_TBCHW, self.delay),
        )
        after = channels - self.first - self.c_out
        return F.pad(y, (0, 0, 0, 0, self.first, after)) if self.first or after else y


class Weighted(Spiking):
    """Convolutions from one or more inputs and the batch norm over their sum.

    Args:
        synapses: at least one.
        channels: of the population.
        gain: initial scale of the norm.
        bias: a bias in front of the norm, which the norm takes away again; the paper's
            baseline has some, and they count among its parameters.
    """

    bias_exp: Tensor

    def __init__(
        self, synapses: Sequence[Synapse], channels: int, gain: float, *, bias: bool = False
    ) -> None:
        super().__init__()
        self.synapses = nn.ModuleList(synapses)
        self.channels = channels
        self.norm: nn.BatchNorm2d | None = nn.BatchNorm2d(channels)
        nn.init.constant_(self.norm.weight, gain)
        self.linear_bias = nn.Parameter(torch.zeros(channels)) if bias else None
        # Integer life: units of one weight step; bias too, at 1/64.
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)
        self.register_buffer("bias_exp", torch.tensor(0))
        self.least_bias_exp = 0  # what a format asks for (`STFormerConfig.bias_exp`)
        self._names: dict[tuple[int, ...], str] = {}  # of projections, by synapse key
        self.largest_sum = 0  # of |arriving sum|, over everything seen since it was set to 0
        self.watch_sums = False

    @property
    def integer(self) -> bool:
        return self.norm is None

    def conv_synapses(self) -> list[Synapse]:
        return [s for s in self.synapses if isinstance(s, Synapse)]

    def _sums(self, inputs: tuple[Tensor, ...], weights: list[Tensor]) -> Tensor:
        parts = [
            s(inputs[s.source], w, self.channels)
            for s, w in zip(self.conv_synapses(), weights, strict=True)
        ]
        total: Tensor = reduce(torch.add, parts)
        return total

    def _normed(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The float life's arriving current [T, B, C, H, W]."""
        assert self.norm is not None
        a = self._sums(inputs, [s.weight for s in self.conv_synapses()])
        if self.linear_bias is not None:
            a = a + self.linear_bias[:, None, None]
        return over_time(self.norm, a)

    @torch.no_grad()
    def fold(self) -> tuple[float, float]:
        """Take the norm into weights and bias; (largest |weight|, largest |bias|) after it."""
        norm = self.norm
        assert norm is not None
        assert norm.running_var is not None
        assert norm.running_mean is not None
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        before = 0.0 if self.linear_bias is None else self.linear_bias
        self.bias.copy_(norm.bias + (before - norm.running_mean) * factor)
        for s in self.conv_synapses():
            rows = factor[s.first : s.first + s.c_out]
            s.weight.mul_(rows[:, None, None, None])
        self.norm = self.linear_bias = None
        largest = max(float(s.weight.abs().max()) for s in self.conv_synapses())
        return largest, float(self.bias.abs().max())

    def _scale(self, weights: float, bias: float) -> None:
        """Multiply weights and bias, which then is trained too and gets its exponent."""
        for s in self.conv_synapses():
            s.weight.mul_(weights)
        self.bias.mul_(bias)
        self.bias.requires_grad_(True)
        exponent = bias_exponent(float(self.bias.abs().max()))
        self.bias_exp.fill_(max(self.least_bias_exp, exponent))

    def _halve(self) -> None:
        for s in self.conv_synapses():
            s.weight.mul_(0.5)
        self.bias.mul_(0.5)

    def _bias_steps(self) -> Tensor:
        """bias_mant [C, 1, 1] as a whole-numbered float tensor with gradient."""
        unit = 2.0 ** (int(self.bias_exp) - fx.SHIFT)
        low, high = fx.BIAS_MANT_RANGE
        return round_ste(self.bias / unit).clamp(low, high)[:, None, None]

    def whole_bias(self) -> Tensor:
        """bias_mant << bias_exp, [C, 1, 1], in units of 1/64."""
        return self._bias_steps() * 2.0 ** int(self.bias_exp)

    def bias_mant(self) -> IntArray:
        return to_numpy(self._bias_steps()).astype(np.int16)

    def whole_weights(self) -> list[Tensor]:
        low, high = fx.WEIGHT_RANGE
        return [round_ste(s.weight).clamp(low, high) for s in self.conv_synapses()]

    def _watch(self, a: Tensor) -> None:
        if self.watch_sums:
            self.largest_sum = max(self.largest_sum, int(a.detach().abs().max()))

    # --- wires ---------------------------------------------------------------------------

    def output_shape(self, wires: tuple[Wire, ...]) -> Shape:
        source, first = next(iter(self._projections().values()))
        return (self.channels, *conv_output(first, *wires[source].shape[1:]))

    def connect(self, wires: tuple[Wire, ...], weight_exp: int = 0) -> None:
        """Add the projections of all synapses onto this population."""
        for key, (source, template) in self._projections().items():
            projection = replace(as_dense(template, wires[source].shape), weight_exp=weight_exp)
            builder = wires[source].builder
            self._names[key] = builder.connect(wires[source], self.population, projection)

    def _key(self, s: Synapse) -> tuple[int, ...]:
        """Synapses of one key (branches of one delay) share a projection."""
        return (s.source, s.delay, s.stride, *s.padding, s.groups, *s.weight.shape[1:])

    def _projections(self) -> dict[tuple[int, ...], tuple[int, Conv]]:
        """Key -> (input, projection), the rows of all branches put together."""
        merged: dict[tuple[int, ...], tuple[int, Conv]] = {}
        for s, weight in zip(self.conv_synapses(), self.whole_weights(), strict=True):
            full = np.zeros((self.channels, *weight.shape[1:]), np.int8)
            full[s.first : s.first + s.c_out] = to_numpy(weight).astype(np.int8)
            key = self._key(s)
            if key in merged:
                full = full + merged[key][1].weight
            merged[key] = (
                s.source,
                Conv(
                    name="",
                    pre="",
                    post="",
                    weight=full,
                    stride=(s.stride, s.stride),
                    padding=s.padding,
                    groups=s.groups,
                    delay=s.delay,
                ),
            )
        return merged

    @torch.no_grad()
    def take_integers(self, network: Network) -> None:
        """Become, in the integer life, what the network holds for this population.

        Requires: lowered once, so that the names of its projections are known.
        """
        self.norm = self.linear_bias = None
        population = network[self.population]
        assert isinstance(population, (Lif, Graded))
        self.bias_exp.fill_(population.bias_exp)
        bias = torch.from_numpy(population.bias_mant.astype(np.float32)).reshape(-1)
        self.bias.copy_(bias * 2.0 ** (population.bias_exp - fx.SHIFT))
        self.bias.requires_grad_(True)
        incoming = network.incoming(self.population)
        weights = {p.name: p.weight for p in incoming if isinstance(p, (Conv, Dense))}
        for s in self.conv_synapses():
            stored = np.asarray(weights[self._names[self._key(s)]], np.float32)
            rows = stored.reshape(self.channels, *s.weight.shape[1:])[s.first : s.first + s.c_out]
            s.weight.copy_(torch.from_numpy(rows))


def to_numpy(x: Tensor) -> npt.NDArray[Any]:
    """The values, wherever the tensor lives."""
    values: npt.NDArray[Any] = x.detach().cpu().numpy()
    return values


def as_dense(conv: Conv, shape: Shape) -> Conv | Dense:
    """The same synapses as a Dense where the kernel covers a whole frame of this shape."""
    covers = conv.weight.shape[1:] == shape and conv.padding == (0, 0)
    if not covers:
        return conv
    flat = conv.weight.reshape(len(conv.weight), -1)
    return Dense(name="", pre="", post="", weight=flat, delay=conv.delay)


def bias_exponent(largest: float) -> int:
    """Smallest bias_exp with which |bias| (in weight steps) fits the mantissa, some room left."""
    wanted = BIAS_ROOM * largest * 2**fx.SHIFT
    for exponent in range(fx.BIAS_EXP_RANGE[1] + 1):
        if wanted <= fx.BIAS_MANT_RANGE[1] << exponent:
            return exponent
    return fx.BIAS_EXP_RANGE[1]


def mantissa(value: int) -> tuple[int, int]:
    """(weight, weight_exp) nearest to a whole number that may exceed int8."""
    exponent = 0
    while round(value / 2**exponent) > fx.WEIGHT_RANGE[1]:
        exponent += 1
    return round(value / 2**exponent), exponent
