"""What holds in every test: fixed seeds, overflow is an error, a header that says what runs."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from stformer import storage, testing, testing_cli, testing_traces
from stformer.network import Network
from stformer.testing_cli import Call
from stformer.trace import Trace

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure() -> None:
    # Not underflow: it is what exp and softmax do. Integers are fixedpoint's to check.
    np.seterr(over="raise", divide="raise", invalid="raise")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Dask's tests last: its threads and its way to start processes stay in this one."""
    items.sort(key=lambda item: "test_cluster" in item.nodeid)


def pytest_report_header() -> list[str]:
    """One line for each backend: whether it runs here, else why not."""
    from stformer.deploy import backends

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


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return Call(capsys)


@pytest.fixture
def network() -> Network:
    return testing_cli.small_network()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return testing_cli.write_model(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return testing_cli.write_data(tmp_path)


@pytest.fixture
def frames() -> Any:
    return testing_cli.small_frames()


@pytest.fixture
def stf(tmp_path: Path) -> Path:
    """`testing_traces.make` as a file."""
    path = tmp_path / "n.stf"
    storage.save(path, testing_traces.make(), provenance={"note": "größer ≤ 1"})
    return path


@pytest.fixture
def traced(tmp_path: Path) -> Path:
    """`testing_traces.make_trace` as a file."""
    path = tmp_path / "n.trace"
    testing_traces.make_trace().save(path)
    return path


@pytest.fixture(scope="session")
def attention() -> tuple[Network, Trace]:
    """A sample network of many kinds and three samples of it, states too."""
    network = testing.sample_network("attention")
    return network, testing_traces.run(network, testing_traces.frames_for(network, 3, seed=1))
