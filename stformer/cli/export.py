"""`stformer export`: a model as a file for other people's software."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stformer.cli.common import emit

if TYPE_CHECKING:
    from stformer.export import Exported, Note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="an .stf file; the packaged model by default"
    )
    parser.add_argument(
        "--to",
        metavar="FORMAT",
        required=True,
        help="nir, netx (lava-dl) or onnx; `stformer targets` lists them",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="file or folder to write; by default the model's name with the format's ending",
    )
    parser.add_argument(
        "--step",
        action="store_true",
        help="onnx: one time step with states as inputs and outputs, for streams",
    )
    parser.add_argument(
        "--allow-extensions",
        action="store_true",
        help="nir: write what NIR has no node for as documented nodes that only stformer reads",
    )


def run(args: argparse.Namespace) -> int:
    from stformer import export
    from stformer.errors import InputError
    from stformer.storage import load

    for flag, given, format_ in (
        ("--allow-extensions", args.allow_extensions, "nir"),
        ("--step", args.step, "onnx"),
    ):
        if given and args.to != format_:
            raise InputError(flag, f"with --to {args.to}", f"--to {format_}")
    if args.output and args.model and _same(args.output, args.model):
        raise InputError(args.output, "the same path as the model", "another name")
    network = load(args.model)
    options = export.Options(extensions=args.allow_extensions, step=args.step)
    done = export.export(args.to, network, args.output, options)
    emit(args, _plain(done), _text(done))
    return 0


def _same(output: str, model: str) -> bool:
    out, given = Path(output), Path(model)
    return out.exists() and given.exists() and out.samefile(given)


def _plain(done: Exported) -> dict[str, Any]:
    return {
        "path": str(done.path),
        "format": done.format,
        "digest": done.digest,
        "files": done.files,
        "notes": plain_notes(done.notes),
    }


def plain_notes(notes: tuple[Note, ...]) -> list[dict[str, str]]:
    """Notes as plain data."""
    return [{"where": n.where, "what": n.what} for n in notes]


def _text(done: Exported) -> str:
    count = f"{len(done.files)} files" if len(done.files) > 1 else "one file"
    return (
        f"{done.format} in {done.path} ({count}), read back and compared\n"
        f"digest {done.digest}\n"
        + notes_text(done.notes, f"what {done.format} does not carry, or says in another way:")
    )


def notes_text(notes: tuple[Note, ...], heading: str) -> str:
    """Notes as a list; those of many objects that say the same in one line."""
    where: dict[str, list[str]] = {}
    for n in notes:
        where.setdefault(n.what, []).append(n.where)
    lines = [
        f"  {', '.join(names[:3])}{f' and {len(names) - 3} more' if names[3:] else ''}: {what}"
        for what, names in where.items()
    ]
    return "\n".join(["", heading, *lines]) if lines else ""
