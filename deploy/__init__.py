"""Backends: one protocol, a registry of names, nothing imported before it is used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol

from stformer.errors import InputError, Problem, Unavailable, Unsupported
from stformer.network import Network
from stformer.trace import Inputs, Probe, Trace

if __name__ != "stformer.deploy":  # two names would mean two copies of the registry
    raise ImportError(f"import 'stformer.deploy', not '{__name__}'")

Progress = Callable[[int, int], None]

ENTRY_POINTS = "stformer.backends"  # group under which other packages offer theirs


class Backend(Protocol):
    """Runs networks, one after the other; nothing of a run is left for the next.

    A backend that can tell how far it is may also have an attribute `progress`, None or a
    callable that it calls with (done, total).
    """

    name: str

    def missing(self) -> str | None:
        """None where the backend can run here, else what is missing and how to get it."""
        ...

    def problems(self, network: Network) -> list[Problem]:
        """What of this network it cannot run; empty when it can."""
        ...

    def run(self, network: Network, inputs: Inputs, *, probe: Probe) -> Trace:
        """Run every sample from rest; spikes (and states) in each population's own time."""
        ...


BACKENDS: dict[str, str] = {
    "reference": "stformer.deploy.reference:Reference",
    "cpu": "stformer.deploy.cpu:Cpu",
    "torch": "stformer.deploy.torch:Torch",
    "onnx": "stformer.deploy.onnx:Onnx",
    "lava-sim": "stformer.deploy.lava:LavaSim",
    "lava-sim-fast": "stformer.deploy.lava:LavaSimFast",
    "netx": "stformer.deploy.netx:Netx",
    "norse": "stformer.deploy.norse:Norse",
    "loihi2": "stformer.deploy.loihi2:Loihi2",
}


def backends() -> dict[str, str]:
    """Name -> "module:attr" of every backend, ours and those of installed packages."""
    others = {e.name: e.value for e in entry_points(group=ENTRY_POINTS)}
    return {**others, **BACKENDS}


def load(name: str) -> Backend:
    """The backend of that name, whether or not it can run here.

    Raises:
        InputError: no such backend; lists those there are.
    """
    known = backends()
    if name not in known:
        raise InputError("backend", f"'{name}'", ", ".join(known))
    module, _, attribute = known[name].partition(":")
    backend: Backend = getattr(import_module(module), attribute)()
    return backend


def available(name: str) -> Backend:
    """The backend of that name, if it can run here.

    Raises:
        InputError: no such backend.
        Unavailable: it is not installed; says what is missing and how to get it.
    """
    backend = load(name)
    if reason := backend.missing():
        why, _, do = reason.partition("; ")
        raise Unavailable(f"backend '{name}'", why, do or "see `stformer targets`")
    return backend


def ready(name: str, network: Network) -> Backend:
    """The backend of that name, if it can run this network here.

    Raises:
        Unsupported: it cannot; names the first object and the reason. And as `available`.
    """
    backend = available(name)
    for problem in backend.problems(network):
        raise Unsupported(f"backend '{name}'", problem.where, problem.why)
    return backend


def run(
    name: str,
    network: Network,
    inputs: Inputs,
    *,
    probe: Probe | None = None,
    progress: Progress | None = None,
    measure: str | None = None,
) -> Trace:
    """Run a network on the backend of that name, after asking it whether it can.

    Args:
        name: see `backends`.
        network, inputs, probe: see `Backend.run`.
        progress: called with (done, total) by backends that have an attribute `progress`.
        measure: what hardware shall measure (`stformer.deploy.loihi2.MEASURES`), of backends
            that have an attribute `measure`; the numbers are in the trace's info.

    Raises:
        InputError, Unavailable, Unsupported: as `ready`; InputError for the inputs too, and for
            a measure of a backend that has none.
    """
    backend = ready(name, network)
    teller: Any = backend
    if measure is not None:
        if not hasattr(teller, "measure"):
            raise InputError(f"backend '{name}'", "no profiler", "hardware, as 'loihi2'")
        teller.measure = measure
    if progress is not None and hasattr(teller, "progress"):
        teller.progress = progress
    return backend.run(network, inputs, probe=probe or Probe())
