"""`stformer run`: a model on a backend."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from stformer.cli.cluster import add_cluster, runner
from stformer.cli.common import (
    FEW,
    Data,
    add_data,
    add_model,
    check_output,
    check_ready,
    emit,
    load_data,
    load_model,
    note,
)
from stformer.cli.progress import Progress

if TYPE_CHECKING:
    from stformer.network import Network
    from stformer.trace import Trace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--backend", metavar="B", required=True, help="what runs it; `stformer targets` lists them"
    )
    add_data(parser)
    parser.add_argument("-o", "--output", metavar="TRACE", help="save every spike in this file")
    parser.add_argument("--state", action="store_true", help="record u and v too")
    add_cluster(parser, "the samples")


def run(args: argparse.Namespace) -> int:
    from stformer.trace import Probe

    if args.output:
        check_output(args.output, args.model, args.data)
    network = load_model(args)
    check_ready([args.backend], network)
    few = FEW.get(args.backend)
    if few and args.samples is None and args.data is None:
        note(f"{args.backend} runs the first {few} samples; --samples N: more")
        args.samples = few
    data = load_data(args, network)
    with runner(args) as run_on, Progress(f"{args.backend}: {data.samples} samples") as bar:
        started = time.perf_counter()
        probe = Probe(states=args.state)
        trace = run_on(args.backend, network, data.inputs, probe=probe, progress=bar.of)
        seconds = float(trace.info.get("seconds", time.perf_counter() - started))
    if args.output:
        trace.save(args.output)
    plain = describe(network, data, trace, seconds) | {"trace": args.output}
    emit(args, plain, _text(plain))
    return 0


def describe(network: Network, data: Data, trace: Trace, seconds: float) -> dict[str, Any]:
    """Everything that `stformer run` tells, as plain data."""
    populations = []
    for name, spikes in trace.spikes.items():
        binary = spikes.dtype.name == "uint8"
        populations.append(
            {
                "name": name,
                "kind": type(network[name]).__name__,
                "neurons": spikes[0, 0].size,
                "rate": float(spikes.mean()) if binary else None,
                "spikes": int(spikes.sum()) if binary else None,
                "silent": int((~spikes.any(axis=(0, 1))).sum()),
                "range": [int(spikes.min()), int(spikes.max())],
            }
        )
    predictions = predict(network, trace)
    correct = None
    if data.labels is not None and predictions is not None:
        correct = int((predictions == data.labels).sum())
    return {
        "network": network.name,
        "digest": trace.network,
        "backend": trace.backend,
        "data": data.source,
        "samples": trace.samples,
        "steps": trace.steps,
        "correct": correct,
        "accuracy": None if correct is None else correct / trace.samples,
        "predictions": None if predictions is None else predictions.tolist(),
        "seconds": seconds,
        "samples_per_second": trace.samples / seconds if seconds > 0 else None,
        "info": {k: v for k, v in trace.info.items() if k != "seconds"},
        "populations": populations,
    }


def predict(network: Network, trace: Trace) -> Any:
    """Class of each sample, [S]: the largest logit of the one readout."""
    from stformer.trace import logits

    readouts = [p.name for p in network.readouts if p.name in trace.spikes]
    if len(readouts) != 1:
        return None
    return logits(trace[readouts[0]]).argmax(axis=1)


def _text(plain: dict[str, Any]) -> str:
    from stformer.report import table

    lines = []
    if plain["accuracy"] is not None:
        lines.append(
            f"accuracy {100 * plain['accuracy']:.2f} %, {plain['correct']} of {plain['samples']}"
        )
    speed = plain["samples_per_second"]
    lines.append(
        f"{plain['backend']}: {plain['samples']} samples of {plain['data']}, "
        f"{plain['steps']} steps, "
        f"{plain['seconds']:.3g} s" + (f", {speed:.3g} samples/s" if speed else "")
    )
    lines += [f"{key.replace('_', ' ')}: {_value(key, v)}" for key, v in plain["info"].items()]
    if plain["trace"]:
        lines.append(f"trace in {plain['trace']}")
    rows = [
        [
            *(p["name"], p["kind"], p["neurons"], p["rate"], p["spikes"], p["silent"]),
            "" if p["rate"] is not None else "{}...{}".format(*p["range"]),
        ]
        for p in plain["populations"]
    ]
    head = ["population", "kind", "neurons", "rate", "spikes", "silent neurons", "values"]
    return "\n".join([*lines, "", table(head, rows)])


def _value(key: str, value: object) -> str:
    if isinstance(value, (int, float)) and key.endswith("bytes"):
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
