"""Synapse + norm + LIF: the block that networks are built of, in its three lives.

* float: convolutions and batch norm on real numbers, for training;
* integer: folded, quantised weights held as whole numbers, for fine-tuning and evaluation,
  exactly the lowered network;
* wires: called with `Wire`s instead of tensors it adds its populations and projections to a
  network. There is one `forward`, so the lowered graph cannot differ from the trained one.

Shape legend: T steps, B batch, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stformer import fixedpoint as fx
from stformer.builder import Wire
from stformer.network import Conv, Dense, Lif, Network, OneToOne, Shape, conv_output
from stformer.nn.neuron import Neuron, lif, lif_states

Recorder = Callable[[str, Tensor, "Tensor | None", "Tensor | None"], None]


BIAS_ROOM = 1.25  # for fine-tuning to move a bias


def round_ste(x: Tensor) -> Tensor:
    """Round to the nearest whole number (ties to even); the gradient passes straight through."""
    return x + (x.round() - x).detach()


def over_time(fn: Callable[[Tensor], Tensor], x_TBCHW: Tensor) -> Tensor:
    """Apply a function of batches to every time step at once."""
    y = fn(x_TBCHW.flatten(0, 1))
    return y.reshape(*x_TBCHW.shape[:2], *y.shape[1:])


def delayed(x_TBCHW: Tensor, steps: int) -> Tensor:
    """x one or more time steps later, zeros first."""
    if not steps:
        return x_TBCHW
    if steps >= len(x_TBCHW):
        return torch.zeros_like(x_TBCHW)
    return torch.cat([torch.zeros_like(x_TBCHW[:steps]), x_TBCHW[:-steps]])


class Spiking(nn.Module):
    """Base of everything that is a population: it has a name, and reports what it did.

    Attributes:
        population: its name in the network; `stformer.lower` gives it the module's path.
        recorder: called with (name, spikes, u, v), integer life only; None records nothing.
    """

    population: str = ""
    recorder: Recorder | None = None
    forward: Callable[..., Any]


class Synapse(nn.Module):
    """One convolution onto a block's population, from one of the block's inputs.

    Args:
        c_in, c_out: channels.
        kernel: (h, w).
        source: index of the block's input.
        stride, padding, groups: as in torch.
        delay: time steps (a tap of a temporal convolution).
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


