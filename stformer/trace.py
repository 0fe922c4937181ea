"""What a run leaves behind: every spike and state asked for, in each population's own time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stformer.errors import InputError
from stformer.network import Input, IntArray, Lif, Network, Readout, is_graded

SLICE = 2**22  # numbers of inputs that are looked at together


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What to record.

    Attributes:
        populations: names, or None for all of them.
        states: also u and v of every Lif and v of every Readout.
    """

    populations: tuple[str, ...] | None = None
    states: bool = False

    def wants(self, name: str) -> bool:
        return self.populations is None or name in self.populations

    def size(self, network: Network) -> int:
        """Bytes that the records of one sample take in memory."""
        total = 0
        for p in network.populations:
            if self.wants(p.name):
                states = {Lif: 8, Readout: 4}.get(type(p), 0) if self.states else 0
                item = np.dtype(spike_dtype(network, p.name)).itemsize
                total += network.steps * prod(p.shape) * (item + states)
        return total


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Spikes of a run; index t is the population's own time, so backends agree on it.

    Attributes:
        network: digest of the network that ran.
        inputs: digest of the inputs it was given (`digest_inputs`).
        backend: name of the backend.
        spikes: population -> [S, T, *shape]; uint8 for spikes, int32 for graded values
            (`network.is_graded`: inputs that are not 0/1, readouts, whose value is v...).
        u, v: population -> int32 [S, T, *shape], after the step and its reset; empty unless
            the probe asked for states. Other kinds have none. A current beyond 32 bits, which
            sums a thousand times the chip's can make, keeps its low 32.
        info: what else the backend reports (seconds, peak memory), plain numbers and strings.
            Under "note 1", "note 2"... it says how it is not the definition (`notes`).
    """

    network: str
    inputs: str
    backend: str
    spikes: Mapping[str, IntArray]
    u: Mapping[str, IntArray] = field(default_factory=lambda: MappingProxyType({}))
    v: Mapping[str, IntArray] = field(default_factory=lambda: MappingProxyType({}))
    info: Mapping[str, float | str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def populations(self) -> tuple[str, ...]:
        """Recorded populations, in the network's order."""
        return tuple(self.spikes)

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the backend that ran is not the definition, in its own words."""
        return notes_in(self.info)

    @property
    def samples(self) -> int:
        return next((len(a) for a in self.spikes.values()), 0)

    @property
    def steps(self) -> int:
        return next((a.shape[1] for a in self.spikes.values()), 0)

    def __getitem__(self, population: str) -> IntArray:
        """Spikes or graded values of a population, [S, T, *shape]."""
        try:
            return self.spikes[population]
        except KeyError:
            raise InputError(
                f"trace of {self.backend}",
                f"no population '{population}'",
                ", ".join(self.spikes) or "nothing was recorded",
            ) from None

    @staticmethod
    def load(path: str | Path) -> Trace:
        """Read a trace file; raises InputError for anything that is not one."""
        from stformer.trace_file import load_trace

        return load_trace(path)

    def save(self, path: str | Path) -> None:
        """Write a trace file, whole or not at all."""
        from stformer.trace_file import save_trace

        save_trace(path, self)


# Samples start...stop - 1 of some populations, None for all: `partial(cut, trace)`, or
# `stformer.trace_file.TraceReader.part` of a trace that is in no memory.
Part: TypeAlias = Callable[[int, int, Collection[str] | None], Trace]


def cut(trace: Trace, start: int, stop: int, names: Collection[str] | None = None) -> Trace:
    """Samples start...stop - 1, copied, so that the others can be let go; `inputs` stays.

    Args:
        trace, start, stop: what to cut.
        names: populations whose records stay, of those that there are; None for all.
    """

    def some(arrays: Mapping[str, IntArray]) -> dict[str, IntArray]:
        kept = [name for name in arrays if names is None or name in names]
        return {name: arrays[name][start:stop].copy() for name in kept}

    return replace(trace, spikes=some(trace.spikes), u=some(trace.u), v=some(trace.v))


def spans(samples: int, step: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of `step` samples at a time, at least one; of no samples (0, 0)."""
    return ((i, min(i + step, samples)) for i in range(0, max(samples, 1), max(step, 1)))


def joined(parts: Sequence[Trace], inputs: str) -> Trace:
    """One trace of the samples of several, in their order.

    Args:
        parts: at least one, of one network, backend and probe.
        inputs: digest of all their inputs together.
    """

    def whole(kind: str) -> dict[str, IntArray]:
        records = [getattr(part, kind) for part in parts]
        return {name: np.concatenate([r[name] for r in records]) for name in records[0]}

    info: dict[str, float | str] = {}
    for part in parts:
        info = added(info, part.info)
    spikes, u, v = (whole(kind) for kind in ("spikes", "u", "v"))
    return replace(parts[0], inputs=inputs, spikes=spikes, u=u, v=v, info=info)


def added(info: Mapping[str, float | str], more: Mapping[str, float | str]) -> dict[str, Any]:
    """What two runs report, as one: seconds, chunks and notes add up, else the largest."""
    out = dict(info)
    for key, value in more.items():
        old = out.get(key)
        if isinstance(old, str) or isinstance(value, str) or old is None:
            out[key] = value
        else:
            out[key] = old + value if key in ("seconds", "chunks") else max(old, value)
    return out | numbered((*notes_in(info), *notes_in(more)))


