"""`stformer map`: does a model fit a chip, on how many cores, and what would fit if not."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from stformer.cli.common import add_model, check_output, emit
from stformer.cli.hardware import (
    add_hardware,
    assumptions_text,
    load_hardware,
    shown,
)

if TYPE_CHECKING:
    from stformer.deploy.mapping import Mapped, Place
    from stformer.deploy.rules import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_hardware(parser)
    parser.add_argument(
        "--picture",
        metavar="FILE",
        help="draw the chips with populations on their cores; .png, .svg or .pdf",
    )


def run(args: argparse.Namespace) -> int:
    if args.picture:
        from stformer.plot import need_matplotlib

        need_matplotlib()
        from stformer.plot import style

        style.check_format(args.picture)
        check_output(args.picture, args.model)
    from stformer.deploy.mapping import map_network, measured_sums, to_json
    from stformer.storage import load_document

    document = load_document(args.model)
    sums = measured_sums(document.network, document.provenance)
    found = map_network(document.network, load_hardware(args), sums=sums)
    if args.picture:
        from stformer.plot import chips, save

        save(chips(found), args.picture)
    plain = to_json(found) | {"picture": args.picture}
    emit(args, plain, _text(found, verbose=args.verbose))
    return 0 if found.fits else 1


def _text(found: Mapped, *, verbose: bool) -> str:
    from stformer.deploy.tiling import ASSUMED
    from stformer.report import table

    verdict = "fits" if found.fits else "does not fit"
    lines = [f"network {found.network} {verdict} {found.hardware.name}"]
    if found.there:
        lines.append(
            f"{found.cores:,} cores of {found.there:,} (an estimate; at least {found.least:,}), "
            f"{found.chips:,} chip{'s' * (found.chips != 1)}"
        )
        rows = [_row(p) for p in found.places]
        head = ["population", "neurons", "cores", "x, y, c of one", "limited by", *SHARES]
        lines += ["", table(head, rows)]
    else:
        lines.append("it has no cores to fill")
    for severity, what in (("error", "broken"), ("warning", "to know")):
        some = [f for f in found.findings if f.severity == severity]
        if some:
            lines += ["", f"{what}:", *_findings(some)]
    if found.alternatives:
        rows = [[a.change, a.detail, f"{a.cores:,}"] for a in found.alternatives]
        lines += ["", table(["cores would do with another", "namely", "cores"], rows)]
    elif found.stuck:
        lines += ["", "no board, width or number of tokens that was tried would do"]
    if found.there:
        lines += ["", "the estimate itself assumes:", *(f"  {a}" for a in ASSUMED)]
    lines += ["", assumptions_text(found.used, "the mapping")]
    if verbose:
        lines += ["", _rules(found)]
    return "\n".join(lines)


SHOWN = 4  # findings of one rule
SHARES = ("neurons", "synapses", "axons", "memory")


def _row(p: Place) -> list[Any]:
    from math import isinf

    from stformer.deploy.tiling import RESOURCES

    cut, limits = p.cut, []
    for used, share in zip(cut.load, cut.share, strict=True):
        limits.append("" if isinf(used) or not share else f"{100 * share:.0f} %")
    tile = f"{cut.tile.x}, {cut.tile.y}, {cut.tile.c}"
    cores = "none" if cut.cores is None else f"{cut.cores:,}"
    name = p.demand.population
    return [name, f"{p.demand.neurons:,}", cores, tile, RESOURCES[cut.limited_by], *limits]


def _findings(found: list[Finding]) -> list[str]:
    """A line each; of a rule that is broken often, the first few."""
    lines = []
    for rule in dict.fromkeys(f.rule for f in found):
        some = [f for f in found if f.rule == rule]
        for f in some[:SHOWN]:
            do = f"; {f.do}" if f.do else ""
            lines.append(f"  {rule}: {f.where}: {f.found}; allowed: {f.allowed}{do}")
        if len(some) > SHOWN:
            lines.append(f"  {rule}: {len(some) - SHOWN} more, see --json")
    return lines


def _rules(found: Mapped) -> str:
    """With -v: the rules, and the numbers each is checked against."""
    from stformer.deploy.rules import RULES, used_by
    from stformer.report import table

    rows: list[list[Any]] = []
    for r in RULES:
        rows.append([r.name, r.checks, "", "", ""])
        values = used_by(r, found.hardware)
        rows += [["", f"  {v.key}", shown(v), v.basis, v.source] for v in values]
    return table(["rule", "checks", "value", "basis", "source"], rows)
