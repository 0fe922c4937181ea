"""From the files of a netx export to Lava processes. Runs in the worker only.

`lava.lib.dl.netx.hdf5.Network` builds every chain; here it is only fed, and told what no file of
netx can say: the reset, the bits of its messages, and biases finer than its own exponent.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from lava.proc.io.source import RingBuffer as Source

from stformer.deploy import lava_build
from stformer.deploy.lava_build import Built
from stformer.deploy.lava_tap import make_tap
from stformer.network import IntArray, Network

CHAINS = "chains.json"  # in the job's folder, where this process runs
NETX = "lava.lib.dl.netx"
SLAYER = "lava.lib.dl.slayer"


def _load_netx() -> Any:
    """netx's own module, as installed, without what it would load besides.

    That is all of slayer and torch, which hangs in Lava's processes, for one function of
    resonators (`SLAYER.neuron.rf.neuron_params`) and a module for running one layer at a time.
    """
    unused = (SLAYER, f"{SLAYER}.neuron", f"{SLAYER}.neuron.rf", f"{NETX}.sequential_modules")
    for name in unused:
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules[f"{SLAYER}.neuron.rf"].__dict__.setdefault("neuron_params", None)
    return import_module(f"{NETX}.hdf5")


netx = _load_netx()
blocks = import_module(f"{NETX}.blocks.process")
models = import_module(f"{NETX}.blocks.models")

# As in `lava_build`; Lava's search would load what netx does not need.
MODELS: dict[type[Any], type[Any]] = {
    **lava_build.STOCK,
    netx.Network: netx.PyNetworkModel,
    blocks.Dense: models.PyDenseModel,
    blocks.Conv: models.PyConvModel,
}


def build(network: Network, frames: dict[str, IntArray]) -> Built:
    """Lava processes for all chains of the job.

    Args:
        network: the chains side by side (`stformer.deploy.netx.side_by_side`).
        frames: input of a chain -> integers [S, T, *shape]; samples follow without a gap.
    """
    populations: dict[str, Any] = {}
    processes: list[Any] = []
    for chain in json.loads(Path(CHAINS).read_text()):
        x = frames[chain["input"]]
        flat = x.reshape(x.shape[0] * x.shape[1], -1)
        source = Source(data=np.ascontiguousarray(flat.T, np.int32))
        built = netx.Network(
            net_config=chain["file"],
            input_message_bits=chain["input_message_bits"],
            reset_interval=chain["reset_interval"],
            reset_offset=chain["reset_offset"],
        )
        _connect(source, built, tuple(chain["shape"]))
        populations[chain["input"]] = source
        for layer, said in zip(built.layers, chain["layers"], strict=True):
            layer.neuron.bias_exp.init = said["bias_exp"]
            assert layer.neuron.s_out.size == prod(network[said["population"]].shape)
            populations[said["population"]] = layer.neuron
            processes += [layer, layer.synapse, layer.neuron]
        processes += [source, built]
    return Built(populations, processes)


def _connect(source: Any, built: Any, shape: tuple[int, ...]) -> None:
    """Frames are (C, H, W) here and W, H, C there; a dense layer takes them flat."""
    if len(built.inp.shape) == 1:
        source.s_out.connect(built.inp)
    else:
        source.s_out.reshape(shape).transpose((2, 1, 0)).connect(built.inp)


def tap(built: Built, states: list[tuple[str, str]]) -> tuple[Any, type[Any]] | None:
    """As `lava_build.tap`; each chain is a part of its own."""
    read = [getattr(built.populations[name], which) for name, which in states]
    chains = [p for p in built.processes if isinstance(p, netx.Network)]
    heads = [chain.layers[0].neuron.vth for chain in chains]
    return make_tap(read, heads) if read or len(heads) > 1 else None
