"""Graphs of other tools: the nearest network, equal on every backend, every change told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from stformer import deploy, export, interpret, testing
from stformer.errors import Unsupported
from stformer.export import Reading
from stformer.hdf5 import Tree
from stformer.network import Conv, Dense, Lif, Network, OneToOne, Readout
from stformer.testing_nir import Fields, cuba, ends, graph, lif, node, random, read

# A folder with lif_norse.nir and others, which the NIR repository publishes with its paper.
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"  # files that others published
PUBLISHED = Path(os.environ.get("STFORMER_TEST_DATA", BESIDE)) / "nir"

FAST = ("reference", "cpu", "onnx")
FORWARD = (*FAST, "lava-sim", "lava-sim-fast")
LOOPS = ("reference", "onnx", "lava-sim-fast")


def frames(network: Network, samples: int = 3, rate: float = 0.5) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    return {
        p.name: (rng.random((samples, network.steps, *p.shape)) < rate).astype(np.int32)
        for p in network.inputs
    }


def check_equal(network: Network, backends: tuple[str, ...]) -> Any:
    """Every spike and state on every backend that is here; others must be there in CI."""
    expected = deploy.run("reference", network, frames(network))
    last = expected[network.populations[-1].name]
    assert last.any()
    for name in backends:
        if deploy.load(name).missing() is None:
            testing.assert_traces_equal(expected, deploy.run(name, network, frames(network)))
    return expected


def euler(fields: Fields, x: Any, dt: float = 1e-4) -> Any:
    """Spikes of LIF or CubaLIF neurons for currents x [T, n], by NIR's equations in float64."""
    i = v = np.zeros(x.shape[1])
    out = []
    for now in x:
        k = dt / fields["tau_mem" if "tau_mem" in fields else "tau"]
        k_syn = dt / fields["tau_syn"] if "tau_syn" in fields else 1.0
        i = i + k_syn * (fields.get("w_in", 1.0) * now - i)
        v = v + k * (fields["v_leak"] - v + fields["r"] * i)
        out.append(v > fields["v_threshold"])
        v = np.where(out[-1], fields.get("v_reset", 0.0), v)
    return np.array(out)


def test_time_constants_that_count_steps() -> None:
    tree = graph("input>n n>output", n=lif(4, tau=10.0), **ends([4], [4]))
    made = read(tree)
    assert made.network["n"].dv == 410 and "count steps" in made.notes[0].what  # type: ignore[union-attr]
    assert read(tree, dt=1e-4).network["n"].dv == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["LIF", "CubaLIF", "v_leak", "biased"])
def test_one_layer_is_what_the_equations_say(kind: str) -> None:
    w, b = random(1, 6, 8), np.zeros(6)
    neurons = cuba(6) if kind in ("CubaLIF", "biased") else lif(6, r=4.0)
    if kind == "v_leak":
        neurons["v_leak"] = np.full(6, 0.02)
    if kind == "biased":
        b = random(2, 6) * 0.1
    tree = graph(
        "input>w w>n n>output", w=node("Affine", weight=w, bias=b), n=neurons, **ends([8], [6])
    )
    network = read(tree, steps=200).network
    x = frames(network, 1)["input"]
    expected = euler(neurons, x[0] @ w.T + b)
    got = interpret.run(network, x)["n"][0]
    share = (got == expected).mean()
    print(f"{kind}: {share:.2%} of {got.size} spikes as in float, {got.mean():.1%} are 1")
    assert expected.any() and share > 0.93  # one spike more or less moves all that follow
    assert abs(got.mean() - expected.mean()) < 0.03


def test_registers_and_weights_are_the_nearest() -> None:
    tree = graph(
        "input>w w>n n>output",
        w=node("Linear", weight=[[0.5, -1.0]]),
        n=cuba(1, syn=4e-4, mem=1e-3),
        **ends([2], [1]),
    )
    imported = read(tree)
    neurons = imported.network["n"]
    assert isinstance(neurons, Lif)
    assert (neurons.du, neurons.dv) == (1023, 410)
    (w,) = imported.network.incoming("n")
    assert isinstance(w, Dense) and w.name == "w"
    weight = w.weight.astype(float) * 2.0**w.weight_exp / neurons.vth
    assert np.allclose(weight, [[0.5, -1.0]], atol=0.005)
    told = {n.where: n.what for n in imported.notes}
    assert "dv = 410" in " ".join(n.what for n in imported.notes)
    assert {"n", "input", "network"} <= set(told)
    assert "1e-4" in told["network"] or "0.0001" in told["network"]


