"""`stformer verify`: the same spikes, or where they first differ."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from stformer.cli.case import check_case, save_smallest
from stformer.cli.cluster import add_cluster, runner
from stformer.cli.common import (
    FEW,
    add_data,
    add_model,
    check_ready,
    emit,
    load_data,
    load_model,
    note,
    say,
)
from stformer.cli.parser import UsageError
from stformer.cli.progress import Progress

if TYPE_CHECKING:
    from stformer.network import Network
    from stformer.report import Report
    from stformer.trace import Inputs, Probe, Trace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--backend", metavar="B[,B...]", help="what to compare; `stformer targets` lists them"
    )
    parser.add_argument(
        "--against", metavar="B", default=None, help="what is taken to be right (reference)"
    )
    add_data(parser)
    parser.add_argument("--state", action="store_true", help="compare u and v too")
    parser.add_argument(
        "--traces",
        metavar=("A", "B"),
        nargs=2,
        help="compare two saved traces instead; A is taken to be right",
    )
    parser.add_argument(
        "--minimise",
        action="store_true",
        help="save the smallest piece that still differs as a case that can be run: -o CASE",
    )
    parser.add_argument("-o", "--output", metavar="CASE", help="folder for --minimise")
    add_cluster(parser, "the samples")


def run(args: argparse.Namespace) -> int:
    if args.minimise != bool(args.output):
        raise UsageError("stformer verify: --minimise and -o CASE go together")
    if args.minimise:
        check_case(args.output)
    if args.traces:
        clash = [
            f for f in ("backend", "against", "data", "samples", "cluster") if getattr(args, f)
        ]
        if clash:
            raise UsageError(f"stformer verify: --{clash[0]} has no use beside --traces")
        reports = [_compare_files(args)]
    elif args.backend:
        reports = _run_backends(args)
    else:
        raise UsageError("stformer verify: give --backend B[,B...] or --traces A B")
    proven = all(r.proven for r in reports)
    plain: dict[str, Any] = {"proven": proven, "reports": [r.to_json() for r in reports]}
    summary = [r.verdict for r in reports] + [""] if len(reports) > 1 else []
    emit(args, plain, "\n".join([*summary, *(r.to_text() for r in reports)]))
    return 0 if proven else 1


def _run_backends(args: argparse.Namespace) -> list[Report]:
    from stformer.verify import verify

    names = [name.strip() for name in args.backend.split(",") if name.strip()]
    if not names:
        raise UsageError("stformer verify: --backend names none")
    against = args.against or "reference"
    network = load_model(args)
    check_ready([against, *names], network)
    data = load_data(args, network)
    few = {} if args.samples else {n: k for n, k in FEW.items() if k < data.samples}
    for name in names:
        if name in few:
            note(f"{name} runs the first {few[name]} of {data.samples} samples; --samples N: more")

    traces: list[Trace] = []
    with runner(args) as run_on:

        def run_one(name: str, network: Network, inputs: Inputs, probe: Probe) -> Trace:
            say(args, f"running {name}")
            with Progress(f"running {name}") as bar:
                trace: Trace = run_on(name, network, inputs, probe=probe, progress=bar.of)
                if args.minimise:
                    traces.append(trace)
                return trace

        reports = verify(
            network,
            data.inputs,
            names,
            run=run_one,
            against=against,
            states=args.state,
            samples=few,
        )
    if args.minimise:
        reference, *others = traces
        pairs = [(reference, other) for other in others]
        save_smallest(args, network, list(zip(reports, pairs, strict=True)), (against, names))
    return reports


def _compare_files(args: argparse.Namespace) -> Report:
    from stformer.errors import InputError
    from stformer.trace import Trace
    from stformer.verify import compare

    a, b = args.traces
    if os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b):
        raise InputError("--traces", f"'{a}' twice", "two files")
    reference, other = Trace.load(a), Trace.load(b)
    network = _network_of(args, reference)
    report = compare(reference, other, network, states=args.state)
    if report.first and network is None:
        if args.minimise:
            raise InputError("--minimise", "no MODEL", "the model that the traces are of")
        note("with their MODEL the difference would also be explained")
    if args.minimise:
        save_smallest(args, network, [(report, (reference, other))], None)
    return report


def _network_of(args: argparse.Namespace, trace: Trace) -> Network | None:
    """The model that was named; the packaged one if the trace is of it."""
    from stformer.storage import PACKAGED

    if args.model is None and not PACKAGED.exists():
        return None
    network = load_model(args)
    return network if args.model or network.digest() == trace.network else None
