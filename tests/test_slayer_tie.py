"""What docs/netx.md says of lava-dl's slayer at a threshold tie is what upstream's code does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "slayer_tie.py"


@pytest.mark.slow
def test_slayer_at_a_threshold_tie(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("lava.lib.dl.netx", reason="lava-dl is not installed")
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler is here to compile the CUDA source with")
    path = tmp_path / "rows.json"
    command = [sys.executable, str(SCRIPT), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(path.read_text())
    assert len(rows) == 12
    text = (SCRIPT.parent.parent / "docs" / "netx.md").read_text("utf-8")
    for row in rows:
        cured = row["epsilon"] == "1 / s_scale"
        right = cured or (row["path"] == "CPU" and row["neuron"] != "large")
        assert (row["differ"] == 0) is right
        assert row["ties"] and row["from a tie on"] == row["neurons"]
        if row["path"] != "CUDA":
            assert "| " + " | ".join(map(str, row.values())) + " |" in text
