"""The ONNX file that `stformer export` writes, in onnxruntime on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from stformer import export
from stformer.errors import Problem
from stformer.machine import cores
from stformer.network import Input, Network
from stformer.trace import Inputs, Probe, Trace, check_inputs, digest_inputs, spike_dtype

BATCH_BYTES = 2**28  # spikes and sums of the samples that run together

Progress = Callable[[int, int], None]


class Onnx:
    """Exact in every spike, recurrence included. Records no states: the file gives out none.

    Args:
        progress: called with (samples done, samples in total).
        batch_bytes: memory that a batch of samples may use, about; at least one sample runs.
    """

    name = "onnx"

    def __init__(
        self, progress: Progress | None = None, *, batch_bytes: int = BATCH_BYTES
    ) -> None:
        self.progress = progress
        self.batch_bytes = batch_bytes

    def missing(self) -> str | None:
        if find_spec("onnxruntime") is None:
            return "onnxruntime is not installed; pip install 'stformer[onnx]'"
        return export.load(self.name).missing()

    def problems(self, network: Network) -> list[Problem]:
        return export.load(self.name).problems(network, export.Options())

    def run(self, network: Network, inputs: Inputs, *, probe: Probe) -> Trace:
        """Export, run the file, batch after batch; see `stformer.deploy.Backend`."""
        frames = check_inputs(network, inputs)
        samples = len(next(iter(frames.values()))) if frames else 1
        started = time.perf_counter()
        with export.exported(self.name, network) as path:
            size = path.stat().st_size
            session = _session(str(path))
        exported = time.perf_counter()
        wanted = [p for p in network.populations if probe.wants(p.name)]
        spikes: dict[str, npt.NDArray[Any]] = {
            p.name: np.empty((samples, network.steps, *p.shape), spike_dtype(network, p.name))
            for p in wanted
        }
        names = [p.name for p in wanted if not isinstance(p, Input)]
        batch = self._batch(network)
        for start in range(0, samples, batch):
            chunk = slice(start, start + batch)
            given = {
                name: x[chunk].astype(spike_dtype(network, name)) for name, x in frames.items()
            }
            made = dict(zip(names, session.run(names, given), strict=True)) if names else {}
            for name, out in spikes.items():
                out[chunk] = (given | made)[name]
            if self.progress:
                self.progress(min(start + batch, samples), samples)
        return Trace(
            network=network.digest(),
            inputs=digest_inputs(frames),
            backend=self.name,
            spikes=spikes,
            info={
                "seconds": time.perf_counter() - exported,
                "export_seconds": exported - started,
                "file_bytes": float(size),
                "threads": float(cores()),
            },
        )

    def _batch(self, network: Network) -> int:
        largest = max((prod(p.shape) for p in network.populations), default=1)
        every = sum(prod(p.shape) for p in network.populations)
        # Of every population the bytes that go out; of a few the numbers on the way.
        return max(1, self.batch_bytes // (network.steps * (2 * every + 32 * largest)))


def _session(path: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: what it leaves out of a graph is no news
    options.intra_op_num_threads = cores()
    options.use_deterministic_compute = True
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
