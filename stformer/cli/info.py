"""`stformer info`: what is in a model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from stformer.cli.common import emit, need_torch
from stformer.recipe import apply_override, nearest

if TYPE_CHECKING:
    from stformer.config import STFormerConfig
    from stformer.network import Network, Population, Projection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL|VARIANT",
        nargs="?",
        help="an .stf file, or the name of a variant, as STFormer-4-384 (its parts are counted, "
        "nothing is trained); the packaged model by default",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="with VARIANT: change a field of it, as preset=paper or classes=100",
    )


def run(args: argparse.Namespace) -> int:
    from stformer.config import VARIANTS
    from stformer.errors import InputError
    from stformer.storage import load_document

    if args.model in VARIANTS:
        plain = _variant(args.model, args.set)
        emit(args, plain, _parts_text(plain["model"]))
        return 0
    if args.set:
        found = f"the model {args.model or 'that is packaged'}"
        raise InputError("--set", found, f"a variant: {', '.join(VARIANTS)}")
    if args.model is not None and not Path(args.model).exists():
        known = f"an .stf file, or a variant: {', '.join(VARIANTS)}"
        raise InputError(args.model, "no such file", known, nearest(args.model, list(VARIANTS)))
    document = load_document(args.model)
    plain = describe(document.network) | {"provenance": dict(document.provenance)}
    plain["model"] = _parts_of(document.network)
    text = _text(plain)
    emit(args, plain, f"{text}\n\n{_parts_text(plain['model'])}" if plain["model"] else text)
    return 0


def _variant(name: str, overrides: list[str]) -> dict[str, Any]:
    need_torch("counting a variant's parts")
    from stformer.config import config_from

    values: dict[str, Any] = {"variant": name}
    for override in overrides:
        apply_override(values, override)
    return {"model": parts(config_from(values, f"variant {name}"), name)}


def _parts_of(network: Network) -> dict[str, Any] | None:
    """Parts of the model that a network was lowered from, where torch is there to build it."""
    from stformer.config import source_config

    config = source_config(network)
    if config is None or find_spec("torch") is None:
        return None
    return parts(config, network.name)


def parts(config: STFormerConfig, name: str) -> dict[str, Any]:
    """Parameters and operations, part by part, as plain data."""
    from stformer.config import config_to
    from stformer.counts import count

    found = count(config)
    return {
        "name": name,
        "config": config_to(config),
        "parts": [
            {"name": p.name, "parameters": p.parameters, "operations": p.operations}
            for p in found.parts
        ],
        "parameters": found.parameters,
        "operations": found.operations,
        "unused_in_the_baseline": found.unused,
    }


def _parts_text(model: Mapping[str, Any]) -> str:
    from stformer.report import table

    rows = [
        [p["name"], f"{p['parameters']:,}", f"{p['operations'] / 1e6:,.1f}"]
        for p in model["parts"]
    ]
    rows.append(["all", f"{model['parameters']:,}", f"{model['operations'] / 1e6:,.1f}"])
    unused = model["unused_in_the_baseline"]
    note = (
        f"\nwith the {unused:,} of LayerNorms that the baseline's code has and does not use: "
        f"{model['parameters'] + unused:,} parameters"
        if unused
        else ""
    )
    head = ["part", "parameters", "million operations, dense, all steps"]
    return f"model {model['name']}, float life\n{table(head, rows)}{note}"


def describe(network: Network) -> dict[str, Any]:
    """Everything that `stformer info` tells, as plain data."""
    populations = [_population(p) for p in network.populations]
    projections = [_projection(network, p) for p in network.projections]
    total = {
        "populations": len(populations),
        "projections": len(projections),
        "neurons": sum(p["neurons"] for p in populations if p["kind"] != "Input"),
        "parameters": sum(p["parameters"] for p in (*populations, *projections)),
        "synapses": sum(p["synapses"] for p in projections),
    }
    return {
        "name": network.name,
        "digest": network.digest(),
        "steps": network.steps,
        "latency": network.depth,
        "total": total,
        "populations": populations,
        "projections": projections,
    }


def _population(p: Population) -> dict[str, Any]:
    from stformer.network import Input, Lif, Readout, neurons

    plain: dict[str, Any] = {
        "name": p.name,
        "kind": type(p).__name__,
        "shape": list(p.shape),
        "neurons": neurons(p),
        "latency": p.latency,
        "parameters": 0,
    }
    if isinstance(p, Input):
        plain |= {"low": p.low, "high": p.high}
    if isinstance(p, Lif):
        plain |= {"vth": p.vth, "du": p.du, "dv": p.dv}
    if isinstance(p, (Lif, Readout)):
        bias = p.bias_mant
        plain |= {
            "bias_mant": [int(bias.min()), int(bias.max())],
            "bias_exp": p.bias_exp,
            "parameters": bias.size if bias.any() else 0,
        }
    return plain


def _projection(network: Network, p: Projection) -> dict[str, Any]:
    import numpy as np

    from stformer.network import Operand

    weight = np.asarray(1 if isinstance(p, Operand) else p.weight)
    return {
        "name": p.name,
        "kind": type(p).__name__,
        "pre": p.pre,
        "post": p.post,
        "weight_shape": list(weight.shape),
        "weight": [int(weight.min()), int(weight.max())],
        "weight_exp": 0 if isinstance(p, Operand) else p.weight_exp,
        "delay": p.delay,
        "axon_delay": network.axon_delay(p),
        "parameters": weight.size if weight.ndim else 0,  # gates' constants are not learnt
        "synapses": synapses(network, p),
    }


def synapses(network: Network, p: Projection) -> int:
    """Connections of a projection; a convolution's padding connects nothing."""
    from typing_extensions import assert_never

    from stformer.network import (
        BroadcastTokens,
        Conv,
        Dense,
        OneToOne,
        Operand,
        SumTokens,
        conv_output,
        neurons,
    )

    pre, post = network[p.pre], network[p.post]
    match p:
        case Dense():
            count = p.weight.size
        case OneToOne() | BroadcastTokens():
            count = neurons(post)
        case SumTokens() | Operand():
            count = neurons(pre)
        case Conv():
            out = conv_output(p, pre.shape[1], pre.shape[2])
            taps = [_taps(p, axis, pre.shape[1 + axis], out[axis]) for axis in (0, 1)]
            count = p.weight.shape[0] * p.weight.shape[1] * taps[0] * taps[1]
        case _:
            assert_never(p)
    return int(count)


