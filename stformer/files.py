"""Writing files and folders whole or not at all: beside the target first, then a rename."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stformer.errors import InputError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a path to write to; the target appears, whole, when the block ends well.

    Args:
        path: the target; a link is followed, an existing file is replaced.

    Whatever ends the block (an error, a full disk, Ctrl-C) removes the temporary file and
    leaves the old target as it was.

    Raises:
        InputError: the folder is missing or read-only, the target is a folder or device, the
            disk is full; any OSError of the block becomes one.
    """
    where = str(path)
    target = _target(where)
    # Same folder, so that the rename stays within one file system and is atomic.
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        # "x" creates with the user's umask; tempfile would leave the result unreadable to others.
        temporary.open("xb").close()
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as e:
        reason = e.strerror or str(e)
        raise InputError(
            where, f"cannot be written ({reason})", "a writable folder with room for it"
        ) from e
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, mark: str) -> Iterator[Path]:
    """Yield an empty folder to write into; the target appears, whole, when the block ends well.

    Args:
        path: the target; a folder there is replaced if it is empty, or holds a file `mark`,
            which shows that it was written this way, and no file that the new one has not.
        mark: name of a file that the block writes.

    Raises:
        InputError: the place cannot be written, or holds something else.
    """
    target = Path(os.path.realpath(path))
    check_folder(str(path), target, mark)
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
    aside = temporary.with_suffix(".old")
    try:
        temporary.mkdir()
        yield temporary
        assert (temporary / mark).is_file(), f"{mark} was not written"
        if target.exists():
            _check_nothing_is_lost(str(path), target, temporary)
            # Two renames: between them the name is free, and nothing is lost.
            os.rename(target, aside)
        os.rename(temporary, target)
    except OSError as e:
        reason = e.strerror or str(e)
        raise InputError(
            str(path), f"cannot be written ({reason})", "a writable folder with room for it"
        ) from e
    finally:
        if aside.exists() and not target.exists():
            os.rename(aside, target)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def check_folder(where: str, target: Path, mark: str) -> None:
    """Raise InputError where `atomic_folder` would: before the work, and not after it."""
    if "\0" in where:
        raise InputError("output path", repr(where), "the path of a folder")
    if target.exists() and not target.is_dir():
        raise InputError(where, "a file", "the path of a folder")
    if target.is_dir() and any(target.iterdir()) and not (target / mark).is_file():
        raise InputError(where, "a folder with other things", "a new or empty folder")
    if not target.parent.is_dir():
        raise InputError(where, f"no folder '{target.parent}'", "a path in an existing folder")


def _check_nothing_is_lost(where: str, target: Path, new: Path) -> None:
    """`manifest.json` is a name that others use too: a folder of theirs must not be replaced."""
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target)
        if not path.is_dir() and not (new / name).is_file():
            raise InputError(
                where,
                f"a folder with '{name}', which is not written again",
                "a new or empty folder, or one with nothing else in it",
                "remove that, or give another name",
            )


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all; errors as in `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text, line ends as given, whole or not at all, and make its folder."""
    make_folder(Path(path).parent)
    write_bytes(path, text.encode("utf-8"))


def make_folder(path: str | Path) -> None:
    """Make a folder and those above it; InputError where that cannot be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as e:  # ValueError: a null character
        reason = getattr(e, "strerror", None) or str(e)
        raise InputError(
            str(path), f"cannot be made ({reason})", "a folder in a writable place"
        ) from e


def _target(where: str) -> Path:
    if not where or "\0" in where:
        raise InputError("output path", repr(where), "the path of a file")
    target = Path(os.path.realpath(where))
    if target.is_dir() or where.endswith(os.sep):
        raise InputError(where, "a folder", "the path of a file")
    # Renaming onto /dev/null would replace the device for the whole machine.
    if target.exists() and not target.is_file():
        raise InputError(where, "a device or pipe", "the path of a regular file")
    if not target.parent.is_dir():
        raise InputError(where, f"no folder '{target.parent}'", "a path in an existing folder")
    return target
