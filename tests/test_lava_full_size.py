"""The full-size networks on Lava: the saved report proves it, and a slow test proves it anew."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stformer.deploy.lava import LavaSim

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "lava_full_size.py"
RESULTS = SCRIPT.parent / "results" / "lava_full_size.json"
LEAST = {"STFormer-4-384": (8, 4), "STFormer-2-256": (1, 16)}  # samples, steps
GIB = 16  # that a run may need


def check(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        report = row["report"]
        least, steps = LEAST[row["variant"]]
        assert report["samples"] >= least and report["steps"] == steps
        assert report["reference"] == "reference" and report["other"] == row["backend"]
        assert report["proven"] and report["differences"] == 0
        assert report["not_compared"] == []
        assert all(p["spikes"] for p in report["populations"]), "equality of silence"
        assert row["lava_processes"] > len(report["populations"])
        assert row["lava_peak_gib"] + row["caller_peak_gib"] < GIB


def test_the_saved_report() -> None:
    rows = json.loads(RESULTS.read_text())
    pairs = [(v, preset) for v in LEAST for preset in ("hw", "paper")]
    assert [(row["variant"], row["preset"]) for row in rows] == pairs
    check(rows)


def test_the_documented_figures_are_those_of_the_report() -> None:
    text = (SCRIPT.parent.parent / "docs" / "lava.md").read_text("utf-8")
    for row in json.loads(RESULTS.read_text()):
        line = next(x for x in text.splitlines() if f"{row['variant']} | `{row['preset']}`" in x)
        for figure in (f"{row['report']['compared']:,}", str(row["lava_processes"])):
            assert f"| {figure} |" in line
        assert f"| {row['lava_peak_gib']:.1f} |" in line


def test_the_script_starts() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--models" in done.stdout, done.stderr


@pytest.mark.slow
def test_the_preset_hw_again(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    if reason := LavaSim().missing():
        pytest.skip(reason)
    path = tmp_path / "rows.json"
    command = [sys.executable, str(SCRIPT), "--presets", "hw", "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(path.read_text())
    assert {row["variant"] for row in rows} == set(LEAST)
    check(rows)
