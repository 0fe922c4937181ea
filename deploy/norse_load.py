"""A NIR file as torch modules: Norse's neurons and synapses, wired by nirtorch.

`norse.torch.from_nir` hands its map of nodes to `nirtorch.load`, which is deprecated and visits
nodes depth first: where branches of different length meet, one comes a step late. The same map
goes to `nirtorch.nir_to_torch` here, and what it lacks or misreads is put right, each with a note.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import nir
import nirtorch
import numpy as np
import numpy.typing as npt
import torch
from norse.torch.utils.import_nir import _import_norse_module
from torch import Tensor, nn

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A file's graph, ready to run.

    Attributes:
        keys: population -> node.
        edges: of the graph.
        notes: where this is not what the file, or Norse by itself, says.
        resting: populations whose bias stands in v_leak.
    """

    keys: dict[str, str]
    edges: list[tuple[str, str]]
    notes: list[str]
    resting: frozenset[str]
    _input: tuple[str, tuple[int, ...]]
    _module: Any
    _sent: dict[str, list[Tensor]] = field(default_factory=dict)

    def sources(self, population: str) -> list[str]:
        """Nodes with an edge to a population's."""
        return [a for a, b in self.edges if b == self.keys[population]]

    def run(self, frames: Array) -> dict[str, Array]:
        """What populations' nodes and what leads to an Output sent: float32 [B, T, *shape].

        Args:
            frames: of the input, [B, T, *shape].
        """
        key, shape = self._input
        batch, steps = frames.shape[:2]
        x = torch.from_numpy(frames.astype(np.float32)).reshape(batch, steps, *shape)
        self._sent.clear()
        state = None
        with torch.no_grad():
            for t in range(steps):
                _, state = self._module(x[:, t], state)
        out = {name: torch.stack(kept, dim=1).numpy() for name, kept in self._sent.items()}
        self._sent.clear()
        return {**out, key: x.numpy()}


def load(path: Path) -> Loaded:
    """Load a file of our own export, with one Input."""
    graph = nir.read(path, type_check=False)
    block = graph.metadata["stformer"]
    dt = float(block["dt"])
    keys: dict[str, str] = json.loads(block["nodes"])["populations"]
    names = {id(node): key for key, node in graph.nodes.items()}
    outputs = {key for key, node in graph.nodes.items() if isinstance(node, nir.Output)}
    wanted = {*keys.values(), *(a for a, b in graph.edges if b in outputs)}
    nodes, edges = graph.nodes, list(graph.edges)
    # nirtorch keeps an Output for the end, so that two of them wait for each other for ever. What
    # leads to them is run and recorded without.
    _, *more = sorted(outputs)
    graph.nodes = {key: node for key, node in nodes.items() if key not in more}
    graph.edges = [(a, b) for a, b in edges if b not in more]
    sent: dict[str, list[Tensor]] = {}

    def module(node: Any) -> nn.Module:
        made = _module(node, dt)
        key = names[id(node)]

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            value: Tensor = output[0] if isinstance(output, tuple) else output
            sent.setdefault(key, []).append(value)

        if key in wanted:
            made.register_forward_hook(keep)
        return made

    kinds = {type(node) for node in graph.nodes.values()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, of their own calls
        made = nirtorch.nir_to_torch(graph, dict.fromkeys(kinds, module))
    (entry,) = (key for key, node in graph.nodes.items() if isinstance(node, nir.Input))
    return Loaded(
        keys=keys,
        edges=edges,
        notes=_notes(graph, dt),
        resting=frozenset(
            name
            for name, key in keys.items()
            if isinstance(nodes[key], nir.CubaLIF) and nodes[key].v_leak.any()
        ),
        _input=(entry, tuple(int(n) for n in graph.nodes[entry].input_type["input"])),
        _module=made,
        _sent=sent,
    )


class Delay(nn.Module):
    """What it was given `steps` steps ago, 0 before."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        past = (*(state or ()), x)
        if len(past) <= self.steps:
            return torch.zeros_like(x), past
        return past[0], past[1:]


def _module(node: Any, dt: float) -> nn.Module:
    """Norse's module for a node, or ours where it has none or another meaning."""
    match node:
        case nir.Input() | nir.Output():
            return nn.Identity()
        case nir.Delay():
            return Delay(round(float(node.delay.flat[0]) / dt))
        case nir.Flatten():
            return nn.Flatten(int(node.start_dim) + 1, int(node.end_dim))
        case _:
            made: nn.Module = _import_norse_module(node, dt=dt)
            return made


def _notes(graph: Any, dt: float) -> list[str]:
    def those(kind: type) -> str:
        keys = [key for key, node in graph.nodes.items() if isinstance(node, kind)]
        more = f" and {len(keys) - 3} more" if keys[3:] else ""
        return ", ".join(keys[:3]) + more

    out = [
        f"NIR's equations in float32, forward Euler with dt = {dt:g} s as the file says "
        "(Norse by itself takes 0.001)",
        "wired by nirtorch.nir_to_torch: norse.torch.from_nir visits nodes depth first, so that "
        "branches of different length meet a step apart",
    ]
    if delays := those(nir.Delay):
        out.append(f"Norse has no Delay; one of ours stands for {delays}")
    if flat := those(nir.Flatten):
        out.append(f"Norse counts the batch as an axis to flatten; put right at {flat}")
    return out
