"""JSON that is not trusted: bounded in size and depth, finite, one value per key."""

from __future__ import annotations

import json
import math
from typing import NoReturn

from stformer.errors import InputError

MAX_ITEMS = 2**20  # values and containers in a JSON text: 16 MiB of "[]," would take a gigabyte


def parse_json(where: str, text: str) -> object:
    """JSON from an untrusted text of bounded size.

    Raises:
        InputError: not JSON, NaN or infinity, integers beyond 20 digits, a key twice, nesting
            deeper than Python's recursion, or more than `MAX_ITEMS` items.
    """

    def refuse(found: str) -> NoReturn:
        raise InputError(f"{where}, JSON text", found, "finite numbers, one value per key")

    def whole(digits: str) -> int:
        return int(digits) if len(digits) <= 20 else refuse(f"an integer of {len(digits)} digits")

    def real(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(digits[:40])

    def mapping(pairs: list[tuple[str, object]]) -> dict[str, object]:
        out = dict(pairs)
        return out if len(out) == len(pairs) else refuse("a key twice")

    check_items(where, text)
    try:
        return json.loads(
            text,
            parse_int=whole,
            parse_float=real,
            parse_constant=refuse,
            object_pairs_hook=mapping,
        )
    except RecursionError:
        raise InputError(f"{where}, JSON text", "very deep nesting", "a few levels") from None
    except ValueError as e:
        raise InputError(f"{where}, JSON text", str(e)[:200], "JSON") from e


def check_items(where: str, text: str) -> None:
    """Raise InputError for a JSON text with more than `MAX_ITEMS` items."""
    if sum(text.count(c) for c in "[{,") > MAX_ITEMS:
        raise InputError(f"{where}, JSON text", "too many items", f"up to {MAX_ITEMS}")
