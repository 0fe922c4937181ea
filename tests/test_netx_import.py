"""Networks from other people's netx files give the spikes that netx gives in Lava."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from stformer import export, interpret
from stformer.deploy.netx import Netx
from stformer.errors import InputError
from stformer.export import Imported, Reading
from stformer.network import Conv, Dense, Input, Lif, Readout, Relay

REASON = Netx().missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")

STEPS = 12
# A folder with oxford.net, which lava-dl publishes with its tutorials of netx.
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"  # files that others published
PUBLISHED = Path(os.environ.get("STFORMER_TEST_DATA", BESIDE)) / "netx"

Layers = list[dict[str, Any]]
Theirs = dict[str, tuple[Imported, npt.NDArray[Any], npt.NDArray[Any]]]


def neuron(vth: int = 20, dv: int = 300, du: int = 4095, **more: Any) -> dict[str, Any]:
    return {"type": "CUBA", "iDecay": du + 1, "vDecay": dv, "vThMant": vth, **more}


def write(path: Path, layers: Layers) -> Path:
    """A file as slayer writes it, with texts of both kinds."""

    def put(group: h5py.Group, values: dict[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                put(group.create_group(key), value)
            elif isinstance(value, str) and isinstance(group.name, str) and "neuron" in group.name:
                group[key] = value
            elif isinstance(value, str):
                group.create_dataset(key, (1,), "S10", [value.encode()])
            else:
                group[key] = value

    with h5py.File(path, "w") as file:
        put(file, {"layer": {str(i): layer for i, layer in enumerate(layers)}})
    return path


def dense(out: int, into: int, seed: int, low: int = -60, high: int = 60, **more: Any) -> Any:
    w = np.random.default_rng(seed).integers(low, high + 1, (out, into))
    return {"type": "dense", "shape": [out], "weight": w, "neuron": neuron(), **more}


def conv(shape: tuple[int, int, int], weight: tuple[int, ...], seed: int, **more: Any) -> Any:
    w = np.random.default_rng(seed).integers(-300, 300, weight)
    geometry = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    return {"type": "conv", "shape": shape, "weight": w, "neuron": neuron(), **geometry, **more}


def cases() -> dict[str, Layers]:
    """Everything that netx reads, and what it ignores or changes, as it does."""
    fractions = dense(6, 5, 0)
    fractions["weight"] = fractions["weight"] + np.float32(0.75)
    return {
        "plain": [fractions, dense(4, 6, 1, neuron=neuron(9, du=1000, type="LOIHI"))],
        "odd": [dense(6, 5, 2, 1, 255), dense(5, 6, 3, 0, 2)],
        "clipped": [dense(6, 5, 4, -400, 400)],
        "changed": [dense(6, 5, 5, -8, -1, bias=np.full(6, 40)), dense(3, 6, 6)],
        "flat": [dense(6, 5, 7, weight=np.arange(-15, 15))],
        "biased": [
            dense(6, 5, 8, bias=np.array([1.5, -3, 20, 4095, 0, 7])),
            dense(4, 6, 9, bias=np.array(9)),
            dense(5, 4, 10),
        ],
        "scalar delay": [dense(6, 5, 11, delay=3), dense(4, 6, 12)],
        "target delays": [dense(6, 5, 13, delay=np.array([0, 1, 2, 5, 0, 9.0]))],
        "source delays": [dense(6, 5, 14, delay=np.array([4, 0, 0, 1, 2]))],
        "synapse delays": [dense(6, 5, 15, delay=np.arange(30).reshape(6, 5) % 7)],
        "long delay": [dense(6, 5, 16, delay=np.array([0, 80, 0, 0, 0, 1]))],
        "ignored": [
            dense(6, 5, 17, neuron=neuron(refDelay=3, gradedSpike=True, weight_exp=2)),
            dense(4, 6, 18),
        ],
        "frames": [
            {"type": "input", "shape": (2, 5, 4)},
            conv((4, 5, 4), (4, 2, 3, 3, 1), 19, padding=(1, 1), bias=np.array([1, -2, 9, 0])),
            conv(
                (4, 3, 2),
                (4, 2, 3, 2),
                20,
                stride=2,
                padding=(1, 0),
                groups=2,
                delay=np.array([3, 1, 0, 2]),
                bias=np.arange(24).reshape(2, 3, 4),
            ),
            {"type": "flatten", "shape": [24]},
            dense(3, 24, 21),
        ],
        "flattened input": [
            {"type": "input", "shape": (2, 2, 3)},
            {"type": "flatten", "shape": [12]},
            dense(5, 12, 22),
        ],
        "input neurons": [
            {"type": "input", "shape": [5], "weight": 48, "bias": 5, "neuron": neuron(90, 200)},
            dense(4, 5, 23, neuron=neuron(5)),
        ],
        "input frames": [
            {"type": "input", "shape": (2, 3, 2), "neuron": neuron(150, 200, du=11)},
            conv((2, 2, 2), (2, 2, 2, 1), 24, bias=np.array([3, 4])),
        ],
    }


def frames_for(imported: Imported, seed: int, rate: float) -> npt.NDArray[Any]:
    """One sample: spikes at a rate, or one frame for all steps where netx is fed by bias."""
    (source,) = imported.network.inputs
    rng = np.random.default_rng(seed)
    shape = (1, imported.network.steps, *source.shape)
    if source.low:
        return np.broadcast_to(rng.integers(-2, 6, source.shape), shape)
    return (rng.random(shape) < rate).astype(int)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    """Case -> (the import, what netx's last layer sent in Lava), all in one process."""
    folder = tmp_path_factory.mktemp("netx")
    paths = {n: write(folder / f"{n}.net", layers) for n, layers in cases().items()}
    return compare(folder, paths)


def compare(
    folder: Path,
    paths: dict[str, Path],
    reading: Reading = Reading(steps=STEPS),  # noqa: B008 # frozen
    rate: float = 0.5,
) -> Theirs:
    imports, jobs = {}, []
    for i, (name, path) in enumerate(paths.items()):
        imported = export.read(path, reading)
        frames = frames_for(imported, i, rate)
        np.save(folder / f"{i}.npy", frames[0])
        by_bias = imported.network.inputs[0].low < 0
        jobs.append(
            {
                "file": str(path),
                "frames": str(folder / f"{i}.npy"),
                "by_bias": by_bias,
                "shape": reading.shape[::-1] if reading.shape else None,
            }
        )
        imports[name] = imported, frames
    (folder / "jobs.json").write_text(json.dumps(jobs))
    env = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", THEIRS, str(folder / "jobs.json")],
        capture_output=True,
        text=True,
        env=env,
        cwd=folder,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    out: Theirs = {}
    for i, name in enumerate(paths):
        out[name] = (*imports[name], np.load(folder / f"{i}.npy.out.npy"))
    return out


THEIRS = """
import json, os, sys
import numpy as np
from stformer.deploy import netx_build as nb
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.sink import PyReceiveModelFixed
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source

for job in json.load(open(sys.argv[1])):
    frames = np.load(job["frames"])
    steps, by_bias = len(frames), job["by_bias"]
    net = nb.netx.Network(job["file"], reset_interval=steps, reset_offset=int(not by_bias),
                          input_shape=job["shape"] and tuple(job["shape"]))
    layers = [x for x in net.layers if hasattr(x, "synapse")]
    sink = Sink(shape=net.out.shape, buffer=steps + len(net.layers) + 1)
    net.out.connect(sink.a_in)
    parts = [net, *net.layers, *(x.neuron for x in net.layers), *(x.synapse for x in layers)]
    if by_bias:
        said = net.in_layer.transform
        x = said["weight"] * frames[0].T + said["bias"]
        net.in_layer.neuron.bias_mant.shape = x.shape
        net.in_layer.neuron.bias_mant.init = x
    else:
        source = Source(data=frames.reshape(steps, -1).T.astype(np.int32))
        nb._connect(source, net, frames.shape[1:])
        parts.append(source)
    models = {**nb.MODELS, nb.blocks.Input: nb.models.PyInputModel}
    models = {p: models[type(p)] for p in parts} | {sink: PyReceiveModelFixed}
    net.run(RunSteps(num_steps=steps + len(net.layers)),
            Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models))
    sent = sink.data.get()
    net.stop()
    sent = sent.T.reshape(sent.shape[-1], -1)  # W, H, C: now C, H, W, flat
    begin = len(net.layers) - int(by_bias)
    np.save(job["frames"] + ".out.npy", sent[begin : begin + steps])
sys.stdout.flush()
os._exit(0)
"""


def check(theirs: Theirs, name: str) -> Imported:
    imported, frames, sent = theirs[name]
    network = imported.network
    trace = interpret.run(network, frames)
    last = trace[network.populations[-1].name]
    np.testing.assert_array_equal(last.reshape(network.steps, -1), sent)
    assert last.any() and not last.all()
    return imported


@pytest.mark.parametrize("name", cases())
def test_every_spike_is_netxs(name: str, theirs: Theirs) -> None:
    check(theirs, name)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="STFORMER_TEST_DATA names no folder netx/")
