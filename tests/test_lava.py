"""Lava's processes against the reference interpreter: every spike and every state, equal."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, assume, given, settings

from stformer import fixedpoint as fx
from stformer import interpret, passes
from stformer.deploy.lava import LavaSim
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
    Relay,
    Shape,
    SumTokens,
    conv_output,
    no_bias,
)
from stformer.samples import side_by_side
from stformer.testing import SAMPLES, assert_traces_equal, inputs_for, networks, sample_network
from stformer.trace import Inputs, Probe, Trace

REASON = LavaSim().missing()
needs_lava = pytest.mark.skipif(REASON is not None, reason=REASON or "")
Frames = dict[str, npt.NDArray[np.int64]]


class Parts:
    """Small networks put side by side, so that one start of Lava serves them all."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.populations: list[Population] = []
        self.projections: list[Projection] = []

    def input(self, name: str, shape: Shape, low: int = 0, high: int = 1) -> str:
        self.populations.append(Input(name=name, shape=shape, low=low, high=high))
        return name

    def lif(self, name: str, shape: Shape, **given: int | npt.NDArray[np.integer]) -> str:
        values = {"vth": 60, "dv": 2048, "bias_mant": no_bias(shape)} | given
        self.populations.append(Lif(name=name, shape=shape, **values))  # type: ignore[arg-type]
        return name

    def readout(self, name: str, shape: Shape, bias_exp: int = 0) -> str:
        bias = self.rng.integers(-300, 300, shape)
        self.populations.append(Readout(name=name, shape=shape, bias_mant=bias, bias_exp=bias_exp))
        return name

    def join(self, kind: type[Projection], pre: str, post: str, **given: object) -> None:
        name = f"{pre}>{post}"
        if any(p.name == name for p in self.projections):
            name += f"#{len(self.projections)}"
        self.projections.append(kind(name=name, pre=pre, post=post, **given))  # type: ignore[arg-type]

    def weight(self, *shape: int, low: int = -60, high: int = 60) -> npt.NDArray[np.int8]:
        return self.rng.integers(low, high + 1, shape).astype(np.int8)

    def network(self, steps: int) -> Network:
        return passes.schedule(
            Network(
                name="n",
                steps=steps,
                populations=tuple(self.populations),
                projections=tuple(self.projections),
            )
        )

    def frames(self, network: Network, samples: int) -> Frames:
        return {
            p.name: self.rng.integers(p.low, p.high + 1, (samples, network.steps, *p.shape))
            for p in network.inputs
        }


def agree(network: Network, inputs: Inputs, probe: Probe | None = None) -> Trace:
    """Run both and compare everything that was recorded; returns Lava's trace."""
    probe = probe or Probe(states=True)
    assert LavaSim().problems(network) == []
    got = LavaSim().run(network, inputs, probe=probe)
    wanted = interpret.run(network, inputs, probe=probe)
    assert got.network == wanted.network
    for kind in ("spikes", "u", "v"):
        assert list(getattr(got, kind)) == list(getattr(wanted, kind)), kind
    if wanted.spikes:
        assert_traces_equal(wanted, got)
    return got


def assert_lively(trace: Trace, names: list[str]) -> None:
    """Nothing is shown by neurons that never fire, or always."""
    for name in names:
        assert 0 < trace[name].mean() < 1, name


