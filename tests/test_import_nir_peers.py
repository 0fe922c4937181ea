"""Networks of snnTorch and Norse, exported by them to NIR: equal here, and near their own run.

Weights are rounded to int8 and decays to 12 bits, so spikes near a threshold may differ from the
tool's float run, and one that differs moves those after it. How many agree is printed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stformer import deploy, export, testing
from stformer.export import Reading
from stformer.network import Network
from stformer.testing_nir import peer

torch, nir, snn, norse = (peer(n) for n in ("torch", "nir", "snntorch", "norse.torch"))
to_nir = peer("norse.torch.utils.export_nir").to_nir
export_to_nir = peer("snntorch.export_nir").export_to_nir

pytestmark = pytest.mark.filterwarnings("ignore:nirtorch.extract_nir_graph:DeprecationWarning")
STEPS, HIDDEN, OUT = 50, 16, 5
RESET = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}


def full(n: int, value: float) -> Any:
    return torch.full((n,), value)


def leaky() -> Any:
    return torch.nn.Sequential(
        torch.nn.Linear(8, HIDDEN),
        snn.Leaky(beta=full(HIDDEN, 0.9), threshold=full(HIDDEN, 0.1), **RESET),
        torch.nn.Linear(HIDDEN, OUT),
        snn.Leaky(beta=full(OUT, 0.8), threshold=full(OUT, 0.1), **RESET),
    )


def synaptic() -> Any:
    alpha, beta = full(HIDDEN, 0.5), full(HIDDEN, 0.9)
    return torch.nn.Sequential(
        torch.nn.Linear(8, HIDDEN),
        snn.Synaptic(alpha=alpha, beta=beta, threshold=full(HIDDEN, 1.0), **RESET),
    )


def recurrent() -> Any:
    return torch.nn.Sequential(
        torch.nn.Linear(8, HIDDEN),
        snn.RSynaptic(
            alpha=full(HIDDEN, 0.5),
            beta=full(HIDDEN, 0.9),
            threshold=full(HIDDEN, 1.0),
            all_to_all=True,
            linear_features=HIDDEN,
            init_hidden=True,
            reset_mechanism="zero",  # a step late, NIR's is not: many differ
        ),
    )


def run_snntorch(model: Any, x: Any) -> Any:
    """Spikes of the last layer for frames [T, n]."""
    for layer in model:
        if hasattr(layer, "reset_mem"):
            layer.reset_mem()
    with torch.no_grad():
        return np.array([model(torch.tensor(f[None]).float())[0].numpy() for f in x])


def boxes() -> Any:
    def cell(n: int) -> Any:
        parameters = norse.LIFBoxParameters(
            tau_mem_inv=full(n, 100.0), v_leak=full(n, 0.0), v_th=full(n, 0.01)
        )
        return norse.LIFBoxCell(parameters, dt=1e-3)

    return norse.SequentialState(
        torch.nn.Linear(8, HIDDEN), cell(HIDDEN), torch.nn.Linear(HIDDEN, OUT), cell(OUT)
    )


def run_norse(model: Any, x: Any) -> Any:
    state, out = None, []
    with torch.no_grad():
        for frame in x:
            spikes, state = model(torch.tensor(frame[None]).float(), state)
            out.append(spikes[0].numpy())
    return np.array(out)


# Model, its exporter, its simulator, dt of a step: Norse's `dt` is what 1 / tau_inv is scaled by.
MODELS: dict[str, tuple[Callable[[], Any], Callable[..., Any], Callable[..., Any], float]] = {
    "snntorch Leaky": (leaky, export_to_nir, run_snntorch, 1e-4),
    "snntorch Synaptic": (synaptic, export_to_nir, run_snntorch, 1e-4),
    "snntorch RSynaptic": (recurrent, export_to_nir, run_snntorch, 1e-4),
    "norse LIFBox": (boxes, lambda m, x: to_nir(m, x, dt=1.0), run_norse, 1e-3),
}


def last(network: Network) -> str:
    return network.populations[-1].name


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_theirs(name: str, tmp_path: Path) -> None:
    make, to_graph, run, dt = MODELS[name]
    torch.manual_seed(0)
    model = make()
    path = tmp_path / "graph.nir"
    nir.write(path, to_graph(model, torch.rand(8)))
    network = export.read(path, Reading(steps=STEPS, dt=dt)).network
    x = (np.random.default_rng(0).random((4, STEPS, 8)) < 0.5).astype(np.int32)
    ours = deploy.run("reference", network, x)
    for backend in ("onnx",) if network.recurrent else ("cpu", "onnx"):
        if deploy.load(backend).missing() is None:
            testing.assert_traces_equal(ours, deploy.run(backend, network, x))
    got, theirs = ours[last(network)], np.array([run(model, sample) for sample in x])
    share = (got == theirs).mean()
    rates = f"rates {got.mean():.3f} and {theirs.mean():.3f}"
    print(f"{name}: {share:.2%} of {got.size} spikes agree; {rates}")
    assert theirs.mean() > 0.05 and share > (0.75 if network.recurrent else 0.98)


def test_the_late_reset_is_what_differs_in_recurrent_models(tmp_path: Path) -> None:
    """snnTorch's recurrent weights stepped in float with NIR's reset, in the step of the spike."""
    torch.manual_seed(0)
    model = recurrent()
    path = tmp_path / "graph.nir"
    nir.write(path, export_to_nir(model, torch.rand(8)))
    network = export.read(path, Reading(steps=STEPS)).network
    x = (np.random.default_rng(0).random((4, STEPS, 8)) < 0.5).astype(np.int32)
    got = deploy.run("reference", network, x)[last(network)]
    current = membrane = spikes = torch.zeros(len(x), HIDDEN)
    rows = []
    with torch.no_grad():
        for t in range(STEPS):
            arriving = model[0](torch.tensor(x[:, t]).float()) + model[1].recurrent(spikes)
            current = 0.5 * current + arriving
            membrane = 0.9 * membrane + current
            spikes = (membrane > 1.0).float()
            membrane = membrane * (1 - spikes)
            rows.append(spikes.numpy())
    expected = np.stack(rows, axis=1)
    share = (got == expected).mean()
    print(f"recurrent, reset as in NIR: {share:.2%} of {got.size} spikes agree")
    assert expected.any() and share > 0.95
