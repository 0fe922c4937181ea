"""The NIR file that `stformer export` writes, in Norse: floating point, as others would run it.

What is equal and what is not is for `verify` to say; the trace's notes say by which rule.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stformer import export
from stformer.errors import Problem
from stformer.network import Graded, Input, Network, Readout
from stformer.trace import Inputs, Probe, Trace, check_inputs, digest_inputs, numbered, spike_dtype

if TYPE_CHECKING:
    from stformer.deploy.norse_load import Loaded

BATCH_BYTES = 2**28  # of the currents, membranes and spikes of the samples that run together
NEEDED = ("torch", "nir", "nirtorch", "norse")

Progress = Callable[[int, int], None]
Array = npt.NDArray[Any]


class Norse:
    """Not exact, and says why. Records no states: Norse's are in other units, and rounded.

    Args:
        progress: called with (samples done, samples in total).
        batch_bytes: memory that a batch of samples may use, about; at least one sample runs.
    """

    name = "norse"

    def __init__(
        self, progress: Progress | None = None, *, batch_bytes: int = BATCH_BYTES
    ) -> None:
        self.progress = progress
        self.batch_bytes = batch_bytes

    def missing(self) -> str | None:
        for package in NEEDED:
            if find_spec(package) is None:
                return f"{package} is not installed; pip install 'stformer[norse]'"
        return None

    def problems(self, network: Network) -> list[Problem]:
        out = export.load("nir").problems(network, export.Options())
        for q in network.recurrent:
            why = "nirtorch puts a step of its own into a loop; it has to be feed-forward"
            out.append(Problem(where=f"projection {q.name}", why=why))
        for extra in network.inputs[1:]:
            why = "nirtorch feeds one Input, and this is another"
            out.append(Problem(where=f"population {extra.name}", why=why))
        for p in network.populations:
            if isinstance(p, Graded):
                why = "Norse has no Scale, which is what a graded population is in NIR"
                out.append(Problem(where=f"population {p.name}", why=why))
        return out

    def run(self, network: Network, inputs: Inputs, *, probe: Probe) -> Trace:
        """Export, load the file, run it batch after batch; see `stformer.deploy.Backend`."""
        from stformer.deploy.norse_causes import causes
        from stformer.deploy.norse_load import load

        frames = check_inputs(network, inputs)
        ((_, given),) = frames.items()
        samples = len(given)
        started = time.perf_counter()
        with export.exported("nir", network) as path:
            loaded = load(path)
        exported = time.perf_counter()
        spikes: dict[str, Array] = {
            p.name: np.empty((samples, network.steps, *p.shape), spike_dtype(network, p.name))
            for p in network.populations
        }
        batch = self._batch(network)
        for start in range(0, samples, batch):
            chunk = slice(start, start + batch)
            sent = loaded.run(given[chunk])
            for p in network.populations:
                spikes[p.name][chunk] = _record(network, p.name, loaded, sent)
            if self.progress:
                self.progress(min(start + batch, samples), samples)
        trace = Trace(
            network=network.digest(),
            inputs=digest_inputs(frames),
            backend=self.name,
            spikes=spikes,
        )
        ran = time.perf_counter()
        notes = [*loaded.notes, *causes(network, trace, loaded.resting)]
        return Trace(
            network=trace.network,
            inputs=trace.inputs,
            backend=self.name,
            spikes={name: a for name, a in spikes.items() if probe.wants(name)},
            info={
                "seconds": ran - exported,
                "export_seconds": exported - started,
                **numbered(notes),
            },
        )

    def _batch(self, network: Network) -> int:
        every = sum(prod(p.shape) for p in network.populations)
        return max(1, self.batch_bytes // (every * 4 * (network.steps + 8)))


def _record(network: Network, name: str, loaded: Loaded, sent: dict[str, Array]) -> Array:
    """What a population sent in a batch [B, T, *shape]; a readout sends its running sum * 64."""
    p = network[name]
    if isinstance(p, Input):
        values = sent[loaded.keys[name]]
    elif isinstance(p, Readout):
        arriving = sum(sent[source] for source in loaded.sources(name))
        values = np.rint(np.cumsum(arriving, axis=1, dtype=np.float64) * 64)
    else:
        values = sent[loaded.keys[name]]
    return values.reshape(len(values), network.steps, *p.shape)
