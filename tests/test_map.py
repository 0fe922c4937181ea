"""Mapping: each rule on a network that breaks it, placement, alternatives, the command."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from stformer import deploy, hardware_configs, storage
from stformer.deploy.chip_energy import estimates, load_of
from stformer.deploy.demand import demands, scaled
from stformer.deploy.energy import activity
from stformer.deploy.mapping import Mapped, map_network
from stformer.deploy.rules import RULES
from stformer.deploy.traffic import flows
from stformer.hardware_configs import Hardware
from stformer.network import (
    Conv,
    Dense,
    Graded,
    Input,
    Lif,
    Network,
    OneToOne,
    Population,
    Projection,
    Readout,
    neurons,
    no_bias,
)
from stformer.passes import assign_latency, replace_network, schedule
from stformer.samples import SAMPLES, recurrent_network, sample_network
from stformer.testing import inputs_for, networks
from stformer.testing_cli import Call, write_model

CHIP = hardware_configs.load("loihi2-oheo-gulch")


def lif(name: str, shape: tuple[int, ...], **more: Any) -> Lif:
    return Lif(name=name, shape=shape, vth=1, dv=2048, bias_mant=no_bias(shape), **more)


def network(
    populations: list[Population], projections: list[Projection], steps: int = 4
) -> Network:
    net = Network(
        name="n", steps=steps, populations=tuple(populations), projections=tuple(projections)
    )
    return assign_latency(net)


def pixels(steps: int = 4, width: int = 2, kernel: int = 1, **conv: Any) -> Network:
    """x (3, 4, width) through a convolution onto y."""
    weight = np.ones((2, 3, kernel, kernel), np.int8)
    edge = (kernel - 1) // 2
    return network(
        [Input(name="x", shape=(3, 4, width)), lif("y", (2, 4, width))],
        [Conv(name="x>y", pre="x", post="y", weight=weight, padding=(edge, edge), **conv)],
        steps,
    )


def head(tokens: int = 64, channels: int = 384) -> Network:
    """The readout of a paper-size network, which spans all tokens at once."""
    side = int(tokens**0.5)
    shape = (channels, side, side)
    weight = np.ones((10, *shape), np.int8)
    logits = Readout(name="head", shape=(10, 1, 1), bias_mant=no_bias((10, 1, 1)))
    return network(
        [Input(name="x", shape=shape), lif("y", shape), logits],
        [
            OneToOne(name="x>y", pre="x", post="y", weight=2),
            Conv(name="y>head", pre="y", post="head", weight=weight),
        ],
    )


def with_numeric(hardware: Hardware, **changes: Any) -> Hardware:
    """A target some of whose registers are smaller."""
    n = hardware.numeric
    new = {k: replace(getattr(n, k), value=v) for k, v in changes.items()}
    return replace(hardware, numeric=replace(n, **new))


def dense(n_in: int, n_out: int, **more: Any) -> Network:
    weight = np.ones((n_out, n_in), np.int8)
    return network(
        [Input(name="x", shape=(n_in,)), lif("y", (n_out,))],
        [Dense(name="x>y", pre="x", post="y", weight=weight, **more)],
    )


def late(latency: int) -> Network:
    net = pixels()
    populations = tuple(
        replace(p, latency=latency) if p.name == "y" else p for p in net.populations
    )
    return replace_network(net, populations=populations)


def fan_out(count: int) -> Network:
    """4,000 neurons, each listed by `count` dense projections."""
    weight = np.ones((1, 4000), np.int8)
    targets = [f"y{i}" for i in range(count)]
    return network(
        [Input(name="x", shape=(4000,)), *(lif(t, (1,)) for t in targets)],
        [Dense(name=f"x>{t}", pre="x", post=t, weight=weight) for t in targets],
    )


GRADED = network(
    [
        Input(name="x", shape=(3,)),
        Graded(name="g", shape=(3,), bias_mant=no_bias((3,))),
        lif("y", (3,)),
    ],
    [
        OneToOne(name="x>g", pre="x", post="g", weight=127),
        OneToOne(name="g>y", pre="g", post="y", weight=1),
    ],
)
LOUD = network(
    [Input(name="x", shape=(3, 2, 2), low=-8, high=7), lif("y", (3, 2, 2))],
    [OneToOne(name="x>y", pre="x", post="y", weight=1)],
)
BROKEN: dict[str, tuple[Network, Hardware, str, str]] = {
    "kinds": (GRADED, CHIP, "population g", "kind Graded"),
    "weights": (
        *(pixels(), with_numeric(CHIP, weight_range=(-2, 1)), "projection x>y"),
        "stored weights 2...2",
    ),
    "registers": (
        *(pixels(), with_numeric(CHIP, decay_bits=11), "population y"),
        "du = 4095",
    ),
    "delays": (
        *(late(9), with_numeric(CHIP, delay_max=7), "projection x>y"),
        "an axon delay of 8",
    ),
    "samples": (recurrent_network(), CHIP, "projection", "recurrence"),
    "sums": (
        *(dense(300, 3, weight_exp=7), CHIP, "population y"),
        "sums that could reach 38,400, 33,000 when calibrated",
    ),
    "messages": (
        *(LOUD, with_numeric(CHIP, graded_payload_bits=3), "population x"),
        "messages of 5 bits (up to 8)",
    ),
    "reset": (pixels(steps=5), CHIP, "network", "T = 5 steps"),
    "core-synapses": (
        *(head(), CHIP, "population head"),
        "one neuron needs 24,576 of 12,000 (2 times a core), most of it for y>head, which spans "
        "all 64 places at once",
    ),
    "core-axons-in": (dense(16001, 1), CHIP, "population y", "one neuron needs 16,001 of 16,000"),
    "core-memory": (dense(10000, 1), CHIP, "population y", "one neuron needs 17,501 of 15,000"),
    "core-axons-out": (fan_out(5), CHIP, "population x", "20,000 entries for 5 dense projections"),
    "chips": (
        *(pixels(width=100_000), CHIP, "network"),
        " cores",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_rule_finds_what_breaks_it(rule: str) -> None:
    net, hardware, where, found = BROKEN[rule]
    mapped = map_network(net, hardware, sums={"y": 33_000} if rule == "sums" else None)
    findings = [f for f in mapped.findings if f.rule == rule]
    assert findings[0].where.startswith(where)
    assert findings[0].found.startswith(found) or found in findings[0].found
    assert findings[0].severity == "error"
    assert findings[0].allowed and not mapped.fits
    if rule == "delays":
        assert map_network(net, with_numeric(CHIP, delay_max=8)).fits


def rules(mapped: Mapped, severity: str = "error") -> set[str]:
    return {f.rule for f in mapped.findings if f.severity == severity}


def test_warnings_keep_nothing_off() -> None:
    mapped = map_network(pixels(width=255), CHIP)
    assert rules(mapped, "warning") == {"conv-width"}
    assert mapped.fits
    mapped = map_network(dense(300, 3, weight_exp=0), CHIP)
    assert mapped.fits and not mapped.findings
    mapped = map_network(dense(300, 3, weight_exp=7), CHIP)  # 300 * 128 at worst, not measured
    assert rules(mapped, "warning") == {"sums"}
    assert mapped.fits


def test_every_rule_has_a_case_and_a_source() -> None:
    names = [r.name for r in RULES]
    assert len(set(names)) == len(names)
    assert set(names) == (set(BROKEN) - {"chips"}) | {"unproven", "conv-width", "core-neurons"}
    known = {v.key for name in hardware_configs.available() for v in values(name)}
    for rule in RULES:
        assert set(rule.keys) <= known, rule.name
        assert rule.checks


def values(name: str) -> list[Any]:
    return list(hardware_configs.load(name).values())


@pytest.mark.parametrize("name", SAMPLES)
def test_every_kind_maps_on_every_target(name: str) -> None:
    net = schedule(sample_network(name))
    for target in hardware_configs.available():
        mapped = map_network(net, hardware_configs.load(target))
        for place in mapped.places:
            assert place.cut.cores is not None and place.cut.least is not None
            assert 1 <= place.cut.least <= place.cut.cores
            tile = place.cut.tile
            assert tile.x * tile.y * tile.c * place.cut.cores >= place.demand.neurons
        assert mapped.cores == sum(p.cut.cores or 0 for p in mapped.places)
        assert bool(mapped.places) == (target != "cpu-sim")


@given(networks())
def test_any_network_maps_and_costs_something(net: Network) -> None:
    frames = inputs_for(net, 1, np.random.default_rng(0))
    seen = activity(net, [deploy.run("cpu", net, frames)])
    for name in ("loihi2-oheo-gulch", "loihi1-nahuku"):
        mapped = map_network(net, hardware_configs.load(name))
        assert len(mapped.places) == len(net.populations)
        load = load_of(net, mapped, seen)
        for q, flow in zip(net.projections, flows(net, mapped, seen), strict=True):
            cores = next(p.cut.cores for p in mapped.places if p.demand.population == q.post)
            assert cores is not None
            sent = float(seen.sent[q.pre].sum())
            assert 0 <= flow.messages <= sent * cores + 1e-6
            assert flow.synops <= sent * neurons(net[q.post]) * 64
        for estimate in estimates(load, mapped):
            assert estimate.total > 0 and estimate.step > 0


def test_populations_follow_each_other_on_cores() -> None:
    mapped = map_network(pixels(width=5000), CHIP)
    first, second = mapped.places
    assert first.first == 0 and second.first == first.cut.cores
    assert mapped.cores == (first.cut.cores or 0) + (second.cut.cores or 0)


def test_alternatives_fit_when_they_are_made() -> None:
    mapped = map_network(head(), CHIP)
    by = {a.change: a for a in mapped.alternatives}
    assert set(by) == {"width", "tokens"}  # no board holds what no core holds
    assert by["width"].detail.startswith("3/8")  # 64 tokens x 144 channels = 9,216 units
    assert map_network(head(channels=144), CHIP).fits
    assert not map_network(head(channels=192), CHIP).fits
    assert by["tokens"].detail.startswith("frames of 5/8")  # 25 tokens x 384 = 9,600 units
    assert map_network(head(tokens=25), CHIP).fits


def test_a_larger_board_is_named_where_one_would_do() -> None:
    mapped = map_network(pixels(width=100_000), CHIP)
    board = next(a for a in mapped.alternatives if a.change == "board")
    name = board.detail.partition(",")[0]
    assert map_network(pixels(width=100_000), hardware_configs.load(name)).fits
    assert board.cores == mapped.cores > 120


def test_scaling_keeps_inputs_and_classes() -> None:
    small = {d.population: d for d in scaled(demands(head()), width=Fraction(1, 2))}
    assert small["x"].shape == (384, 8, 8)
    assert small["y"].shape == (192, 8, 8)
    assert small["head"].shape == (10, 1, 1)
    assert small["head"].fans[0].channels == 192
    less = {d.population: d for d in scaled(demands(head()), side=Fraction(1, 2))}
    assert less["y"].shape == (384, 4, 4)
    assert less["head"].fans[0].taps == 16
    rows = replace(demands(head())[2].fans[0], taps=16, reach=(2, 8), stride=(2, 8))
    shares = replace(demands(head())[2], shape=(10, 4, 1), fans=(rows,))
    (fewer,) = scaled((shares,), side=Fraction(1, 2))
    assert (fewer.shape, fewer.fans[0].taps) == ((10, 2, 1), 8)
    assert fewer.fans[0].stride == fewer.fans[0].reach == (2, 4)


def test_the_command_says_what_fits(call: Call) -> None:
    code, out, _ = call("map")
    assert code == 0
    assert out.startswith("network digits fits loihi2-oheo-gulch\n34 cores of 120 (an estimate")
    assert "depends on 2 assumptions" in out
    plain = call.json("map")
    assert plain["fits"] and plain["cores"] == 34 and plain["chips"] == 1
    assert {a["key"] for a in plain["assumptions"]} == {
        "constraints.unsupported",
        "constraints.unproven",
    }
    assert all(v["source"] for r in plain["rules"] for v in r["values"])
    head = plain["populations"][-1]
    assert head["limited_by"] == "synapse memory"
    assert head["fullest_core"]["synapses"]["used"] == 48 * 16 * 2  # taps x channels x units


def test_the_command_says_what_does_not_fit(call: Call, tmp_path: Path) -> None:
    storage.save(tmp_path / "head.stf", head())
    code, out, _ = call("map", tmp_path / "head.stf")
    assert code == 1
    assert "does not fit loihi2-oheo-gulch" in out
    assert "core-synapses: population head" in out
    assert "3/8 of every population's channels" in out
    plain = call.json("map", tmp_path / "head.stf", code=1)
    assert plain["populations"][-1]["cores"] is None
    assert [a["change"] for a in plain["alternatives"]] == ["width", "tokens"]
    assert "core-memory" in call("map", tmp_path / "head.stf", "-v")[1]


def test_a_users_board(call: Call, tmp_path: Path) -> None:
    board = tmp_path / "mine.toml"
    board.write_text(
        '[meta]\nname = "mine"\nbase = "loihi2-oheo-gulch"\n[core]\n'
        'neurons_max = { value = 700, basis = "assumption", source = "half the core is ours" }\n'
    )
    plain = call.json("map", "--hardware", board)
    assert plain["hardware"] == "mine" and plain["cores"] > 60
    assert "core.neurons_max" in {a["key"] for a in plain["assumptions"]}
    assert "did you mean" in call.fails("map", "--hardware", "loihi2-oheo-gulsh").lower()


def test_the_picture(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    for name in ("a.png", "b.png"):
        assert call.json("map", "--picture", tmp_path / name)["picture"] == str(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    storage.save(tmp_path / "head.stf", head())
    picture = tmp_path / "head.svg"
    assert call("map", tmp_path / "head.stf", "--picture", picture)[0] == 1
    assert picture.read_text().startswith("<?xml")
    assert "no cores to draw" in call.fails("map", "--hardware", "cpu-sim", "--picture", picture)
    assert ".png, .svg, .pdf" in call.fails("map", "--picture", tmp_path / "x.jpg")


def test_a_lab_machine_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'lava', 'matplotlib', 'sklearn'): sys.modules[name] = None\n"
        "from stformer.cli import main\n"
        f"assert main(['map', {str(write_model(tmp_path))!r}]) == 0\n"
        "assert main(['map']) == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
