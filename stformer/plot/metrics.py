"""Reading the metrics of run folders: what is missing is missing, what is broken is an error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stformer.errors import InputError

MAX_BYTES = 2**26  # of metrics.jsonl
MAX_ROWS = 100_000

FRACTIONS = ("test_accuracy", "validation_accuracy", "train_accuracy")
NUMBERS = ("loss", "lr", *FRACTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One row.

    Attributes:
        epoch: from 1.
        numbers: key of NUMBERS -> finite value, only those that the row has.
        rates: population -> 0...1; empty where the row has none.
    """

    epoch: int
    numbers: Mapping[str, float]
    rates: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """A run.

    Attributes:
        name: the folder's.
        rows: by epoch, ascending, at least one.
    """

    name: str
    rows: tuple[Epoch, ...]

    def line(self, key: str) -> tuple[list[int], list[float]]:
        """(epochs, values) of the rows that have this number."""
        rows = [row for row in self.rows if key in row.numbers]
        return [row.epoch for row in rows], [row.numbers[key] for row in rows]

    def rate(self, population: str) -> tuple[list[int], list[float]]:
        """(epochs, rates) of the rows that have this population."""
        rows = [row for row in self.rows if population in row.rates]
        return [row.epoch for row in rows], [row.rates[population] for row in rows]

    @property
    def populations(self) -> list[str]:
        """Populations with a rate, in the order of the first row that has them."""
        return list(dict.fromkeys(name for row in self.rows for name in row.rates))


def read_metrics(folder: str | Path) -> Curves:
    """metrics.jsonl of a run folder.

    Args:
        folder: what `stformer train -o` wrote.

    Raises:
        InputError: no such folder or file, a line that is no JSON object, an epoch that is no
            number or does not rise, a known key whose value is no finite number in its range.
    """
    path = Path(folder) / "metrics.jsonl"
    if not path.is_file():
        found = "no metrics.jsonl" if Path(folder).is_dir() else "no such folder"
        raise InputError(f"run folder {folder}", found, "a folder of `stformer train`")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(str(path), f"{size:,} bytes", f"up to {MAX_BYTES:,}")
        lines = path.read_text("utf-8").split("\n")
    except UnicodeDecodeError as e:
        raise InputError(str(path), f"no text ({e.reason})", "JSON lines in UTF-8") from None
    except OSError as e:
        raise InputError(str(path), f"cannot be read ({e.strerror})", "a readable file") from None
    rows: list[Epoch] = []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        row = _row(f"{path}, line {number}", text)
        if rows and row.epoch <= rows[-1].epoch:
            raise InputError(
                f"{path}, line {number}",
                f"epoch {row.epoch} after {rows[-1].epoch}",
                "epochs that rise",
            )
        rows.append(row)
    if not rows or len(rows) > MAX_ROWS:
        raise InputError(str(path), f"{len(rows):,} epochs", f"1...{MAX_ROWS:,}")
    return Curves(name=Path(folder).resolve().name, rows=tuple(rows))


def _row(where: str, text: str) -> Epoch:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise InputError(where, f"no JSON ({e})"[:160], "one JSON object a line") from None
    if not isinstance(row, dict):
        raise InputError(where, f"a {type(row).__name__}", "a JSON object")
    epoch = row.get("epoch")
    if type(epoch) is not int or not 1 <= epoch <= 10**9:
        raise InputError(where, f"epoch {epoch!r:.40}", "a whole number from 1")
    numbers = {
        key: _number(where, key, row[key], 1.0 if key in FRACTIONS else None)
        for key in NUMBERS
        if row.get(key) is not None
    }
    rates = row.get("rates") or {}
    if not isinstance(rates, dict):
        raise InputError(where, f"rates is a {type(rates).__name__}", "rates by population")
    return Epoch(
        epoch=epoch,
        numbers=numbers,
        rates={k: _number(where, f"rate of '{k:.60}'", v, 1.0) for k, v in rates.items()},
    )


def _number(where: str, what: str, value: object, most: float | None) -> float:
    allowed = "a finite number from 0" if most is None else "a number 0...1"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(where, f"{what} = {value!r:.60}", allowed)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0 or (most is not None and number > most):
        raise InputError(where, f"{what} = {value!r:.60}", allowed)
    return number
