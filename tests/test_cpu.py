"""The fast simulator: every spike and every state of the reference, however it is chunked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stformer import deploy, interpret, passes, testing
from stformer import fixedpoint as fx
from stformer.deploy import cpu
from stformer.deploy.cpu import Cpu
from stformer.errors import InputError, Unsupported
from stformer.network import Conv, Dense, Input, Lif, Network, OneToOne, Readout, no_bias
from stformer.trace import Probe

STATES = Probe(states=True)


def check(network: Network, inputs: object, **options: int) -> None:
    expected = interpret.run(network, inputs, probe=STATES)  # type: ignore[arg-type]
    found = Cpu(**options).run(network, inputs, probe=STATES)  # type: ignore[arg-type]
    assert found.network == expected.network
    testing.assert_traces_equal(expected, found, states=True)


@pytest.mark.parametrize("name", testing.SAMPLES)
@pytest.mark.parametrize(("threads", "chunk"), [(1, 2**26), (3, 1)])
def test_samples(name: str, threads: int, chunk: int) -> None:
    network = testing.sample_network(name)
    inputs = testing.inputs_for(network, 7, np.random.default_rng(1))
    check(network, inputs, threads=threads, chunk_bytes=chunk)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    testing.networks() | testing.networks(schedule_=False),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
def test_drawn_networks(network: Network, samples: int, seed: int) -> None:
    inputs = testing.inputs_for(network, samples, np.random.default_rng(seed))
    check(network, inputs, threads=2, chunk_bytes=1)


def test_drawn_networks_reach_the_edges() -> None:
    """The strategy above is worth something only if wraps, clips and ties do happen."""
    seen: set[str] = set()

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(testing.networks())
    def look(network: Network) -> None:
        inputs = testing.inputs_for(network, 2, np.random.default_rng(0))
        trace = interpret.run(network, inputs, probe=STATES)
        for name, v in trace.v.items():
            p = network[name]
            seen.update({"clip"} if (np.abs(v) == fx.STATE_MAX - 1).any() else set())
            if isinstance(p, Lif):
                seen.update({"tie"} if (v == p.vth << fx.SHIFT).any() else set())
                seen.update({"kept current"} if p.du < fx.NO_CURRENT else set())
                seen.update({"spikes"} if trace[name].any() else set())
            raised = cpu.arriving(network, name, dict(trace.spikes), 2).astype(np.int64)
            seen.update({"wrap"} if (np.abs(raised) << fx.SHIFT > fx.STATE_MAX).any() else set())
            seen.update({"64 bits"} if (np.abs(raised) > 2**18).any() else set())
        seen.update(type(p).__name__ for p in (*network.populations, *network.projections))

    look()
    kinds = {
        *("Input", "Lif", "Relay", "Readout"),
        *("Dense", "Conv", "OneToOne", "SumTokens", "BroadcastTokens"),
    }
    assert seen >= {"clip", "tie", "kept current", "spikes", "wrap", "64 bits"} | kinds


def conv_stack(channels: int, size: int, seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    populations: list[Input | Lif] = [Input(name="in", shape=(3, size, size))]
    projections = []
    for i in range(3):
        pre = populations[-1]
        shape = (channels, size, size)
        populations.append(testing.lif(f"c{i}", shape, 60 * (1 + i), dv=[2048, 1229, 3072][i]))
        weight = rng.integers(-60, 66, (channels, pre.shape[0], 3, 3))
        projections.append(
            Conv(name=f"w{i}", pre=pre.name, post=f"c{i}", weight=weight, padding=(1, 1))
        )
    network = Network(
        name="stack", steps=4, populations=tuple(populations), projections=tuple(projections)
    )
    return passes.schedule(network)


def test_larger_convolutions() -> None:
    network = conv_stack(32, 16)
    rng = np.random.default_rng(5)
    inputs = testing.inputs_for(network, 8, rng)
    expected = interpret.run(network, inputs)
    assert 0.05 < expected["c2"].mean() < 0.95
    testing.assert_traces_equal(expected, Cpu().run(network, inputs, probe=Probe()))


@pytest.mark.parametrize("factor", [0, 1, 2, 1024, 2048, 4095, 4096, 3, 2867])
def test_decay_in_32_bits(factor: int) -> None:
    edges = np.array([0, 1, 2, 3, 4095, 4096, 4097, 2**22, 2**23 - 2, 2**23 - 1, 2**23])
    x = np.concatenate(
        [edges, -edges[:-1], np.random.default_rng(0).integers(-(2**23), 2**23, 999)]
    )
    wanted = fx.decay(x, 4096 - factor)
    for dtype in (np.int32, np.int64):
        found = cpu.decay(x.astype(dtype), 4096 - factor)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("high", [1, 2**10, 2**16, 2**23 - 1])
def test_graded_inputs_beyond_float32(high: int) -> None:
    """Sums of up to 2^37: float64 products and 64-bit currents, odd so that rounding shows."""
    rng = np.random.default_rng(2)
    shape = (4, 3, 3)
    network = passes.schedule(
        Network(
            name="wide",
            steps=3,
            populations=(
                Input(name="in", shape=shape, low=-high, high=high),
                testing.lif("a", shape, 131071, dv=1),
                testing.lif("b", (6,), 9, dv=4000, du=100),
            ),
            projections=(
                Conv(
                    name="c",
                    pre="in",
                    post="a",
                    weight=rng.integers(-128, 128, (4, 4, 3, 3)),
                    padding=(1, 1),
                ),
                Dense(name="d", pre="in", post="b", weight=rng.integers(-128, 128, (6, 36))),
                OneToOne(name="o", pre="in", post="a", weight=-128, weight_exp=7),
            ),
        )
    )
    frames = rng.integers(-high, high, (3, 3, *shape), endpoint=True) | 1
    with np.errstate(all="raise"):
        expected = interpret.run(network, frames)
        testing.assert_traces_equal(expected, Cpu().run(network, frames, probe=Probe()))


def test_sums_at_the_edge_of_float32() -> None:
    """2^24 + 1 is the first integer that float32 loses: 127 * 132104 + 9 = 2^24 + 1."""
    network = passes.schedule(
        Network(
            name="edge",
            steps=1,
            populations=(
                Input(name="in", shape=(2,), low=0, high=132104),
                Readout(name="out", shape=(1,), bias_mant=no_bias((1,))),
            ),
            projections=(Dense(name="d", pre="in", post="out", weight=np.array([[127, 1]])),),
        )
    )
    frames = np.array([132104, 9]).reshape(1, 1, 2)
    assert 127 * 132104 + 9 == 2**24 + 1
    sums = cpu.arriving(network, "out", {"in": frames.astype(np.int32)}, 1)
    assert sums.item() == 2**24 + 1
    check(network, frames)


@pytest.mark.parametrize("du", [fx.NO_CURRENT, 0, 2047])
def test_both_ends_of_the_wrap(du: int) -> None:
    """2^17 << 6 is 2^23, which stays; its negative becomes it; one more wraps."""
    frames = np.array([131071, 131072, 131073, -131071, -131072, -131073]).reshape(6, 1, 1)
    post = testing.lif("a", (1,), 131071, dv=4095, du=du)
    network = Network(
        name="n",
        steps=1,
        populations=(Input(name="in", shape=(1,), low=-131073, high=131073), post),
        projections=(OneToOne(name="p", pre="in", post="a", weight=1),),
    )
    network = passes.schedule(network)
    check(network, frames, chunk_bytes=1)  # each alone: one that wraps would take others along
    u = Cpu(chunk_bytes=1).run(network, frames, probe=STATES).u["a"].ravel()
    top = fx.STATE_MAX
    assert u.tolist() == [top - 64, top, -top + 64, -top + 64, top, top - 64]


def test_currents_that_outgrow_32_bits() -> None:
    """Far outside of the chip's range one wrap is not enough, and the definition still holds."""
    post = testing.lif("a", (1,), 131071, dv=0, du=0)
    network = Network(
        name="n",
        steps=4,
        populations=(Input(name="in", shape=(1,), high=262144), post),
        projections=(OneToOne(name="p", pre="in", post="a", weight=100),),
    )
    check(passes.schedule(network), np.full((1, 4, 1), 262144))


