"""Traffic and chip estimates: a network by hand, and fan-out against the interpreter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stformer import deploy, hardware_configs, interpret
from stformer.deploy.chip_energy import Estimate, estimates, load_of
from stformer.deploy.energy import activity
from stformer.deploy.mapping import Mapped, map_network
from stformer.deploy.traffic import Flow, fan_out, flows
from stformer.network import Conv, Dense, Input, Lif, Network, OneToOne, Operand, no_bias
from stformer.passes import assign_latency, schedule
from stformer.samples import SAMPLES, sample_network

CHIP = hardware_configs.load("loihi2-oheo-gulch")


def two_layers() -> Network:
    """4 inputs, 3 neurons that fire when anything does, 2 that never do."""
    net = Network(
        name="n",
        steps=2,
        populations=(
            Input(name="x", shape=(4,)),
            Lif(name="y", shape=(3,), vth=1, dv=4095, bias_mant=no_bias((3,))),
            Lif(name="z", shape=(2,), vth=131071, dv=4095, bias_mant=no_bias((2,))),
        ),
        projections=(
            Dense(name="x>y", pre="x", post="y", weight=np.full((3, 4), 2, np.int8)),
            Dense(name="y>z", pre="y", post="z", weight=np.ones((2, 3), np.int8)),
        ),
    )
    return assign_latency(net)


def run_two_layers() -> tuple[Network, Mapped, Any]:
    network = two_layers()
    frames = np.zeros((1, 2, 4), np.uint8)
    frames[0, 0, :2] = 1  # two spikes in the first step, which make all of y fire once
    mapped = map_network(network, CHIP)
    return network, mapped, activity(network, [deploy.run("reference", network, frames)])


def test_traffic_by_hand() -> None:
    network, mapped, seen = run_two_layers()
    assert [p.first for p in mapped.places] == [0, 1, 2]  # a core each, all on one tile
    assert flows(network, mapped, seen) == (
        Flow(projection="x>y", pre="x", post="y", synops=6, messages=2, hops=0),
        Flow(projection="y>z", pre="y", post="z", synops=6, messages=3, hops=0),
    )


def by_name(load: Any, mapped: Mapped) -> dict[str, Estimate]:
    return {e.name: e for e in estimates(load, mapped)}


def test_estimates_by_hand() -> None:
    """12 synops, 5 neurons for 2 steps, 5 messages; y's core is the busiest."""
    network, mapped, seen = run_two_layers()
    load = load_of(network, mapped, seen)
    assert (load.synops, load.updates, load.messages, load.hops) == (12, 10, 5, 0)
    found = by_name(load, mapped)
    nominal = found["nominal"]
    assert nominal.dynamic == pytest.approx(
        {"synops": 12 * 23.6e-12, "neuron updates": 10 * 81e-12, "hops": 0}
    )
    step = 3 * 3.5e-9 + 3 * 8.4e-9 + 465e-9  # 6 synops in two steps, three neurons, barrier
    assert nominal.slowest == "y"
    assert nominal.step == pytest.approx(step)
    assert nominal.sample == pytest.approx(2 * step)
    assert nominal.static == pytest.approx(0.232 * 2 * step)
    assert nominal.total == pytest.approx(12 * 23.6e-12 + 10 * 81e-12 + 0.232 * 2 * step)
    more = found["conservative"]
    assert more.dynamic["messages out"] == pytest.approx(5 * 180.3e-12)
    busy = 3 * 4.7e-9 + 3 * 9.7e-9 + 1.5 * 35.1e-9 + 1 * 16e-9  # 3 messages out, 2 in, two steps
    assert more.step == pytest.approx(busy + 1.8e-6)
    assert found["claimed speed"].step == 200e-9  # the floor
    empirical = found["empirical"]
    assert empirical.dynamic == pytest.approx({"neurons": 431e-12 * 10})
    assert empirical.step == pytest.approx(48e-9 * 4)  # the input's core is the fullest


