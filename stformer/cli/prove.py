"""`stformer prove`: no input overflows, or where one might."""

from __future__ import annotations

import argparse
from math import prod
from typing import TYPE_CHECKING, Any

from stformer.cli.common import add_data, add_model, emit, load_data, load_model
from stformer.cli.progress import Progress

if TYPE_CHECKING:
    from stformer.network import Network
    from stformer.overflow import Claim, Claims

CHUNK = 2**21  # values of the largest population that are looked at together

Seen = dict[str, dict[str, int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser, default="the largest sums are those that `stformer compile` saw")
    parser.add_argument(
        "--any-steps", action="store_true", help="for samples of any length, not only of T steps"
    )


def run(args: argparse.Namespace) -> int:
    from stformer.overflow import prove

    network = load_model(args)
    claims = prove(network, any_steps=args.any_steps)
    source, seen = _observed(args, network) if args.data or args.samples else _calibrated(args)
    plain: dict[str, Any] = claims.to_json() | {"seen_in": source}
    for population in plain["populations"]:
        for register in population["registers"]:
            register["seen"] = seen.get(population["name"], {}).get(register["what"])
    emit(args, plain, _text(claims, source, seen))
    return 0 if claims.proven else 1


def _observed(args: argparse.Namespace, network: Network) -> tuple[str, Seen]:
    """What samples make of every register, a few at a time."""
    from stformer import overflow

    data = load_data(args, network)
    widest = max(prod(p.shape) for p in network.populations) * network.steps
    chunk = max(CHUNK // widest, 1)
    backend = "reference" if network.recurrent else "cpu"
    held: dict[str, dict[str, overflow.Range]] = {}
    with Progress(f"{data.samples} samples", data.samples) as bar:
        for start in range(0, data.samples, chunk):
            part = {name: a[start : start + chunk] for name, a in data.inputs.items()}
            trace = network.run(part, backend=backend)
            held = overflow.merge(held, overflow.observe(network, trace))
            bar.update(min(start + chunk, data.samples))
    seen = {
        name: {what: max(-low, high) for what, (low, high) in registers.items()}
        for name, registers in held.items()
    }
    return f"{data.samples} samples of {data.source}", seen


def _calibrated(args: argparse.Namespace) -> tuple[str | None, Seen]:
    """The largest sums that a model file says were met when it was compiled."""
    from stformer.overflow import SUM
    from stformer.storage import load_document

    sums = load_document(args.model).provenance.get("largest_sums")
    if not isinstance(sums, dict):
        return None, {}
    seen = {str(k): {SUM: v} for k, v in sums.items() if isinstance(v, int)}
    return "the training split, when it was compiled", seen


def _text(claims: Claims, source: str | None, seen: Seen) -> str:
    from stformer.report import table

    total, open_ = len(claims.populations), len(claims.open)
    steps = "any number of" if claims.steps is None else claims.steps
    verdict = (
        f"proven: in {steps} steps no input overflows any of {total} populations"
        if claims.proven
        else f"not proven: in {steps} steps some input may overflow {open_} of {total} populations"
    )
    rows = [_row(claim, seen.get(claim.name, {})) for claim in claims.populations]
    head = ["population", "kind", "sum", "seen", "bits", "u", "bits", "v", "bits", "verdict"]
    lines = [f"network {claims.network}, digest {claims.digest}", verdict]
    if source:
        lines.append(f"seen: the largest absolute values in {source}")
    return "\n".join([*lines, "", table(head, rows)])


def _row(claim: Claim, seen: dict[str, int]) -> list[object]:
    cells: list[object] = [claim.name, claim.kind]
    registers = {r.what: r for r in claim.registers}
    for what in ("sum", "u", "v"):
        r = registers.get(what)
        cells.append(f"{r.low:,}...{r.high:,}" if r else None)
        cells += [seen.get(what)] if what == "sum" else []
        cells.append(r.bits if r else None)
    why = [
        f"{r.what} up to {r.largest:,} of {r.limit:,}"
        + (f", seen {seen[r.what]:,}" if r.what in seen else "")
        for r in claim.exceeding
    ]
    return [*cells, f"not proven: {'; '.join(why)}" if why else "proven"]
