"""What a run leaves behind: every spike and state asked for, in each population's own time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from stformer.errors import InputError
from stformer.network import Input, IntArray, Network, is_graded


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
            the probe asked for states. Other kinds have none.
        info: what else the backend reports (seconds, peak memory), plain numbers and strings.
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
        from stformer.storage import load_trace

        return load_trace(path)

    def save(self, path: str | Path) -> None:
        """Write a trace file, whole or not at all."""
        from stformer.storage import save_trace

        save_trace(path, self)


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
    out = {p.name: _check_frames(network, p, np.asarray(given[p.name])) for p in network.inputs}
    counts = {name: len(a) for name, a in out.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"inputs of network {network.name}", f"samples {counts}", "equal numbers")
    return out


def _check_frames(
    network: Network, p: Input, frames: npt.NDArray[np.generic]
) -> npt.NDArray[np.int32]:
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
        if not np.isfinite(frames).all():
            raise InputError(where, "NaN or infinity", "finite whole numbers")
        if (frames != np.rint(frames)).any():
            raise InputError(where, "fractions", "whole numbers", "scale and round the data first")
    low, high = frames.min(), frames.max()
    if low < p.low or high > p.high:
        raise InputError(where, f"values {low}...{high}", f"{p.low}...{p.high}")
    return np.ascontiguousarray(frames, dtype=np.int32)


def digest_inputs(inputs: Mapping[str, npt.NDArray[np.int32]]) -> str:
    """SHA-256 over names, shapes and values of checked inputs."""
    h = hashlib.sha256()
    for name in sorted(inputs):
        a = np.ascontiguousarray(inputs[name], "<i4")
        h.update(f"{name}\0{a.shape}\0".encode() + a.tobytes())
    return h.hexdigest()
