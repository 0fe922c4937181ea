"""`stformer deploy`: the laboratory's side of a bundle."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from stformer.cli.common import check_output, emit
from stformer.cli.parser import UsageError
from stformer.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="DIR", help="a folder that `stformer bundle` made")
    parser.add_argument(
        "--check", action="store_true", help="only check that every byte is as it was made"
    )
    parser.add_argument(
        "--seal", metavar="SHA256", help="what `stformer bundle` printed; binds every byte"
    )
    parser.add_argument(
        "--site",
        metavar="SITE.toml",
        help="make the script that runs the bundle at this site; the bundle has an example",
    )
    parser.add_argument("-o", "--output", metavar="SCRIPT", help="the script to write")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the script instead of writing it"
    )


def run(args: argparse.Namespace) -> int:
    from stformer.deploy import bundle, lab
    from stformer.deploy.site import read_site
    from stformer.files import write_text

    if args.check and (args.site or args.output or args.dry_run):
        raise UsageError("stformer deploy: --check writes nothing; leave the other flags out")
    if args.site and not (args.output or args.dry_run):
        raise UsageError("stformer deploy: give -o SCRIPT, or --dry-run to see it")
    if not args.site and not args.check:
        raise UsageError("stformer deploy: give --check, or --site SITE.toml")
    if args.output:
        check_output(args.output, args.site)
        if Path(args.bundle).resolve() in Path(args.output).resolve().parents:
            found = f"a place in the bundle {args.bundle}, which holds its own files only"
            raise InputError(args.output, found, "a place outside of it")
    manifest = bundle.check(args.bundle, args.seal)
    plain = asdict(manifest) | {"checked": True, "script": args.output}
    if not args.site:
        text = (
            f"{manifest.name}: {len(manifest.files)} files, every byte as it was made\n"
            f"network {manifest.network}\nseal    {manifest.seal}"
        )
        emit(args, plain, text)
        return 0
    site = read_site(args.site, "loihi")
    assert site.loihi is not None
    script = lab.script(Path(args.bundle).resolve(), manifest, site.loihi, site.slurm)
    if args.dry_run:
        emit(args, plain | {"text": script}, script)
        return 0
    write_text(args.output, script)
    emit(args, plain, f"bash {args.output} --dry-run   # what it would run\nbash {args.output}")
    return 0
