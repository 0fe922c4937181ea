"""The backend `netx`: files that netx builds in Lava give every spike of the reference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stformer
from stformer import deploy, export, interpret, storage, testing, verify
from stformer.deploy import netx as backend
from stformer.deploy.netx import Netx
from stformer.errors import Unavailable, Unsupported
from stformer.network import Conv, Dense, Input, Network, Population, Projection, Readout
from stformer.passes import schedule
from stformer.samples_base import lif, link, weights
from stformer.trace import Probe

REASON = Netx().missing()
runs = pytest.mark.skipif(REASON is not None, reason=REASON or "")


def forest() -> Network:
    """Chains of all that can be in one, side by side: Lava is started once."""
    populations: list[Population] = []
    projections: list[Projection] = []

    def add(kind: type, pre: str, post: Population, **more: object) -> str:
        populations.append(post)
        projections.append(link(kind, pre, post.name, **more))
        return post.name

    def source(name: str, shape: tuple[int, ...], low: int = 0, high: int = 1) -> str:
        populations.append(Input(name=name, shape=shape, low=low, high=high))
        return name

    # Currents, exponents, weights that netx keeps and that it would change.
    x = add(Dense, source("in", (7,)), lif("d1", (6,), 20, du=300), weight=weights((6, 7), 1))
    x = add(Dense, x, lif("d2", (5,), 9, dv=7), weight=weights((5, 6), 2, 1, 60), weight_exp=2)
    x = add(Dense, x, lif("d3", (4,), 70), weight=weights((4, 5), 3, -5), weight_exp=5)
    bias = np.array([64, -640, 6400 // 2, 128])
    x = add(
        Dense, x, lif("d4", (4,), 31, bias_mant=bias), weight=np.full((4, 4), -2), weight_exp=4
    )
    # Frames that are not square, groups, biases of channels and pixels, to a flat readout.
    x = source("frames", (2, 5, 4), -3, 9)
    fine = weights((4, 1, 1), 4, 0, 2000)
    post = lif("c1", (4, 5, 4), 25, bias_mant=fine)
    x = add(Conv, x, post, weight=weights((4, 2, 3, 3), 5), padding=(1, 1))
    pixels = weights((4, 3, 2), 6, -30, 30)
    post = lif("c2", (4, 3, 2), 40, du=2000, bias_mant=pixels, bias_exp=6)
    more = {"stride": (2, 2), "padding": (1, 0), "groups": 2, "weight_exp": 1}
    x = add(Conv, x, post, weight=weights((4, 2, 3, 2), 7), **more)
    coarse = np.array([[[5]], [[-5]], [[4095]]])
    post = lif("d5", (3, 1, 1), 5, dv=100, bias_mant=coarse, bias_exp=7)
    x = add(Dense, x, post, weight=weights((3, 24), 8))
    # A readout of frames: its states are read in Lava's order of axes.
    x = source("graded", (3, 3, 2), 0, 5)
    out = Readout(name="c3", shape=(2, 2, 2), bias_mant=weights((2, 1, 1), 9), bias_exp=3)
    add(Conv, x, out, weight=weights((2, 3, 2, 1), 10))
    # What no layer of netx holds, in the middle.
    x = add(Dense, source("other", (4,)), lif("e1", (6,)), weight=weights((6, 4), 11))
    populations.append(lif("gate", (6,), 3))
    projections.append(link(Dense, "e1", "gate", weight=weights((6, 6), 12)))
    projections.append(link(Dense, "d1", "gate", weight=weights((6, 6), 13)))
    add(Dense, "gate", lif("e2", (3,)), weight=weights((3, 6), 14))
    network = Network(
        name="forest", steps=5, populations=tuple(populations), projections=tuple(projections)
    )
    return schedule(network)


@runs
def test_every_chain_gives_every_spike() -> None:
    network = forest()
    inputs = testing.inputs_for(network, 4, np.random.default_rng(2))
    calls: list[tuple[int, int]] = []
    found = deploy.run(
        "netx", network, inputs, progress=lambda done, total: calls.append((done, total))
    )
    expected = interpret.run(network, inputs)
    assert set(expected.spikes) - set(found.spikes) == {"gate"}
    assert found.info["chains"] == 7
    for name, spikes in found.spikes.items():
        np.testing.assert_array_equal(spikes, expected[name], err_msg=name)
        assert spikes.dtype == expected[name].dtype
        assert spikes.any(), name
    report = verify.compare(expected, found, network)
    assert report.equivalent
    assert "gate" in report.not_compared
    assert calls[-1][0] == calls[-1][1] >= 4 * network.steps


@runs
@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "attention", "conv"])
def test_samples_and_the_packaged_model(name: str) -> None:
    network = storage.load() if name == "digits" else testing.sample_network(name)
    inputs = testing.inputs_for(network, 3, np.random.default_rng(0))
    found = deploy.run("netx", network, inputs)
    expected = interpret.run(network, inputs)
    for population, spikes in found.spikes.items():
        np.testing.assert_array_equal(spikes, expected[population], err_msg=population)


@runs
def test_weights_are_predicted_as_netx_and_lava_load_them() -> None:
    """Against their own functions, in a process of its own: netx comes with stand-ins."""
    done = subprocess.run([sys.executable, "-c", PREDICT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = done.stdout.splitlines()[-1]  # netx prints warnings
    same, changed, lost = map(int, counts.split())
    assert min(same, changed, lost) > 50


PREDICT = """
import warnings
import numpy as np
warnings.simplefilter("ignore")
from stformer.deploy import netx_build
from lava.lib.dl.netx.utils import optimize_weight_bits
from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights
from stformer.export.netx_weights import loaded

