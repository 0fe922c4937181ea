"""STFormer, the spatial-temporal spiking transformer, preset `hw`: every message a binary spike.

How each part of the paper is read: docs/model.md. Shape legend: T steps, B batch, C or D
channels, H, W.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import nn

from stformer.errors import InputError
from stformer.nn import (
    Block,
    Gate,
    HeadGate,
    HeadSum,
    Join,
    Neuron,
    Pool,
    Readout,
    TokenSum,
    conv_block,
    temporal_block,
)
from stformer.recipe import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class STFormerConfig:
    """Every choice of the architecture; the paper's ablations are changes of one field.

    Attributes:
        channels, size: of a frame, C and H = W.
        largest_input: largest value of a frame; above 1 it is graded (pixels, event counts).
        classes: number of logits.
        steps: T.
        width: D, divisible by 8; the stem has D/8 channels.
        depth: transformer blocks.
        heads: used by attention "qk".
        mlp_ratio: hidden width of the ST-MLP over D.
        stem_stride: 1 or 2.
        spatial_kernel: odd; the paper's best is 5.
        spatial_strides: of the three Spatial Blocks.
        downsample: "stride" in the convolution, or "pool": max-pooling of its spikes (OR).
        temporal: False leaves the Temporal Core out: X1 := 0, Y := X2 (ablation w/o ST-Core).
        temporal_branches: n, even: parallel convolutions of 2D/n channels each.
        temporal_taps: kernel length in time, causal.
        temporal_kernel: kernel size in space, odd.
        temporal_dilations: one per branch of each half, n/2 numbers.
        attention: "gated": Q and SN(sum over tokens of K and V); "qk": SN(sum over a head's
            channels of Q) and K.
        residual: "iand", "or" or "add", see `stformer.nn.Join`.
        dv: membrane decay of every LIF, 1...4095: 4096/tau.
    """

    channels: int = 1
    size: int = 8
    largest_input: int = 16
    classes: int = 10
    steps: int = 4
    width: int = 32
    depth: int = 2
    heads: int = 4
    mlp_ratio: int = 4
    stem_stride: int = 1
    spatial_kernel: int = 5
    spatial_strides: tuple[int, int, int] = (1, 1, 2)
    downsample: Literal["stride", "pool"] = "stride"
    temporal: bool = True
    temporal_branches: int = 2
    temporal_taps: int = 3
    temporal_kernel: int = 1
    temporal_dilations: tuple[int, ...] = (1,)
    attention: Literal["gated", "qk"] = "gated"
    residual: Literal["iand", "or", "add"] = "iand"
    dv: int = 2048

    def __post_init__(self) -> None:
        positive = (
            "channels size largest_input classes steps depth heads mlp_ratio stem_stride "
            "spatial_kernel temporal_taps temporal_kernel dv"
        )
        for name in positive.split():
            if getattr(self, name) < 1:
                raise InputError(f"model.{name}", str(getattr(self, name)), "1 or more")
        self._require(self.width % 8 == 0, "width", "a multiple of 8")
        self._require(self.width % self.heads == 0, "heads", f"divisors of width {self.width}")
        self._require(self.dv <= 4095, "dv", "1...4095")
        for name in ("spatial_kernel", "temporal_kernel"):
            self._require(getattr(self, name) % 2 == 1, name, "odd numbers")
        self._require(len(self.spatial_strides) == 3, "spatial_strides", "three numbers")
        self._require(min(self.spatial_strides) >= 1, "spatial_strides", "1 or more")
        n = self.temporal_branches
        self._require(
            n >= 2 and n % 2 == 0 and self.width % (n // 2) == 0,
            "temporal_branches",
            f"even numbers whose half divides width {self.width}",
        )
        self._require(
            len(self.temporal_dilations) == n // 2 and min(self.temporal_dilations) >= 1,
            "temporal_dilations",
            f"{n // 2} numbers of 1 or more",
        )

    def _require(self, ok: bool, name: str, allowed: str) -> None:
        if not ok:
            raise InputError(f"model.{name}", str(getattr(self, name)), allowed)


def config_from(values: Mapping[str, object], where: str = "model") -> STFormerConfig:
    """A config from a recipe's or file's table; raises InputError for unknown keys and types."""
    hints = get_type_hints(STFormerConfig)
    out: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise InputError(
                where, f"the key '{key}'", ", ".join(hints), nearest(key, list(hints))
            )
        out[key] = _typed(f"{where}.{key}", value, hints[key])
    return STFormerConfig(**out)


def config_to(config: STFormerConfig) -> dict[str, object]:
    """Plain JSON types; `config_from` reads them back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}


