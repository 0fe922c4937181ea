"""Files of netx: which populations are in them, what stands there, and that it comes back."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings

from stformer import export, storage, testing
from stformer.errors import InputError, Unsupported
from stformer.export import MANIFEST, Options
from stformer.export.netx import Netx
from stformer.export.netx_chains import chains, why_not
from stformer.export.netx_restore import REST, chain_file
from stformer.network import (
    Conv,
    Dense,
    Input,
    IntArray,
    Lif,
    Network,
    OneToOne,
    Population,
    Projection,
    Readout,
)
from stformer.passes import schedule
from stformer.samples_base import lif, link, weights


def chain_of(*posts: tuple[Population, dict[str, Any]], shape: tuple[int, ...] = (6,)) -> Network:
    """An input and populations behind each other; the mappings are their projections'."""
    populations: list[Population] = [Input(name="in", shape=shape)]
    projections: list[Projection] = []
    for p, more in posts:
        pre = populations[-1].name
        kind = Conv if np.ndim(more["weight"]) == 4 else Dense
        projections.append(link(kind, pre, p.name, **more))
        populations.append(p)
    network = Network(
        name="c", steps=4, populations=tuple(populations), projections=tuple(projections)
    )
    return schedule(network)


def mixed(shape: tuple[int, ...], seed: int = 0) -> IntArray:
    return weights(shape, seed)


SINGLE = ["dense", "current", "conv", "graded", "or-pool"]
SEVERAL = ["readout", "and", "iand", "attention", "biased", "product"]


@pytest.mark.parametrize("name", [*SINGLE, *SEVERAL])
def test_what_is_written_comes_back_whole(name: str, tmp_path: Path) -> None:
    """`export` compares the digest of what it reads back; here the names of files, twice."""
    network = testing.sample_network(name)
    first = export.export("netx", network, tmp_path / "a")
    second = export.export("netx", network, tmp_path / "b")
    assert list(first.files.values()) == list(second.files.values())
    assert first.path.is_file() == (name in SINGLE)
    again = export.read(first.path)
    assert again.network.digest() == network.digest()
    assert again.network.name == network.name
    assert again.notes == ()


@settings(max_examples=60)
@given(network=testing.networks())
def test_drawn_networks_come_back_or_are_refused_by_name(
    network: Network, tmp_path_factory: pytest.TempPathFactory
) -> None:
    problems = Netx().problems(network, Options())
    if problems:
        assert not chains(network)
        assert problems[0].where in network
        return
    path = tmp_path_factory.mktemp("netx") / "a"
    export.export("netx", network, path)
    assert export.read(path).network.digest() == network.digest()
    shutil.rmtree(path.parent)


def test_the_packaged_model_in_chains(tmp_path: Path) -> None:
    network = storage.load()
    done = export.export("netx", network, tmp_path / "a")
    manifest = json.loads((done.path / MANIFEST).read_text())
    assert manifest["digest"] == network.digest()
    names = [[x["population"] for x in chain["layers"]] for chain in manifest["chains"]]
    assert names[0] == ["stem", *(f"spatial.layers.{i}" for i in range(3))]
    assert names[-1] == ["head"]
    assert manifest["chains"][0]["source"] == "input"
    assert [c["input_message_bits"] for c in manifest["chains"]] == [24] + [0] * 10
    inside = {n for chain in names for n in chain}
    assert len(inside) == 16
    assert inside | set(manifest["outside"]) | {"input"} == {p.name for p in network.populations}
    assert manifest["outside"]["rpe"].startswith("2 projections lead into it")
    exponents = {x["population"]: x["bias_exp"] for c in manifest["chains"] for x in c["layers"]}
    assert exponents["stem"] == 5
    notes = [n for n in done.notes if n.where == "stem"]
    assert "set bias_exp" in notes[0].what
    with h5py.File(done.path / chain_file(0)) as file:
        assert list(file["layer"]) == ["0", "1", "2", "3", "4"]
        assert file["layer/1/weight"].dtype == np.int8
        assert file["stformer/digest"][()].decode() == network.digest()