@needs_lava
def test_every_projection_and_population() -> None:
    parts = Parts()
    x = parts.input("self", (4, 5, 3))  # names that Python might stumble over
    g = parts.input("g", (6,), -90, 200)
    a = parts.lif("a", (4, 5, 3), bias_mant=parts.rng.integers(-99, 300, (4, 1, 1)), bias_exp=3)
    b = parts.lif("b", (4, 1, 1), vth=30, dv=0, du=1000)
    c = parts.lif("c", (4, 5, 3), vth=3, dv=fx.MEMORYLESS)
    d = parts.lif("d", (7,), vth=500, dv=2731, du=3000)
    e = parts.lif("e", (2, 5, 3), vth=90, dv=100)
    out = parts.readout("out", (7,), bias_exp=2)
    parts.join(OneToOne, x, a, weight=25, weight_exp=1)
    parts.join(SumTokens, a, b, weight=9)
    parts.join(BroadcastTokens, b, c, weight=2)
    parts.join(OneToOne, a, c, weight=2)  # waits: an axon delay
    parts.join(Dense, g, d, weight=parts.weight(7, 6))
    parts.join(Dense, c, d, weight=parts.weight(7, 60), weight_exp=2)  # and this one
    parts.join(Conv, c, e, weight=parts.weight(2, 4, 3, 1), padding=(1, 0))
    parts.join(Conv, a, e, weight=parts.weight(2, 4, 1, 1))  # waits in relays
    parts.join(Dense, d, out, weight=parts.weight(7, 7))
    parts.join(Dense, a, out, weight=parts.weight(7, 60))
    parts.join(SumTokens, e, parts.lif("f", (2, 1, 1), vth=8), weight=-3, weight_exp=1)
    parts.join(
        OneToOne, "f", parts.lif("h", (2, 1, 1), bias_mant=np.full((1, 1, 1), 2500)), weight=0
    )
    network = parts.network(6)
    assert any(isinstance(p, Relay) for p in network.populations)
    waits = {type(p) for p in network.projections if network.axon_delay(p)}
    assert waits == {OneToOne, Dense}
    trace = agree(network, parts.frames(network, 5))
    assert_lively(trace, ["a", "b", "c", "d", "e", "h"])
    assert trace.info["lava_processes"] > len(network.populations)
    assert float(trace.info["peak_memory_mib"]) > 1


@needs_lava
def test_axon_delays_of_every_synapse_that_has_them() -> None:
    parts = Parts(1)
    x = parts.input("x", (3, 2, 2))
    y = parts.input("y", (3, 1, 1), 0, 9)
    last = x
    for i in range(4):
        parts.join(OneToOne, last, parts.lif(f"l{i}", (3, 2, 2), vth=1), weight=2)
        last = f"l{i}"
    end = parts.lif("end", (3, 2, 2), vth=90)
    parts.join(OneToOne, last, end, weight=60)
    parts.join(OneToOne, x, end, weight=-128, weight_exp=7)
    parts.join(OneToOne, "l0", end, weight=127, weight_exp=6)
    parts.join(Dense, x, end, weight=parts.weight(12, 12), weight_exp=3)
    parts.join(BroadcastTokens, y, end, weight=-17)
    total = parts.lif("total", (3, 1, 1), vth=99, dv=1)
    parts.join(SumTokens, end, total, weight=40)
    parts.join(SumTokens, x, total, weight=20, weight_exp=1)
    parts.join(OneToOne, y, total, weight=-3)
    network = parts.network(5)
    assert {network.axon_delay(p) for p in network.projections} >= {0, 3, 4, 5}
    assert_lively(agree(network, parts.frames(network, 6)), ["end", "total"])


@needs_lava
def test_convolutions_of_every_geometry() -> None:
    parts = Parts(2)
    geometries = [
        ((4, 7, 5), (6, 4, 3, 2), {}),
        ((4, 7, 5), (6, 4, 1, 4), {"stride": (2, 1), "padding": (0, 3)}),
        ((4, 7, 5), (6, 2, 2, 3), {"groups": 2, "padding": (2, 1), "dilation": (1, 2)}),
        ((4, 7, 5), (4, 1, 3, 3), {"groups": 4, "stride": (3, 2), "padding": (1, 1)}),
        ((1, 1, 6), (2, 1, 1, 3), {"dilation": (1, 2), "weight_exp": 6}),
        ((1, 6, 2), (1, 1, 6, 2), {"weight_exp": 1}),
        ((2, 5, 5), (8, 1, 5, 5), {"groups": 2, "padding": (2, 2), "stride": (2, 2)}),
        ((3, 127, 1), (1, 3, 127, 1), {}),  # as large as Lava's int8 arithmetic goes
        ((1, 2, 128), (1, 1, 2, 3), {"padding": (0, 1)}),  # beyond it Lava computes in int16
    ]
    for i, (shape, weight, options) in enumerate(geometries):
        graded = i % 2 == 0
        x = parts.input(f"x{i}", shape, *((-70, 255) if graded else (0, 1)))
        w = parts.weight(*weight, low=-128, high=127)
        conv = Conv(name="c", pre="", post="", weight=w, **options)  # type: ignore[arg-type]
        vth = 900 if graded else 90
        post = parts.lif(f"c{i}", (weight[0], *conv_output(conv, *shape[1:])), vth=vth)
        parts.join(Conv, x, post, weight=w, **options)
    network = parts.network(4)
    trace = agree(network, parts.frames(network, 3))
    assert_lively(trace, [f"c{i}" for i in range(len(geometries))])