def _typed(where: str, value: object, hint: Any) -> object:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise InputError(where, repr(value), ", ".join(map(repr, get_args(hint))))
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)) or not all(type(v) is int for v in value):
            raise InputError(where, repr(value), "a list of integers")
        return tuple(value)
    if type(value) is not hint:
        raise InputError(where, repr(value), f"a value of type {hint.__name__}")
    return value


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
    """Spiking Guided Attention without its residual: X asks, Y answers (paper Eq. 9)."""

    def __init__(self, c: STFormerConfig, neuron: Neuron, *, sources: int) -> None:
        super().__init__()
        d = c.width
        half = Neuron(dv=neuron.dv, v_th=0.5)
        self.kind = c.attention
        self.q = conv_block([d] * sources, d, 1, neuron)
        self.k = conv_block(d, d, 1, neuron)
        if c.attention == "gated":
            self.v = conv_block(d, d, 1, neuron)
            self.kv = Gate()
            self.gate: nn.Module = TokenSum(half)
            self.mix: nn.Module = Gate()
        else:
            self.gate = HeadSum(c.heads, half)
            self.mix = HeadGate()
        self.out = conv_block(d, d, 1, neuron)

    def forward(self, xs: tuple[Any, ...], y: Any) -> Any:
        q, k = self.q(*xs), self.k(y)
        if self.kind == "gated":
            mixed = self.mix(q, self.gate(self.kv(k, self.v(y))))
        else:
            mixed = self.mix(k, self.gate(q))
        return self.out(mixed)


class TransformerBlock(nn.Module):
    """Attention and ST-MLP, each joined to the stream (paper Eq. 9-11)."""

    def __init__(self, c: STFormerConfig, neuron: Neuron, *, sources: int) -> None:
        super().__init__()
        hidden = c.mlp_ratio * c.width
        self.attention = Attention(c, neuron, sources=sources)
        self.join1 = Join(c.residual)
        self.mlp1 = conv_block(c.width, hidden, 1, neuron)
        self.mlp2 = conv_block(hidden, c.width, 1, neuron)
        self.join2 = Join(c.residual)

    def forward(self, stream: Any, xs: tuple[Any, ...], y: Any) -> Any:
        z = self.join1(stream, self.attention(xs, y))
        return self.join2(z, self.mlp2(self.mlp1(z)))


class STFormer(nn.Module):
    """Stem, Spatial Core, RPE, Temporal Core, transformer blocks, head (paper Fig. 1).

    Input: whole numbers as floats [T, B, C, H, W]; output: logits [B, classes].
    """

    def __init__(self, config: STFormerConfig) -> None:
        super().__init__()
        c, neuron = config, Neuron(dv=config.dv)
        self.config = config
        self.stem = conv_block(c.channels, c.width // 8, 3, neuron, stride=c.stem_stride)
        self.spatial = SpatialCore(c, neuron)
        self.rpe = conv_block(c.width, c.width, 3, neuron, skip=0)
        sources = 2 if c.temporal else 1
        if c.temporal:
            self.temporal_x, self.temporal_y = (
                temporal_block(
                    c.width,
                    c.width,
                    neuron,
                    taps=c.temporal_taps,
                    kernel=c.temporal_kernel,
                    dilations=c.temporal_dilations,
                )
                for _ in range(2)
            )
        self.blocks = nn.ModuleList(
            TransformerBlock(c, neuron, sources=sources if i == 0 else 1) for i in range(c.depth)
        )
        self.head = Readout(c.width, c.classes)

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
        x2 = self.rpe(self.spatial(self.stem(x)))
        xs: tuple[Any, ...] = (x2,)
        y = x2
        if self.config.temporal:
            # X1 + X2 in front of the query's weights: two projections into one population.
            xs, y = (self.temporal_x(x2), x2), self.temporal_y(x2)
        stream = x2
        for i, block in enumerate(self.blocks):
            stream = block(stream, xs, y) if i == 0 else block(stream, (stream,), stream)
        return self.head(stream)


def quantise(model: STFormer) -> None:
    """Fold every norm and put every weight, bias and threshold on the chip's grid, in place."""
    for name, module in model.named_modules():
        if isinstance(module, Block):
            module.quantise(model.config.largest_input if name == "stem" else 1)
    model.head.quantise()
    model.head.fix_bias(model.tokens)
