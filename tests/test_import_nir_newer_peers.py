"""Networks of sinabs and SpikingJelly, exported by them to NIR: equal here, near their own run.

They are in the environment of Python 3.11 (the group `peers`), where STFORMER_PEERS=1 makes a
missing one a failure; elsewhere it is a skip. Weights of 8 bits and decays of 12 move spikes that
are near a threshold, as in test_import_nir_peers. What their exporters lose is shown below.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stformer import deploy, export, testing
from stformer.errors import InputError
from stformer.export import Reading
from stformer.network import Network
from stformer.testing_nir import peer

torch, nir = peer("torch"), peer("nir")
sinabs, sl = peer("sinabs.activation"), peer("sinabs.layers")
to_nir = peer("sinabs.nir").to_nir
functional = peer("spikingjelly.activation_based.functional")
layer, neuron = (peer(f"spikingjelly.activation_based.{n}") for n in ("layer", "neuron"))
export_to_nir = peer("spikingjelly.activation_based.nir_exchange").export_to_nir

pytestmark = pytest.mark.filterwarnings("ignore:nirtorch.extract_nir_graph:DeprecationWarning")
STEPS, SAMPLES, IN, HIDDEN, OUT = 50, 4, 8, 16, 5
MAPS = (2, 6, 6)

# --- sinabs: a time step is the unit of tau, one frame an element of the batch ------------------


def fires(**more: Any) -> dict[str, Any]:
    """NIR's neurons: one spike a step, and then to 0. sinabs's own default is neither."""
    return {
        "batch_size": 1,
        "spike_fn": sinabs.SingleSpike,
        "reset_fn": sinabs.MembraneReset(),
        "spike_threshold": torch.tensor(0.3),
    } | more


def leaky(n: int, threshold: float, **more: Any) -> Any:
    tau, at = torch.full((n,), 20.0), torch.full((n,), threshold)
    return sl.LIFSqueeze(**fires(tau_mem=tau, spike_threshold=at, **more))


def sinabs_iaf() -> Any:
    return torch.nn.Sequential(
        torch.nn.Linear(IN, HIDDEN),
        sl.IAFSqueeze(**fires()),
        torch.nn.Linear(HIDDEN, OUT, bias=False),
        sl.IAFSqueeze(**fires()),
    )


def sinabs_lif() -> Any:
    return torch.nn.Sequential(
        torch.nn.Linear(IN, HIDDEN),
        leaky(HIDDEN, 0.03),
        torch.nn.Linear(HIDDEN, OUT),
        leaky(OUT, 0.01),
    )


def one_layer_of_sinabs(**more: Any) -> Any:
    return torch.nn.Sequential(torch.nn.Linear(IN, HIDDEN), leaky(HIDDEN, 0.05, **more))


def sinabs_conv() -> Any:
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1, bias=False),
        sl.IAFSqueeze(**fires()),
        sl.SumPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(36, OUT),
        sl.IAFSqueeze(**fires(spike_threshold=torch.tensor(4.0))),
    )


def run_sinabs(model: Any, x: Any) -> Any:
    """Spikes of the last layer for frames [T, …]."""
    for part in model:
        if hasattr(part, "reset_states"):
            part.reset_states()
    with torch.no_grad():
        return model(torch.tensor(x).float()).numpy()


def graph_of_sinabs(model: Any, x: Any) -> Any:
    graph = to_nir(model, torch.tensor(x).float())
    graph.infer_types()  # sinabs leaves Conv2d without its input_shape, see below
    return graph


# --- SpikingJelly: dt is the exporter's, 1e-4 by default ----------------------------------------


def jelly_if() -> Any:
    return torch.nn.Sequential(
        layer.Linear(IN, HIDDEN),
        neuron.IFNode(v_threshold=0.3),
        layer.Linear(HIDDEN, OUT, bias=False),
        neuron.IFNode(v_threshold=0.3),
    )


def jelly_lif() -> Any:
    return torch.nn.Sequential(
        layer.Linear(IN, HIDDEN),
        neuron.LIFNode(tau=10.0, v_threshold=0.05),
        layer.Linear(HIDDEN, OUT),
        neuron.LIFNode(tau=4.0, decay_input=False, v_threshold=0.1, v_reset=-0.1),
    )


def jelly_cuba() -> Any:
    return torch.nn.Sequential(
        layer.Linear(IN, HIDDEN, bias=False),
        neuron.CUBALIFNode(c_decay=0.5, v_decay=0.9, v_threshold=1.0),
    )


def jelly_conv() -> Any:
    return torch.nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, bias=False),
        neuron.IFNode(v_threshold=0.3),
        layer.AvgPool2d(2),
        layer.Flatten(),
        layer.Linear(36, OUT),
        neuron.LIFNode(tau=2.0, v_threshold=0.4),
    )


def run_jelly(model: Any, x: Any) -> Any:
    functional.reset_net(model)
    with torch.no_grad():
        rows = [model(torch.tensor(frame[None]).float())[0].numpy() for frame in x]
    functional.reset_net(model)
    return np.array(rows)


def graph_of_jelly(model: Any, x: Any) -> Any:
    return export_to_nir(model, torch.tensor(x[:1]).float())


# --- agreement ----------------------------------------------------------------------------------

# Model, its simulator, its exporter, dt of a step, shape of a frame, what must agree at least:
# an IF never forgets what rounding added.
Row = tuple[Callable[[], Any], Callable[..., Any], Callable[..., Any], float, Any, float]
MODELS: dict[str, Row] = {
    "sinabs IAF": (sinabs_iaf, run_sinabs, graph_of_sinabs, 1.0, (IN,), 0.95),
    "sinabs LIF": (sinabs_lif, run_sinabs, graph_of_sinabs, 1.0, (IN,), 0.95),
    "sinabs conv, pool": (sinabs_conv, run_sinabs, graph_of_sinabs, 1.0, MAPS, 0.95),
    "SpikingJelly IF": (jelly_if, run_jelly, graph_of_jelly, 1e-4, (IN,), 0.95),
    "SpikingJelly LIF": (jelly_lif, run_jelly, graph_of_jelly, 1e-4, (IN,), 0.98),
    "SpikingJelly CUBALIF": (jelly_cuba, run_jelly, graph_of_jelly, 1e-4, (IN,), 0.98),
    "SpikingJelly conv, pool": (jelly_conv, run_jelly, graph_of_jelly, 1e-4, MAPS, 0.95),
}


def excited(make: Callable[[], Any]) -> Any:
    """A model whose weights are more positive than random ones, so that its last layer fires."""
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for part in model:
            if hasattr(part, "weight"):
                part.weight += 0.05
    return model


def frames(shape: Any) -> Any:
    rng = np.random.default_rng(0)
    return (rng.random((SAMPLES, STEPS, *shape)) < 0.5).astype(np.int32)


def read(graph: Any, path: Path, dt: float) -> Network:
    nir.write(path, graph)
    return export.read(path, Reading(steps=STEPS, dt=dt)).network


def share(name: str, network: Network, x: Any, theirs: Any) -> float:
    """Spikes of the last population that agree; the same on every backend that is here."""
    ours = deploy.run("reference", network, x)
    for backend in ("cpu", "onnx"):
        if deploy.load(backend).missing() is None:
            testing.assert_traces_equal(ours, deploy.run(backend, network, x))
    got = ours[network.populations[-1].name]
    assert got.shape == theirs.shape and theirs.mean() > 0.1
    same = float((got == theirs).mean())
    rates = f"rates {got.mean():.3f} and {theirs.mean():.3f}"
    print(f"{name}: {same:.2%} of {got.size} spikes agree; {rates}")
    return same


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_theirs(name: str, tmp_path: Path) -> None:
    make, run, to_graph, dt, shape, least = MODELS[name]
    model, x = excited(make), frames(shape)
    theirs = np.array([run(model, sample) for sample in x])
    network = read(to_graph(model, x[0]), tmp_path / "graph.nir", dt)
    assert share(name, network, x, theirs) > least


def test_eulers_step_is_what_differs_in_leaky_models_of_sinabs(tmp_path: Path) -> None:
    """sinabs decays by exp(-1 / tau), NIR by 1 - 1 / tau; with that tau, spikes agree."""
    model, x = excited(sinabs_lif), frames((IN,))
    theirs = np.array([run_sinabs(model, sample) for sample in x])
    graph = graph_of_sinabs(model, x[0])
    for node in graph.nodes.values():
        if isinstance(node, nir.LIF):
            node.tau = 1 / (1 - torch.exp(-1 / node.tau))
    network = read(graph, tmp_path / "graph.nir", 1.0)
    assert share("sinabs LIF, its own decay", network, x, theirs) > 0.975


def whole(make: Callable[[], Any]) -> Any:
    """Weights that are even whole numbers of int8, no biases: nothing is rounded."""
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for part in model:
            if hasattr(part, "weight"):
                part.weight.copy_(torch.randint(-20, 40, part.weight.shape) * 2)
            if getattr(part, "bias", None) is not None:
                part.bias.zero_()
    return model


def test_every_spike_agrees_where_nothing_is_rounded(tmp_path: Path) -> None:
    """An odd threshold, since both tools fire at it and NIR only above."""
    x = frames((IN,))
    sinabs_, jelly = whole(sinabs_iaf), whole(jelly_if)
    for of_sinabs, of_jelly in zip(sinabs_[1::2], jelly[1::2], strict=True):
        of_sinabs.spike_threshold.fill_(101.0)
        of_jelly.v_threshold = 101.0
    for name, model, run, graph, dt in (
        ("sinabs", sinabs_, run_sinabs, graph_of_sinabs, 1.0),
        ("SpikingJelly", jelly, run_jelly, graph_of_jelly, 1e-4),
    ):
        theirs = np.array([run(model, sample) for sample in x])
        network = read(graph(model, x[0]), tmp_path / f"{name}.nir", dt)
        assert share(f"{name}, whole numbers", network, x, theirs) == 1


# --- what their exporters lose or leave out -----------------------------------------------------

LOST: dict[str, dict[str, Any]] = {
    "synaptic current": {"tau_syn": 5.0},  # sinabs/nir.py, line 166: no CubaLIF is ever written
    "input as it is": {"norm_input": False},  # line 170: r = 1, where it is tau
    "reset by subtraction": {"reset_fn": sinabs.MembraneSubtract()},  # line 166
    "many spikes a step": {"spike_fn": sinabs.MultiSpike},  # line 166
}


@pytest.mark.parametrize("name", LOST)
def test_what_sinabs_does_not_write(name: str, tmp_path: Path) -> None:
    """Two models with different spikes, one file: whoever reads it gets NIR's neurons."""
    x, spikes, digests = frames((IN,)), [], set()
    for folder, more in {"as-nir": {}, "other": LOST[name]}.items():
        model = excited(partial(one_layer_of_sinabs, **more))
        spikes.append(np.array([run_sinabs(model, sample) for sample in x]))
        (tmp_path / folder).mkdir()
        graph = graph_of_sinabs(model, x[0])
        digests.add(read(graph, tmp_path / folder / "graph.nir", 1.0).digest())
    print(f"{name}: {(spikes[0] == spikes[1]).mean():.2%} of the spikes are the same")
    assert (spikes[0] != spikes[1]).any()
    assert len(digests) == 1


