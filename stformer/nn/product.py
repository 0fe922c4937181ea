"""The preset `paper`'s self-attention: SN(scale * (Q K^T) V), on spikes (paper Eq. 9).

Shape legend: T steps, B batch, C channels, H, W; N = H * W tokens.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from stformer.builder import Wire
from stformer.network import OneToOne, Operand, Product, Shape
from stformer.nn.gates import UNIT, Fixed, sum_threshold
from stformer.nn.neuron import Neuron, lif
from stformer.nn.weighted import Spiking


class _Product(Spiking):
    """A product of two populations, head by head."""

    mode = ""
    graded = True

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def _lower(self, left: Wire, right: Wire, shape: Shape) -> Wire:
        out = left.builder.add(
            Product(name=self.population, shape=shape, mode=self.mode, heads=self.heads)
        )
        for wire, port in ((left, "left"), (right, "right")):
            _ = wire.only
            wire.builder.connect(
                wire, self.population, Operand(name="", pre="", post="", port=port)
            )
        return out

    def _recorded(self, out: Tensor) -> Tensor:
        if self.recorder is not None:
            self.recorder(self.population, out, None, None)
        return out


class Scores(_Product):
    """Q K^T: [T, B, C, H, W] twice to [T, B, heads, N, N], whole numbers 0...C/heads."""

    mode = "scores"

    def forward(self, q: Any, k: Any) -> Any:
        if isinstance(q, Wire):
            tokens = q.shape[1] * q.shape[2]
            return self._lower(q, k, (self.heads, tokens, tokens))
        return self._recorded(_matmul(by_head(q, self.heads).mT, by_head(k, self.heads)))


class Mix(_Product):
    """(Q K^T) V: [T, B, heads, N, N] and [T, B, C, H, W] to [T, B, C, H, W]."""

    mode = "mix"

    def forward(self, scores: Any, v: Any) -> Any:
        if isinstance(v, Wire):
            return self._lower(scores, v, v.shape)
        return self._recorded(_matmul(by_head(v, self.heads), scores.mT).reshape(v.shape))


class Count(Fixed):
    """SN of scale * whole numbers that a product sends.

    Args:
        neuron: v_th = 0.5 in the baseline.
        scale: 0.125 in the baseline, whatever the width of a head.
    """

    def __init__(self, neuron: Neuron, scale: float) -> None:
        super().__init__()
        self.neuron = neuron
        self.vth = sum_threshold(neuron, scale)

    def forward(self, x: Any) -> Any:
        if isinstance(x, Wire):
            out = self._add(x, x.shape)
            x.builder.connect(x, self.population, OneToOne(name="", pre="", post="", weight=UNIT))
            return out
        a = UNIT * x
        self._record(a)
        return lif(a, self.neuron, vth=self.vth)


def _matmul(x: Tensor, y: Tensor) -> Tensor:
    """In float32 also under mixed precision, whose short formats cannot count that far."""
    # Nothing is computed on "meta", and older releases refuse to autocast there.
    with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
        return x.float() @ y.float()


def by_head(x: Tensor, heads: int) -> Tensor:
    """[T, B, C, H, W] as [T, B, heads, C / heads, N]."""
    return x.reshape(*x.shape[:2], heads, -1, x.shape[3] * x.shape[4])
