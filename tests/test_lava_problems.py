"""What the Lava backend refuses, what it says is missing, and what it imports to say so."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from stformer import deploy, passes
from stformer.deploy.lava import LavaSim
from stformer.errors import Unsupported
from stformer.network import (
    Conv,
    Dense,
    Input,
    Lif,
    Network,
    OneToOne,
    Projection,
    Shape,
    conv_output,
)
from stformer.testing import lif

REASON = LavaSim().missing()
needs_lava = pytest.mark.skipif(REASON is not None, reason=REASON or "")


def pair(projection: Projection, pre: Input, post: Lif) -> Network:
    """An input, a projection, neurons."""
    return passes.schedule(
        Network(name="pair", steps=100, populations=(pre, post), projections=(projection,))
    )


def chain(**options: object) -> Network:
    """Input, convolution, neurons, dense, neurons; options change the convolution."""
    conv = Conv(name="x>a", pre="x", post="a", weight=np.ones((2, 2, 1, 1), np.int8))
    return passes.assign_latency(
        Network(
            name="chain",
            steps=3,
            populations=(
                Input(name="x", shape=(2, 4, 4), high=255),
                lif("a", (2, 4, 4), 60),
                lif("b", (3,), 60),
            ),
            projections=(
                replace(conv, **options),  # type: ignore[arg-type]
                Dense(name="a>b", pre="a", post="b", weight=np.ones((3, 32), np.int8)),
            ),
        )
    )


@needs_lava
def test_problems_are_found_by_name() -> None:
    network = chain()
    assert LavaSim().problems(network) == []

    def why(network: Network) -> dict[str, str]:
        return {p.where: p.why for p in LavaSim().problems(network)}

    unscheduled = passes.replace_network(
        network, populations=tuple(replace(p, latency=0) for p in network.populations)
    )
    assert "passes.schedule" in why(unscheduled)["projection x>a"]
    waiting = passes.replace_network(
        network,
        populations=tuple(replace(p, latency=3 * p.latency) for p in network.populations),
    )
    assert "axon delay of 2" in why(waiting)["projection x>a"]
    delayed = why(chain(delay=1))
    assert "passes.schedule" in delayed["projection x>a"]
    back = Dense(name="loop", pre="b", post="b", weight=np.ones((3, 3), np.int8), delay=1)
    looped = passes.replace_network(network, projections=(*network.projections, back))
    assert "recurrence" in why(passes.schedule(looped))["projection loop"]
    too_late = tuple(replace(p, latency=65) if p.name == "b" else p for p in network.populations)
    assert "62" in why(passes.replace_network(network, populations=too_late))["projection a>b"]
    with pytest.raises(Unsupported, match="projection loop"):
        deploy.run("lava-sim", passes.schedule(looped), np.zeros((1, 3, 2, 4, 4)))


@pytest.mark.parametrize(
    ("shape", "weight", "options"),
    [
        ((128, 3, 3), (128, 1, 1, 1), {"groups": 128}),
        ((1, 120, 4), (1, 1, 9, 1), {"padding": (4, 0)}),  # 120 fits int8, 128 does not
        ((1, 4, 127), (1, 1, 1, 3), {"padding": (0, 1)}),
        ((1, 200, 1), (1, 1, 3, 1), {"padding": (64, 0)}),
        ((1, 300, 1), (1, 1, 1, 1), {"stride": (128, 1)}),
        ((1, 300, 1), (1, 1, 3, 1), {"dilation": (64, 1)}),
    ],
)
def test_convolutions_that_lava_computes_wrongly(
    shape: Shape, weight: tuple[int, ...], options: dict[str, object]
) -> None:
    w = np.ones(weight, np.int8)
    conv = Conv(name="x>a", pre="x", post="a", weight=w, **options)  # type: ignore[arg-type]
    post = lif("a", (weight[0], *conv_output(conv, *shape[1:])))
    problems = LavaSim().problems(pair(conv, Input(name="x", shape=shape), post))
    assert [p.where for p in problems] == ["projection x>a"]
    assert "int8" in problems[0].why


def test_sums_that_lava_cannot_hold() -> None:
    def found(kind: type[Conv] | type[OneToOne], high: int, du: int, weight: int) -> list[str]:
        given = weight if kind is OneToOne else np.full((1, 1, 1, 1), weight, np.int8)
        projection = kind(name="x>a", pre="x", post="a", weight=given)  # type: ignore[arg-type]
        pre = Input(name="x", shape=(1, 1, 1), high=high)
        network = pair(projection, pre, lif("a", (1, 1, 1), du=du))
        return [p.where for p in LavaSim().problems(network)]

    assert found(Conv, 2**23 - 1, 4095, 1) == []
    assert found(Conv, 2**23 - 1, 4095, -2) == ["projection x>a"]
    assert found(OneToOne, 2**23 - 1, 4095, 3) == []
    assert found(OneToOne, 2**23 - 1, 4095, -4) == ["population a"]
    assert found(OneToOne, 2**18, 0, -1) == []
    assert found(OneToOne, 2**23 - 1, 0, 1) == ["population a"]


@needs_lava
def test_the_named_models_are_those_that_lava_selects() -> None:
    """In a process of its own: the search imports a good part of Lava."""
    script = """
from lava.magma.compiler.compiler_graphs import ProcGroupDiGraphs
from lava.magma.core.run_configs import Loihi2SimCfg
import numpy as np
from scipy.sparse import csr_matrix
from stformer.deploy import lava_build as b
one = np.ones((1, 1), int)
made = [
    b.LIFReset(shape=(1,), vth=1),
    b.LavaDense(weights=one),
    b.LavaDelayDense(weights=one, delays=one),
    b.LavaSparse(weights=one),
    b.LavaDelaySparse(weights=csr_matrix(one), delays=csr_matrix(one)),
    b.LavaConv(weight=np.ones((1, 1, 1, 1), int)),
    b.Source(data=one),
]
assert {type(p) for p in made} == set(b.STOCK)
config = Loihi2SimCfg(select_tag="fixed_pt")
for process in made:
    found = ProcGroupDiGraphs._find_proc_models(process)
    assert config.select(process, found) is b.STOCK[type(process)], process
print("equal")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


def test_asking_imports_neither_lava_nor_torch() -> None:
    script = (
        "import sys; from stformer import deploy; b = deploy.load('lava-sim'); b.missing();"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'lava', 'scipy')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip() == "[]", done.stderr[-2000:]


@pytest.mark.parametrize(
    ("version", "platform", "found", "words"),
    [
        ((3, 10, 0), "linux", False, ["not installed; pip install 'stformer[lava]'"]),
        ((3, 12, 1), "linux", False, ["(this is 3.12); make a Python 3.10"]),
        ((3, 10, 0), "win32", True, ["Windows"]),
    ],
)
def test_missing_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
    version: tuple[int, int, int],
    platform: str,
    found: bool,
    words: list[str],
) -> None:
    monkeypatch.setattr("stformer.deploy.lava.sys.version_info", version)
    monkeypatch.setattr("stformer.deploy.lava.sys.platform", platform)
    monkeypatch.setattr("stformer.deploy.lava._has_lava", lambda: found)
    reason = LavaSim().missing() or ""
    assert all(word in reason for word in words), reason
    assert "; " in reason
