"""What a training says of itself: `metrics.jsonl`, one line an epoch, and TensorBoard files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stformer.files import write_text

Row = dict[str, Any]
METRICS = "metrics.jsonl"


class Log:
    """The metrics of a run folder.

    Args:
        folder: the run's.
        epochs: rows of later epochs are dropped; they were written before an interruption,
            and will come again.
        writer: of TensorBoard, or None.
    """

    def __init__(self, folder: Path, epochs: int, writer: Any) -> None:
        self.path, self.writer = folder / METRICS, writer
        self.rows = [row for row in read_metrics(folder) if row["epoch"] <= epochs]

    def add(self, row: Row) -> None:
        """Append an epoch's row."""
        self.rows.append(row)
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))
        if self.writer is None:
            return
        for key, value in row.items():
            if isinstance(value, (int, float)) and key not in ("epoch", "epochs"):
                self.writer.add_scalar(key, value, row["epoch"])
        for name, rate in row["rates"].items():
            self.writer.add_scalar(f"rates/{name}", rate, row["epoch"])
        self.writer.flush()


def read_metrics(folder: Path) -> list[Row]:
    """The rows of a run folder; broken lines are left out."""
    try:
        lines = (folder / METRICS).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("epoch"), int):
            rows.append(row)
    return rows


@contextmanager
def opened(folder: Path, epochs: int) -> Iterator[Log]:
    """The log of a run that goes on after so many epochs; TensorBoard's where it is installed."""
    if find_spec("tensorboard") is None:
        yield Log(folder, epochs, None)
        return
    from torch.utils.tensorboard.writer import SummaryWriter

    make: Any = SummaryWriter  # untyped
    writer = make(str(folder / "tensorboard"), purge_step=epochs + 1)
    try:
        yield Log(folder, epochs, writer)
    finally:
        writer.close()