def test_the_published_network(tmp_path: Path) -> None:
    theirs = compare(tmp_path, {"oxford": PUBLISHED / "oxford.net"}, Reading(steps=200), 0.03)
    imported = check(theirs, "oxford")
    assert [p.shape for p in imported.network.populations] == [(200,), (256,), (200,)]
    assert [n.where for n in imported.notes] == ["input"]


def test_what_is_noted(theirs: Theirs) -> None:
    def notes(name: str) -> str:
        return "\n".join(f"{n.where}: {n.what}" for n in theirs[name][0].notes)

    assert "input: taken as spikes" in notes("plain")
    assert "layer0: fractions of weight are cut off" in notes("plain")
    assert "layer0: weights beyond 8 bits, as two projections" in notes("odd")
    assert "weights as netx and Lava change them" in notes("clipped")
    assert "weights as netx and Lava change them" in notes("changed")
    assert "fractions of bias are cut off" in notes("biased")
    assert "reset_interval=12 and reset_offset=1" in notes("biased")
    assert "delays of up to 80 cut to 62" in notes("long delay")
    for key in ("refDelay", "gradedSpike", "weight_exp"):
        assert f"layer0: its {key} is left out" in notes("ignored")
    assert "layer2: its delay is left out" in notes("frames")
    assert "netx is fed bias_mant = 48 * x + bias" in notes("input neurons")


