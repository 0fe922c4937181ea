"""The reference interpreter: by hand, against torch, and streamed as hardware streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stformer import interpret, passes, samples, testing
from stformer.errors import InputError
from stformer.network import (
    BroadcastTokens,
    Conv,
    Dense,
    Input,
    Lif,
    Network,
    OneToOne,
    Population,
    Projection,
    Readout,
    SumTokens,
    no_bias,
)
from stformer.trace import Probe

STATES = Probe(states=True)


def pair(
    post: Population, projection: Projection, pre: Input, steps: int = 5, **more: Any
) -> Network:
    network = Network(
        name="n", steps=steps, populations=(pre, post), projections=(projection,), **more
    )
    return passes.assign_latency(network)


def train(*values: int) -> npt.NDArray[np.int64]:
    """One sample of one neuron."""
    return np.array(values).reshape(1, -1, 1)


def one(delay: int = 0, weight: int = 4) -> OneToOne:
    return OneToOne(name="p", pre="in", post="a", weight=weight, delay=delay)


def test_leak_fire_reset_by_hand() -> None:
    network = pair(testing.lif("a", (1,), 7), one(), Input(name="in", shape=(1,)), steps=6)
    trace = interpret.run(network, train(1, 1, 1, 1, 0, 1), probe=STATES)
    # v: 256; 128 + 256 = 384; 192 + 256 = 448 = 7 << 6, no spike; 224 + 256 = 480, spike.
    assert trace.v["a"].ravel().tolist() == [256, 384, 448, 0, 0, 256]
    assert trace["a"].ravel().tolist() == [0, 0, 0, 1, 0, 0]
    assert trace.u["a"].ravel().tolist() == [256, 256, 256, 256, 0, 256]
    assert trace["in"].dtype == trace["a"].dtype == np.uint8
    assert trace.v["a"].dtype == np.int32
    assert "in" not in trace.v


def test_current_memory_by_hand() -> None:
    """du 2047: half of the current stays, and spikes do not reset it."""
    network = pair(testing.lif("a", (1,), 5, dv=0, du=2047), one(), Input(name="in", shape=(1,)))
    trace = interpret.run(network, train(1, 0, 0, 0, 0), probe=STATES)
    assert trace.u["a"].ravel().tolist() == [256, 128, 64, 32, 16]
    assert trace["a"].ravel().tolist() == [0, 1, 0, 0, 0]  # 256, then 384 > 320
    assert trace.v["a"].ravel().tolist() == [256, 0, 64, 96, 112]


def test_negative_membrane_rounds_toward_zero() -> None:
    bias = np.array([-1])
    post = testing.lif("a", (1,), 5, dv=2048, bias_mant=bias)
    trace = interpret.run(
        pair(post, one(), Input(name="in", shape=(1,))), train(*[0] * 5), probe=STATES
    )
    assert trace.v["a"].ravel().tolist() == [-1, -1, -1, -1, -1]


@pytest.mark.parametrize("delay", [0, 1, 3, 5, 62])
def test_delay_by_hand(delay: int) -> None:
    network = pair(testing.lif("a", (1,), 3, dv=4095), one(delay), Input(name="in", shape=(1,)))
    trace = interpret.run(network, train(1, 0, 1, 1, 0))
    assert trace["a"].ravel().tolist() == ([0] * delay + [1, 0, 1, 1, 0])[:5]


def test_bias_and_exponent_by_hand() -> None:
    post = testing.lif("a", (1,), 10, dv=0, bias_mant=np.array([50]), bias_exp=3)
    trace = interpret.run(
        pair(post, one(), Input(name="in", shape=(1,))), train(*[0] * 5), probe=STATES
    )
    assert trace.v["a"].ravel().tolist() == [400, 0, 400, 0, 400]


def test_readout_by_hand() -> None:
    post = Readout(name="a", shape=(1,), bias_mant=np.array([-3]), bias_exp=1)
    trace = interpret.run(
        pair(post, one(), Input(name="in", shape=(1,))), train(1, 0, 1, 1, 0), probe=STATES
    )
    assert trace["a"].ravel().tolist() == [250, 244, 494, 744, 738]
    assert trace["a"].dtype == np.int32
    np.testing.assert_array_equal(trace["a"], trace.v["a"])
    assert "a" not in trace.u


def test_dense_sums_over_flattened_neurons() -> None:
    weight = np.arange(-6, 6).reshape(2, 6)
    dense = Dense(name="p", pre="in", post="a", weight=weight, weight_exp=3)
    frame = np.array([1, 0, 0, 1, 1, 0])
    wanted = [8 * (-6 - 3 - 2), 8 * (0 + 3 + 4)]
    found = interpret.synapse(dense, frame.reshape(1, 2, 3, 1), (1, 1, 2))
    assert found.ravel().tolist() == wanted
    assert found.shape == (1, 1, 1, 2)


def test_tokens() -> None:
    frames = np.arange(12).reshape(1, 2, 2, 3)
    add = SumTokens(name="s", pre="x", post="y", weight=-3, weight_exp=1)
    found = interpret.synapse(add, frames, (2, 1, 1))
    assert found.tolist() == [[[[-6 * 15]], [[-6 * 51]]]]
    spread = BroadcastTokens(name="b", pre="y", post="x", weight=5)
    found = interpret.synapse(spread, np.array([1, 0]).reshape(1, 2, 1, 1), (2, 2, 3))
    assert found.tolist() == [[[[5] * 3] * 2, [[0] * 3] * 2]]


@settings(max_examples=60, derandomize=True)
@given(
    st.sampled_from([(1, 4, 2), (2, 4, 6), (4, 4, 4)]),
    *(st.tuples(st.integers(1, 3), st.integers(1, 3)) for _ in range(3)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.sampled_from([1, 127, 2**23 - 1]),
    st.integers(0, 7),
)
def test_conv_is_torchs(
    channels: tuple[int, int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int],
    high: int,
    exponent: int,
) -> None:
    torch = pytest.importorskip("torch")
    groups, c_in, c_out = channels
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (c_out, c_in // groups, *kernel))
    conv = Conv(
        name="p",
        pre="x",
        post="y",
        weight=weight,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        weight_exp=exponent,
    )
    frames = rng.integers(-high, high, (3, c_in, 9, 8), endpoint=True)
    wanted = torch.nn.functional.conv2d(
        torch.from_numpy(frames).double(),
        torch.from_numpy(weight * 2**exponent).double(),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    ).numpy()
    found = interpret.synapse(conv, frames, wanted.shape[1:])
    np.testing.assert_array_equal(found, wanted)


def gate(name: str) -> npt.NDArray[np.integer]:
    """Truth table of a two-input gate sample: rows 00, 01, 10, 11."""
    weights, vth = {"and": ((2, 2), 3), "or": ((2, 2), 1), "iand": ((2, -2), 1)}[name]
    network = Network(
        name="n",
        steps=4,
        populations=(
            Input(name="x", shape=(1,)),
            Input(name="y", shape=(1,)),
            testing.lif("g", (1,), vth, dv=4095),
        ),
        projections=tuple(
            OneToOne(name=pre, pre=pre, post="g", weight=w)
            for pre, w in zip("xy", weights, strict=True)
        ),
    )
    inputs = {"x": train(0, 0, 1, 1), "y": train(0, 1, 0, 1)}
    return interpret.run(passes.schedule(network), inputs)["g"].ravel()


@pytest.mark.parametrize(
    ("name", "table"), [("and", [0, 0, 0, 1]), ("or", [0, 1, 1, 1]), ("iand", [0, 0, 1, 0])]
)
def test_gates(name: str, table: list[int]) -> None:
    assert gate(name).tolist() == table


def test_or_pool_is_a_maximum() -> None:
    network = testing.sample_network("or-pool")
    x = testing.inputs_for(network, 4, np.random.default_rng(0))["in"]
    wanted = x.reshape(4, 4, 3, 2, 2, 2, 2).max(axis=(4, 6))
    np.testing.assert_array_equal(interpret.run(network, x)["or"], wanted)
    assert 0 < wanted.mean() < 1


def test_temporal_taps_are_a_convolution_in_time() -> None:
    """Against a sum over explicitly shifted frames, membrane by hand."""
    network = testing.sample_network("temporal")
    x = testing.inputs_for(network, 3, np.random.default_rng(0))["in"]
    taps = [samples.weights((3, 2), 16 + d, -8, 15) for d in range(3)]
    v = np.zeros((3, 3, 3, 3), np.int64)
    trace = interpret.run(network, x)
    for t in range(4):
        a = sum(np.einsum("oc,schw->sohw", w, x[:, t - d]) for d, w in enumerate(taps) if t >= d)
        v = np.trunc(v / 2).astype(np.int64) + 64 * a
        spikes = v > 9 * 64
        v[spikes] = 0
        np.testing.assert_array_equal(trace["a"][:, t], spikes)


def test_recurrence_by_hand() -> None:
    """Excites itself a step later: once started it never stops."""
    network = Network(
        name="n",
        steps=5,
        populations=(Input(name="in", shape=(1,)), testing.lif("a", (1,), 3, dv=4095)),
        projections=(
            one(),
            OneToOne(name="loop", pre="a", post="a", weight=4, delay=1),
        ),
    )
    for scheduled in (passes.assign_latency(network), passes.schedule(network)):
        for stream in (False, True):
            frames = np.concatenate([train(0, 1, 0, 0, 0), train(0, 0, 0, 0, 0)])
            trace = interpret.run(scheduled, frames, stream=stream)
            assert trace["a"][..., 0].tolist() == [[0, 1, 1, 1, 1], [0] * 5]


# --- one stream ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", testing.SAMPLES)
def test_stream_equals_alone(name: str) -> None:
    network = testing.sample_network(name)
    inputs = testing.inputs_for(network, 5, np.random.default_rng(2))
    alone = interpret.run(network, inputs, probe=STATES)
    testing.assert_traces_equal(
        alone, interpret.run(network, inputs, probe=STATES, stream=True), states=True
    )


@settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(testing.networks() | testing.networks(schedule_=False), st.integers(0, 2**32 - 1))
def test_stream_equals_alone_for_drawn_networks(network: Network, seed: int) -> None:
    inputs = testing.inputs_for(network, 3, np.random.default_rng(seed))
    alone = interpret.run(network, inputs, probe=STATES)
    testing.assert_traces_equal(
        alone, interpret.run(network, inputs, probe=STATES, stream=True), states=True
    )


def test_samples_are_independent_of_their_order() -> None:
    network = testing.sample_network("biased")
    x = testing.inputs_for(network, 6, np.random.default_rng(3))["in"]
    there, back = interpret.run(network, x), interpret.run(network, x[::-1])
    for name, spikes in there.spikes.items():
        np.testing.assert_array_equal(spikes, back[name][::-1])


def test_biased_neurons_fire_in_silence() -> None:
    network = testing.sample_network("biased")
    trace = interpret.run(network, np.zeros((2, 4, 3, 2, 2), np.uint8))
    assert trace["a"][:, :, 2].all()
    assert not trace["a"][:, :, 0].any()


# --- what it refuses -------------------------------------------------------------------------


def test_latencies_must_be_assigned() -> None:
    network = Network(
        name="n",
        steps=2,
        populations=(Input(name="in", shape=(1,)), testing.lif("a", (1,))),
        projections=(one(),),
    )
    with pytest.raises(InputError, match=r"projection p.*assign_latency"):
        interpret.run(network, train(0, 0))


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        (np.zeros((2, 3, 6)), "3 time steps"),
        (np.zeros((2, 4, 5)), "shape"),
        (np.zeros((4, 6)), "shape"),
        (np.zeros((0, 4, 6)), "no samples"),
        (np.full((1, 4, 6), np.nan), "NaN"),
        (np.full((1, 4, 6), 0.5), "fractions"),
        (np.full((1, 4, 6), 2), "values 2...2"),
        (np.full((1, 4, 6), -1), "values -1...-1"),
        (np.full((1, 4, 6), "x"), "type <U1"),
        ({"out": np.zeros((1, 4, 6))}, "arrays for out"),
        ({}, "arrays for nothing"),
    ],
)
def test_bad_inputs(inputs: Any, found: str) -> None:
    with pytest.raises(InputError, match=found):
        interpret.run(testing.sample_network("dense"), inputs)


def test_unequal_sample_counts() -> None:
    network = Network(
        name="n",
        steps=1,
        populations=(Input(name="x", shape=(1,)), Input(name="y", shape=(1,))),
        projections=(),
    )
    with pytest.raises(InputError, match="samples"):
        interpret.run(network, {"x": np.zeros((1, 1, 1)), "y": np.zeros((2, 1, 1))})


def test_probe_and_digests() -> None:
    network = testing.sample_network("attention")
    x = testing.inputs_for(network, 2, np.random.default_rng(0))["x"]
    trace = interpret.run(network, x, probe=Probe(populations=("gate",)))
    assert trace.populations == ("gate",)
    assert trace.network == network.digest()
    same = interpret.run(network, {"x": x.astype(float)}, probe=Probe(populations=()))
    assert same.inputs == trace.inputs
    assert interpret.run(network, 1 - x).inputs != trace.inputs
    assert same.populations == ()


def test_no_bias_shape() -> None:
    assert no_bias((3, 2, 2)).shape == (1, 1, 1)
    assert isinstance(testing.lif("a", (3, 2, 2)), Lif)
