"""Event frames that were converted once: one .npy per split, checked whenever it is opened.

Beside `X.npy` lies `X.json`: the sources with their sizes and times, and the SHA-256 of X.npy.
While it is being made there are `X.part` (frames so far) and `X.journal` (how many recordings
are in it, and their SHA-256), from which an interrupted conversion goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stformer.datasets.base import Frames, Progress
from stformer.errors import InputError
from stformer.files import make_folder, write_text

VERSION = 1  # of the frames' meaning: raise it where the same events give others
JOURNAL_EVERY = 32  # recordings; what an interruption costs at most, a plain kill too


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Source of one or more samples.

    Attributes:
        files: what it is made from; a change of size or time makes a cache stale.
        labels: of its samples, in order.
        frames: reads and counts it, [len(labels), T, 2, H, W].
    """

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    frames: Callable[[], Frames]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """One split's frames on disk.

    Attributes:
        path: of the .npy file.
        recordings: what it holds, in this order.
        shape: [T, 2, H, W] of a sample.
    """

    path: Path
    recordings: Sequence[Recording]
    shape: tuple[int, int, int, int]

    @property
    def samples(self) -> int:
        return sum(len(r.labels) for r in self.recordings)

    @property
    def size(self) -> int:
        """Bytes of the .npy file."""
        return len(self.head) + self.samples * math.prod(self.shape)

    @property
    def head(self) -> bytes:
        buffer = BytesIO()
        description: Any = {
            "descr": "|u1",
            "fortran_order": False,
            "shape": (self.samples, *self.shape),
        }
        np.lib.format.write_array_header_1_0(buffer, description)  # type: ignore[no-untyped-call]
        return buffer.getvalue()

    @property
    def sources(self) -> list[list[object]]:
        """[path from here, bytes, nanoseconds of its last change, samples] of every file."""
        out: list[list[object]] = []
        for recording in self.recordings:
            for path in recording.files:
                try:
                    found = path.stat()
                except OSError as e:
                    raise InputError(str(path), e.strerror or str(e), "a readable file") from None
                name = os.path.relpath(path, self.path.parent)
                out.append([name, found.st_size, found.st_mtime_ns, len(recording.labels)])
        return out


def missing(cache: Cache) -> bool:
    """Whether there is no sound, fresh file."""
    index = _read_json(cache.path.with_suffix(".json"))
    if not cache.path.is_file() or cache.path.stat().st_size != cache.size:
        return True
    if index.get("version") != VERSION or index.get("sources") != cache.sources:
        return True
    try:
        return index.get("sha256") != _digest(cache.path)
    except OSError:
        return True


def load(cache: Cache) -> Frames:
    """The frames [S, T, 2, H, W], mapped; `missing` must have said that they are there."""
    frames: Frames = np.load(cache.path, mmap_mode="r", allow_pickle=False)
    assert frames.shape == (cache.samples, *cache.shape) and frames.dtype == np.uint8
    return frames


def make(caches: Sequence[Cache], progress: Progress) -> None:
    """Convert what is missing, going on where an earlier try stopped.

    Args:
        caches: the splits of one set.
        progress: gets (recordings done, of how many).

    Raises:
        InputError: a recording cannot be read, the cache not be written.
    """
    total = sum(len(c.recordings) for c in caches)
    before = 0
    for cache in caches:
        if missing(cache):  # else nothing is written: the folder may be a read-only one
            make_folder(cache.path.parent)
            with _locked(cache.path.with_suffix(".lock")):
                # Whoever held the lock may have made it.
                if missing(cache):
                    _convert(cache, partial(_report, progress, before, total))
        before += len(cache.recordings)


def _report(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _convert(cache: Cache, progress: Callable[[int], None]) -> None:
    part, journal = cache.path.with_suffix(".part"), cache.path.with_suffix(".journal")
    sources = cache.sources
    try:
        done, running = _resumable(cache, sources)
        with part.open("r+b" if done else "wb") as file:
            if not done:
                file.write(cache.head)
                running.update(cache.head)
            end = _end(cache, done)
            file.seek(end)
            file.truncate()
            _need_room(cache.path, cache.size - end)
            try:
                for recording in cache.recordings[done:]:
                    progress(done)
                    frames = recording.frames()
                    assert frames.shape == (len(recording.labels), *cache.shape)
                    file.write(frames.tobytes())
                    longer = running.copy()
                    longer.update(frames.tobytes())
                    # Together: whenever an interruption comes, the journal is right.
                    done, running = done + 1, longer
                    if done % JOURNAL_EVERY == 0:
                        _note(journal, file, sources, done, running.hexdigest())
            finally:
                _note(journal, file, sources, done, running.hexdigest())
        progress(done)
        index = {"version": VERSION, "sha256": running.hexdigest(), "sources": sources}
        write_text(cache.path.with_suffix(".json"), json.dumps(index, indent=0) + "\n")
        os.replace(part, cache.path)
        journal.unlink()
    except OSError as e:
        reason = e.strerror or str(e)
        allowed = f"a writable folder with room for {cache.size / 1e6:,.0f} MB"
        raise InputError(str(cache.path), f"cannot be written ({reason})", allowed) from None


def _resumable(cache: Cache, sources: list[list[object]]) -> tuple[int, hashlib._Hash]:
    """How many recordings an interrupted conversion of the same sources has left, and their hash.

    What it left is checked as a finished cache is; a bit that flipped costs all of it.
    """
    fresh = hashlib.sha256()
    noted = _read_json(cache.path.with_suffix(".journal"))
    done, part = noted.get("done"), cache.path.with_suffix(".part")
    if noted.get("sources") != _fingerprint(sources) or type(done) is not int:
        return 0, fresh
    if not part.is_file() or not 0 < done <= len(cache.recordings):
        return 0, fresh
    found = _hash(part, _end(cache, done))
    return (done, found) if found.hexdigest() == noted.get("sha256") else (0, fresh)


def _end(cache: Cache, done: int) -> int:
    """Where the first recordings end in the file."""
    samples = sum(len(r.labels) for r in cache.recordings[:done])
    return len(cache.head) + samples * math.prod(cache.shape)


def _note(
    journal: Path, file: BinaryIO, sources: list[list[object]], done: int, digest: str
) -> None:
    file.flush()
    os.fsync(file.fileno())
    plain = {"sources": _fingerprint(sources), "done": done, "sha256": digest}
    write_text(journal, json.dumps(plain) + "\n")


def _fingerprint(sources: list[list[object]]) -> str:
    return hashlib.sha256(json.dumps([VERSION, sources]).encode()).hexdigest()


def _hash(path: Path, end: int) -> hashlib._Hash:
    """Of the first bytes of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while end and (chunk := file.read(min(end, 2**20))):
            found.update(chunk)
            end -= len(chunk)
    return found


def _digest(path: Path) -> str:
    found = path.stat()
    return _digest_of(path, found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=64)
def _digest_of(path: Path, size: int, changed: int, inode: int) -> str:
    """Once a process for an unchanged file: gigabytes take seconds."""
    del changed, inode
    return _hash(path, size).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two trainings that begin at once convert once: the second waits."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("ab"))
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as e:
            reason = e.strerror or str(e)
            raise InputError(
                str(path), f"cannot be locked ({reason})", "a writable folder"
            ) from None
        yield


def _need_room(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise InputError(
            str(path), f"{free / 1e6:,.0f} MB free", f"{size / 1e6:,.0f} MB for the frames"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
