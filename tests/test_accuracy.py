"""The digits recipe keeps its promise: benchmarks/accuracy.py, three seeds."""

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
def test_integer_accuracy_of_the_digits_recipe() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/accuracy.py", "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    mean = json.loads(done.stdout)["mean"]
    print(done.stderr)
    assert mean["integer"] >= 0.97
    assert mean["integer"] >= mean["float"] - 0.005
