"""The errors a user can cause, each with the exit code that the command line gives it.

Every message names the object, what was found, what is allowed and what to do about it.
`assert` is for our own invariants only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something of a network that a backend cannot run, or a format cannot hold.

    Attributes:
        where: population or projection, or "network".
        why: the reason, and what would work instead.
    """

    where: str
    why: str


class StformerError(Exception):
    """Base of errors that are the user's to fix; the command line prints no traceback.

    `args` are what the class was called with, so that it survives pickling, from a worker of a
    cluster for one.
    """

    exit_code = 2
    message = ""

    def __str__(self) -> str:
        return self.message or super().__str__()


class InputError(StformerError):
    """A value, file or flag that cannot be used.

    Args:
        where: the object, as the user knows it (a path, a population, a flag).
        found: what was found there.
        allowed: what would have been accepted.
        do: what to do about it; may be empty when `allowed` already says so.
    """

    def __init__(self, where: str, found: str, allowed: str, do: str = "") -> None:
        self.where, self.found, self.allowed, self.do = where, found, allowed, do
        tail = f" {do[0].upper()}{do[1:]}" + ("" if do.endswith("?") else ".") if do else ""
        super().__init__(where, found, allowed, do)
        self.message = f"{where}: {found}; allowed: {allowed}.{tail}"


class Unsupported(StformerError):
    """A stage that cannot express an object of the network, and why.

    Args:
        stage: the backend, format or pass.
        where: the population or projection.
        why: the reason, and what would work instead.
    """

    def __init__(self, stage: str, where: str, why: str) -> None:
        self.stage, self.where, self.why = stage, where, why
        super().__init__(stage, where, why)
        self.message = f"{stage} cannot express {where}: {why}"


class Unavailable(StformerError):
    """A backend or extra that is not installed here.

    Args:
        what: the backend, format or data set.
        why: what is missing.
        do: the command that installs it.
    """

    exit_code = 3

    def __init__(self, what: str, why: str, do: str) -> None:
        self.what, self.why, self.do = what, why, do
        super().__init__(what, why, do)
        self.message = f"{what} is not available here: {why}. To get it: {do}"