def test_a_chain_is_cut_where_it_branches_and_where_flat_meets_frames() -> None:
    branch = chain_of((lif("a", (5,)), {"weight": mixed((5, 6))}))
    more = (lif("b", (2,)), lif("c", (2,)), lif("d", (2,)))
    links = (
        link(Dense, "a", "b", weight=mixed((2, 5))),
        link(Dense, "a", "c", weight=mixed((2, 5), 1)),
        link(Dense, "c", "d", weight=mixed((2, 2), 2)),
    )
    network = Network(
        name="n",
        steps=2,
        populations=(*branch.populations, *more),
        projections=(*branch.projections, *links),
    )
    found = [[x.population.name for x in c.layers] for c in chains(network)]
    assert found == [["a"], ["b"], ["c", "d"]]
    frames = chain_of(
        (lif("a", (2, 2, 2)), {"weight": mixed((8, 6))}),
        (lif("b", (3, 2, 2)), {"weight": mixed((3, 2, 1, 1))}),
        (lif("c", (4,)), {"weight": mixed((4, 12))}),
    )
    found = [[x.population.name for x in c.layers] for c in chains(frames)]
    assert found == [["a"], ["b", "c"]]


def test_a_standard_file_holds_what_netx_reads(tmp_path: Path) -> None:
    bias = np.arange(3)[:, None, None] * 64
    pixels = np.arange(12).reshape(3, 2, 2) * 2
    network = chain_of(
        (lif("a", (3, 2, 2), 9, du=7, dv=5, bias_mant=bias), {"weight": mixed((3, 2, 1, 1))}),
        (
            lif("b", (3, 2, 2), 4, bias_mant=pixels, bias_exp=6),
            {"weight": mixed((3, 3, 3, 3)), "padding": (1, 1), "weight_exp": 3},
        ),
        (
            Readout(name="out", shape=(4,), bias_mant=np.full(1, 3), bias_exp=7),
            {"weight": mixed((4, 12)), "weight_exp": 0},
        ),
        shape=(2, 2, 2),
    )
    done = export.export("netx", network, tmp_path / "a.net")
    assert done.path.is_file()
    with h5py.File(done.path) as file:
        layers = [file["layer"][str(i)] for i in range(5)]
        kinds = [x["type"][()].decode() for x in layers]
        assert kinds == ["input", "conv", "conv", "flatten", "dense"]
        assert layers[0]["shape"][()].tolist() == [2, 2, 2]
        assert [x["shape"][()].tolist() for x in layers[1:]] == [[3, 2, 2], [3, 2, 2], [12], [4]]
        assert layers[1]["bias"][()].tolist() == [0, 1, 2]
        assert layers[2]["bias"][()].tolist() == pixels.T.tolist()
        assert layers[4]["bias"][()].tolist() == [6] * 4
        assert layers[2]["weight"].dtype == np.int16
        assert (layers[2]["weight"][()] == mixed((3, 3, 3, 3)) << 3).all()
        assert layers[2]["padding"][()].tolist() == [1, 1]
        neuron = {k: v[()] for k, v in layers[1]["neuron"].items()}
        assert (neuron["iDecay"], neuron["vDecay"], neuron["vThMant"]) == (8, 5, 9)
        neuron = {k: v[()] for k, v in layers[4]["neuron"].items()}
        assert (neuron["iDecay"], neuron["vDecay"], neuron["vThMant"]) == (4096, 0, 2**17)


@pytest.mark.parametrize(
    "weight",
    [np.full((5, 6), -128), np.zeros((5, 6)), np.full((5, 6), -2), mixed((5, 6)) * 6 + 1],
    ids=["inhibitory", "zero", "power of two", "ten bits"],
)
def test_dense_weights_that_netx_changes_are_a_convolution(
    weight: IntArray, tmp_path: Path
) -> None:
    exponent = 2 if weight.max() > 100 else 0
    network = chain_of(
        (lif("a", (5,)), {"weight": weight.astype(np.int8), "weight_exp": exponent})
    )
    done = export.export("netx", network, tmp_path / "a.net")
    assert any("netx would change its weights" in n.what for n in done.notes)
    with h5py.File(done.path) as file:
        assert file["layer/0/shape"][()].tolist() == [6, 1, 1]
        assert file["layer/1/type"][()] == b"conv"
        assert file["layer/1/weight"].shape == (5, 6, 1, 1)
    assert export.read(done.path).network.digest() == network.digest()


