"""`stformer import`: a network of a file that other people's software wrote."""

from __future__ import annotations

import argparse

from stformer.cli.common import check_output, emit
from stformer.cli.export import notes_text, plain_notes
from stformer.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="a .nir graph, a netx .net, or a folder of `stformer export`"
    )
    parser.add_argument(
        "-o", "--output", metavar="MODEL", required=True, help="the .stf file to write"
    )
    parser.add_argument(
        "--steps", metavar="T", type=int, help="time steps of a sample, where the file is silent"
    )
    parser.add_argument(
        "--dt",
        metavar="SECONDS",
        type=float,
        help="length of a time step, for NIR graphs of others; the producer's custom by default",
    )
    parser.add_argument(
        "--shape", metavar="C,H,W", help="shape of the input, where the file leaves it open"
    )


def run(args: argparse.Namespace) -> int:
    from stformer import storage
    from stformer.export import Reading, read

    check_output(args.output, args.file)
    _check_positive("--steps", args.steps)
    _check_positive("--dt", args.dt)
    reading = Reading(steps=args.steps, dt=args.dt, shape=_shape(args.shape))
    done = read(args.file, reading)
    provenance = {"imported": done.info, "notes": plain_notes(done.notes)}
    storage.save(args.output, done.network, provenance=provenance)
    network = done.network
    plain = {
        "model": args.output,
        "digest": network.digest(),
        "steps": network.steps,
        "populations": len(network.populations),
        "projections": len(network.projections),
        "info": done.info,
        "notes": plain_notes(done.notes),
    }
    text = (
        f"{len(network.populations)} populations, {len(network.projections)} projections, "
        f"{network.steps} steps a sample\n"
        f"model in {args.output}, digest {network.digest()[:12]}"
    )
    heading = "assumed, rounded or changed:"
    emit(args, plain, text + (f"\n{notes_text(done.notes, heading)}" if done.notes else ""))
    return 0


def _check_positive(flag: str, value: float | None) -> None:
    if value is not None and not 0 < value < float("inf"):
        raise InputError(flag, str(value), "a positive number")


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not 1 <= len(parts) <= 3 or not all(
        p.strip().isascii() and p.strip().isdigit() for p in parts
    ):
        raise InputError("--shape", text, "1 to 3 whole numbers, as 2,34,34")
    return tuple(map(int, parts))