class Block(Spiking):
    """Convolutions from one or more inputs, batch norm over their sum, LIF.

    Args:
        synapses: at least one.
        channels: of the population.
        neuron: decay and surrogate.
        skip: index of an input that is added behind the norm, one to one, with weight 1/tau
            (the residual of the paper's Eq. 6); None for none.
    """

    vth: Tensor
    bias_exp: Tensor

    def __init__(
        self,
        synapses: Sequence[Synapse],
        channels: int,
        neuron: Neuron,
        *,
        skip: int | None = None,
    ) -> None:
        super().__init__()
        self.synapses = nn.ModuleList(synapses)
        self.channels, self.neuron, self.skip = channels, neuron, skip
        self.norm: nn.BatchNorm2d | None = nn.BatchNorm2d(channels)
        nn.init.constant_(self.norm.weight, neuron.gain)
        # Integer life: units of one weight step; bias too, at 1/64.
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)
        self.register_buffer("vth", torch.tensor(0))
        self.register_buffer("bias_exp", torch.tensor(0))
        self._names: dict[tuple[int, ...], str] = {}  # of projections, by synapse key
        self.largest_sum = 0  # of |arriving sum|, over everything seen since it was set to 0
        self.watch_sums = False

    @property
    def integer(self) -> bool:
        return self.norm is None

    def forward(self, *inputs: Any) -> Any:
        if isinstance(inputs[0], Wire):
            return self._lower(inputs)
        if not self.integer:
            return self._float(inputs)
        return self._integer(inputs)

    # --- float ---------------------------------------------------------------------------

    def _float(self, inputs: tuple[Tensor, ...]) -> Tensor:
        assert self.norm is not None
        a = self._sums(inputs, [s.weight for s in self._synapses()])
        a = over_time(self.norm, a)
        if self.skip is not None:
            a = a + inputs[self.skip] * self.neuron.gain
        return lif(a, self.neuron)

    def _synapses(self) -> list[Synapse]:
        return [s for s in self.synapses if isinstance(s, Synapse)]

    def _sums(self, inputs: tuple[Tensor, ...], weights: list[Tensor]) -> Tensor:
        parts = [
            s(inputs[s.source], w, self.channels)
            for s, w in zip(self._synapses(), weights, strict=True)
        ]
        total: Tensor = reduce(torch.add, parts)
        return total

    # --- integer -------------------------------------------------------------------------

    @torch.no_grad()
    def quantise(self, largest_input: int = 1) -> None:
        """Fold the norm and put weights, bias and threshold on the chip's grid.

        One scale for the whole population: the largest folded weight becomes 127, the
        threshold 1 becomes vth. The straight-through fine-tuning that follows may move weights
        and bias; the threshold stays.

        Args:
            largest_input: of |value| an input sends; above 1 the scale also keeps every
                arriving sum within the 16-bit accumulator, whatever the input.
        """
        if self.norm is None:
            return
        norm = self.norm
        assert norm.running_var is not None
        assert norm.running_mean is not None
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        bias = norm.bias - norm.running_mean * factor
        for s in self._synapses():
            rows = factor[s.first : s.first + s.c_out]
            s.weight.mul_(rows[:, None, None, None])
        largest = max(float(s.weight.abs().max()) for s in self._synapses())
        largest_bias = float(bias.abs().max())
        scale = min(
            fx.WEIGHT_RANGE[1] / max(largest, 1e-6),
            fx.VTH_RANGE[1],
            # the largest bias and the skip must fit their mantissas and exponents too
            (fx.BIAS_MANT_RANGE[1] << fx.BIAS_EXP_RANGE[1])
            / 2**fx.SHIFT
            / (BIAS_ROOM * max(largest_bias, 1e-6)),
            (fx.WEIGHT_RANGE[1] << fx.WEIGHT_EXP_RANGE[1]) / self.neuron.gain,
        )
        if largest_input > 1:
            fan_in = sum(float(s.weight.abs().sum((1, 2, 3)).max()) for s in self._synapses())
            scale = min(scale, fx.ACCUMULATOR_MAX / (fan_in * largest_input))
        vth = max(int(scale), 1)
        for s in self._synapses():
            s.weight.mul_(vth)
        self.bias.copy_(bias * vth)
        self.bias.requires_grad_(True)
        self.vth.fill_(vth)
        self.bias_exp.fill_(bias_exponent(float(self.bias.abs().max())))
        self.norm = None

    @torch.no_grad()
    def halve(self) -> None:
        """Halve weights, bias and threshold: the same neuron on a coarser grid."""
        for s in self._synapses():
            s.weight.mul_(0.5)
        self.bias.mul_(0.5)
        self.vth.fill_(max(self._vth() // 2, 1))

    def _vth(self) -> int:
        return int(self.vth)

    def _bias_steps(self) -> Tensor:
        """bias_mant [C, 1, 1] as a whole-numbered float tensor with gradient."""
        unit = 2.0 ** (int(self.bias_exp) - fx.SHIFT)
        low, high = fx.BIAS_MANT_RANGE
        return round_ste(self.bias / unit).clamp(low, high)[:, None, None]

    def _skip_weight(self) -> tuple[int, int]:
        """(weight, weight_exp) of the skip: 1/tau of the threshold."""
        return mantissa(round(self.neuron.gain * self._vth()))

    def whole_weights(self) -> list[Tensor]:
        low, high = fx.WEIGHT_RANGE
        return [round_ste(s.weight).clamp(low, high) for s in self._synapses()]

    def _integer(self, inputs: tuple[Tensor, ...]) -> Tensor:
        a = self._sums(inputs, self.whole_weights())
        if self.skip is not None:
            weight, exponent = self._skip_weight()
            a = a + inputs[self.skip] * (weight << exponent)
        if self.watch_sums:
            self.largest_sum = max(self.largest_sum, int(a.detach().abs().max()))
        bias = self._bias_steps() * 2.0 ** int(self.bias_exp)
        if self.recorder is not None:
            result = lif_states(a, self.neuron, bias, self._vth())
            self.recorder(self.population, result.s, result.u, result.v)
            return result.s
        return lif(a, self.neuron, bias=bias, vth=self._vth())

    # --- wires ---------------------------------------------------------------------------

    def _lower(self, wires: tuple[Wire, ...]) -> Wire:
        builder = wires[0].builder
        convs = self._projections()
        source, first = next(iter(convs.values()))
        height, width = conv_output(first, *wires[source].shape[1:])
        shape = (self.channels, height, width)
        wire = builder.add(
            Lif(
                name=self.population,
                shape=shape,
                vth=self._vth(),
                dv=self.neuron.dv,
                bias_mant=self._bias_steps().detach().numpy().astype(np.int16),
                bias_exp=int(self.bias_exp),
            )
        )
        for key, (source, template) in convs.items():
            projection = as_dense(template, wires[source].shape)
            self._names[key] = builder.connect(wires[source], self.population, projection)
        if self.skip is not None:
            weight, exponent = self._skip_weight()
            skip = OneToOne(name="", pre="", post="", weight=weight, weight_exp=exponent, delay=0)
            builder.connect(wires[self.skip], self.population, skip)
        return wire

    def _key(self, s: Synapse) -> tuple[int, ...]:
        """Synapses of one key (branches of one delay) share a projection."""
        return (s.source, s.delay, s.stride, *s.padding, s.groups, *s.weight.shape[1:])

    def _projections(self) -> dict[tuple[int, ...], tuple[int, Conv]]:
        """Key -> (input, projection), the rows of all branches put together."""
        merged: dict[tuple[int, ...], tuple[int, Conv]] = {}
        for s, weight in zip(self._synapses(), self.whole_weights(), strict=True):
            full = np.zeros((self.channels, *weight.shape[1:]), np.int8)
            full[s.first : s.first + s.c_out] = weight.detach().numpy().astype(np.int8)
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
        self.norm = None
        population = network[self.population]
        assert isinstance(population, Lif)
        self.vth.fill_(population.vth)
        self.bias_exp.fill_(population.bias_exp)
        bias = torch.from_numpy(population.bias_mant.astype(np.float32)).reshape(-1)
        self.bias.copy_(bias * 2.0 ** (population.bias_exp - fx.SHIFT))
        self.bias.requires_grad_(True)
        weights = {
            p.name: p.weight
            for p in network.incoming(self.population)
            if isinstance(p, (Conv, Dense))
        }
        for s in self._synapses():
            stored = np.asarray(weights[self._names[self._key(s)]], np.float32)
            rows = stored.reshape(self.channels, *s.weight.shape[1:])[s.first : s.first + s.c_out]
            s.weight.copy_(torch.from_numpy(rows))


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