def theirs(w):
    w, bits, exponent, _ = optimize_weight_bits(w)
    mode = determine_sign_mode(w)
    w = truncate_weights(clip_weights(w, mode, num_bits=8), mode, bits)
    return w << exponent if exponent > 0 else w >> -exponent

rng = np.random.default_rng(0)
same = changed = lost = 0
ends = [-600, -300, -256, -255, -128, -64, -8, -3, -1, 0, 1, 3, 7, 64, 127, 128, 254, 255, 300]
for low in ends:
    for high in (x for x in ends if x >= low):
        for step in (1, 2, 4):
            w = rng.integers(low, high + 1, (4, 5)) // step * step
            w[0, :2] = low, high
            ours = loaded(w)
            if ours is None:
                lost += 1
                try:
                    assert not theirs(w).any(), w
                except OverflowError:
                    assert not w.any()
                continue
            assert (ours == theirs(w)).all(), (w, ours, theirs(w))
            same += int((ours == w).all())
            changed += int((ours != w).any())
print(same, changed, lost)
"""


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_has_netx", lambda: False)
    reason = Netx().missing()
    assert reason is not None and ("lava-dl" in reason or "lava-nc" in reason)
    with pytest.raises(Unavailable, match=r"stformer\[(netx|lava)\]"):
        deploy.available("netx")


def test_asking_imports_neither_lava_nor_torch() -> None:
    code = (
        "import sys\n"
        "from stformer.deploy.netx import Netx\n"
        "Netx().missing()\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'lava', 'scipy')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_problems_are_those_of_the_files_and_of_lava() -> None:
    with pytest.raises(Unsupported, match="OneToOne synapses"):
        _ready(testing.sample_network("one-to-one"))
    large = link(Conv, "in", "a", weight=weights((1, 1, 1, 1), 0), padding=(100, 0))
    populations = (Input(name="in", shape=(1, 1, 1)), lif("a", (1, 201, 1)))
    network = Network(name="n", steps=2, populations=populations, projections=(large,))
    with pytest.raises(Unsupported, match="computes in int8"):
        _ready(schedule(network))


def _ready(network: Network) -> None:
    for problem in Netx().problems(network):
        raise Unsupported("backend 'netx'", problem.where, problem.why)


@runs
def test_probes_and_populations_that_are_called_like_ours() -> None:
    populations = (Input(name="chain-0#", shape=(3,)), lif("chain-1#", (2,)), lif("b", (2,)))
    links = (
        link(Dense, "chain-0#", "chain-1#", weight=weights((2, 3), 1)),
        link(Dense, "chain-1#", "b", weight=weights((2, 2), 2)),
    )
    network = schedule(Network(name="n", steps=3, populations=populations, projections=links))
    inputs = testing.inputs_for(network, 2, np.random.default_rng(0))
    found = deploy.run("netx", network, inputs, probe=Probe(populations=("b",), states=True))
    assert list(found.spikes) == ["b"]
    assert not found.v
    np.testing.assert_array_equal(found["b"], interpret.run(network, inputs)["b"])


@runs
def test_the_loader_of_the_docs(tmp_path: Path) -> None:
    """The block of docs/netx.md, with netx as the backend has it."""
    export.export("netx", storage.load(), tmp_path / "digits.netx")
    text = (Path(__file__).parent.parent / "docs" / "netx.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    code = f"from stformer.deploy import netx_build\n{code}print(len(network), said)"
    env = {**os.environ, "PYTHONPATH": str(Path(stformer.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 {'population': 'spatial.layers.2'")
