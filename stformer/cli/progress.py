"""Signs of life on standard error, only where that is a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

BAR = 24  # characters
PERIOD = 0.1  # seconds between two drawings


class Progress:
    """A line that is drawn over: a label, a bar where there is a total, times, and a note.

    The time left is that of what is to do at the pace since the first report: what comes before
    it, as starting a hundred processes, is no part of the pace.

        with Progress("training", total=20) as progress:
            progress.update(1, "loss 0.51")

    Args:
        label: what is going on.
        total: units of work, or None where nobody knows.
    """

    def __init__(self, label: str, total: int | None = None) -> None:
        self.label, self.total = label, total
        self.started = time.monotonic()
        self._drawn = 0.0
        self._first: tuple[float, int] | None = None  # when, and how much was done
        self._on = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        self._draw(0, "")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line away."""
        if self._on:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` of the total are done."""
        if self._first is None:
            self._first = time.monotonic(), done
        if time.monotonic() - self._drawn >= PERIOD or done == self.total:
            self._draw(done, note)

    def of(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done, where the total is learnt on the way."""
        self.total = total
        self.update(done)

    def _draw(self, done: int, note: str) -> None:
        if not self._on:
            return
        self._drawn = time.monotonic()
        parts = [self.label]
        if self.total:
            full = BAR * min(done, self.total) // self.total
            parts.append(f"[{'#' * full}{'.' * (BAR - full)}] {done}/{self.total}")
        if done:
            parts.append(f"{self._drawn - self.started:.0f} s{self._left(done)}")
        sys.stderr.write(f"\r\x1b[K{'  '.join([*parts, note]).rstrip()}")
        sys.stderr.flush()

    def _left(self, done: int) -> str:
        """How long the rest will take, where that can be told."""
        if not self.total or self._first is None or done >= self.total:
            return ""
        began, before = self._first
        if done <= before:
            return ""
        seconds = (self._drawn - began) / (done - before) * (self.total - done)
        amount = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
        return f", about {amount} left"
