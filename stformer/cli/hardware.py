"""The flag --hardware, of commands that look at a chip."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stformer.hardware_configs import Hardware, Value


def add_hardware(parser: argparse.ArgumentParser) -> None:
    from stformer.hardware_configs import DEFAULT

    parser.add_argument(
        "--hardware",
        metavar="NAME|FILE.toml",
        default=DEFAULT,
        help="a target that `stformer targets` lists, or a file of your own, which may override "
        f"single numbers of one; {DEFAULT} by default",
    )


def load_hardware(args: argparse.Namespace) -> Hardware:
    """The target that --hardware names."""
    from stformer import hardware_configs

    return hardware_configs.load(args.hardware)


def assumptions_text(values: Iterable[Value[Any]], what: str) -> str:
    """The assumptions among the numbers that a result depends on, as a table."""
    from stformer.report import table

    rows = [[v.key, shown(v), v.source] for v in values if v.basis == "assumption"]
    if not rows:
        return f"no number that {what} depends on is an assumption"
    head = ["assumption", "value", "why"]
    return f"{what} depends on {len(rows)} assumptions\n{table(head, rows)}"


def shown(value: Value[Any]) -> str:
    """ "12,000 unit", "3.5e-09 s", "Graded, Product"."""
    v = value.value
    if isinstance(v, tuple):
        text = ", ".join(map(str, v))
    elif isinstance(v, bool):
        text = "yes" if v else "no"
    else:
        text = f"{v:,}" if isinstance(v, int) else f"{v:g}"
    return text if value.unit == "1" else f"{text} {value.unit}"