@pytest.mark.parametrize("dt", [1e-4, 1e-3])
@pytest.mark.parametrize("in_seconds", [False, True])
def test_whole_numbers_stay_what_they_are(in_seconds: bool, dt: float) -> None:
    """SpikingJelly writes r = 1 / dt into an IF, sinabs 1; both add what arrives whole."""
    weight = np.array([[3.0, -128.0], [0.0, 127.0]])
    r = np.full(2, 1 / dt if in_seconds else 1.0)
    tree = graph(
        "input>w w>n n>output",
        w=node("Linear", weight=weight),
        n=node("IF", r=r, v_threshold=np.full(2, 200.0)),
        **ends([2], [2]),
    )
    imported = read(tree, dt=dt)
    assert any("r is 1 / dt" in note.what for note in imported.notes) is in_seconds
    network = imported.network
    (w,) = network.incoming("n")
    neurons = network["n"]
    assert isinstance(w, Dense) and isinstance(neurons, Lif)
    assert np.array_equal(w.weight, weight) and (w.weight_exp, neurons.vth) == (0, 200)


def conv_tree(**more: Any) -> Tree:
    """What sinabs writes of a small CNN."""
    c = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}

    def fires(*shape: int) -> Fields:
        return node("IF", r=np.ones(shape), v_threshold=np.ones(shape))

    return graph(
        "input>c1 c1>n1 n1>p1 p1>c2 c2>n2 n2>p2 p2>f f>d d>n3 n3>output",
        c1=node("Conv2d", weight=random(1, 4, 2, 3, 3), bias=np.full(4, 0.1), **c),
        n1=fires(4, 8, 8),
        p1=node("SumPool2d", kernel_size=[2, 2], stride=[2, 2], padding=[0, 0]),
        c2=node("Conv2d", weight=random(2, 3, 4, 3, 3) * 0.5, bias=np.zeros(3), **c),
        n2=fires(3, 4, 4),
        p2=node("AvgPool2d", kernel_size=[2, 2], stride=[2, 2], padding=[0, 0]),
        f=node("Flatten", start_dim=0, end_dim=-1, input_type=[3, 2, 2]),
        d=node("Affine", weight=random(3, 5, 12), bias=np.zeros(5)),
        n3=fires(5),
        **(ends([2, 8, 8], [5]) | more),
    )


def test_convolutions_and_pools_become_one_projection_each() -> None:
    network = read(conv_tree()).network
    kinds = [type(q) for q in network.projections]
    assert kinds == [Conv, Conv, Dense]
    pooled = network.incoming("n2")[0]
    assert isinstance(pooled, Conv)
    assert pooled.weight.shape == (3, 4, 6, 6) and pooled.stride == (2, 2)
    assert pooled.padding == (2, 2)
    check_equal(network, FORWARD)


def test_scales_delays_and_sums_of_edges() -> None:
    tree = graph(
        "input>w w>n input>s s>wait wait>n n>output",
        w=node("Linear", weight=random(1, 4, 4)),
        s=node("Scale", scale=np.array([0.5, 1.0, -0.5, 2.0])),
        wait=node("Delay", delay=np.full(4, 3e-4)),
        n=lif(4, r=4.0),
        **ends([4], [4]),
    )
    imported = read(tree)
    assert len(imported.network.incoming("n")) == 2
    assert any(p.name == "input@3" for p in imported.network.populations)
    check_equal(imported.network, FORWARD)


def test_conv1d_is_a_convolution_of_height_one() -> None:
    tree = graph(
        "input>c c>n n>output",
        c=node(
            "Conv1d",
            weight=random(1, 3, 2, 3),
            bias=np.zeros(3),
            stride=2,
            padding=1,
            dilation=1,
            groups=1,
            input_shape=9,
        ),
        n=node("IF", r=np.ones((3, 5)), v_threshold=np.ones((3, 5))),
        **ends([2, 9], [3, 5]),
    )
    network = read(tree).network
    assert network["n"].shape == (3, 1, 5)
    (c,) = network.incoming("n")
    assert isinstance(c, Conv) and (c.stride, c.padding) == ((1, 2), (0, 1))
    check_equal(network, FAST)


def test_an_output_without_neurons_is_a_readout() -> None:
    tree = graph(
        "input>w w>n n>v v>output",
        w=node("Linear", weight=random(1, 6, 4)),
        n=lif(6, r=4.0),
        v=node("Affine", weight=random(2, 3, 6), bias=[0.1, 0.0, -0.1]),
        **ends([4], [3]),
    )
    network = read(tree).network
    assert isinstance(network["output"], Readout)
    check_equal(network, FAST)


def test_an_integrator_is_a_readout_and_a_leaky_one_is_refused() -> None:
    tree = graph(
        "input>w w>i i>output",
        w=node("Linear", weight=random(1, 3, 4)),
        i=node("I", r=np.ones(3)),
        **ends([4], [3]),
    )
    assert isinstance(read(tree).network["i"], Readout)
    tree["node"]["nodes"]["i"] = node("LI", tau=np.full(3, 1e-3), r=np.ones(3), v_leak=np.zeros(3))  # type: ignore[index, call-overload]
    with pytest.raises(Unsupported, match="node i: a LI that leaks"):
        read(tree)


