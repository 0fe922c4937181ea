"""What a picture of a network is drawn from: a trace and what is known about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from stformer.deploy import Progress
from stformer.deploy import run as run_on
from stformer.errors import InputError
from stformer.network import IntArray, Network, Readout, Relay
from stformer.trace import Inputs, Probe, Trace, check_inputs, logits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """Samples of one network.

    Attributes:
        trace: what ran; at least one population.
        name: of the network, or of the trace's file where the network is not at hand.
        network: what ran, or None: then relays are told by the '@' in their names, the input
            is the first population and the readout the last, if it sends a number a class.
        data: what the samples are, for people; may be empty.
        labels: [S] of the trace's samples, or None.
        first: number of the trace's first sample in the data.

    Raises:
        InputError: an empty trace, a trace of another network.
    """

    trace: Trace
    name: str
    network: Network | None = None
    data: str = ""
    labels: IntArray | None = None
    first: int = 0

    def __post_init__(self) -> None:
        if not self.trace.populations:
            raise InputError(f"trace of {self.name}", "no population", "at least one")
        if self.network is not None and self.network.digest() != self.trace.network:
            raise InputError(
                f"trace of {self.name}",
                f"made by network {self.trace.network[:12]}",
                f"{self.network.name}, {self.network.digest()[:12]}",
            )

    def at(self, sample: int) -> int:
        """Index in the trace of a sample of the data; InputError where it was not recorded."""
        last = self.first + self.trace.samples - 1
        if not self.first <= sample <= last:
            raise InputError(
                f"sample {sample} of {self.name}", "not there", f"{self.first}...{last}"
            )
        return sample - self.first

    def one(self, population: str, sample: int) -> IntArray:
        """What a population sent in one sample of the data, [T, *shape]."""
        values: IntArray = self.trace[population][self.at(sample)]
        return values


def record(
    network: Network,
    inputs: Inputs,
    *,
    sample: int | None = None,
    labels: IntArray | None = None,
    data: str = "",
    backend: str = "cpu",
    progress: Progress | None = None,
) -> Recording:
    """Run samples and keep every spike.

    Args:
        network: what runs.
        inputs: one array [S, T, *shape], or a mapping from input to array.
        sample: only this one, 0...S - 1; all by default.
        labels: [S].
        data: what the samples are.
        backend, progress: see `stformer.deploy.run`.
    """
    frames = check_inputs(network, inputs)
    first = 0
    if sample is not None:
        count = len(next(iter(frames.values()), ()))
        if not 0 <= sample < count:
            raise InputError(f"sample {sample}", f"{count} samples", f"0...{count - 1}")
        frames = {name: a[sample : sample + 1] for name, a in frames.items()}
        labels = None if labels is None else labels[sample : sample + 1]
        first = sample
    trace = run_on(backend, network, frames, probe=Probe(), progress=progress)
    return Recording(
        trace=trace, name=network.name, network=network, data=data, labels=labels, first=first
    )


def sends(values: IntArray) -> npt.NDArray[np.bool_]:
    """Where something was sent: the spikes, and the values of graded messages that are not 0."""
    out: npt.NDArray[np.bool_] = values != 0
    return out


def is_graded(recording: Recording, population: str) -> bool:
    """Whether a population sends numbers instead of spikes."""
    return recording.trace[population].dtype != np.uint8


def relays(recording: Recording) -> tuple[str, ...]:
    """Populations that only repeat another one later."""
    if recording.network is not None:
        kinds = [p.name for p in recording.network.populations if isinstance(p, Relay)]
        return tuple(name for name in recording.trace.populations if name in kinds)
    return tuple(name for name in recording.trace.populations if re.search(r"@\d", name))


def inputs_of(recording: Recording) -> tuple[str, ...]:
    """Recorded inputs."""
    if recording.network is not None:
        names = [p.name for p in recording.network.inputs]
        return tuple(name for name in recording.trace.populations if name in names)
    return recording.trace.populations[:1]


def readouts(recording: Recording) -> tuple[str, ...]:
    """Recorded populations whose value is a logit."""
    if recording.network is not None:
        names = [p.name for p in recording.network.populations if isinstance(p, Readout)]
        return tuple(name for name in recording.trace.populations if name in names)
    last = recording.trace.populations[-1]
    shape = recording.trace[last].shape[2:]
    classes = is_graded(recording, last) and prod(shape) == shape[0]
    return (last,) if classes and last not in inputs_of(recording) else ()


def spiking(recording: Recording) -> list[str]:
    """Populations of which a rate says something: no relays, no readouts."""
    out = {*relays(recording), *readouts(recording)}
    return [name for name in recording.trace.populations if name not in out]


def chosen(recording: Recording, names: Sequence[str]) -> list[str]:
    """These populations, each once; InputError for one that was not recorded."""
    for name in names:
        _ = recording.trace[name]
    return list(dict.fromkeys(names))


def label_of(recording: Recording, sample: int) -> int | None:
    """The sample's label, if there is one."""
    if recording.labels is None:
        return None
    return int(recording.labels[recording.at(sample)])


def prediction_of(recording: Recording, sample: int) -> int | None:
    """The readout's largest value after the last step; None without one readout."""
    names = readouts(recording)
    if len(names) != 1:
        return None
    return int(logits(recording.one(names[0], sample)[None])[0].argmax())


def answer(recording: Recording, sample: int) -> str:
    """ "label 3, predicted 5"; empty where nothing is known."""
    label, prediction = label_of(recording, sample), prediction_of(recording, sample)
    parts = [] if label is None else [f"label {label}"]
    return ", ".join(parts if prediction is None else [*parts, f"predicted {prediction}"])


def describe_sample(recording: Recording, sample: int) -> str:
    """One line: which sample of what, and what the network made of it."""
    of = f" of {recording.data}" if recording.data else ""
    parts = [f"sample {sample}{of}", answer(recording, sample), f"{recording.trace.steps} steps"]
    return " · ".join(part for part in parts if part)


def plain_sample(recording: Recording, sample: int) -> dict[str, object]:
    """The same for programs."""
    return {
        "network": recording.name,
        "digest": recording.trace.network,
        "data": recording.data,
        "sample": sample,
        "steps": recording.trace.steps,
        "label": label_of(recording, sample),
        "prediction": prediction_of(recording, sample),
    }