def test_a_chip_more_takes_the_longer_barrier_and_its_power() -> None:
    old = hardware_configs.load("loihi1-nahuku")
    network, _, seen = run_two_layers()
    mapped = map_network(network, old)
    load = load_of(network, mapped, seen)
    one, two = (by_name(replace(load, chips=n), mapped)["nominal"] for n in (1, 2))
    assert two.step - one.step == pytest.approx(16.2e-6 - 465e-9)
    assert two.static / two.sample == pytest.approx(2 * 0.104)
    assert set(by_name(load, mapped)) == {"nominal", "conservative"}


def test_the_anchor_of_the_empirical_values() -> None:
    """PilotNet: 158,509 neurons, 3,168 in the fullest core, 16 steps."""
    assert CHIP.energy is not None and CHIP.latency is not None
    energy, time = CHIP.energy.empirical_per_neuron_step, CHIP.latency.empirical_per_neuron
    assert energy is not None and time is not None
    assert energy.value * 158_509 * 16 == pytest.approx(1.094e-3, rel=0.01)
    assert time.value * 3168 == pytest.approx(1 / (408.91 * 16), rel=0.01)


@pytest.mark.parametrize("name", SAMPLES)
def test_fan_out_is_what_the_interpreter_reaches(name: str) -> None:
    """A spike of each source neuron alone, through weights of 1: how many targets move."""
    network = schedule(sample_network(name))
    for q in network.projections:
        if isinstance(q, Operand):
            continue
        pre, post = network[q.pre], network[q.post]
        weight = np.ones_like(q.weight) if isinstance(q.weight, np.ndarray) else 1
        ones = replace(q, weight=weight, weight_exp=0)
        size = int(np.prod(pre.shape))
        alone = np.eye(size, dtype=np.int64).reshape(size, *pre.shape)
        reached = interpret.synapse(ones, alone, post.shape).reshape(size, -1).sum(axis=1)
        counted = np.broadcast_to(fan_out(network, q), pre.shape).reshape(-1)
        np.testing.assert_array_equal(counted, reached, err_msg=q.name)


def test_messages_go_to_the_cores_that_read_them() -> None:
    """Five pixels on cores of four: both cores read columns 3 and 4, through a kernel of three."""
    net = Network(
        name="n",
        steps=2,
        populations=(
            Input(name="x", shape=(1, 1, 5)),
            Lif(name="y", shape=(2, 1, 5), vth=1, dv=4095, bias_mant=no_bias((2, 1, 5))),
        ),
        projections=(
            Conv(
                name="x>y",
                pre="x",
                post="y",
                weight=np.full((2, 1, 1, 3), 2, np.int8),
                padding=(0, 1),
            ),
        ),
    )
    network = assign_latency(net)
    frames = np.ones((3, 2, 1, 1, 5), np.uint8)
    seen = activity(network, [deploy.run("reference", network, frames)])
    mapped = map_network(network, CHIP)
    assert [(p.cut.cores, p.cut.tile.x) for p in mapped.places] == [(2, 4), (2, 4)]
    (flow,) = flows(network, mapped, seen)
    assert flow.synops == 2 * (3 * 5 - 2) * 2  # channels, pairs of pixels, steps
    assert flow.messages == pytest.approx(5 * 2 * 1.4)
    assert flow.hops == 0  # cores 0 to 3 share a tile


def test_hops_are_counted_between_tiles() -> None:
    """Twelve populations of one core fill three tiles in a row; the last is two tiles away."""
    shape = (1,)
    names = [f"p{i}" for i in range(12)]
    net = Network(
        name="n",
        steps=1,
        populations=(
            Input(name="x", shape=shape),
            *(Lif(name=n, shape=shape, vth=1, dv=4095, bias_mant=no_bias(shape)) for n in names),
        ),
        projections=tuple(OneToOne(name=f"x>{n}", pre="x", post=n, weight=2) for n in names),
    )
    network = assign_latency(net)
    frames = np.ones((1, 1, 1), np.uint8)
    seen = activity(network, [deploy.run("reference", network, frames)])
    found = flows(network, map_network(network, CHIP), seen)
    assert [f.hops for f in found] == [0] * 3 + [1] * 4 + [2] * 4 + [3]
