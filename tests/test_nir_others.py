"""What snnTorch and NIRTorch make of the files: where they support the nodes, the same spikes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

nir = pytest.importorskip("nir")
nirtorch = pytest.importorskip("nirtorch")
pytest.importorskip("norse")
torch = pytest.importorskip("torch")

from nirtorch import nir_interpreter  # noqa: E402

from stformer import data, export, interpret, storage, testing  # noqa: E402
from stformer.deploy.norse_load import Delay, _module  # noqa: E402
from stformer.network import Network, Readout  # noqa: E402

DT = 1e-4


def graph_of(network: Network, folder: Path) -> Any:
    path = export.export("nir", network, folder / "x.nir").path
    return nir.read(path, type_check=network.name not in ("conv", "broadcast-tokens"))


def last_of(network: Network, frames: Any) -> Any:
    return interpret.run(network, frames)[network.populations[-1].name]


def run(module: Any, network: Network, frames: Any) -> Any:
    """What the graph's Output gives for frames [S, T, *shape]; of a readout the running sum."""
    state, rows = None, []
    with torch.no_grad():
        for t in range(network.steps):
            x = torch.from_numpy(frames[:, t].astype(np.float32))
            out, state = module(x, state)
            rows.append(out.numpy())
    made = np.stack(rows, axis=1)
    readout = isinstance(network.populations[-1], Readout)
    return np.rint(made.cumsum(axis=1) * 64) if readout else made


class Held(torch.nn.Module):  # type: ignore[name-defined,misc]
    """A Delay that holds its own past, as snnTorch's neurons do with init_hidden."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self.delay = Delay(round(float(node.delay.flat[0]) / DT))
        self.state: Any = None

    def forward(self, x: Any) -> Any:
        out, self.state = self.delay(x, self.state)
        return out


def snntorch(graph: Any) -> Any:
    """As its users call it."""
    snn = pytest.importorskip("snntorch.import_nir")
    utils = pytest.importorskip("snntorch.utils")
    module = snn.import_from_nir(graph)
    utils.reset(module)
    return module


PLAIN = ["and", "iand", "attention", "sum-tokens", "broadcast-tokens", "dense", "conv", "or-pool"]


@pytest.mark.parametrize("name", PLAIN)
def test_snntorch_computes_the_same_spikes(name: str, tmp_path: Path) -> None:
    network = testing.sample_network(name)
    (frames,) = testing.inputs_for(network, 16, np.random.default_rng(0)).values()
    found = run(snntorch(graph_of(network, tmp_path)), network, frames)
    np.testing.assert_array_equal(found, last_of(network, frames))


def test_snntorch_needs_a_delay_for_the_packaged_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = storage.load()
    graph = graph_of(network, tmp_path)
    with pytest.raises(ValueError, match=r"Unknown node type .*Delay"):
        snntorch(graph)
    monkeypatch.setitem(nir_interpreter.DEFAULT_MAP, nir.Delay, Held)
    frames = data.packaged()[0][:32]
    found, expected = run(snntorch(graph), network, frames), last_of(network, frames)
    assert (found == expected).mean() > 0.99  # logits, each of thousands of spikes
    winners = [a[:, -1].reshape(32, -1).argmax(axis=1) for a in (found, expected)]
    np.testing.assert_array_equal(*winners)


def interpreted(graph: Any) -> Any:
    """NIRTorch's own maps of all nodes but neurons and delays, of which it has none."""
    ours = dict.fromkeys((nir.CubaLIF, nir.Delay), lambda node: _module(node, DT))
    return nirtorch.nir_to_torch(graph, ours)


@pytest.mark.parametrize("name", ["digits", "attention", "dense"])
def test_nirtorch_interprets_the_same(name: str, tmp_path: Path) -> None:
    network = storage.load() if name == "digits" else testing.sample_network(name)
    graph = graph_of(network, tmp_path)
    with pytest.raises(RuntimeError, match="must be floating point"):
        interpreted(graph)  # whole numbers; its users cast them
    for node in graph.nodes.values():
        if hasattr(node, "weight"):
            node.weight = node.weight.astype(np.float32)
    rng = np.random.default_rng(0)
    frames = (
        data.packaged()[0][:32]
        if name == "digits"
        else next(iter(testing.inputs_for(network, 16, rng).values()))
    )
    found, expected = run(interpreted(graph), network, frames), last_of(network, frames)
    assert (found == expected).mean() > (0.99 if name == "digits" else 1 - 1e-9)


def test_nirtorch_loses_a_bias(tmp_path: Path) -> None:
    """Why `--backend norse` takes Norse's map of Affine: NIRTorch 2.6 forgets its bias."""
    graph = graph_of(testing.sample_network("biased"), tmp_path)
    affine = next(n for n in graph.nodes.values() if isinstance(n, nir.Affine))
    assert affine.bias.any()
    affine.weight = affine.weight.astype(np.float32)
    theirs = nir_interpreter.DEFAULT_MAP[nir.Affine](affine)
    assert not np.allclose(theirs.bias.detach().numpy(), affine.bias)
    ours = _module(affine, DT)
    np.testing.assert_allclose(ours.bias.detach().numpy(), affine.bias)


def test_the_blocks_of_the_documentation(tmp_path: Path) -> None:
    """docs/nir.md, in order, beside the file that it speaks of."""
    text = (Path(__file__).parent.parent / "docs" / "nir.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) == 2
    export.export("nir", storage.load(), tmp_path / "digits.nir")
    subprocess.run([sys.executable, "-c", "".join(blocks)], cwd=tmp_path, check=True)
