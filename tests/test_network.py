"""The network: every rule of legality, plain data and back, and what the digest covers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stformer import testing
from stformer.errors import InputError
from stformer.network import (
    MAX_NEURONS,
    MAX_STEPS,
    Conv,
    Dense,
    Input,
    Network,
    OneToOne,
    bias_of,
    conv_output,
    effective_weight,
)
from stformer.passes import replace_network
from stformer.samples import one_of_each

W = np.ones((2, 4), np.int8)  # the weights that one_of_each has
K = np.ones((2, 1, 2, 2), np.int8)


def test_one_of_each_is_legal() -> None:
    assert len(one_of_each().populations) == 9


BAD: list[tuple[str, str, Any, str]] = [
    # object, field, wrong value, what the message says
    ("in", "shape", (), "shape"),
    ("in", "shape", (1, 1, 2, 2), "shape"),
    ("in", "shape", (1, 2, 0), "shape = 0"),
    ("in", "shape", (1, 2, -2), "shape = -2"),
    ("in", "shape", (1, 2, 2.0), "shape = 2.0"),
    ("in", "shape", (1, 2, True), "shape = True"),
    ("in", "shape", 4, "shape = 4"),
    ("in", "shape", (MAX_NEURONS, 2, 1), "neurons"),
    ("in", "latency", -1, "latency = -1"),
    ("in", "latency", MAX_STEPS + 1, "latency"),
    ("in", "low", -(2**23) - 1, "low"),
    ("in", "high", 2**23, "high"),
    ("in", "high", -1, "high = -1"),
    ("in", "low", 2, "high = 1"),
    ("in", "low", 0.0, "low"),
    ("lif", "vth", 0, "vth = 0"),
    ("lif", "vth", 131072, "vth = 131072"),
    ("lif", "vth", 3.0, "vth = 3.0"),
    ("lif", "vth", float("nan"), "vth = nan"),
    ("lif", "vth", None, "vth = None"),
    ("lif", "du", -1, "du = -1"),
    ("lif", "du", 4096, "du = 4096"),
    ("lif", "dv", -1, "dv = -1"),
    ("lif", "dv", 4096, "dv = 4096"),
    ("lif", "bias_exp", -1, "bias_exp = -1"),
    ("lif", "bias_exp", 8, "bias_exp = 8"),
    ("lif", "bias_mant", np.full((1, 1, 1), 4096), r"bias_mant\[0, 0, 0\] = 4096"),
    ("lif", "bias_mant", np.full((1, 1, 1), -4097), "= -4097"),
    ("lif", "bias_mant", np.zeros((1, 1, 1)), "type float64"),
    ("lif", "bias_mant", np.zeros((1, 1, 1), bool), "type bool"),
    ("lif", "bias_mant", 0, "type int"),
    ("lif", "bias_mant", [[[0]]], "type list"),
    ("lif", "bias_mant", np.zeros((2, 2), int), "bias_mant of shape"),
    ("lif", "bias_mant", np.zeros((1, 2, 3), int), "bias_mant of shape"),
    ("lif", "bias_mant", np.zeros((1, 1, 2, 2), int), "bias_mant of shape"),
    ("out", "bias_mant", np.array([0, 5000]), r"bias_mant\[1\] = 5000"),
    ("out", "bias_exp", 9, "bias_exp"),
    ("one", "weight", 128, "weight = 128"),
    ("one", "weight", -129, "weight = -129"),
    ("one", "weight", 2.0, "weight = 2.0"),
    ("one", "weight", np.ones((2, 2), int), "weight"),
    ("one", "weight_exp", 8, "weight_exp = 8"),
    ("one", "weight_exp", -1, "weight_exp = -1"),
    ("one", "delay", 63, "delay = 63"),
    ("one", "delay", -63, "delay = -63"),
    ("graded", "shift", -1, "shift = -1"),
    ("graded", "shift", 24, "shift = 24"),
    ("graded", "bias_mant", np.full((1, 1, 1), 4096), "= 4096"),
    ("scores", "mode", "sum", "mode 'sum'"),
    ("scores", "heads", 0, "heads = 0"),
    ("scores", "heads", 3, "with 3 heads"),
    ("scores", "mode", "mix", "mix of"),
    ("scores", "shape", (1, 4, 3), r"as \(1, 4, 3\)"),
    ("left", "port", "middle", "port 'middle'"),
    ("stream", "post", "scores", "OneToOne onto 'scores'"),
    ("left", "post", "lif", "Operand onto 'lif'"),
    ("one", "pre", "nobody", "'nobody'"),
    ("one", "post", "nobody", "'nobody'"),
    ("one", "post", "in", "an input"),
    ("one", "post", "token", "equal shapes"),
    ("sum", "post", "wide", r"\(C, 1, 1\)"),
    ("sum", "weight", 200, "weight = 200"),
    ("broadcast", "pre", "lif", r"\(C, 1, 1\)"),
    ("broadcast", "weight", -200, "weight = -200"),
    ("dense", "weight", W.astype(float), "type float64"),
    ("dense", "weight", W * np.int16(128), r"weight\[0, 0\] = 128"),
    ("dense", "weight", W * np.int16(-129), "= -129"),
    ("dense", "weight", W.T.copy(), r"\(2, 4\)"),
    ("dense", "weight", W.ravel(), r"\(2, 4\)"),
    ("dense", "weight", 1, "type int"),
    ("dense", "pre", "out", "a readout"),
    ("dense", "weight_exp", 8, "weight_exp"),
    ("kernel", "weight", K[0], "four axes"),
    ("kernel", "weight", K[:, :0], "four axes"),
    ("kernel", "weight", K.astype(np.float32), "type float32"),
    ("kernel", "weight", K[:, :, :1], "target of shape"),
    ("kernel", "weight", np.ones((2, 2, 2, 2), int), "channels in"),
    ("kernel", "weight", K[:1], "target of shape"),
    ("kernel", "stride", (0, 1), "stride = 0"),
    ("kernel", "stride", (1,), "stride"),
    ("kernel", "stride", 1, "stride"),
    ("kernel", "padding", (-1, 0), "padding = -1"),
    ("kernel", "padding", (1, 0), "target of shape"),
    ("kernel", "dilation", (0, 1), "dilation = 0"),
    ("kernel", "dilation", (2, 2), "target of shape"),
    ("kernel", "groups", 0, "groups = 0"),
    ("kernel", "groups", 2, "channels in"),
    ("kernel", "groups", 1.0, "groups"),
    ("kernel", "delay", 63, "delay"),
    ("kernel", "pre", "token", "target of shape"),
]


@pytest.mark.parametrize(
    ("name", "field", "value", "found"), BAD, ids=[f"{b[0]}.{b[1]}-{i}" for i, b in enumerate(BAD)]
)
def test_wrong_value_is_refused_and_named(name: str, field: str, value: Any, found: str) -> None:
    with pytest.raises(InputError, match=found) as e:
        one_of_each(**{name: {field: value}})
    assert e.value.where in (f"population {name}", f"projection {name}")


def test_products_have_two_fitting_operands() -> None:
    with pytest.raises(InputError, match="population scores: incoming: right, left; allowed: one"):
        one_of_each(left={"port": "right"})
    with pytest.raises(InputError, match=r"population scores: scores of \(1, 1, 1\)"):
        one_of_each(left={"pre": "token"})


@pytest.mark.parametrize(
    "name", ["", "a/b", "a b", "ä", "x" * 201, ".", "..", "a\n", 3, None, "a\0"]
)
@pytest.mark.parametrize("what", ["in", "dense", "network"])
def test_bad_names(what: str, name: Any) -> None:
    build = {
        "network": lambda: Network(name=name, steps=1, populations=(), projections=()),
        "in": lambda: Network(
            name="n", steps=1, populations=(Input(name=name, shape=(1,)),), projections=()
        ),
        "dense": lambda: one_of_each(dense={"name": name}),
    }[what]
    with pytest.raises(InputError, match="name"):
        build()


@pytest.mark.parametrize("steps", [0, -1, MAX_STEPS + 1, 1.0, True, None, "4"])
def test_bad_steps(steps: Any) -> None:
    with pytest.raises(InputError, match="network n: steps"):
        Network(name="n", steps=steps, populations=(), projections=())


@pytest.mark.parametrize("legal", ["a", "A-Z_0.9+@>#:", "in@0+1", "x" * 200, "a.."])
def test_good_names(legal: str) -> None:
    assert one_of_each(dense={"name": legal})


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        *(("lif", "vth", v) for v in (1, 131071)),
        *(("lif", r, v) for r in ("du", "dv") for v in (0, 4095)),
        *(("lif", "bias_exp", v) for v in (0, 7)),
        *(("lif", "bias_mant", np.full((1, 2, 2), v)) for v in (-4096, 4095)),
        *(("one", "weight", v) for v in (-128, 127, 0)),
        *(("one", "delay", v) for v in (0, 62)),
        *(("one", "weight_exp", v) for v in (0, 7)),
        ("dense", "weight", W * np.int16(-128)),
        ("in", "high", 2**23 - 1),
        ("in", "low", -(2**23)),
    ],
)
def test_ends_of_ranges_are_legal(name: str, field: str, value: Any) -> None:
    assert one_of_each(**{name: {field: value}})


def test_names_are_unique() -> None:
    with pytest.raises(InputError, match="population lif: the name twice"):
        one_of_each(wide={"name": "lif"})
    with pytest.raises(InputError, match="projection sum: the name twice"):
        one_of_each(one={"name": "sum"})


@pytest.mark.parametrize(
    "change",
    [{"weight": 3}, {"weight_exp": 1}, {"delay": 2}, {"post": "lif"}],
)
def test_relays_are_fed_by_one_weight_of_two(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="population relay"):
        one_of_each(feed=change)
    assert one_of_each(feed={"delay": 1})


def test_relays_are_fed_once() -> None:
    network = one_of_each()
    more = OneToOne(name="more", pre="in", post="relay", weight=2)
    with pytest.raises(InputError, match="population relay: 2 incoming"):
        replace_network(network, projections=(*network.projections, more))


def test_recurrence_needs_a_delay() -> None:
    network = one_of_each()
    back = OneToOne(name="back", pre="wide", post="lif", weight=2)
    with pytest.raises(InputError, match="projection back: delay 0"):
        replace_network(network, projections=(*network.projections, back))
    back = replace(back, delay=1)
    loop = OneToOne(name="loop", pre="lif", post="lif", weight=2, delay=1)
    found = replace_network(network, projections=(*network.projections, back, loop)).recurrent
    assert [p.name for p in found] == ["loop", "back"]
    assert not network.recurrent


def test_kinds_are_closed() -> None:
    with pytest.raises(InputError, match="Input, Lif, Relay, Readout"):
        Network(name="n", steps=1, populations=(W,), projections=())  # type: ignore[arg-type]
    network = one_of_each()
    with pytest.raises(InputError):
        replace_network(network, projections=network.populations)  # type: ignore[arg-type]


def test_arrays_are_copied_narrowed_and_frozen() -> None:
    weight = W.astype(np.int64)
    network = one_of_each(dense={"weight": weight})
    weight[0, 0] = 99
    dense = network.incoming("out")[0]
    assert isinstance(dense, Dense)
    assert (dense.weight.dtype, dense.weight[0, 0]) == (np.int8, 1)
    with pytest.raises(ValueError, match="read-only"):
        dense.weight[0, 0] = 5
    with pytest.raises(AttributeError):
        network.name = "m"  # type: ignore[misc]


def test_look_up() -> None:
    network = one_of_each()
    assert network["lif"].name == "lif"
    assert "lif" in network
    assert "nobody" not in network
    with pytest.raises(InputError, match="no population 'nobody'"):
        network["nobody"]
    assert [p.name for p in network.inputs] == ["in"]
    assert [p.name for p in network.readouts] == ["out"]
    assert [p.post for p in network.projections] == [
        *("relay", "lif", "token", "wide", "conv", "out", "graded", "scores", "scores")
    ]


def test_effective_numbers() -> None:
    assert (
        effective_weight(OneToOne(name="o", pre="a", post="b", weight=-128, weight_exp=7))
        == -16384
    )
    lif = testing.lif("a", (2,), bias_mant=np.array([-4096, 4095], np.int16), bias_exp=7)
    assert bias_of(lif).tolist() == [-524288, 524160]
    conv = Conv(name="c", pre="a", post="b", weight=np.ones((1, 1, 3, 2), int), stride=(2, 1))
    assert conv_output(conv, 7, 5) == (3, 4)