def test_samples_do_not_meet() -> None:
    """A delay longer than a sample, and taps at its end, bring nothing into the next one."""
    populations = (Input(name="in", shape=(1,)), testing.lif("a", (1,), 1, dv=4095))
    for delay in (1, 2, 3, 9):
        network = passes.assign_latency(
            Network(
                name="delayed",
                steps=3,
                populations=populations,
                projections=(OneToOne(name="p", pre="in", post="a", weight=2, delay=delay),),
            )
        )
        frames = np.ones((4, 3, 1), np.uint8)
        trace = Cpu(threads=1).run(network, frames, probe=Probe())
        wanted = [0] * min(delay, 3) + [1] * max(0, 3 - delay)
        np.testing.assert_array_equal(trace["a"][..., 0], [wanted] * 4)
        check(network, frames)


def test_recurrence_is_a_problem_by_name() -> None:
    network = testing.recurrent_network()
    problems = Cpu().problems(network)
    assert [p.where for p in problems] == ["projection a>a"]
    with pytest.raises(Unsupported, match=r"projection a>a: recurrence"):
        deploy.run("cpu", network, np.zeros((1, 4, 4), np.uint8))
    assert not Cpu().problems(testing.sample_network("attention"))


def test_sums_beyond_float64_are_a_problem_by_name() -> None:
    n = 2**17
    network = Network(
        name="n",
        steps=1,
        populations=(
            Input(name="in", shape=(n,), low=-(2**23)),
            testing.lif("a", (1,), 1),
        ),
        projections=(
            Dense(
                name="d",
                pre="in",
                post="a",
                weight=np.full((1, n), -128, np.int8),
                weight_exp=7,
            ),
        ),
    )
    assert [p.where for p in Cpu().problems(network)] == ["population a"]


