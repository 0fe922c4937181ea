"""Helpers for tests of the command line; pytest is not imported with this module."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stformer.errors import Problem
from stformer.network import Network
from stformer.testing import inputs_for, sample_network
from stformer.trace import Inputs, Probe, Trace

FakeRun = Callable[[Network, Inputs, Probe], Trace]


class Capture(Protocol):
    """What we use of pytest's capsys."""

    def readouterr(self) -> Any: ...


class Patch(Protocol):
    """What we use of pytest's monkeypatch."""

    def setitem(self, dic: Any, name: Any, value: Any) -> None: ...


class Call:
    """main() in this process: exit code, standard output, standard error."""

    def __init__(self, capsys: Capture) -> None:
        self._capsys = capsys

    def __call__(self, *words: object) -> tuple[int, str, str]:
        from stformer.cli import main

        self._capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = self._capsys.readouterr()
        return code, out, err

    def fails(self, *words: object, code: int = 2) -> str:
        """One message on standard error, nothing on standard output; gives the message."""
        found, out, err = self(*words)
        assert (found, out) == (code, ""), err
        assert err.startswith("stformer: error: "), err
        assert err.count("\n") == 1, err
        return err.removeprefix("stformer: error: ").rstrip("\n")

    def json(self, *words: object, code: int = 0) -> Any:
        """The JSON that a command prints."""
        found, out, err = self(*words, "--json")
        assert found == code, err
        return json.loads(out)


def small_network() -> Network:
    """A network of several kinds: four steps, one input (4, 2, 2), no readout."""
    return sample_network("attention")


def small_frames() -> npt.NDArray[np.uint8]:
    """Five samples for `small_network`."""
    (found,) = inputs_for(small_network(), 5, np.random.default_rng(0)).values()
    return found.astype(np.uint8)


def write_model(folder: Path) -> Path:
    """`small_network` as m.stf in a folder."""
    from stformer import storage

    storage.save(folder / "m.stf", small_network())
    return folder / "m.stf"


def write_data(folder: Path) -> Path:
    """`small_frames` as x.npy in a folder."""
    np.save(folder / "x.npy", small_frames())
    return folder / "x.npy"


def fake_backend(
    patch: Patch,
    run: FakeRun | None = None,
    *,
    missing: str | None = None,
    problems: tuple[Problem, ...] = (),
) -> str:
    """Register a backend for the length of a test.

    Args:
        patch: pytest's monkeypatch.
        run: what it does; None where it must not run.
        missing, problems: what it answers.

    Returns:
        Its name, "fake".
    """
    import sys

    from stformer import deploy

    reason, found = missing, problems

    class Fake:
        name = "fake"

        def missing(self) -> str | None:
            return reason

        def problems(self, network: Network) -> list[Problem]:
            return list(found)

        def run(self, network: Network, inputs: Inputs, *, probe: Probe) -> Trace:
            assert run is not None, "it must not run"
            return run(network, inputs, probe)

    module = ModuleType("a_fake_backend")
    vars(module)["Fake"] = Fake
    patch.setitem(sys.modules, module.__name__, module)
    patch.setitem(deploy.BACKENDS, "fake", "a_fake_backend:Fake")
    return "fake"