def test_what_becomes_of_it(theirs: Theirs) -> None:
    odd = theirs["odd"][0].network
    assert sum(isinstance(p, Dense) for p in odd.projections) == 3
    delayed = theirs["scalar delay"][0].network
    assert sum(isinstance(p, Relay) for p in delayed.populations) == 3
    by_bias = theirs["input frames"][0].network
    first = by_bias["layer0"]
    assert isinstance(first, Lif) and first.du == 4095 and first.bias_mant.max() == 0


def test_a_dense_layer_without_neurons_is_a_readout(tmp_path: Path) -> None:
    last = dense(3, 5, 0)
    del last["neuron"]
    found = export.read(write(tmp_path / "a.net", [dense(5, 4, 1), last]), Reading(steps=3))
    assert isinstance(found.network["layer1"], Readout)
    assert any("read as a readout's v" in n.what for n in found.notes)
    assert isinstance(found.network["input"], Input)


@pytest.mark.parametrize(
    ("reading", "part"),
    [
        (Reading(steps=3, shape=(9, 9, 9)), r"shape given as \(9, 9, 9\); allowed: \(4,\)"),
        (Reading(steps=3, dt=0.1), "netx counts steps"),
    ],
)
def test_nothing_that_is_given_is_ignored(reading: Reading, part: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.net", [dense(5, 4, 1)])
    with pytest.raises(InputError, match=part):
        export.read(path, reading)


SLAYER = """
import sys
import h5py, torch
import lava.lib.dl.slayer as slayer

torch.manual_seed(0)
common = {"threshold": 0.4, "current_decay": 0.6, "voltage_decay": 0.2}
block = slayer.block.cuba
net = torch.nn.Sequential(
    block.Conv(common, 2, 6, 3, padding=1, weight_scale=3),
    block.Conv(common, 6, 4, 3, stride=2, groups=2, weight_scale=3),
    block.Flatten(),
    block.Dense(common, 36, 12, weight_scale=3, delay=True),
    block.Dense(common, 12, 5, weight_scale=3),
)
x = (torch.rand(4, 2, 8, 8, 12) < 0.4).float()
optimizer = torch.optim.Adam(net.parameters(), 0.01)
for _ in range(5):
    optimizer.zero_grad()
    ((net(x).mean(-1) - torch.eye(5)[:4]) ** 2).sum().backward()
    optimizer.step()
delay = net[3].delay.delay
delay.data = torch.arange(float(delay.numel())).reshape(delay.shape) % 4
with h5py.File(sys.argv[1], "w") as file:
    for i, layer in enumerate(net):
        layer.export_hdf5(file.create_group(f"layer/{i}"))
"""


@pytest.mark.slow
def test_a_network_that_slayer_trained_and_exported(tmp_path: Path) -> None:
    path = tmp_path / "slayer.net"
    done = subprocess.run(
        [sys.executable, "-c", SLAYER, str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    reading = Reading(steps=STEPS, shape=(2, 8, 8))
    with pytest.raises(InputError, match="no shape of the input"):
        export.read(path, Reading(steps=STEPS))
    imported = check(compare(tmp_path, {"slayer": path}, reading=reading), "slayer")
    assert any(isinstance(p, Conv) for p in imported.network.projections)
    assert any(isinstance(p, Relay) for p in imported.network.populations)  # its delays
