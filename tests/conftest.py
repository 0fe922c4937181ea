"""What holds in every test: fixed seeds, overflow is an error, a header that says what runs."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from stformer.deploy import Problem
    from stformer.network import Network
    from stformer.trace import Trace

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure() -> None:
    # Not underflow: it is what exp and softmax do. Integers are fixedpoint's to check.
    np.seterr(over="raise", divide="raise", invalid="raise")


def pytest_report_header() -> list[str]:
    """One line for each backend: whether it runs here, else why not."""
    try:
        from stformer.deploy import backends
    except ImportError as error:
        return [f"stformer cannot be imported: {error}"]
    return [f"backend {name}: {_state(name)}" for name in backends()]


@pytest.fixture(autouse=True)
def _same_chance_each_time() -> None:
    """Seeds of Python, NumPy and, where a test module has imported it, torch."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(2)


def _state(name: str) -> str:
    from stformer.deploy import load

    try:
        reason = load(name).missing()
    except ImportError as error:  # a backend must say so itself; the tests will show it
        reason = f"cannot be imported: {error}"
    return f"missing, {reason}" if reason else "runs"


# --- the command line: a small model, samples for it, and main() in this process -------------


class Call:
    """main() in this process: exit code, standard output, standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
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
        found, out, err = self(*words, "--json")
        assert found == code, err
        return json.loads(out)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return Call(capsys)


@pytest.fixture(scope="session")
def network() -> Network:
    """A small network of several kinds: four steps, one input (4, 2, 2), no readout."""
    from stformer.testing import sample_network

    return sample_network("attention")


@pytest.fixture
def model(tmp_path: Path, network: Network) -> Path:
    """`network` as a file, m.stf."""
    from stformer import storage

    storage.save(tmp_path / "m.stf", network)
    return tmp_path / "m.stf"


@pytest.fixture
def frames(network: Network) -> Any:
    """Five samples for `network`, uint8."""
    from stformer.testing import inputs_for

    (found,) = inputs_for(network, 5, np.random.default_rng(0)).values()
    return found.astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path, frames: Any) -> Path:
    """`frames` as a file, x.npy."""
    np.save(tmp_path / "x.npy", frames)
    return tmp_path / "x.npy"


@pytest.fixture
def fake_backend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Registers a backend "fake" and gives its name.

    `missing` and `problems` are what it answers; `run` is called with (network, inputs, probe).
    """

    def register(
        run: Callable[..., Trace] | None = None,
        *,
        missing: str | None = None,
        problems: tuple[Problem, ...] = (),
    ) -> str:
        class Fake:
            name = "fake"

            def missing(self) -> str | None:
                return missing

            def problems(self, network: Network) -> list[Problem]:
                return list(problems)

            def run(self, network: Network, inputs: Any, *, probe: Any) -> Trace:
                assert run is not None, "it must not run"
                return run(network, inputs, probe)

        from stformer import deploy

        module = ModuleType("a_fake_backend")
        module.Fake = Fake  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(deploy.BACKENDS, "fake", "a_fake_backend:Fake")
        return "fake"

    return register
