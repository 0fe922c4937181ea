"""Synapse + norm + LIF: the block that networks are built of. Shape legend: T, B, C, H, W."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stformer import fixedpoint as fx
from stformer.builder import Wire
from stformer.network import Lif, Network, OneToOne
from stformer.nn.neuron import Neuron, lif, lif_states
from stformer.nn.weighted import BIAS_ROOM, Synapse, Weighted, mantissa


class Block(Weighted):
    """Convolutions from one or more inputs, batch norm over their sum, LIF.

    Args:
        synapses: at least one.
        channels: of the population.
        neuron: decay and surrogate.
        skip: index of an input that is added behind the norm, one to one, with weight 1/tau
            (the residual of the paper's Eq. 6); None for none.
        bias: see `Weighted`.
    """

    vth: Tensor

    def __init__(
        self,
        synapses: Sequence[Synapse],
        channels: int,
        neuron: Neuron,
        *,
        skip: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__(synapses, channels, neuron.gain, bias=bias)
        self.neuron, self.skip = neuron, skip
        self.register_buffer("vth", torch.tensor(0))

    def forward(self, *inputs: Any) -> Any:
        """[T, B, C, H, W] of every input to spikes of the population."""
        if isinstance(inputs[0], Wire):
            return self._lower(inputs)
        if self.integer:
            return self._integer(inputs)
        a = self._normed(inputs)
        if self.skip is not None:
            a = a + inputs[self.skip] * self.neuron.gain
        return lif(a, self.neuron)

    @torch.no_grad()
    def quantise(self, largest_input: int = 1) -> None:
        """Fold the norm and put weights, bias and threshold on the chip's grid.

        One scale for the whole population: the largest folded weight becomes 127, the
        threshold 1 becomes vth. The straight-through fine-tuning that follows may move weights
        and bias; the threshold stays.

        Args:
            largest_input: of the values 0...n that an input sends; above 1 the scale also keeps
                every arriving sum within the 16-bit accumulator, whatever the input.
        """
        if self.integer:
            return
        largest, largest_bias = self.fold()
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
            scale = min(scale, fx.ACCUMULATOR_MAX / (self._fan_in() * largest_input))
        vth = max(int(scale), 1)
        self._scale(vth, vth)
        self.vth.fill_(vth)

    def _fan_in(self) -> float:
        """The largest sum of weights of one sign onto one neuron: inputs are not negative."""
        total = 0.0
        for sign in (1, -1):
            signed = [(sign * s.weight).clamp(min=0).sum((1, 2, 3)) for s in self.conv_synapses()]
            total = max(total, sum(float(x.max()) for x in signed))
        return max(total, 1e-6)

    @torch.no_grad()
    def halve(self) -> None:
        """Halve weights, bias and threshold: the same neuron on a coarser grid."""
        self._halve()
        self.vth.fill_(max(self._vth() // 2, 1))

    def _vth(self) -> int:
        return int(self.vth)

    def _skip_weight(self) -> tuple[int, int]:
        """(weight, weight_exp) of the skip: 1/tau of the threshold."""
        return mantissa(round(self.neuron.gain * self._vth()))

    def _integer(self, inputs: tuple[Tensor, ...]) -> Tensor:
        a = self._sums(inputs, self.whole_weights())
        if self.skip is not None:
            weight, exponent = self._skip_weight()
            a = a + inputs[self.skip] * (weight << exponent)
        self._watch(a)
        bias = self.whole_bias()
        if self.recorder is not None:
            result = lif_states(a, self.neuron, bias, self._vth())
            self.recorder(self.population, result.s, result.u, result.v)
            return result.s
        return lif(a, self.neuron, bias=bias, vth=self._vth())

    def _lower(self, wires: tuple[Wire, ...]) -> Wire:
        builder = wires[0].builder
        wire = builder.add(
            Lif(
                name=self.population,
                shape=self.output_shape(wires),
                vth=self._vth(),
                dv=self.neuron.dv,
                bias_mant=self.bias_mant(),
                bias_exp=int(self.bias_exp),
            )
        )
        self.connect(wires)
        if self.skip is not None:
            weight, exponent = self._skip_weight()
            skip = OneToOne(name="", pre="", post="", weight=weight, weight_exp=exponent, delay=0)
            builder.connect(wires[self.skip], self.population, skip)
        return wire

    @torch.no_grad()
    def take_integers(self, network: Network) -> None:
        super().take_integers(network)
        population = network[self.population]
        assert isinstance(population, Lif)
        self.vth.fill_(population.vth)
