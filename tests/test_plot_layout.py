"""Pictures whose parts are not all of one size: stages, networks, runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from stformer import plot
from stformer.plot import Recording, style
from stformer.trace import Trace


def recording(**channels: int) -> Recording:
    """One sample of three steps, all populations of 8 by 8 pixels."""
    rng = np.random.default_rng(0)
    spikes = {
        name: (rng.random((1, 3, n, 8, 8)) < 0.3).astype(np.uint8) for name, n in channels.items()
    }
    trace = Trace(network="0" * 64, inputs="1" * 64, backend="lab", spikes=spikes)
    return Recording(trace=trace, name="lab")


NARROW = recording(**{"input": 1, "stem": 2, "spatial.layers.0": 9})
WIDE = recording(**{"input": 1, "stem": 3, "spatial.layers.0": 9})


def test_a_first_stage_with_fewer_channels_leaves_room() -> None:
    figure = plot.features(NARROW, channels=8)
    with style.sheet():
        box = figure.get_tightbbox()
    assert box.y0 >= 0
    heights = [axes.get_position() for axes in figure.axes]
    scales = [at for at in heights if at.height < 0.03]
    lowest = min(at.y0 for at in heights if at not in scales)
    assert len(scales) == 3 and max(at.y1 for at in scales) < lowest, "scales lie below the maps"


def test_networks_of_other_widths_share_no_shape() -> None:
    texts = [t.get_text() for t in plot.features(NARROW, WIDE).texts]
    assert texts.count("shapes differ") == 1 and "2 × 8 × 8" not in texts
    assert "9 × 8 × 8" in texts


def test_epochs_are_whole(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "loss": 2.0}) + "\n")
    (axes,) = plot.curves(tmp_path).axes
    low, high = axes.get_xlim()
    assert [x for x in axes.get_xticks() if low <= x <= high] == [1]
