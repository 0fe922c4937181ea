"""What `stformer run` tells of a run that comes in parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stformer.cli.common import Data
from stformer.network import IntArray, Network
from stformer.trace import Trace, added, predicted


@dataclass(slots=True, kw_only=True)
class _Count:
    """Of one population, over the samples so far.

    Attributes:
        binary: it sends spikes.
        entries: samples * steps * neurons.
        spikes: values other than 0.
        low, high: range of the values.
        active: [*shape], whether a neuron sent anything.
    """

    binary: bool
    entries: int
    spikes: int
    low: int
    high: int
    active: npt.NDArray[np.bool_]


class Tally:
    """Counts over the parts of a run; keeps none of them."""

    def __init__(self, network: Network, data: Data) -> None:
        self._network, self._data = network, data
        self._counts: dict[str, _Count] = {}
        self._info: dict[str, Any] = {}
        self._classes: list[IntArray | None] = []
        self._samples, self._seconds = 0, 0.0

    def add(self, trace: Trace, seconds: float) -> None:
        """The next samples, and how long they took where the backend does not say."""
        for name, spikes in trace.spikes.items():
            found = _Count(
                binary=spikes.dtype == np.uint8,
                entries=spikes.size,
                spikes=int(np.count_nonzero(spikes)),
                low=int(spikes.min()),
                high=int(spikes.max()),
                active=spikes.any(axis=(0, 1)),
            )
            old = self._counts.get(name)
            self._counts[name] = found if old is None else _sum(old, found)
        self._classes.append(predicted(self._network, trace))
        self._info = added(self._info, trace.info)
        self._samples += trace.samples
        self._seconds += float(trace.info.get("seconds", seconds))
        self._backend, self._steps = trace.backend, trace.steps

    def plain(self) -> dict[str, Any]:
        """Everything, as plain data."""
        known = [c for c in self._classes if c is not None]
        classes = np.concatenate(known) if known else None
        labels = self._data.labels
        correct = None
        if labels is not None and classes is not None:
            correct = int(np.count_nonzero(classes == labels))
        return {
            "network": self._network.name,
            "digest": self._network.digest(),
            "backend": self._backend,
            "data": self._data.source,
            "samples": self._samples,
            "steps": self._steps,
            "correct": correct,
            "accuracy": None if correct is None else correct / self._samples,
            "predictions": None if classes is None else classes.tolist(),
            "seconds": self._seconds,
            "samples_per_second": self._samples / self._seconds if self._seconds > 0 else None,
            "info": {k: v for k, v in self._info.items() if k != "seconds"},
            "populations": [self._population(name, c) for name, c in self._counts.items()],
        }

    def _population(self, name: str, c: _Count) -> dict[str, Any]:
        return {
            "name": name,
            "kind": type(self._network[name]).__name__,
            "neurons": c.active.size,
            "rate": c.spikes / c.entries if c.binary else None,
            "spikes": c.spikes if c.binary else None,
            "silent": int((~c.active).sum()),
            "range": [c.low, c.high],
        }


def _sum(a: _Count, b: _Count) -> _Count:
    return _Count(
        binary=a.binary,
        entries=a.entries + b.entries,
        spikes=a.spikes + b.spikes,
        low=min(a.low, b.low),
        high=max(a.high, b.high),
        active=a.active | b.active,
    )
