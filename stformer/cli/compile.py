"""`stformer compile`: a run's float network to integers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stformer.cli.common import check_output, emit, need_torch, prepare_data, say
from stformer.cli.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a folder of `stformer train`")
    parser.add_argument(
        "-o", "--output", metavar="MODEL", required=True, help="the .stf file to write"
    )
    parser.add_argument(
        "--finetune",
        metavar="N",
        type=int,
        help="epochs of fine-tuning on integers; the recipe's by default, 0 for none",
    )
    parser.add_argument(
        "--scales",
        choices=("samples", "bounds"),
        help="how large weights may be: as training samples allow, or such that no input "
        "overflows anything; the recipe's by default",
    )
    parser.add_argument(
        "--require-proof",
        action="store_true",
        help="write nothing unless no input overflows anything, see `stformer prove`",
    )
    parser.add_argument(
        "--device", metavar="D", default="", help="cpu, cuda or cuda:N; a GPU if there is one"
    )


def run(args: argparse.Namespace) -> int:
    need_torch("compiling")
    from stformer import overflow, storage, train
    from stformer.compile import compile_run
    from stformer.errors import InputError

    if args.finetune is not None and args.finetune < 0:
        raise InputError("--finetune", str(args.finetune), "0 or more epochs")
    check_output(args.output)
    done = train.load_run(Path(args.run))
    wanted = done.recipe.compile.finetune_epochs if args.finetune is None else args.finetune
    prepare_data(done.recipe.data, done.model.config.steps)
    with Progress("fine-tuning", max(wanted, 1)) as progress:

        def report(row: dict[str, Any]) -> None:
            text = train.epoch_text(row)
            progress.update(int(row["epoch"]), text)
            say(args, f"epoch {row['epoch']:.0f} of {row['epochs']:.0f}: {text}")

        compiled = compile_run(
            done,
            finetune_epochs=wanted,
            scales=args.scales or "",
            device=args.device,
            report=report,
        )
    claims = overflow.prove(compiled.network)
    if not claims.proven and (args.require_proof or done.recipe.compile.require_proof):
        raise overflow.NotProven(args.output, claims)
    storage.save(args.output, compiled.network, provenance=compiled.provenance(done.recipe))
    plain = {
        "model": args.output,
        "digest": compiled.network.digest(),
        "float_accuracy": compiled.float_accuracy,
        "quantised_accuracy": compiled.quantised_accuracy,
        "integer_accuracy": compiled.integer_accuracy,
        "largest_sums": compiled.largest_sums,
        "proven": claims.proven,
    }
    ruled_out = (
        "ruled out for every input"
        if claims.proven
        else f"possible in {len(claims.open)} populations, see `stformer prove`"
    )
    worst = max(compiled.largest_sums, key=lambda name: compiled.largest_sums[name])
    text = (
        f"float accuracy     {100 * compiled.float_accuracy:.2f} %\n"
        f"after rounding     {100 * compiled.quantised_accuracy:.2f} %\n"
        f"integer accuracy   {100 * compiled.integer_accuracy:.2f} %  "
        f"(after {wanted} epochs of fine-tuning)\n"
        f"largest sum seen   {compiled.largest_sums[worst]:,} of 32,767, in {worst}\n"
        f"overflow           {ruled_out}\n"
        f"model in {args.output}, digest {compiled.network.digest()[:12]}"
    )
    emit(args, plain, text)
    return 0
