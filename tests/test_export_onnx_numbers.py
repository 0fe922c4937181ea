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
from stformer.network import (
    Conv,
    Dense,
    Graded,
    Input,
    Lif,
    Network,
    OneToOne,
    Operand,
    Product,
    Readout,
    no_bias,
)
from stformer.passes import assign_latency, schedule
from stformer.trace import Probe

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
    expected = interpret.run(network, given, probe=Probe(states=True))
    kinds = {"": expected.spikes, "/u": expected.u, "/v": expected.v}
    wanted = {f"{name}{kind}": a for kind, many in kinds.items() for name, a in many.items()}
    for step in (False, True):
        options = Options(step=step)
        assert not Onnx().problems(network, options)
        path = folder / "x.onnx"
        Onnx().write(network, path, options)
        found = run_steps(network, path, given) if step else run_sample(path, given)
        for name, values in found.items():
            same = values.astype(np.int32) if name.endswith("/u") else values  # as traces cut it
            np.testing.assert_array_equal(same, wanted[name], err_msg=f"{name}, {options}")


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
    for exp, du in ((0, fx.NO_CURRENT), (7, fx.NO_CURRENT), (0, 1000), (7, 4094)):
        vth = min(20 * scale // 8 + 1, 131071)
        post = testing.lif("a", (8,), vth, dv=dv, du=du, bias_mant=bias, bias_exp=exp)
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


def spikes(network: Network, frames: Array) -> list[int]:
    found: list[int] = interpret.run(network, frames)["a"].ravel().tolist()
    return found


def test_memories_that_just_matter(tmp_path: Path) -> None:
    """A bound of 4096 leaves 1 of 4096 to the next step, and that 1 decides about a spike."""
    frames = np.full((1, 2, 1), 64)
    network = fed(testing.lif("a", (1,), 64, dv=4095), frames)
    assert spikes(network, frames) == [0, 1]
    assert [s.name for s in states(network)] == ["a/v"]
    assert_edges(network, frames, tmp_path)
    frames = np.array([64, 63]).reshape(1, 2, 1)
    network = fed(testing.lif("a", (1,), 63, dv=4095, du=4094), frames)
    assert spikes(network, frames) == [1, 1]
    assert [s.name for s in states(network)] == ["a/u", "a/v"]
    assert_edges(network, frames, tmp_path)
    frames = np.full((1, 2, 1), 63)
    assert not states(fed(testing.lif("a", (1,), 64, dv=4095, du=4094), frames))


def test_a_bound_that_just_wraps(tmp_path: Path) -> None:
    frames = np.array([131072, -131072]).reshape(2, 1, 1)
    network = fed(testing.lif("a", (1,), 1, dv=4095), frames)
    assert spikes(network, frames) == [1, 1]
    assert_edges(network, frames, tmp_path)


def test_a_membrane_that_just_clips(tmp_path: Path) -> None:
    """Twice down to the floor, then up: without the floor it would not fire."""
    frames = np.array([-131071, -131071, 131071]).reshape(1, 3, 1)
    network = fed(testing.lif("a", (1,), 50000, dv=2048), frames)
    assert spikes(network, frames) == [0, 0, 1]
    assert_edges(network, frames, tmp_path)


@pytest.mark.parametrize("kind", ["dense", "conv", "apart"])
def test_sums_that_only_pass_through_large_numbers(kind: str, tmp_path: Path) -> None:
    """127 * 131500 + 76717 = 2^24 + 1, and back: float32 comes back to an even number."""
    shape = (1, 1, 1)
    high, weights = 131500, (127, 1, -127)
    out = Graded(name="a", shape=shape, bias_mant=no_bias(shape))
    inputs: tuple[Input, ...] = (Input(name="in", shape=(3, 1, 1), high=high),)
    projections: tuple[Dense | Conv | OneToOne, ...]
    if kind == "dense":
        weight = np.array([weights])
        projections = (Dense(name="p", pre="in", post="a", weight=weight),)
    elif kind == "conv":
        weight = np.array(weights).reshape(1, 3, 1, 1)
        projections = (Conv(name="p", pre="in", post="a", weight=weight),)
    else:
        inputs = tuple(Input(name=f"in{i}", shape=shape, high=high) for i in range(3))
        projections = tuple(
            OneToOne(name=f"p{i}", pre=f"in{i}", post="a", weight=w) for i, w in enumerate(weights)
        )
    network = assign_latency(
        Network(name="n", steps=1, populations=(*inputs, out), projections=projections)
    )
    values = np.array([high, 76717, high]).reshape(1, 1, 3, 1, 1)
    given = {"in": values}
    if kind == "apart":
        given = {f"in{i}": values[:, :, [i]] for i in range(3)}
    given = {name: x.astype(np.int32) for name, x in given.items()}
    assert interpret.run(network, given)["a"].item() == 76717
    Onnx().write(network, tmp_path / "x.onnx", Options())
    assert run_sample(tmp_path / "x.onnx", given)["a"].item() == 76717


def test_products_beyond_float32(tmp_path: Path) -> None:
    """Which onnxruntime must not fuse with the transpose of a factor: it has no such kernel."""
    shape = (4, 2, 3)
    network = assign_latency(
        Network(
            name="products",
            steps=2,
            populations=(
                Input(name="in", shape=shape, low=-3000, high=3000),
                Product(name="scores", shape=(2, 6, 6), mode="scores", heads=2),
                Product(name="mix", shape=shape, mode="mix", heads=2),
            ),
            projections=(
                Operand(name="q", pre="in", post="scores", port="left"),
                Operand(name="k", pre="in", post="scores", port="right"),
                Operand(name="w", pre="scores", post="mix", port="left"),
                Operand(name="v", pre="in", post="mix", port="right"),
            ),
        )
    )
    frames = np.random.default_rng(0).integers(-3000, 3001, (3, 2, *shape), dtype=np.int32)
    frames[0] = 3000
    assert_edges(network, frames, tmp_path)
