"""STFormer, the spatial-temporal spiking transformer, its baseline, and a CNN, from one code.

How each part of the paper is read: docs/model.md; every choice: `stformer.config`. Shape legend:
T steps, B batch, C or D channels, H, W.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from stformer.config import STFormerConfig
from stformer.nn import (
    Block,
    Count,
    Fire,
    Gate,
    HeadGate,
    HeadSum,
    Join,
    Mix,
    Neuron,
    Pool,
    Readout,
    Scores,
    StreamScale,
    TokenMean,
    TokenSum,
    Weighted,
    conv_block,
    stream_block,
    temporal_block,
)


class SpatialCore(nn.Module):
    """Three large convolutions, D/8 to D, each ending in spikes (paper Eq. 4, Fig. 2)."""

    def __init__(self, c: STFormerConfig, neuron: Neuron) -> None:
        super().__init__()
        widths = [c.width // 8, c.width // 4, c.width // 2, c.width]
        layers: list[nn.Module] = []
        for i, stride in enumerate(c.spatial_strides):
            pool = c.downsample == "pool" and stride > 1
            layers.append(
                conv_block(
                    widths[i],
                    widths[i + 1],
                    c.spatial_kernel,
                    neuron,
                    stride=1 if pool else stride,
                )
            )
            if pool:
                layers.append(Pool(3, stride, 1))
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


class Attention(nn.Module):
    """Spiking Guided Attention without its residual: X asks, Y answers (paper Eq. 9).

    Args:
        c, neuron: of the model.
        asks, answers: how many inputs Q has, and K and V.
        scale: of the stream that W_o adds to; None where it ends in spikes.
    """

    def __init__(
        self,
        c: STFormerConfig,
        neuron: Neuron,
        *,
        asks: int,
        answers: int,
        scale: StreamScale | None,
    ) -> None:
        super().__init__()
        d = c.width
        half = Neuron(dv=neuron.dv, v_th=0.5)
        self.kind = c.attention
        self.q = conv_block([d] * asks, d, 1, neuron)
        self.k = conv_block([d] * answers, d, 1, neuron)
        if c.attention != "qk":
            self.v = conv_block([d] * answers, d, 1, neuron)
        if c.attention == "gated":
            self.kv = Gate()
            self.gate: nn.Module = TokenSum(half)
            self.mix: nn.Module = Gate()
        elif c.attention == "qk":
            self.gate = HeadSum(c.heads, half)
            self.mix = HeadGate()
        else:
            self.scores = Scores(c.heads)
            self.product = Mix(c.heads)
            self.mix = Count(half, c.product_scale)
        self.out = _branch(c, d, neuron, scale)

    def forward(self, xs: tuple[Any, ...], ys: tuple[Any, ...], stream: Any) -> Any:
        q, k = self.q(*xs), self.k(*ys)
        if self.kind == "gated":
            mixed = self.mix(q, self.gate(self.kv(k, self.v(*ys))))
        elif self.kind == "qk":
            mixed = self.mix(k, self.gate(q))
        else:
            mixed = self.mix(self.product(self.scores(q, k), self.v(*ys)))
        return self.out(mixed) if stream is None else self.out(mixed, stream=stream)


class TransformerBlock(nn.Module):
    """Attention and ST-MLP, each joined to the stream (paper Eq. 9-11)."""

    def __init__(
        self,
        c: STFormerConfig,
        neuron: Neuron,
        *,
        asks: int,
        answers: int,
        scale: StreamScale | None,
    ) -> None:
        super().__init__()
        hidden = c.mlp_ratio * c.width
        if scale is not None:
            self.sn1, self.sn2 = Fire(neuron, scale), Fire(neuron, scale)
        self.attention = Attention(c, neuron, asks=asks, answers=answers, scale=scale)
        if c.residual != "ms":
            self.join1, self.join2 = Join(c.residual), Join(c.residual)
        self.mlp1 = conv_block(c.width, hidden, 1, neuron, bias=c.linear_bias)
        self.mlp2 = _branch(c, hidden, neuron, scale)
        self.shortcut = scale is not None

    def spikes(self, stream: Any) -> Any:
        """What the attention reads of the stream."""
        return self.sn1(stream) if self.shortcut else stream

    def forward(self, stream: Any, xs: tuple[Any, ...], ys: tuple[Any, ...]) -> Any:
        if self.shortcut:
            z = self.attention(xs, ys, stream)
            return self.mlp2(self.mlp1(self.sn2(z)), stream=z)
        z = self.join1(stream, self.attention(xs, ys, None))
        return self.join2(z, self.mlp2(self.mlp1(z)))


def _branch(c: STFormerConfig, c_in: int, neuron: Neuron, scale: StreamScale | None) -> nn.Module:
    """The last layer of a branch: onto the stream, or into spikes that are joined to it."""
    if scale is None:
        return conv_block(c_in, c.width, 1, neuron, bias=c.linear_bias)
    return stream_block(c_in, c.width, 1, scale, bias=c.linear_bias, gain=c.branch_gain)


class STFormer(nn.Module):
    """Stem, Spatial Core, RPE, Temporal Core, transformer blocks, head (paper Fig. 1).

    Input: whole numbers as floats [T, B, C, H, W]; output: logits [B, classes].
    """

    def __init__(self, config: STFormerConfig) -> None:
        super().__init__()
        c, neuron = config, Neuron(dv=config.dv)
        self.config = config
        self.scale = StreamScale() if c.residual == "ms" else None
        self.shortcut = self.scale is not None
        pooled = c.downsample == "pool" and c.stem_stride > 1
        self.stem = conv_block(
            c.channels, c.width // 8, 3, neuron, stride=1 if pooled else c.stem_stride
        )
        self.stem_pool = Pool(3, c.stem_stride, 1) if pooled else None
        self.spatial = SpatialCore(c, neuron)
        self.plain = c.kind == "cnn"
        if not self.plain:
            self._add_transformer(c, neuron)
        self.head = Readout(c.width, c.classes)

    def _add_transformer(self, c: STFormerConfig, neuron: Neuron) -> None:
        """RPE, Temporal Core and blocks: what a plain chain of convolutions lacks."""
        skip = 0 if c.rpe_skip else None
        if self.scale is None:
            self.rpe: nn.Module = conv_block(c.width, c.width, 3, neuron, skip=skip)
        else:
            self.rpe = stream_block(c.width, c.width, 3, self.scale, skip=skip)
        asks, answers = 1, 1
        if c.temporal:
            self.temporal_x, self.temporal_y = (
                temporal_block(
                    c.width,
                    c.width,
                    neuron,
                    taps=c.temporal_taps,
                    kernel=c.temporal_kernel,
                    dilations=c.temporal_dilations,
                    causal=c.temporal_causal,
                )
                for _ in range(2)
            )
            asks = (1 if c.tied_query else 2) + (not c.guided)
            answers = 1 if c.guided else asks
        self.blocks = nn.ModuleList(
            TransformerBlock(
                c,
                neuron,
                asks=asks if i == 0 else 1,
                answers=answers if i == 0 else 1,
                scale=self.scale,
            )
            for i in range(c.depth)
        )
        if self.scale is not None:
            self.pool: nn.Module = (
                Fire(neuron, self.scale) if c.head_spikes else TokenMean(self.scale)
            )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return (self.config.channels, self.config.size, self.config.size)

    @property
    def tokens(self) -> int:
        side = self.config.size
        for stride in (self.config.stem_stride, *self.config.spatial_strides):
            side = -(-side // stride)
        return side * side

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        if self.stem_pool is not None:
            x = self.stem_pool(x)
        x = self.spatial(x)
        if self.plain:
            return self.head(x)
        stream = self.rpe(x)
        for i, block in enumerate(self.blocks):
            assert isinstance(block, TransformerBlock)
            spikes = block.spikes(stream)
            xs, ys = self._first(spikes) if i == 0 else ((spikes,), (spikes,))
            stream = block(stream, xs, ys)
        return self.head(self.pool(stream) if self.shortcut else stream)

    def _first(self, x2: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """What the first block asks with and answers from: the Temporal Core's X and Y."""
        if not self.config.temporal:
            return (x2,), (x2,)
        x1, y = self.temporal_x(x2), self.temporal_y(x2)
        # X1 + X2 in front of the query's weights: two projections into one population.
        asked = (x1 + x2,) if self.config.tied_query else (x1, x2)
        return (asked, (y,)) if self.config.guided else ((*asked, y), (*asked, y))


def quantise(model: STFormer) -> None:
    """Fold every norm and put every weight, bias and threshold on the chip's grid, in place."""
    for module in model.modules():
        if isinstance(module, Weighted):
            module.least_bias_exp = model.config.bias_exp
    if model.scale is not None:
        model.scale.quantise()
    for name, module in model.named_modules():
        if isinstance(module, Block):
            module.quantise(model.config.largest_input if name == "stem" else 1)
    ones = float(model.tokens)
    if model.shortcut and isinstance(model.pool, TokenMean):
        ones = model.pool.quantise(model.tokens)
    model.head.quantise()
    model.head.fix_bias(ones, model.config.bias_exp)