@needs_lava
@pytest.mark.parametrize("steps", [1, 4])
def test_samples_of_a_stream_do_not_touch(steps: int) -> None:
    """Taps of populations that fire all the time: the last spikes of one sample are held back."""
    parts = Parts(3)
    x = parts.input("x", (2, 3, 3))
    always = parts.lif("always", (2, 3, 3), vth=1, bias_mant=np.full((1, 1, 1), 4095))
    parts.join(Conv, x, always, weight=parts.weight(2, 2, 1, 1))
    tapped = parts.lif("tapped", (2, 3, 3), vth=120, dv=0)
    for delay in (0, 1, 3):
        parts.join(OneToOne, always, tapped, weight=50 + delay, delay=delay)
        parts.join(Conv, x, tapped, weight=parts.weight(2, 2, 3, 3), padding=(1, 1), delay=delay)
    late = parts.lif("late", (4,), vth=300, du=500)
    parts.join(Dense, tapped, late, weight=parts.weight(4, 18), delay=2)
    parts.join(Dense, x, late, weight=parts.weight(4, 18), delay=1)
    network = parts.network(steps)
    assert sum(p.delay for p in network.projections) > 3
    frames = parts.frames(network, 5)
    trace = agree(network, frames)
    if steps > 1:
        assert trace["always"].mean() > 0.5
        assert_lively(trace, ["tapped"])
    reversed_ = LavaSim().run(network, {"x": frames["x"][::-1]}, probe=Probe(states=True))
    for name in trace.populations:
        np.testing.assert_array_equal(reversed_[name][::-1], trace[name], err_msg=name)
    for name in trace.u:
        np.testing.assert_array_equal(reversed_.u[name][::-1], trace.u[name], err_msg=name)


@needs_lava
def test_edges_of_the_arithmetic() -> None:
    parts = Parts(4)
    x = parts.input("x", (5,))
    big = parts.input("big", (2,), -(2**15), 2**15)
    for exponent in range(8):
        post = parts.lif(f"e{exponent}", (5,), vth=70 << exponent, dv=700)
        parts.join(
            Dense, x, post, weight=parts.weight(5, 5, low=-128, high=127), weight_exp=exponent
        )
    for name, w in {
        "negative": parts.weight(5, 5, low=-128, high=-1),
        "lowest": np.full((5, 5), -128, np.int8),
        "highest": np.full((5, 5), 127, np.int8),
        "zero": np.zeros((5, 5), np.int8),
        "odd": np.full((5, 5), -1, np.int8),
    }.items():
        parts.join(Dense, x, parts.lif(name, (5,), bias_mant=np.full(5, 4000)), weight=w)
    # At the threshold exactly: 3 and 4 against v > 3, and a bias that meets it too.
    parts.join(Dense, x, parts.lif("tie", (5,), vth=3, dv=4095), weight=np.eye(5, dtype=np.int8))
    parts.join(OneToOne, x, "tie", weight=2)
    parts.join(OneToOne, x, parts.lif("over", (5,), vth=3, dv=4095), weight=4)
    parts.lif("bias", (2,), vth=64, dv=0, bias_mant=np.array([4095, 4096 - 1 - 4095]))
    parts.lif("meets", (2,), vth=64, dv=4095, bias_mant=np.array([2048, 2049]), bias_exp=1)
    # |a| << 6 beyond 2^23: u wraps; sums beyond int16, the type that Lava's port declares.
    parts.join(OneToOne, big, parts.lif("wraps", (2,), vth=131071, dv=3), weight=5)
    parts.join(OneToOne, big, parts.lif("piles", (2,), vth=131071, dv=0, du=0), weight=3)
    parts.join(OneToOne, big, parts.lif("clips", (2,), vth=131071, dv=0, du=100), weight=-4)
    total = parts.readout("total", (2,), bias_exp=7)
    parts.join(OneToOne, big, total, weight=4)
    network = parts.network(9)
    frames = parts.frames(network, 6)
    frames["big"][0], frames["big"][1], frames["big"][2] = 2**15, -(2**15), 2**15 - 1
    frames["x"][:, 4:] = 0
    trace = agree(network, frames)
    assert_lively(trace, [f"e{i}" for i in range(8)] + ["over"])
    assert trace["negative"].any()
    assert not trace["tie"].any()
    assert (trace["meets"][:, 0] == [0, 1]).all()
    assert np.abs(trace.v["clips"]).max() == np.abs(trace.v["total"]).max() == fx.STATE_MAX - 1
    full = np.abs(frames["big"]).max() * 5 << fx.SHIFT
    assert full > fx.STATE_MAX
    assert trace.u["wraps"].max() <= fx.STATE_MAX
    assert (np.sign(trace.u["wraps"][0]) == -1).any(), "a positive sum that wrapped"


