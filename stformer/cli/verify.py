"""`stformer verify`: the same spikes, or where they first differ."""

from __future__ import annotations

import argparse
import os
import shlex
from functools import partial
from typing import TYPE_CHECKING

from stformer.cli.case import check_case, save_smallest
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
    say,
)
from stformer.cli.parser import UsageError
from stformer.cli.progress import Progress

if TYPE_CHECKING:
    from stformer.network import Network
    from stformer.proof import Comparison, Proof
    from stformer.report import Report
    from stformer.trace import Inputs, Part, Probe, Trace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--backend", metavar="B[,B...]", help="what to compare; `stformer targets` lists them"
    )
    parser.add_argument(
        "--against", metavar="B", default=None, help="what is taken to be right (reference)"
    )
    add_lava_models(parser)
    add_data(parser)
    parser.add_argument("--state", action="store_true", help="compare u and v too")
    parser.add_argument(
        "--traces",
        metavar=("A", "B"),
        nargs=2,
        help="compare two saved traces instead; A is taken to be right",
    )
    parser.add_argument(
        "--report",
        metavar="FILE.html",
        help="write all of it as one HTML page, with pictures, and as FILE.json",
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
    if args.report:
        _check_report(args)
    if args.traces:
        clash = [
            f
            for f in ("backend", "against", "lava_models", "data", "samples", "cluster")
            if getattr(args, f)
        ]
        if clash:
            flag = clash[0].replace("_", "-")
            raise UsageError(f"stformer verify: --{flag} has no use beside --traces")
        proof = _compare_files(args)
    elif args.backend:
        proof = _run_backends(args)
    else:
        raise UsageError("stformer verify: give --backend B[,B...] or --traces A B")
    if args.report:
        from stformer.proof import write_report

        write_report(args.report, proof)
        say(args, f"report in {args.report}")
    reports = proof.reports
    summary = [r.verdict for r in reports] + [""] if len(reports) > 1 else []
    emit(args, proof.to_json(), "\n".join([*summary, *(r.to_text() for r in reports)]))
    return 0 if proof.proven else 1


def _check_report(args: argparse.Namespace) -> None:
    """Raise InputError for a page or twin that cannot be written or would replace an input."""
    from stformer.errors import InputError
    from stformer.proof import twin

    if not args.report.endswith(".html"):
        raise InputError("--report", f"'{args.report}'", "a name that ends in .html")
    for path in (args.report, str(twin(args.report))):
        check_output(path, args.model, args.data, *(args.traces or ()))


def _proof(
    args: argparse.Namespace,
    comparisons: list[Comparison],
    network: Network | None,
    data: str,
) -> Proof:
    from stformer.proof import Proof

    return Proof(
        comparisons=tuple(comparisons),
        network=network,
        data=data,
        command=shlex.join(["stformer", *args.words]),
        facts={
            "network": f"{len(network.populations)} populations, {len(network.projections)} "
            f"projections, {network.depth} steps deep"
        }
        if network
        else {},
    )


def _run_backends(args: argparse.Namespace) -> Proof:
    from stformer.proof import observed
    from stformer.trace import cut
    from stformer.verify import verify

    names = [name.strip() for name in args.backend.split(",") if name.strip()]
    if not names:
        raise UsageError("stformer verify: --backend names none")
    against = args.against or "reference"
    check_lava_models(args, [against, *names])
    against, *names = (backend_named(args, name) for name in (against, *names))
    network = load_model(args)
    check_ready([against, *names], network)
    data = load_data(args, network)
    few = {} if args.samples else {n: k for n, k in FEW.items() if k < data.samples}
    for name in names:
        if name in few:
            note(f"{name} runs the first {few[name]} of {data.samples} samples; --samples N: more")
    comparisons: list[Comparison] = []

    differing: list[tuple[Report, tuple[Part, Part]]] = []

    def seen(report: Report, reference: Trace, other: Trace) -> None:
        comparisons.append(observed(report, reference, other, network, data.labels))
        if args.minimise:
            differing.append((report, (partial(cut, reference), partial(cut, other))))

    with runner(args) as run_on:

        def run_one(name: str, network: Network, inputs: Inputs, probe: Probe) -> Trace:
            say(args, f"running {name}")
            with Progress(f"running {name}") as bar:
                trace: Trace = run_on(name, network, inputs, probe=probe, progress=bar.of)
                return trace

        verify(
            network,
            data.inputs,
            names,
            run=run_one,
            against=against,
            states=args.state,
            samples=few,
            seen=seen,
        )
    if args.minimise:
        save_smallest(args, network, differing, (against, names))
    return _proof(args, comparisons, network, data.source)


def _compare_files(args: argparse.Namespace) -> Proof:
    from stformer.errors import InputError
    from stformer.proof import Comparison, excerpt
    from stformer.trace_file import reading
    from stformer.windows import compare_files

    a, b = args.traces
    if os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b):
        raise InputError("--traces", f"'{a}' twice", "two files")
    with reading(a) as reference, reading(b) as other:
        network = _network_of(args, reference.network)
        with Progress("comparing", reference.samples) as bar:
            report = compare_files(reference, other, network, states=args.state, progress=bar.of)
        sample = report.first.sample if report.first else 0
        drawn = [
            excerpt(report, file.part(sample, min(sample + 1, report.samples)), 0)
            for file in (reference, other)
        ]
        if report.first and network is None:
            if args.minimise:
                raise InputError("--minimise", "no MODEL", "the model that the traces are of")
            note("with their MODEL the difference would also be explained")
        if args.minimise:
            save_smallest(args, network, [(report, (reference.part, other.part))], None)
    comparison = Comparison(report=report, sample=sample, reference=drawn[0], other=drawn[1])
    return _proof(args, [comparison], network, f"traces {a} and {b}")


def _network_of(args: argparse.Namespace, digest: str) -> Network | None:
    """The model that was named; the packaged one if it has this digest."""
    from stformer.storage import PACKAGED

    if args.model is None and not PACKAGED.exists():
        return None
    network = load_model(args)
    return network if args.model or network.digest() == digest else None