def predicted(network: Network, trace: Trace) -> IntArray | None:
    """Class of each sample, [S]: the largest logit of the one readout."""
    readouts = [p.name for p in network.readouts if p.name in trace.spikes]
    if len(readouts) != 1:
        return None
    classes: IntArray = logits(trace[readouts[0]]).argmax(axis=1)
    return classes


def notes_in(info: Mapping[str, float | str]) -> tuple[str, ...]:
    """The notes in a trace's info, in their order."""
    numbers = range(1, len(info) + 1)
    return tuple(str(info[f"note {i}"]) for i in numbers if f"note {i}" in info)


def numbered(notes: Iterable[str]) -> dict[str, float | str]:
    """Notes as a part of a trace's info, each once; `Trace.notes` gives them back."""
    return {f"note {i}": note for i, note in enumerate(dict.fromkeys(notes), start=1)}


def spike_dtype(network: Network, name: str) -> type[np.uint8] | type[np.int32]:
    """Element type of a population's record: uint8 where values are 0 or 1, else int32."""
    return np.int32 if is_graded(network[name]) else np.uint8


def logits(values: IntArray) -> npt.NDArray[np.int64]:
    """Logits [S, classes] from a readout's record [S, T, classes, ...].

    They are its values after the last step; a class that has several places is their sum.
    """
    last = values[:, -1].astype(np.int64)
    summed: npt.NDArray[np.int64] = last.reshape(*last.shape[:2], -1).sum(axis=2)
    return summed


Inputs = npt.NDArray[np.generic] | Mapping[str, npt.NDArray[np.generic]]


def check_inputs(network: Network, inputs: Inputs) -> dict[str, npt.NDArray[np.int32]]:
    """Inputs as every backend takes them: population -> int32 [S, T, *shape].

    Args and errors as of `fitting`.
    """
    fits = fitting(network, inputs)
    return {name: np.ascontiguousarray(a, dtype=np.int32) for name, a in fits.items()}


def fitting(network: Network, inputs: Inputs) -> dict[str, npt.NDArray[np.generic]]:
    """Inputs that `check_inputs` takes, in their own types: population -> [S, T, *shape].

    Args:
        network: what will run.
        inputs: one array for a network with one input, else a mapping from input to array;
            integers, or floats that are whole numbers.

    Raises:
        InputError: no samples, wrong shape, wrong T, NaN, fractions, values out of range.
    """
    names = [p.name for p in network.inputs]
    given = dict(inputs) if isinstance(inputs, Mapping) else {names[0]: inputs} if names else {}
    if sorted(given) != sorted(names):
        raise InputError(
            f"inputs of network {network.name}",
            f"arrays for {', '.join(map(str, given)) or 'nothing'}",
            f"one for each of {', '.join(names) or '(it has no input)'}",
        )
    out = {p.name: np.asarray(given[p.name]) for p in network.inputs}
    for p in network.inputs:
        _check_frames(network, p, out[p.name])
    counts = {name: len(a) for name, a in out.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"inputs of network {network.name}", f"samples {counts}", "equal numbers")
    return out


def _check_frames(network: Network, p: Input, frames: npt.NDArray[np.generic]) -> None:
    where = f"input '{p.name}' of network {network.name}"
    wanted = ("samples", network.steps, *p.shape)
    allowed = f"[{', '.join(map(str, wanted))}]"
    if frames.dtype.kind not in "biuf":
        raise InputError(where, f"an array of type {frames.dtype}", "integers")
    if (
        frames.ndim == len(wanted)
        and frames.shape[2:] == p.shape
        and frames.shape[1] != network.steps
    ):
        raise InputError(where, f"{frames.shape[1]} time steps", f"{network.steps}: {allowed}")
    if frames.ndim != len(wanted) or frames.shape[1:] != wanted[1:]:
        raise InputError(where, f"an array of shape {list(frames.shape)}", allowed)
    if not len(frames):
        raise InputError(where, "no samples", "at least one")
    if frames.dtype.kind == "f":
        for part in _slices(frames):
            if not np.isfinite(part).all():
                raise InputError(where, "NaN or infinity", "finite whole numbers")
            if (part != np.rint(part)).any():
                do = "scale and round the data first"
                raise InputError(where, "fractions", "whole numbers", do)
    low, high = frames.min(), frames.max()
    if low < p.low or high > p.high:
        raise InputError(where, f"values {low}...{high}", f"{p.low}...{p.high}")


def _slices(frames: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """A few samples at a time, so that no second array of their size is needed."""
    count = max(1, SLICE // max(frames[0].size, 1)) if len(frames) else 1
    return (frames[i : i + count] for i in range(0, len(frames), count))


def digest_inputs(inputs: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over names, shapes and values of checked inputs, whatever their types."""
    h = hashlib.sha256()
    for name in sorted(inputs):
        begin_input(h, name, inputs[name].shape)
        add_frames(h, inputs[name])
    return h.hexdigest()


def begin_input(h: hashlib._Hash, name: str, shape: Sequence[int]) -> None:
    """Go on to an input of that shape, [S, T, *shape], in a digest of inputs."""
    h.update(f"{name}\0{tuple(shape)}\0".encode())


def add_frames(h: hashlib._Hash, frames: npt.NDArray[Any]) -> None:
    """Add the next samples of an input to a digest of inputs."""
    for part in _slices(frames):
        h.update(np.ascontiguousarray(part, "<i4").data)
