"""Backends: one protocol, a registry of names, nothing imported before it is used."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol

from stformer.errors import InputError, Unavailable, Unsupported
from stformer.network import Network
from stformer.trace import Inputs, Probe, Trace

if __name__ != "stformer.deploy":  # two names would mean two copies of the registry
    raise ImportError(f"import 'stformer.deploy', not '{__name__}'")

ENTRY_POINTS = "stformer.backends"  # group under which other packages offer theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something of a network that a backend cannot run.

    Attributes:
        where: population or projection, or "network".
        why: the reason, and what would work instead.
    """

    where: str
    why: str


class Backend(Protocol):
    """Runs networks. Stateless; one instance may run many networks."""

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
    "lava-sim": "stformer.deploy.lava:LavaSim",
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


def run(name: str, network: Network, inputs: Inputs, *, probe: Probe | None = None) -> Trace:
    """Run a network on the backend of that name, after asking it whether it can.

    Raises:
        Unavailable: the backend is not installed.
        Unsupported: it cannot run this network; names the first object and the reason.
    """
    backend = load(name)
    if reason := backend.missing():
        raise Unavailable(f"backend '{name}'", *_reason_and_remedy(reason))
    for problem in backend.problems(network):
        raise Unsupported(f"backend '{name}'", problem.where, problem.why)
    return backend.run(network, inputs, probe=probe or Probe())


def _reason_and_remedy(reason: str) -> tuple[str, str]:
    why, _, do = reason.partition("; ")
    return why, do or "see `stformer targets`"
