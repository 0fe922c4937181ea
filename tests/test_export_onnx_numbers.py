"""The numbers of the ONNX file at their edges: wraps, clips, decays, and where floats end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from stformer import fixedpoint as fx
from stformer import interpret, testing
from stformer.export import Options
from stformer.export.onnx import Onnx, run_sample, run_steps
from stformer.export.onnx_build import states
from stformer.network import Conv, Dense, Input, Lif, Network, OneToOne, Readout
from stformer.passes import assign_latency, schedule

Array = np.ndarray[Any, Any]


def fed(post: Lif | Readout, frames: Array, weight: int = 1) -> Network:
    """A population behind an input that holds just these frames."""
    source = Input(name="in", shape=post.shape, low=int(frames.min()), high=int(frames.max()))
    one = OneToOne(name="p", pre="in", post=post.name, weight=weight)
    network = Network(
        name="fed", steps=frames.shape[1], populations=(source, post), projections=(one,)
    )
    return assign_latency(network)


def assert_edges(network: Network, frames: Array, folder: Path) -> None:
    given = {"in": frames.astype(np.int32)}
    expected = interpret.run(network, given)
    for step in (False, True):
        options = Options(step=step)
        assert not Onnx().problems(network, options)
        path = folder / "x.onnx"
        Onnx().write(network, path, options)
        found = run_steps(network, path, given) if step else run_sample(path, given)
        for name, values in found.items():
            assert values.dtype == expected[name].dtype
            np.testing.assert_array_equal(values, expected[name], err_msg=f"{name}, {options}")


@pytest.mark.parametrize("du", [fx.NO_CURRENT, 0, 2047])
def test_both_ends_of_the_wrap(du: int, tmp_path: Path) -> None:
    frames = np.array([131071, 131072, 131073, -131071, -131072, -131073]).reshape(6, 1, 1)
    for vth in (1, 131070, 131071):
        for dv in (4095, 0):
            assert_edges(fed(testing.lif("a", (1,), vth, dv=dv, du=du), frames), frames, tmp_path)


@pytest.mark.parametrize("dv", [0, 1, 2048, 2049, 3072, 4094, 4095])
@pytest.mark.parametrize("scale", [1, 30, 700, 140000])
def test_decays_and_clips(dv: int, scale: int, tmp_path: Path) -> None:
    """Membranes that just do and just do not remember, sink below zero, and reach the clip."""
    rng = np.random.default_rng(dv)
    frames = rng.integers(-scale, scale, (6, 9, 8), endpoint=True)
    bias = np.array([0, 31, 32, -33, 4095, -4096, 1, -1])
    for exp in (0, 7):
        vth = min(20 * scale // 8 + 1, 131071)
        post = testing.lif("a", (8,), vth, dv=dv, bias_mant=bias, bias_exp=exp)
        assert_edges(fed(post, frames), frames, tmp_path)


def test_readouts_clip(tmp_path: Path) -> None:
    frames = np.full((2, 5, 2), [131071, -60000])
    out = Readout(name="a", shape=(2,), bias_mant=np.array([1, -1]))
    network = fed(out, frames)
    assert_edges(network, frames, tmp_path)
    assert interpret.run(network, frames)["a"].max() == fx.STATE_MAX - 1


def test_currents_that_outgrow_32_bits(tmp_path: Path) -> None:
    frames = np.full((1, 4, 1), 262144)
    network = fed(testing.lif("a", (1,), 131071, dv=0, du=2047), frames, weight=100)
    (current, *_) = states(network)
    assert current.dtype is np.int64
    assert_edges(network, frames, tmp_path)


@pytest.mark.parametrize("high", [1, 2**10, 2**16, 2**23 - 1])
def test_graded_inputs_beyond_float32(high: int, tmp_path: Path) -> None:
    """Convolutions of float32 in digits, matrix products of float64; odd, so that it shows."""
    rng = np.random.default_rng(2)
    shape = (4, 3, 3)
    kernel = rng.integers(-128, 128, (4, 4, 3, 3))
    network = schedule(
        Network(
            name="wide",
            steps=3,
            populations=(
                Input(name="in", shape=shape, low=-high, high=high),
                testing.lif("a", shape, 131071, dv=1),
                testing.lif("b", (6,), 9, dv=4000, du=2047),
            ),
            projections=(
                Conv(name="c", pre="in", post="a", weight=kernel, padding=(1, 1), weight_exp=2),
                Dense(name="d", pre="in", post="b", weight=rng.integers(-128, 128, (6, 36))),
            ),
        )
    )
    frames = rng.integers(-high, high, (3, 3, *shape), endpoint=True) | 1
    assert_edges(network, frames, tmp_path)


def test_sums_at_the_edge_of_float32(tmp_path: Path) -> None:
    """2^24 + 1 is the first integer that float32 loses: 127 * 132104 + 9 = 2^24 + 1."""
    source = Input(name="in", shape=(2,), low=0, high=132104)
    post = testing.lif("a", (1,), 1, dv=4095)
    weight = np.array([[127, 1]])
    network = schedule(
        Network(
            name="edge",
            steps=1,
            populations=(source, post),
            projections=(Dense(name="d", pre="in", post="a", weight=weight),),
        )
    )
    assert_edges(network, np.array([[132104, 8], [132104, 9], [132104, 10]])[:, None], tmp_path)
