"""The membrane shortcut: a multi-bit stream that branches add to and spikes are made of.

All of a model's stream is on one scale, sigma steps to the float life's 1, so that adding needs
no multiplication: a branch's weights are whole numbers times a power of two. On the chip these
are graded messages (`stformer.network.Graded`).

Shape legend: T steps, B batch, C channels, H, W.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stformer import fixedpoint as fx
from stformer.builder import Wire
from stformer.network import Conv, Dense, Graded, Lif, Network, OneToOne, SumTokens, no_bias
from stformer.nn.neuron import Neuron, lif, lif_states
from stformer.nn.weighted import BIAS_ROOM, Spiking, Synapse, Weighted, graded, mantissa

POOLED_LEVELS = 32  # whole numbers to the float life's 1 in what the head reads of a stream
ROOM = 64.0  # largest value of a stream, in the float life's unit, that must not wrap a current


class StreamScale(nn.Module):
    """The scale that all writers and readers of a stream share.

    Attributes:
        sigma: whole steps to the float life's 1; 0 in the float life.
    """

    sigma: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sigma", torch.tensor(0.0))
        self._writers: list[Stream] = []  # lists, so that they are no submodules
        self._readers: list[Fire] = []

    @property
    def integer(self) -> bool:
        return bool(self._writers) and self._writers[0].integer

    def writes(self, stream: Stream) -> None:
        self._writers.append(stream)

    def reads(self, fire: Fire) -> None:
        self._readers.append(fire)

    @torch.no_grad()
    def quantise(self) -> None:
        """Fold every writer's norm and choose the scale.

        The writer with the smallest weights gets all seven bits of them; the others follow in
        powers of two, as far as exponents, biases, thresholds and 24-bit currents allow.
        """
        if not self._writers or self.integer:
            return
        folded = [writer.fold() for writer in self._writers]
        largest = [max(weight, 1e-6) for weight, _ in folded]
        largest_bias = max(max(bias for _, bias in folded), 1e-6)
        sigma = min(
            fx.WEIGHT_RANGE[1] / min(largest),
            (fx.WEIGHT_RANGE[1] << fx.WEIGHT_EXP_RANGE[1]) / max(1.0, *largest),
            (fx.BIAS_MANT_RANGE[1] << fx.BIAS_EXP_RANGE[1])
            / 2**fx.SHIFT
            / (BIAS_ROOM * largest_bias),
            (fx.STATE_MAX >> fx.SHIFT) / ROOM,
        )
        self.sigma.fill_(sigma)
        for writer, weight in zip(self._writers, largest, strict=True):
            writer.scale_to(sigma, weight)
        self._set_thresholds()

    @torch.no_grad()
    def halve(self) -> None:
        """Halve the whole stream: the same network on a coarser grid."""
        self.sigma.mul_(0.5)
        for writer in self._writers:
            writer.halve_alone()
        self._set_thresholds()

    def _set_thresholds(self) -> None:
        for reader in self._readers:
            reader.vth.fill_(max(round(float(self.sigma) / reader.neuron.gain), 1))


class Stream(Weighted):
    """Convolutions and norm that add to a stream: x + norm(sum of convolutions), no neuron.

    Args:
        synapses, channels, bias: as for `Weighted`.
        scale: of the stream.
        skip: index of an input of spikes that is added too, one to one (the paper's Eq. 6).
        gain: initial scale of the norm. Branches begin small: sixteen of 1 would drown what the
            stream began with (docs/decisions/0008).
    """

    weight_exp: Tensor
    graded = True

    def __init__(
        self,
        synapses: Sequence[Synapse],
        channels: int,
        scale: StreamScale,
        *,
        skip: int | None = None,
        bias: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__(synapses, channels, gain, bias=bias)
        self._scale_of = [scale]
        scale.writes(self)
        self.skip = skip
        self._skip_name = ""
        self.register_buffer("weight_exp", torch.tensor(0))

    @property
    def shared_scale(self) -> StreamScale:
        return self._scale_of[0]

    def forward(self, *inputs: Any, stream: Any = None) -> Any:
        """Spikes of every input, and the stream so far (None: it begins here), to the stream."""
        if isinstance(inputs[0], Wire):
            return self._lower(inputs, stream)
        if self.integer:
            return self._integer(inputs, stream)
        a = self._normed(inputs)
        if self.skip is not None:
            a = a + inputs[self.skip]
        return a if stream is None else a + stream

    @torch.no_grad()
    def scale_to(self, sigma: float, largest: float) -> None:
        """Put weights (folded, up to `largest`) and bias on the stream's grid."""
        steps = sigma * largest / fx.WEIGHT_RANGE[1]
        exponent = max(0, math.ceil(math.log2(steps) - 1e-9))
        self.weight_exp.fill_(exponent)
        self._scale(sigma / 2**exponent, sigma)

    @torch.no_grad()
    def halve_alone(self) -> None:
        if int(self.weight_exp) > 0:
            self.weight_exp.sub_(1)
            self.bias.mul_(0.5)
        else:
            self._halve()

    def _skip_weight(self) -> tuple[int, int]:
        return mantissa(round(float(self.shared_scale.sigma)))

    def _integer(self, inputs: tuple[Tensor, ...], stream: Tensor | None) -> Tensor:
        a = self._sums(inputs, self.whole_weights()) * 2.0 ** int(self.weight_exp)
        if self.skip is not None:
            weight, exponent = self._skip_weight()
            a = a + inputs[self.skip] * (weight << exponent)
        if stream is not None:
            a = a + stream
        self._watch(a)
        out = graded(a, self.whole_bias(), 0)
        if self.recorder is not None:
            self.recorder(self.population, out, None, None)
        return out

    def _lower(self, wires: tuple[Wire, ...], stream: Wire | None) -> Wire:
        builder = wires[0].builder
        wire = builder.add(
            Graded(
                name=self.population,
                shape=self.output_shape(wires),
                bias_mant=self.bias_mant(),
                bias_exp=int(self.bias_exp),
            )
        )
        self.connect(wires, int(self.weight_exp))
        if self.skip is not None:
            weight, exponent = self._skip_weight()
            skip = OneToOne(name="", pre="", post="", weight=weight, weight_exp=exponent)
            self._skip_name = builder.connect(wires[self.skip], self.population, skip)
        if stream is not None:
            one = OneToOne(name="", pre="", post="", weight=1)
            builder.connect(stream, self.population, one)
        return wire

    @torch.no_grad()
    def take_integers(self, network: Network) -> None:
        super().take_integers(network)
        incoming = {p.name: p for p in network.incoming(self.population)}
        first = incoming[next(iter(self._names.values()))]
        assert isinstance(first, (Conv, Dense))
        self.weight_exp.fill_(first.weight_exp)
        if self.skip is not None:
            skip = incoming[self._skip_name]
            assert isinstance(skip, OneToOne)
            self.shared_scale.sigma.fill_(skip.weight << skip.weight_exp)


class Fire(Spiking):
    """SN of a stream: an LIF population that integrates what the stream sends (paper Eq. 5).

    Args:
        neuron: decay and surrogate.
        scale: of the stream.
    """

    vth: Tensor

    def __init__(self, neuron: Neuron, scale: StreamScale) -> None:
        super().__init__()
        self.neuron = neuron
        self.register_buffer("vth", torch.tensor(0))
        self._scale_of = [scale]  # a list, so that it is no submodule
        scale.reads(self)

    def forward(self, x: Any) -> Any:
        if isinstance(x, Wire):
            shape = x.shape
            out = x.builder.add(
                Lif(
                    name=self.population,
                    shape=shape,
                    vth=int(self.vth),
                    dv=self.neuron.dv,
                    bias_mant=no_bias(shape),
                )
            )
            x.builder.connect(x, self.population, OneToOne(name="", pre="", post="", weight=1))
            return out
        if not self._scale_of[0].integer:
            return lif(x * self.neuron.gain, self.neuron)
        vth = int(self.vth)
        if self.recorder is not None:
            result = lif_states(x, self.neuron, 0.0, vth)
            self.recorder(self.population, result.s, result.u, result.v)
            return result.s
        return lif(x, self.neuron, vth=vth)

    @torch.no_grad()
    def take_integers(self, network: Network) -> None:
        population = network[self.population]
        assert isinstance(population, Lif)
        self.vth.fill_(population.vth)


class TokenMean(Spiking):
    """Mean over all tokens of a stream, for a head without neurons in front (the baseline's).

    The integer life sums and leaves low bits out: about `POOLED_LEVELS` steps to 1.
    """

    shift: Tensor
    graded = True

    def __init__(self, scale: StreamScale) -> None:
        super().__init__()
        self._scale_of = [scale]
        self.register_buffer("shift", torch.tensor(0))

    def forward(self, x: Any) -> Any:
        """[T, B, C, H, W] to [T, B, C, 1, 1]."""
        if isinstance(x, Wire):
            shape = (x.shape[0], 1, 1)
            out = x.builder.add(
                Graded(
                    name=self.population,
                    shape=shape,
                    bias_mant=no_bias(shape),
                    shift=int(self.shift),
                )
            )
            x.builder.connect(x, self.population, SumTokens(name="", pre="", post="", weight=1))
            return out
        if not self._scale_of[0].integer:
            return x.mean((-2, -1), keepdim=True)
        sums = x.double().sum((-2, -1), keepdim=True)  # may exceed float32's whole numbers
        mean = graded(sums, sums.new_zeros(()), int(self.shift)).to(x.dtype)
        if self.recorder is not None:
            self.recorder(self.population, mean, None, None)
        return mean

    @torch.no_grad()
    def quantise(self, tokens: int) -> float:
        """Choose the shift; returns how many whole steps of the result the float life's 1 is."""
        steps = float(self._scale_of[0].sigma) * tokens
        self.shift.fill_(max(0, round(math.log2(steps / POOLED_LEVELS))))
        return steps / 2.0 ** int(self.shift)

    @torch.no_grad()
    def take_integers(self, network: Network) -> None:
        population = network[self.population]
        assert isinstance(population, Graded)
        self.shift.fill_(population.shift)