def test_neurons_straight_from_the_input() -> None:
    tree = graph("input>n n>m m>output", n=lif(4, r=20.0), m=lif(4, r=20.0), **ends([4], [4]))
    network = read(tree).network
    assert [type(q) for q in network.projections] == [OneToOne, OneToOne]
    check_equal(network, FAST)


def test_thresholds_of_their_own_and_resets() -> None:
    neurons = lif(4, r=4.0)
    neurons["v_threshold"] = np.array([0.1, 0.2, 0.3, 0.4])
    neurons["v_reset"] = np.full(4, -0.05)
    w = random(1, 4, 5) + 0.3
    tree = graph("input>w w>n n>output", w=node("Linear", weight=w), n=neurons, **ends([5], [4]))
    imported = read(tree, steps=200)
    x = frames(imported.network, 1)["input"]
    expected, got = euler(neurons, x[0] @ w.T), interpret.run(imported.network, x)["n"][0]
    assert abs(got.mean(0) - expected.mean(0)).max() < 0.05
    told = " ".join(n.what for n in imported.notes if n.where == "n")
    assert "measured from v_reset" in told and "thresholds differ" in told


def recurrent_tree() -> Tree:
    """What snnTorch writes of a recurrent layer, as in NIR's paper."""
    n = 6
    return graph(
        "input>fc fc>lif.n lif.n>lif.w lif.w>lif.n lif.n>fc2 fc2>n2 n2>output",
        **{
            "lif.n": cuba(n),
            "lif.w": node("Affine", weight=random(2, n, n), bias=random(4, n) * 0.1),
        },
        fc=node("Affine", weight=random(1, n, 5), bias=np.zeros(n)),
        fc2=node("Affine", weight=random(3, 3, n), bias=np.full(3, 0.2)),
        n2=cuba(3, 3e-4, 2e-4),
        **ends([5], [3]),
    )


def test_recurrence_is_a_delay_of_one_step() -> None:
    imported = read(recurrent_tree(), steps=30)
    network = imported.network
    (loop,) = network.recurrent
    assert (loop.name, loop.pre, loop.post, loop.delay) == ("lif.w", "lif.n", "lif.n", 1)
    check_equal(network, LOOPS)
    for name in ("cpu", "lava-sim"):
        if deploy.load(name).missing() is None:
            with pytest.raises(Unsupported, match=r"lif\.w"):
                deploy.run(name, network, frames(network))
    assert any("waits 1 steps, not 0" in n.what for n in imported.notes)


def test_a_loop_of_two_layers_waits_two_steps() -> None:
    tree = graph(
        "input>a a>w w>b b>back back>a b>output",
        a=lif(4, r=20.0),
        w=node("Linear", weight=random(1, 4, 4) + 1),
        b=lif(4, r=20.0),
        back=node("Linear", weight=random(2, 4, 4)),
        **ends([4], [4]),
    )
    network = read(tree, steps=30).network
    (loop,) = network.recurrent
    assert (loop.name, loop.delay) == ("back", 2)
    check_equal(network, ("reference", "onnx"))


def test_sub_graphs_are_opened_out() -> None:
    inner: Any = graph(
        "in>w w>n n>out",
        w=node("Linear", weight=random(1, 6, 8)),
        n=lif(6, r=4.0),
        **{"in": node("Input", shape=[8]), "out": node("Output", shape=[6])},
    )["node"]
    network = read(graph("input>block block>output", block=inner, **ends([8], [6]))).network
    assert [p.name for p in network.populations] == ["input", "block.n"]
    check_equal(network, FAST)


@pytest.mark.parametrize("name", ["dense", "conv", "attention", "current", "temporal", "biased"])
def test_our_own_graphs_without_their_block_are_the_same(name: str, tmp_path: Path) -> None:
    pytest.importorskip("nir")
    network = testing.sample_network(name)
    path = export.export("nir", network, tmp_path / "x.nir").path
    with h5py.File(path, "a") as file:
        del file["node/metadata"]
    imported = export.read(path, Reading(steps=network.steps))
    a, b = (interpret.run(n, frames(network)) for n in (network, imported.network))
    for p in network.populations:
        if p.name in imported.network:
            assert np.array_equal(a[p.name].ravel(), b[p.name].ravel()), p.name
    assert isinstance(network.populations[-1], Readout) or b[network.populations[-1].name].any()


@pytest.mark.slow
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="STFORMER_TEST_DATA names no folder with nir/")
@pytest.mark.parametrize(
    "name", ["lif_norse", "lif_rockpool", "cnn_sinabs", "braille_noDelay_bias_zero"]
)
def test_published_files(name: str) -> None:
    network = export.read(PUBLISHED / f"{name}.nir", Reading(steps=30)).network
    check_equal(network, LOOPS if network.recurrent else FORWARD)
