"""Every choice of the architecture, and the variants that have a name; no torch in here.

How each part of the paper is read: docs/model.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from stformer import fixedpoint as fx
from stformer.errors import InputError
from stformer.network import Network
from stformer.recipe import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class STFormerConfig:
    """Every choice of the architecture; the paper's ablations are changes of one field.

    Attributes:
        kind: "stformer", or "cnn": stem, Spatial Core and head alone, a plain chain of
            convolutions; fields of what stands between them then mean nothing.
        channels, size: of a frame, C and H = W.
        largest_input: largest value of a frame; above 1 it is graded (pixels, event counts).
        classes: number of logits.
        steps: T.
        width: D, divisible by 8; the stem has D/8 channels.
        depth: transformer blocks.
        heads: of attention "qk" and "product"; divides D.
        mlp_ratio: hidden width of the ST-MLP over D.
        stem_stride: 1 or 2.
        spatial_kernel: odd; the paper's best is 5.
        spatial_strides: of the three Spatial Blocks.
        downsample: "stride" in the convolution, or "pool": max-pooling of its spikes (OR).
        temporal: False leaves the Temporal Core out: X1 := 0, Y := X2.
        temporal_branches: n, even: parallel convolutions of 2D/n channels each.
        temporal_taps: kernel length in time.
        temporal_causal: False centres the taps on the present, which half of them look ahead
            of; their number is odd then.
        temporal_kernel: kernel size in space, odd.
        temporal_dilations: one per branch of each half, n/2 numbers.
        rpe_skip: the residual around the position embedding (Eq. 6).
        attention: "gated": Q and SN(sum over tokens of K and V); "qk": SN(sum over a head's
            channels of Q) and K; "product": SN(0.125 (Q K^T) V).
        product_scale: of (Q K^T) V; the baseline's 0.125 is for hundreds of terms, few tokens and
            narrow heads want 1.
        guided: the first block asks with X and answers from Y; False lets Q, K and V all read
            X1, X2 and Y (ablation w/o SGA). Without the Temporal Core there is no difference.
        tied_query: one weight for X1 + X2 instead of one each.
        residual: "iand", "or" or "add", see `stformer.nn.Join`; "ms": the membrane shortcut, a
            graded stream that branches add to, see `stformer.nn.stream`.
        branch_gain: what the norms that end a branch of "ms" begin with (docs/decisions/0008).
        head_spikes: False lets the head read a stream without neurons in front (the baseline).
        linear_bias: biases in front of the norms of W_o and the ST-MLP, which the norms take
            away again; the baseline counts them among its parameters.
        dv: membrane decay of every LIF, 1...4095: 4096/tau.
        bias_exp: smallest exponent of the integer biases, 0...7; 6 makes them whole weight
            steps, all that netx can hold.
    """

    kind: Literal["stformer", "cnn"] = "stformer"
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
    temporal_causal: bool = True
    temporal_kernel: int = 1
    temporal_dilations: tuple[int, ...] = (1,)
    rpe_skip: bool = True
    attention: Literal["gated", "qk", "product"] = "gated"
    product_scale: float = 0.125
    guided: bool = True
    tied_query: bool = False
    residual: Literal["iand", "or", "add", "ms"] = "iand"
    branch_gain: float = 0.1
    head_spikes: bool = True
    linear_bias: bool = False
    dv: int = 2048
    bias_exp: int = 0

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
        low, high = fx.BIAS_EXP_RANGE
        self._require(low <= self.bias_exp <= high, "bias_exp", f"{low}...{high}")
        self._require(
            self.kind == "stformer" or self.residual != "ms",
            "residual",
            "'iand', 'or' or 'add' where kind is 'cnn', which has no stream",
        )
        self._require(0.001 <= self.product_scale <= 64, "product_scale", "0.001...64")
        self._require(0 <= self.branch_gain <= 64, "branch_gain", "0...64")
        for name in ("spatial_kernel", "temporal_kernel"):
            self._require(getattr(self, name) % 2 == 1, name, "odd numbers")
        self._require(
            self.temporal_causal or self.temporal_taps % 2 == 1,
            "temporal_taps",
            "odd numbers where temporal_causal is false",
        )
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


# The two presets of docs/model.md: what runs on any chip with LIF neurons, and the paper's own.
PRESETS: dict[str, dict[str, object]] = {
    "hw": {},
    "paper": {
        "downsample": "pool",
        "temporal_kernel": 3,
        "temporal_causal": False,
        "attention": "product",
        "tied_query": True,
        "residual": "ms",
    },
}

_CIFAR: dict[str, object] = {
    "channels": 3,
    "size": 32,
    "largest_input": 255,
    "steps": 4,
    "width": 384,
    "depth": 4,
    "heads": 12,
    "spatial_strides": (1, 2, 2),
}
_EVENTS: dict[str, object] = {
    "channels": 2,
    "size": 128,
    "largest_input": 15,
    "steps": 16,
    "width": 256,
    "depth": 2,
    "heads": 16,
    "stem_stride": 2,
    "spatial_strides": (2, 2, 2),
    "dv": 2731,  # tau = 1.5
}
_BASELINE: dict[str, object] = {
    "preset": "paper",
    "spatial_kernel": 3,
    "temporal": False,
    "rpe_skip": False,
    "head_spikes": False,
    "linear_bias": True,
}
# Names are those of the papers: depth, then width.
VARIANTS: dict[str, dict[str, object]] = {
    "STFormer-4-384": _CIFAR,
    "STFormer-2-256": _EVENTS,
    "Spikingformer-4-384": _CIFAR | _BASELINE,
    "Spikingformer-2-256": _EVENTS | _BASELINE,
}


def config_from(values: Mapping[str, object], where: str = "model") -> STFormerConfig:
    """A config from a recipe's or file's table.

    Args:
        values: fields of `STFormerConfig`; also `variant`, a name of `VARIANTS`, and `preset`,
            one of `PRESETS`. The variant's values give way to the preset's, both to the fields.
        where: for messages.

    Raises:
        InputError: unknown keys, names and types.
    """
    hints = get_type_hints(STFormerConfig)
    given = dict(values)
    variant = _named(where, "variant", given.pop("variant", None), VARIANTS)
    chosen = given.pop("preset", variant.get("preset"))
    preset = _named(where, "preset", chosen, PRESETS)
    given = {k: v for k, v in (variant | preset | given).items() if k != "preset"}
    out: dict[str, Any] = {}
    for key, value in given.items():
        if key not in hints:
            known = ["variant", "preset", *hints]
            raise InputError(where, f"the key '{key}'", ", ".join(known), nearest(key, known))
        out[key] = _typed(f"{where}.{key}", value, hints[key])
    return STFormerConfig(**out)


def _named(
    where: str, key: str, name: object, known: Mapping[str, dict[str, object]]
) -> dict[str, object]:
    if name is None:
        return {}
    if not isinstance(name, str) or name not in known:
        question = nearest(str(name), list(known))
        raise InputError(f"{where}.{key}", repr(name), ", ".join(known), question)
    return known[name]


def source_config(network: Network) -> STFormerConfig | None:
    """The config of the STFormer that a network says it was lowered from; None for another."""
    try:
        return config_from(json.loads(network.source)["STFormer"], "source")
    except (ValueError, TypeError, KeyError, AttributeError, InputError):
        return None


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
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise InputError(where, repr(value), f"a value of type {hint.__name__}")
    return value