def test_sinabs_writes_no_shape_of_what_a_convolution_gets(tmp_path: Path) -> None:
    """sinabs/nir.py, line 201: input_shape=None, which HDF5 does not hold."""
    x = torch.tensor(frames(MAPS)[0]).float()
    graph = to_nir(sinabs_conv(), x)
    assert graph.nodes["0"].input_shape is None
    with pytest.raises(TypeError):
        nir.write(tmp_path / "graph.nir", graph)


def test_sinabs_writes_no_time_constant_that_is_one_number(tmp_path: Path) -> None:
    """sinabs/nir.py, line 167: a tensor without axes, which nir.write does not compress."""
    x = torch.tensor(frames((IN,))[0]).float()
    model = torch.nn.Sequential(torch.nn.Linear(IN, 3), sl.LIFSqueeze(**fires(tau_mem=20.0)))
    with pytest.raises(TypeError):
        nir.write(tmp_path / "graph.nir", to_nir(model, x))


def test_sinabs_takes_time_for_an_axis_of_neurons(tmp_path: Path) -> None:
    """sinabs/nir.py, line 251: layers that are not `Squeeze` have two axes before neurons'."""
    x = torch.tensor(frames((IN,))[:1]).float()
    values = {k: v for k, v in fires().items() if k != "batch_size"}
    model = torch.nn.Sequential(torch.nn.Linear(IN, 3), sl.IAF(**values))
    path = tmp_path / "graph.nir"
    nir.write(path, to_nir(model, x))
    with pytest.raises(InputError, match=rf"\({STEPS}, 3\)|{STEPS * IN}"):
        export.read(path, Reading(steps=STEPS, dt=1.0))


def test_spikingjelly_refuses_what_nir_has_not() -> None:
    model = torch.nn.Sequential(layer.Linear(IN, 3), neuron.LIFNode(v_reset=None))
    with pytest.raises(NotImplementedError, match="soft reset"):
        export_to_nir(model, torch.zeros(1, IN))
