"""`stformer run`: a model on a backend."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from stformer.cli.cluster import add_cluster, runner
from stformer.cli.common import (
    FEW,
    add_data,
    add_lava_models,
    add_model,
    backend_named,
    check_lava_models,
    check_output,
    check_ready,
    emit,
    load_data,
    load_model,
    note,
)
from stformer.cli.parser import UsageError
from stformer.cli.progress import Progress

BLOCK_BYTES = 2**28  # of records that are in memory at a time, where one sample has less


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--backend", metavar="B", required=True, help="what runs it; `stformer targets` lists them"
    )
    add_lava_models(parser)
    add_data(parser)
    parser.add_argument("-o", "--output", metavar="TRACE", help="save every spike in this file")
    parser.add_argument("--state", action="store_true", help="record u and v too")
    parser.add_argument(
        "--measure",
        choices=("power", "time", "activity"),
        help="what hardware measures meanwhile, one thing a run (loihi2)",
    )
    add_cluster(parser, "the samples")


def run(args: argparse.Namespace) -> int:
    from stformer.cli.tally import Tally
    from stformer.trace import Probe, digest_inputs
    from stformer.trace_file import writing

    if args.output:
        check_output(args.output, args.model, args.data)
    if args.measure and args.cluster:
        raise UsageError("stformer run: --measure has no use beside --cluster")
    measure = {"measure": args.measure} if args.measure else {}
    check_lava_models(args, [args.backend])
    args.backend = backend_named(args, args.backend)
    network = load_model(args)
    check_ready([args.backend], network)
    few = FEW.get(args.backend)
    if few and args.samples is None and args.data is None:
        note(f"{args.backend} runs the first {few} samples; --samples N: more")
        args.samples = few
    data = load_data(args, network)
    probe = Probe(states=args.state)
    tally = Tally(network, data)
    with ExitStack() as stack:
        run_on = stack.enter_context(runner(args))
        file = None
        if args.output:
            inputs = digest_inputs(data.inputs)
            file = stack.enter_context(writing(args.output, inputs=inputs))
        bar = stack.enter_context(Progress(f"{args.backend}: {data.samples} samples"))
        for start, stop in blocks(probe.size(network), data.samples):
            part = {name: a[start:stop] for name, a in data.inputs.items()}
            started = time.perf_counter()

            def progress(done: int, _: int, start: int = start) -> None:
                bar.of(start + done, data.samples)

            trace = run_on(args.backend, network, part, probe=probe, progress=progress, **measure)
            tally.add(trace, time.perf_counter() - started)
            if file:
                file.append(trace)
    plain = tally.plain() | {"trace": args.output}
    emit(args, plain, _text(plain))
    return 0


def blocks(size: int, samples: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the samples that run at a time, whole windows of a trace file.

    Args:
        size: bytes of what is recorded of one sample.
        samples: in all.
    """
    from stformer.trace import spans
    from stformer.trace_tables import window_of

    window = window_of(size)
    step = window * max(BLOCK_BYTES // max(window * size, 1), 1)
    return spans(samples, step)


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