def test_registry_and_info() -> None:
    network = testing.sample_network("dense")
    inputs = testing.inputs_for(network, 3, np.random.default_rng(0))
    trace = deploy.run("cpu", network, inputs)
    assert trace.backend == "cpu"
    assert deploy.load("cpu").missing() is None
    assert float(trace.info["seconds"]) > 0
    assert not trace.v


def test_probe_chooses() -> None:
    network = testing.sample_network("attention")
    inputs = testing.inputs_for(network, 3, np.random.default_rng(0))
    probe = Probe(populations=("gate", "res"), states=True)
    trace = Cpu().run(network, inputs, probe=probe)
    assert set(trace.spikes) == set(trace.u) == set(trace.v) == {"gate", "res"}
    testing.assert_traces_equal(interpret.run(network, inputs, probe=probe), trace)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_progress(threads: int) -> None:
    network = testing.sample_network("dense")
    inputs = testing.inputs_for(network, 7, np.random.default_rng(0))
    calls: list[tuple[int, int]] = []
    Cpu(lambda done, total: calls.append((done, total)), threads=threads, chunk_bytes=1).run(
        network, inputs, probe=Probe()
    )
    assert calls == [(i, 7) for i in range(1, 8)]


def test_interrupt_in_progress_stops_the_rest() -> None:
    network = testing.sample_network("dense")
    inputs = testing.inputs_for(network, 50, np.random.default_rng(0))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cpu(stop, threads=1, chunk_bytes=1).run(network, inputs, probe=Probe())


def test_bad_inputs() -> None:
    with pytest.raises(InputError, match="time steps"):
        Cpu().run(testing.sample_network("dense"), np.zeros((1, 3, 6)), probe=Probe())


def test_without_inputs() -> None:
    """A network of biased neurons alone runs one sample."""
    bias = np.array([100, 0])
    network = Network(
        name="n",
        steps=5,
        populations=(testing.lif("a", (2,), 3, bias_mant=bias),),
        projections=(),
    )
    trace = Cpu().run(network, {}, probe=STATES)
    np.testing.assert_array_equal(trace["a"][0, :, 0], interpret.run(network, {})["a"][0, :, 0])
    assert trace["a"][0, :, 0].any()
    assert not trace["a"][0, :, 1].any()