def test_a_bias_finer_than_netx_has_makes_a_folder(tmp_path: Path) -> None:
    post = lif("a", (5,), bias_mant=np.array([65, 64, 0, -1, 3]), bias_exp=2)
    done = export.export("netx", chain_of((post, {"weight": mixed((5, 6))})), tmp_path / "a")
    manifest = json.loads((done.path / MANIFEST).read_text())
    assert manifest["chains"][0]["layers"][0]["bias_exp"] == 2


@pytest.mark.parametrize(
    ("network", "part"),
    [
        (testing.sample_network("one-to-one"), "a: OneToOne synapses"),
        (testing.sample_network("sum-tokens"), "a: SumTokens synapses"),
        (testing.recurrent_network(), "2 projections lead into it"),
        (
            chain_of((lif("a", (2,)), {"weight": np.full((2, 128), -2)}), shape=(1, 128, 1)),
            "larger than 127",
        ),
    ],
)
def test_refusals_name_the_population_and_the_reason(network: Network, part: str) -> None:
    with pytest.raises(Unsupported, match=part):
        export.ready("netx", network, Options())


def test_delays_and_looks_ahead_are_no_layers() -> None:
    for delay, part in ((1, "carry spikes"), (-1, "looks 1 ahead")):
        late = link(Dense, "in", "a", weight=mixed((2, 2)), delay=delay)
        populations = (Input(name="in", shape=(2,)), lif("a", (2,)))
        network = Network(name="n", steps=3, populations=populations, projections=(late,))
        assert part in why_not(network, network["a"])


# --- the check sees every change ------------------------------------------------------------


def _change(path: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def _nudge(key: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        data = file[key]
        value = np.array(data[()])
        value.reshape(-1)[0] += 1
        data[...] = value

    return change


@pytest.mark.parametrize("key", ["weight", "bias"])
def test_a_changed_number_is_found(key: str, tmp_path: Path) -> None:
    post = lif("a", (5,), bias_mant=np.arange(5) * 64)
    network = chain_of((post, {"weight": mixed((5, 6))}))
    Netx().write(network, tmp_path / "a.net", Options())
    Netx().check(network, tmp_path / "a.net", Options())
    _change(tmp_path / "a.net", _nudge(f"layer/1/{key}"))
    with pytest.raises(AssertionError, match="steps"):  # now it is anybody's file
        Netx().check(network, tmp_path / "a.net", Options())


@pytest.mark.parametrize("file", [chain_file(0), REST])
def test_a_changed_folder_is_refused(file: str, tmp_path: Path) -> None:
    network = testing.sample_network("attention")
    done = export.export("netx", network, tmp_path / "a")
    key = "layer/1/weight" if file != REST else None
    with h5py.File(done.path / file) as content:
        if key is None:
            name = next(iter(content["arrays"]))
            key = f"arrays/{name}/{next(iter(content[f'arrays/{name}']))}"
    _change(done.path / file, _nudge(key))
    with pytest.raises(InputError, match="other numbers in the files"):
        export.read(done.path)
    (done.path / file).unlink()
    with pytest.raises(InputError, match=file):
        export.read(done.path)


def test_it_is_a_lif_and_its_neighbours_that_count() -> None:
    network = testing.sample_network("dense")
    assert isinstance(network["a"], Lif)
    outside = [type(p).__name__ for p in network.populations if why_not(network, p)]
    assert outside == []
    extra = link(OneToOne, "a", "b2", weight=1)
    wider = Network(
        name="n",
        steps=4,
        populations=(*network.populations, lif("b2", (5,))),
        projections=(*network.projections, extra),
    )
    assert not Netx().suffix(wider, Options())


@pytest.mark.slow
def test_kernels_of_paper_size_stay_int8(tmp_path: Path) -> None:
    """Memory of exporting STFormer-4-384 is a few times that of its largest file."""
    pytest.importorskip("torch")
    from stformer.config import config_from
    from stformer.lower import lower_stformer
    from stformer.model import quantise
    from stformer.sane import sane_model

    model = sane_model(config_from({"variant": "STFormer-4-384"}), batch=1)
    quantise(model)
    network = lower_stformer(model)
    tracemalloc.start()
    try:
        done = export.export("netx", network, tmp_path / "a")
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()
    assert len(done.files) > 15
    assert sum((done.path / name).stat().st_size for name in done.files) < 2**25
