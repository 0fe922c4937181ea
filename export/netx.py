"""netx: the HDF5 chains of lava-dl 0.6.0, one file for each, and how they hang together.

A network that is one chain becomes one standard `.net`. Any other becomes a folder: a `.net` for
every maximal chain, what no layer of netx can hold, and a manifest. docs/netx.md says what stands
where; `stformer.export.netx_chains` decides what is a layer.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from stformer import fixedpoint as fx
from stformer.errors import InputError, Problem
from stformer.export import MANIFEST, Note, Options, Reading
from stformer.export.netx_chains import BIAS_EXP, Chain, Layer, chains, why_not
from stformer.export.netx_read import read
from stformer.export.netx_restore import ARRAYS, EXTRA, REST, VERSION, chain_file
from stformer.hdf5 import TREE_LIMIT, Tree, tree_image
from stformer.network import Input, Lif, Network, is_graded, to_plain

GRADED_BITS = 24  # of a message that is a number
NEVER = 2**17  # threshold of a readout: one above the register, which no membrane exceeds
MAX_BYTES = TREE_LIMIT - 2**24  # of weights in one file, so that it can be read back


class Netx:
    """Writes a `.net` of HDF5, or a folder of them; see `stformer.export.Format`."""

    name = "netx"

    def missing(self) -> str | None:
        if find_spec("h5py") is None:
            return "h5py is not installed; pip install stformer"
        return None

    def problems(self, network: Network, options: Options) -> list[Problem]:
        found = chains(network)
        if not found:
            whys = [(p.name, why_not(network, p)) for p in network.populations]
            where, why = next(((n, w) for n, w in whys if w), ("network", "nothing computes"))
            return [Problem(where=where, why=f"{why}; no population can be a layer of netx")]
        sizes = [(c, sum(layer.weight.nbytes for layer in c.layers)) for c in found]
        return [
            Problem(where=c.layers[-1].population.name, why=f"{size} bytes of weights in one file")
            for c, size in sizes
            if size > MAX_BYTES
        ]

    def notes(self, network: Network, options: Options) -> list[Note]:
        found = chains(network)
        out = [
            Note(
                where="network",
                what=f"samples are kept apart by Network(reset_interval={network.steps}, "
                "reset_offset=1); netx takes neither from a file",
            )
        ]
        if network.source:
            out.append(Note(where="network", what="how to rebuild the trained module is left out"))
        for chain in found:
            if is_graded(chain.source):
                what = f"it sends numbers: Network(input_message_bits={GRADED_BITS})"
                out.append(Note(where=chain.source.name, what=what))
            out += [note for layer in chain.layers for note in _layer_notes(layer)]
        for p in network.populations:
            if why := why_not(network, p):
                out.append(Note(where=p.name, what=f"outside of the chains: {why}"))
        return out

    def suffix(self, network: Network, options: Options) -> str:
        return ".net" if is_standard(network) else ""

    def write(self, network: Network, path: Path, options: Options) -> None:
        found = chains(network)
        manifest = json.dumps(self.manifest(network), indent=1) + "\n"
        if is_standard(network):
            path.write_bytes(tree_image(_tree(found[0], {MANIFEST: manifest})))
            return
        (path / MANIFEST).write_text(manifest)
        extra: Tree = {"digest": network.digest()}
        for i, chain in enumerate(found):
            (path / chain_file(i)).write_bytes(tree_image(_tree(chain, extra)))
        rest: Tree = {EXTRA: extra, ARRAYS: _rest(network, found)}
        (path / REST).write_bytes(tree_image(rest))

    def check(self, network: Network, path: Path, options: Options) -> None:
        """See `Format.check`: what is read is the network, its name included."""
        try:
            again = read(path, Reading()).network
        except InputError as e:
            raise AssertionError(str(e)) from e
        assert again.digest() == network.digest(), "another network"
        assert again.name == network.name, "another name"

    def manifest(self, network: Network) -> dict[str, Any]:
        """What stands beside the layers of netx: how the chains connect, and all of the rest."""
        structure, _ = to_plain(network)
        return {
            "format": self.name,
            "version": VERSION,
            "digest": network.digest(),
            "chains": [
                {
                    "file": chain_file(i),
                    "source": chain.source.name,
                    "shape": list(chain.shape),
                    "input_message_bits": GRADED_BITS if is_graded(chain.source) else 0,
                    "reset_interval": network.steps,
                    "reset_offset": 1,
                    "layers": [
                        {
                            "population": layer.population.name,
                            "projection": layer.projection.name,
                            "bias_exp": layer.bias_exp,
                        }
                        for layer in chain.layers
                    ],
                }
                for i, chain in enumerate(chains(network))
            ],
            "outside": {p.name: why for p in network.populations if (why := why_not(network, p))},
            "notes": [f"{n.where}: {n.what}" for n in self.notes(network, Options())],
            "structure": structure | {"source": ""},
        }


def is_standard(network: Network) -> bool:
    """Whether it is one chain from its one input, with nothing to be set after loading."""
    found = chains(network)
    inside = {layer.population.name for chain in found for layer in chain.layers}
    return (
        len(found) == 1
        and {p.name for p in network.populations} - inside == {found[0].source.name}
        and isinstance(found[0].source, Input)
        and all(layer.bias_exp == BIAS_EXP for layer in found[0].layers)
    )


def _layer_notes(layer: Layer) -> list[Note]:
    out, name = [], layer.population.name
    if layer.bias_exp != BIAS_EXP:
        what = (
            f"its bias is finer than netx's exponent of {BIAS_EXP}: set bias_exp of its neurons "
            "to the manifest's after loading"
        )
        out.append(Note(where=name, what=what))
    if not isinstance(layer.population, Lif):
        what = f"no spikes: read its neurons' v; its threshold {NEVER} is beyond the register"
        out.append(Note(where=name, what=what))
    if layer.kind == "conv" and layer.weight.ndim != layer.projection.weight.ndim:
        what = (
            "dense, written as a convolution over the whole frame: netx would change its weights"
        )
        out.append(Note(where=layer.projection.name, what=what))
    return out


def _tree(chain: Chain, extra: Tree) -> Tree:
    """A file: the layers of netx, and beside them what netx does not look at."""
    layers: list[Tree] = [{"type": "input", "shape": np.array(chain.shape)}]
    flat = len(chain.shape) == 1
    for layer in chain.layers:
        if layer.kind == "dense" and not flat:
            layers.append({"type": "flatten", "shape": np.array(layer.weight.shape[1:])})
        flat = layer.kind == "dense"
        layers.append(_layer_tree(layer))
    return {"layer": {str(i): tree for i, tree in enumerate(layers)}, EXTRA: extra}


def _layer_tree(layer: Layer) -> Tree:
    p, q, weight = layer.population, layer.projection, layer.weight
    tree: Tree = {"type": layer.kind, "shape": np.array(layer.shape), "weight": weight}
    if layer.kind == "dense":
        tree |= {
            "inFeatures": np.array(weight.shape[1]),
            "outFeatures": np.array(weight.shape[0]),
        }
    else:
        conv = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
        conv = {key: getattr(q, key, value) for key, value in conv.items()}
        tree |= {key: np.array(value) for key, value in conv.items()} | {
            "inChannels": np.array(weight.shape[1] * int(np.array(conv["groups"]))),
            "outChannels": np.array(weight.shape[0]),
            "kernelSize": np.array(weight.shape[2:]),
        }
    if layer.bias is not None:
        tree["bias"] = layer.bias
    tree["neuron"] = {
        "type": "CUBA",
        "iDecay": np.array((p.du if isinstance(p, Lif) else fx.NO_CURRENT) + 1),
        "vDecay": np.array(p.dv if isinstance(p, Lif) else 0),
        "vThMant": np.array(p.vth if isinstance(p, Lif) else NEVER),
        "refDelay": np.array(1),
        "gradedSpike": np.array(False),
    }
    return tree


def _rest(network: Network, found: tuple[Chain, ...]) -> Tree:
    """The arrays of everything outside of the chains: object -> field -> integers."""
    layers = [layer for chain in found for layer in chain.layers]
    inside = {f"{layer.population.name}/bias_mant" for layer in layers}
    inside |= {f"{layer.projection.name}/weight" for layer in layers}
    _, arrays = to_plain(network)
    rest: dict[str, Tree] = {}
    for key, array in arrays.items():
        if key not in inside:
            name, _, field = key.rpartition("/")
            rest.setdefault(name, {})[field] = array
    return {**rest}
