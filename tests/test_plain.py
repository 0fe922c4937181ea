"""Networks as plain data: there and back, and what the digest covers."""

from __future__ import annotations

import copy
import json
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from stformer import testing
from stformer.errors import InputError
from stformer.network import (
    Conv,
    Input,
    Network,
    from_plain,
    to_plain,
)
from stformer.samples import one_of_each

W = np.ones((2, 4), np.int8)  # the weights that one_of_each has
K = np.ones((2, 1, 2, 2), np.int8)


def round_trip(network: Network) -> Network:
    structure, arrays = to_plain(network)
    return from_plain("file", json.loads(json.dumps(structure)), arrays)


@pytest.mark.parametrize("name", testing.SAMPLES)
def test_round_trip(name: str) -> None:
    network = testing.sample_network(name)
    back = round_trip(network)
    assert to_plain(back)[0] == to_plain(network)[0]
    for key, array in to_plain(network)[1].items():
        np.testing.assert_array_equal(to_plain(back)[1][key], array)
    assert back.digest() == network.digest()
    assert [type(p) for p in back.populations] == [type(p) for p in network.populations]


@settings(
    max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(testing.networks())
def test_drawn_round_trip(network: Network) -> None:
    assert round_trip(network).digest() == network.digest()


def test_plain_data_is_checked() -> None:
    structure, arrays = to_plain(one_of_each())
    with pytest.raises(InputError, match="no array 'dense/weight'"):
        from_plain("f", structure, {k: v for k, v in arrays.items() if k != "dense/weight"})
    for key, value, found in (
        ("steps", None, "steps"),
        ("name", 3, "name"),
        ("populations", {}, "a list"),
        ("projections", structure["populations"], "allowed: Dense"),
        ("populations", structure["projections"], "allowed: Input"),
        ("populations", [3], "kind"),
        ("populations", [{"kind": "Nobody"}], "Nobody"),
        ("populations", [{"kind": "Input"}], "missing or unknown keys"),
    ):
        with pytest.raises(InputError, match=found):
            from_plain("f", {**structure, key: value}, arrays)
    with pytest.raises(InputError, match="extra"):
        from_plain("f", {**structure, "extra": 1}, arrays)
    with pytest.raises(InputError, match="a mapping"):
        from_plain("f", [], arrays)


# --- the digest ------------------------------------------------------------------------------


def test_digest_leaves_out_name_and_source() -> None:
    network = one_of_each()
    other = Network(
        name="other",
        steps=network.steps,
        populations=network.populations,
        projections=tuple(reversed(network.projections)),  # their order is the network's
        source="{}",
    )
    assert other.digest() == network.digest() == one_of_each().digest()
    assert len(network.digest()) == 64


OTHER: dict[str, dict[str, Any]] = {
    "in": {"low": -1, "high": 2, "latency": 1},
    "relay": {"latency": 1},
    "lif": {
        "vth": 4,
        "dv": 2047,
        "du": 4094,
        "bias_mant": np.ones((1, 1, 1), int),
        "bias_exp": 1,
        "latency": 1,
    },
    "out": {"bias_mant": np.array([0, 1]), "bias_exp": 1, "latency": 1},
    "dense": {"name": "d", "pre": "lif", "weight": W * 2, "weight_exp": 1, "delay": 1},
    "kernel": {"name": "k", "pre": "lif", "weight": K * 2, "weight_exp": 1, "delay": 1},
    "one": {"name": "o", "pre": "in", "weight": 5, "weight_exp": 1, "delay": 1},
    "sum": {"name": "s", "pre": "in", "weight": 5, "weight_exp": 1, "delay": 1},
    "broadcast": {"name": "b", "weight": 5, "weight_exp": 1, "delay": 1},
    "feed": {"name": "f", "delay": 1},
    "graded": {"bias_mant": np.ones((1, 1, 1), int), "bias_exp": 1, "shift": 1, "latency": 1},
    "left": {"name": "l", "pre": "wide", "delay": 1},
}
# Fields that cannot change alone: names and shapes that others refer to, geometry below.
BOUND = {"name", "shape", "pre", "post", "port", "weight", "weight_exp", "delay"}


@pytest.mark.parametrize(("name", "field"), [(n, f) for n, v in OTHER.items() for f in v])
def test_digest_changes_with_every_field(name: str, field: str) -> None:
    assert one_of_each(**{name: {field: OTHER[name][field]}}).digest() != one_of_each().digest()


def test_every_field_is_in_that_list() -> None:
    items = {i.name: i for i in (*one_of_each().populations, *one_of_each().projections)}
    geometry = {"stride", "padding", "dilation", "groups"}
    for name, changed in OTHER.items():
        missing = {f.name for f in fields(items[name])} - set(changed) - BOUND - geometry
        assert not missing, f"{name}: {missing}"


def test_digest_changes_with_geometry_and_steps() -> None:
    def conv(**more: Any) -> str:
        weight = np.ones((2, 2 // more.get("groups", 1), 1, 1), int)
        network = Network(
            name="n",
            steps=more.pop("steps", 2),
            populations=(
                Input(name="in", shape=(2, 1, 1)),
                testing.lif("a", more.pop("shape", (2, 1, 1))),
            ),
            projections=(Conv(name="c", pre="in", post="a", weight=weight, **more),),
        )
        return network.digest()

    digests = [
        conv(),
        conv(steps=3),
        conv(stride=(2, 1)),
        conv(stride=(1, 2)),
        conv(dilation=(2, 1)),
        conv(groups=2),
        conv(padding=(1, 0), shape=(2, 3, 1)),
        conv(padding=(1, 0), shape=(2, 2, 1), stride=(2, 1)),
    ]
    assert len(set(digests)) == len(digests)


def test_one_bit_anywhere_changes_the_digest() -> None:
    network = testing.sample_network("attention")
    seen = {network.digest()}
    for _, _, mutant in testing.mutants(network):
        seen.add(mutant.digest())
    assert len(seen) == 1 + sum(1 for _ in testing.mutants(network))


def test_numpy_integers_are_plain_integers() -> None:
    """Values computed with NumPy must not make a network that has no digest."""
    network = one_of_each(
        lif={"vth": np.int64(3), "dv": np.uint16(2048), "latency": np.int32(0)},
        one={"weight": np.int8(4), "delay": np.int64(0)},
        kernel={"groups": np.int64(1), "stride": (np.int64(1), np.int8(1))},
    )
    network = Network(
        name="n",
        steps=np.int64(4),  # type: ignore[arg-type]
        populations=network.populations,
        projections=network.projections,
    )
    assert network.digest() == one_of_each().digest()
    json.dumps(to_plain(network)[0])
    assert type(network["lif"].latency) is type(network.steps) is int


def test_networks_can_be_copied() -> None:
    network = one_of_each()
    assert copy.copy(network).digest() == network.digest()