@needs_lava
def test_sample_networks() -> None:
    samples = {name: sample_network(name) for name in SAMPLES}
    stock = {name: n for name, n in samples.items() if not LavaSim().problems(n)}
    assert set(SAMPLES) - set(stock) == {"stream", "product", "look-ahead"}
    network = side_by_side(list(stock.values()), steps=4)
    agree(network, inputs_for(network, 4, np.random.default_rng(0)))


@needs_lava
@settings(max_examples=4, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.lists(networks(stock=True), min_size=1, max_size=8), st.sampled_from([1, 2, 5]))
def test_networks_that_chance_draws(drawn: list[Network], steps: int) -> None:
    runnable = [n for n in drawn if not LavaSim().problems(n)]
    assume(runnable)
    network = side_by_side(runnable, steps)
    agree(network, inputs_for(network, 3, np.random.default_rng(steps)))


@needs_lava
def test_what_the_probe_asks_for() -> None:
    parts = Parts(5)
    lone = parts.input("file", (2,), -4, 4)  # feeds nothing
    x = parts.input("x", (3,))
    for name in ("a", "b"):  # two parts that nothing connects
        parts.join(
            Dense,
            x if name == "a" else parts.input("y", (3,)),
            parts.lif(name, (3,)),
            weight=parts.weight(3, 3),
        )
    parts.join(Dense, "a", parts.readout("out", (2,)), weight=parts.weight(2, 3))
    network = parts.network(3)
    frames = parts.frames(network, 2)
    for probe in (
        Probe(populations=("out", lone)),
        Probe(populations=("b", "a"), states=True),
        Probe(populations=()),
    ):
        got = agree(network, frames, probe)
        assert set(got.populations) == set(probe.populations or ())
        assert set(got.u) == ({"a", "b"} if probe.states else set())


@needs_lava
def test_networks_without_inputs_or_without_neurons() -> None:
    parts = Parts(6)
    parts.lif("clock", (2,), vth=100, dv=0, bias_mant=np.array([1000, 3000]))
    assert_lively(agree(parts.network(8), {}), ["clock"])
    parts = Parts(7)
    parts.input("x", (2, 2), 0, 3)
    network = parts.network(2)
    agree(network, parts.frames(network, 3))


@needs_lava
def test_long_streams_run_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stformer.deploy.lava.INPUT_VALUES", 50)
    parts = Parts(8)
    parts.join(Dense, parts.input("x", (5,)), parts.lif("a", (4,)), weight=parts.weight(4, 5))
    parts.join(Dense, "a", parts.readout("out", (2,)), weight=parts.weight(2, 4))
    network = parts.network(4)  # 20 values a sample: two samples a stream
    frames = parts.frames(network, 3)
    told: list[tuple[int, int]] = []
    sim = LavaSim(progress=lambda done, steps: told.append((done, steps)))
    probe = Probe(states=True)
    wanted = interpret.run(network, frames, probe=probe)
    assert_traces_equal(wanted, sim.run(network, frames, probe=probe))
    done, steps = zip(*told, strict=True)
    assert list(done) == sorted(done)
    assert done[0] == 0
    assert set(steps) == {done[-1]} == {3 * 4 + 2 * network.depth}
