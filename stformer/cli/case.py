"""`stformer verify --minimise -o CASE`: the smallest piece of a difference, as a folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stformer.cli.common import check_ready, note, say

if TYPE_CHECKING:
    from stformer.minimise import RunBoth
    from stformer.network import Network
    from stformer.report import Report
    from stformer.trace import Inputs, Part, Probe, Trace


def check_case(path: str) -> None:
    """Raise InputError for a place where no case can be written, before anything is run."""
    from stformer.files import check_folder
    from stformer.minimise import MARK

    check_folder(path, Path(os.path.realpath(path)), MARK)


def save_smallest(
    args: argparse.Namespace,
    network: Network | None,
    found: Sequence[tuple[Report, tuple[Part, Part]]],
    backends: tuple[str, Sequence[str]] | None,
) -> None:
    """Write the smallest piece of the first comparison that differs; a note where none does.

    Args:
        args: of the command.
        network: what ran.
        found: comparisons, and what reads their traces.
        backends: the reference's name and the others', where they can run again.
    """
    from stformer.minimise import save_case, smallest

    differing = [i for i, (report, _) in enumerate(found) if report.first]
    if not differing or network is None:
        note(f"nothing differs, so {args.output} was not written")
        return
    report, traces = found[differing[0]]
    assert report.first is not None
    if len(differing) > 1:
        note(f"{args.output} is of {report.other}, the first backend that differs")
    run, command = None, None
    if backends:
        against, name = backends[0], backends[1][differing[0]]
        run = _runner(args, against, name)
        command = f"stformer verify network.stf --data inputs.npz --backend {name}"
        command += f" --against {against}" if against != "reference" else ""
        command += " --state" if args.state else ""
    piece = smallest(network, *traces, report.first, states=args.state, run=run)
    save_case(args.output, piece, report, command)
    note(
        f"wrote {args.output}: {len(piece.network.populations)} populations, "
        f"{len(piece.samples)} samples, {piece.network.steps} steps"
        + ("" if piece.repeats or not backends else "; only the records differ, no new run of it")
    )


def _runner(args: argparse.Namespace, against: str, name: str) -> RunBoth:
    """Runs both sides of a comparison on a piece of it."""

    def run_both(part: Network, inputs: Inputs, probe: Probe) -> tuple[Trace, Trace]:
        from stformer import deploy

        check_ready([against, name], part)
        say(args, f"running {against} and {name} on {len(part.populations)} populations")
        ours, theirs = (deploy.run(b, part, inputs, probe=probe) for b in (against, name))
        return ours, theirs

    return run_both
