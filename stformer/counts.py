"""Parameters and dense operations of a model, part by part, counted on the model itself.

The model is built without storage (torch's meta device) and run once, so that a paper-size
variant takes a second and no memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stformer.config import STFormerConfig
from stformer.model import STFormer
from stformer.nn import Mix, Readout, Scores, Synapse

PARTS = ("stem", "spatial", "rpe", "temporal", "attention", "mlp", "head")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a model.

    Attributes:
        name: stem, spatial, rpe, temporal, attention, mlp or head.
        parameters: trained in the float life.
        operations: multiply-accumulates if every spike were there, over all T steps of a
            sample; gates and neurons are not counted.
    """

    name: str
    parameters: int
    operations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a config's model has.

    Attributes:
        parts: in the model's order.
        unused: parameters that the baseline's own code also has and never uses: two LayerNorms
            a block. They are in the counts that its authors publish.
    """

    parts: tuple[Part, ...]
    unused: int

    @property
    def parameters(self) -> int:
        return sum(p.parameters for p in self.parts)

    @property
    def operations(self) -> int:
        return sum(p.operations for p in self.parts)


def count(config: STFormerConfig) -> Counts:
    """Count the model of a config."""
    with torch.device("meta"):
        model = STFormer(config).eval()
        frames = torch.empty(config.steps, 1, *model.input_shape)
    parameters: dict[str, int] = {}
    operations: dict[str, int] = {}
    for path, value in model.named_parameters():
        if value.requires_grad:
            parameters[_part(path)] = parameters.get(_part(path), 0) + value.numel()

    def add(path: str, done: int) -> None:
        operations[_part(path)] = operations.get(_part(path), 0) + done

    for path, module in model.named_modules():
        if isinstance(module, (Synapse, Scores, Mix, Readout)):
            module.register_forward_hook(_counter(path, add))
    with torch.no_grad():
        model(frames)
    names = list(dict.fromkeys([*parameters, *operations]))
    assert set(names) <= set(PARTS), names
    return Counts(
        parts=tuple(
            Part(name=n, parameters=parameters.get(n, 0), operations=operations.get(n, 0))
            for n in PARTS
            if n in names
        ),
        unused=0 if config.rpe_skip else 2 * config.depth * 2 * config.width,
    )


def _part(path: str) -> str:
    """blocks.0.attention.q.norm -> attention; temporal_x -> temporal; blocks.0.mlp1 -> mlp"""
    names = path.split(".")
    name = names[2] if names[0] == "blocks" else names[0]
    return name.split("_")[0].rstrip("12")


def _counter(path: str, add: Any) -> Any:
    def hook(module: nn.Module, args: Any, out: Any) -> None:
        if isinstance(module, Synapse):
            steps, batch, _, height, width = out.shape
            add(path, steps * batch * module.weight.numel() * height * width)
        elif isinstance(module, Scores):
            add(path, out.numel() * args[0].shape[2] // module.heads)
        elif isinstance(module, Mix):
            add(path, out.numel() * args[0].shape[-1])
        elif isinstance(module, Readout):
            add(path, len(args[0]) * module.weight.numel())

    return hook
