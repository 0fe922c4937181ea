"""The recipes keep their promises: benchmarks/accuracy.py, three seeds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mean", "each"), [("digits", 0.97, 0.95), ("event-digits", 0.95, 0.95)]
)
def test_integer_accuracy_of_the_recipes(name: str, mean: float, each: float) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/accuracy.py", "--recipe", name, "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)[name]
    print(done.stderr)
    assert len(found["seeds"]) == 3
    assert found["mean"]["integer"] >= mean
    assert min(row["integer"] for row in found["seeds"]) >= each
    assert found["mean"]["integer"] >= found["mean"]["float"] - 0.005
