"""Lowering: a model in its integer life, called once with wires, becomes a network; and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from stformer import passes
from stformer.builder import Builder, Wire
from stformer.config import config_to, source_config
from stformer.errors import InputError, Unsupported
from stformer.model import STFormer, quantise
from stformer.network import Input, Network, Shape
from stformer.nn import Spiking
from stformer.nn.weighted import Recorder


def lower(
    model: nn.Module,
    *,
    name: str,
    steps: int,
    shape: Shape,
    low: int = 0,
    high: int = 1,
    scheduled: bool = True,
) -> Network:
    """The network that a model in its integer life is.

    Args:
        model: made of `stformer.nn` blocks; its forward takes one frame sequence.
        name: of the network.
        steps: T.
        shape, low, high: of the input population.
        scheduled: also assign latencies and insert relays.

    Raises:
        Unsupported: a module or operation outside `stformer.nn`, by the module's path.
    """
    name_populations(model)
    builder = Builder(name, steps)
    wire = builder.add(Input(name="input", shape=shape, low=low, high=high))
    with torch.no_grad(), _calls(model) as inside:
        try:
            out = model(wire)
        except (TypeError, AttributeError) as e:
            raise Unsupported("lowering", inside[-1] if inside else "the model", str(e)) from e
    if not isinstance(out, Wire):
        raise Unsupported(
            "lowering", "the model", f"it returned a {type(out).__name__}, no spikes"
        )
    network = builder.build()
    return passes.schedule(network) if scheduled else network


def name_populations(model: nn.Module) -> None:
    """Give every population its module's path as name."""
    for path, module in model.named_modules():
        if isinstance(module, Spiking):
            module.population = path or "model"


@contextmanager
def _calls(model: nn.Module) -> Iterator[list[str]]:
    """Paths of the modules whose forward is running, outermost first."""
    running: list[str] = []
    hooks = []
    for path, module in model.named_modules():

        def enter(_module: nn.Module, _args: Any, path: str = path) -> None:
            running.append(path or "the model")

        def leave(_module: nn.Module, _args: Any, _out: Any) -> None:
            running.pop()

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()


def lower_stformer(model: STFormer, name: str = "stformer") -> Network:
    """Lower an STFormer with the input its config describes."""
    network = lower(
        model,
        name=name,
        steps=model.config.steps,
        shape=model.input_shape,
        high=model.config.largest_input,
    )
    source = json.dumps({"STFormer": config_to(model.config)})
    return passes.replace_network(network, source=source)


def restore(network: Network) -> STFormer:
    """The trained module in its integer life, from the network that it was lowered to.

    Lowering the result gives the network again, digest and all; anything else is refused.

    Raises:
        Unsupported: the network was not lowered from an STFormer, or was changed since.
    """
    config = source_config(network)
    if config is None:
        why = "it was not lowered from an STFormer; use --backend cpu"
        raise Unsupported("backend 'torch'", f"network {network.name}", why)
    model = STFormer(config)
    quantise(model)
    lower_stformer(model)  # names the projections
    try:
        for module in model.modules():
            if isinstance(module, Spiking):
                module.take_integers(network)
    except (InputError, KeyError, ValueError, RuntimeError) as e:
        raise Unsupported("backend 'torch'", f"network {network.name}", _foreign(e)) from e
    if lower_stformer(model).digest() != network.digest():
        raise Unsupported("backend 'torch'", f"network {network.name}", _foreign(None))
    return model.eval()


def _foreign(cause: Exception | None) -> str:
    detail = f" ({cause})" if cause else ""
    return f"it differs from what its model's config lowers to{detail}; use --backend cpu"


def record(model: nn.Module, recorder: Recorder | None) -> None:
    """Make every population of a model report its spikes and states, or stop doing so."""
    for module in model.modules():
        if isinstance(module, Spiking):
            module.recorder = recorder
