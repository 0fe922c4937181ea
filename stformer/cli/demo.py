"""`stformer demo`: the main job on real data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stformer.cli.common import emit, need_torch, positive
from stformer.cli.progress import Progress

if TYPE_CHECKING:
    from stformer.demo import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", metavar="DIR", default="demo", help="where the files go; demo by default"
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change one value of the recipe 'digits'; may be repeated",
    )
    parser.add_argument(
        "--lava-samples",
        metavar="N",
        type=positive,
        default=64,
        help="digits that go through Lava (64); the others run all 360",
    )


def run(args: argparse.Namespace) -> int:
    need_torch("the demo")
    from stformer.demo import demo

    bars: dict[str, Progress] = {}

    def say(text: str) -> None:
        for bar in bars.values():
            bar.clear()
        bars.clear()
        print(f"stformer: {text}", file=sys.stderr, flush=True)

    def progress(part: str, done: int, total: int, note: str) -> None:
        if part not in bars:
            bars[part] = Progress(part)
        bars[part].total = total
        bars[part].update(done, note)

    result = demo(
        Path(args.output),
        lava_samples=args.lava_samples,
        overrides=tuple(args.set),
        say=say,
        progress=progress,
    )
    emit(args, _plain(result), _text(result))
    return 0 if result.proven else 1


def _plain(result: Result) -> dict[str, Any]:
    compiled = result.compiled
    return {
        "proven": result.proven,
        "float_accuracy": compiled.float_accuracy,
        "integer_accuracy": compiled.integer_accuracy,
        "digest": compiled.network.digest(),
        "reports": [r.to_json() for r in result.reports],
        "info": result.info,
        "files": {name: str(path) for name, path in result.files.items()},
    }


def _text(result: Result) -> str:
    compiled, network = result.compiled, result.compiled.network
    lines = [
        "",
        f"float accuracy     {100 * compiled.float_accuracy:.2f} %",
        f"integer accuracy   {100 * compiled.integer_accuracy:.2f} %  (360 test digits)",
        f"network            {len(network.populations)} populations, "
        f"{len(network.projections)} projections, {network.depth} steps deep, "
        f"digest {network.digest()[:12]}",
        f"Lava run           {result.lava}",
        "",
        *(r.verdict for r in result.reports),
        *(r.to_text() for r in result.reports if not r.proven),
        "",
        *(f"{name:8} {path}" for name, path in result.files.items()),
    ]
    return "\n".join(lines)