def _taps(p: Any, axis: int, size: int, out: int) -> int:
    """Pairs (place of the output, kernel element) along one axis that meet a source neuron."""
    return sum(
        0 <= o * p.stride[axis] - p.padding[axis] + k * p.dilation[axis] < size
        for o in range(out)
        for k in range(p.weight.shape[2 + axis])
    )


def _text(plain: Mapping[str, Any]) -> str:
    from stformer.report import table

    total = plain["total"]
    populations = [
        [
            *(p["name"], p["kind"], tuple(p["shape"]), p["latency"], p.get("vth"), p.get("dv")),
            _bias(p),
        ]
        for p in plain["populations"]
    ]
    projections = [
        [
            *(p["name"], p["kind"], p["pre"], p["post"]),
            tuple(p["weight_shape"]) or "1",
            _range(*p["weight"]),
            *(p["weight_exp"], p["delay"], p["axon_delay"], p["synapses"]),
        ]
        for p in plain["projections"]
    ]
    heads = (
        ["population", "kind", "shape", "latency", "vth", "dv", "bias"],
        [
            "projection",
            "kind",
            "from",
            "to",
            "weight",
            "range",
            "exp",
            "delay",
            "axon",
            "synapses",
        ],
    )
    lines = [
        f"network {plain['name']}: {plain['steps']} steps, pipeline {plain['latency']} deep, "
        f"{total['neurons']:,} neurons, {total['parameters']:,} parameters, "
        f"{total['synapses']:,} synapses",
        f"digest {plain['digest']}",
        *(
            shorten(f"{key}: {_short(value)}", 200, placeholder=" …")
            for key, value in plain["provenance"].items()
        ),
        "",
        table(heads[0], populations),
        "",
        table(heads[1], projections),
    ]
    return "\n".join(lines)


def _bias(p: Mapping[str, Any]) -> str:
    if p["kind"] == "Input":
        return f"values {_range(p['low'], p['high'])}"
    if not any(p.get("bias_mant", ())):
        return ""
    return f"{_range(*p['bias_mant'])} << {p['bias_exp']}"


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}...{high}"


def _short(value: object) -> str:
    """A value of a file's provenance in a line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    if isinstance(value, list):
        return f"{len(value)}, see --json"
    return str(value)
