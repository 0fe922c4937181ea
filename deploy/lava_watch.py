"""A thread of the worker that ends everything when a Lava process or the parent dies."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stformer.deploy.lava_clean import remove

WATCH_SECONDS = 0.25
BLAME_SECONDS = 3.0  # for the process that failed to leave its message
WEIGHING_SHARE = 0.02  # of the time may go into measuring memory

Tell = Callable[[dict[str, object]], None]


class Watch:
    """Watches the parent from the start, the Lava processes once told, and their memory.

    Args:
        folder: the run's own; removed with everything else when the parent is gone.
        parent: process id.
        prefix: of the names of shared memory.
        tell: sends a message to the parent.
    """

    def __init__(self, folder: Path, parent: int, prefix: str, tell: Tell) -> None:
        self.folder, self.parent, self.prefix, self.tell = folder, parent, prefix, tell
        self.peak_mib = 0.0
        self._actors: list[tuple[str, Any]] = []
        self._ended = threading.Event()
        threading.Thread(target=self._wait_for_parent, daemon=True).start()

    def start(self, actors: list[tuple[str, Any]]) -> None:
        """Watch these Lava processes, each with a name for people, from now on."""
        self._actors = actors
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Lava processes may end now; weigh them once more."""
        self._weigh()
        self._ended.set()

    def fail(self, message: str) -> None:
        """Say why, unlink shared memory, then kill this whole session; the folder is left."""
        self.tell({"error": message})
        self._end(keep_folder=True)

    def _end(self, *, keep_folder: bool) -> None:
        remove(self.prefix, None if keep_folder else self.folder)
        os.killpg(0, signal.SIGKILL)

    def _wait_for_parent(self) -> None:
        while os.getppid() == self.parent:
            time.sleep(WATCH_SECONDS)
        self._end(keep_folder=False)

    def _watch(self) -> None:
        try:
            weighed, wait = 0.0, 0.0
            while not self._ended.wait(WATCH_SECONDS):
                if not all(_alive(actor) for _, actor in self._actors):
                    self._blame()
                if time.perf_counter() - weighed > wait:
                    begun = time.perf_counter()
                    self._weigh()
                    weighed = time.perf_counter()
                    wait = (weighed - begun) / WEIGHING_SHARE
        except Exception as error:  # unwatched, the run could wait for ever
            self.fail(f"its watch failed: {error!r}")

    def _blame(self) -> None:
        """Name the Lava process that failed; the others end with it, sometimes before it."""
        until = time.perf_counter() + BLAME_SECONDS
        while time.perf_counter() < until and not self._ended.wait(0.05):
            for name, actor in self._actors:
                if words := _last_words(actor):
                    self.fail(f"{name} {words}")
        if not self._ended.is_set():
            self.fail("a Lava process ended early, without a word")

    def _weigh(self) -> None:
        """Proportional memory of this process and all Lava processes; 0 where not told."""
        pids = [os.getpid(), *(actor.pid for _, actor in self._actors)]
        self.peak_mib = max(self.peak_mib, sum(map(_proportional_kib, pids)) / 1024)


def _alive(actor: Any) -> bool:
    try:
        return bool(actor.is_alive())
    except ValueError:  # joined and closed
        return False


def _last_words(actor: Any) -> str:
    """Why a Lava process ended: its exception or its signal; nothing if neither is known."""
    if caught := actor.exception:
        error, trace = caught
        print(trace, file=sys.stderr, flush=True)
        return f"raised {type(error).__name__}: {error}"
    code = actor.exitcode
    return f"ended early, by signal {-code}" if code and code < 0 else ""


def _proportional_kib(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(row.split()[1]) for row in text.splitlines() if row.startswith("Pss:")), 0)
