"""`stformer bundle`: all that a laboratory needs, in one folder."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from stformer.cli.common import add_data, add_model, emit, load_data, note
from stformer.cli.hardware import add_hardware

SAMPLES = 16  # golden ones, where nobody says otherwise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_hardware(parser)
    add_data(parser)
    parser.add_argument(
        "--backend",
        metavar="B[,B...]",
        default="cpu",
        help="compared with the reference for the proof in the bundle (cpu)",
    )
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the folder to write")


def run(args: argparse.Namespace) -> int:
    from stformer import bundle
    from stformer.cli.parser import UsageError
    from stformer.storage import load_document

    document = load_document(args.model)
    network = document.network
    backends = [name.strip() for name in args.backend.split(",") if name.strip()]
    if not backends:
        raise UsageError("stformer bundle: --backend names none")
    if not args.samples:
        args.samples = SAMPLES
    data = load_data(args, network)
    manifest = bundle.make(
        args.output,
        network,
        bundle.Samples(inputs=data.inputs, labels=data.labels),
        args.hardware,
        backends=backends,
        provenance=document.provenance,
        say=note,
    )
    left = "".join(f"\nleft out: {name}: {why}" for name, why in manifest.left_out.items())
    text = (
        f"bundle in {args.output}: {len(manifest.files)} files, {manifest.samples} samples, "
        f"for {manifest.hardware}\nnetwork {manifest.network}\nseal    {manifest.seal}{left}\n\n"
        f"check it anywhere: stformer deploy {args.output} --check --seal {manifest.seal}"
    )
    emit(args, asdict(manifest) | {"path": args.output}, text)
    return 0
