"""The reference interpreter behind the backend protocol."""

from __future__ import annotations

from stformer import interpret
from stformer.errors import Problem
from stformer.network import Network
from stformer.trace import Inputs, Probe, Trace


class Reference:
    """Runs any network; it is the definition of what one means."""

    name = "reference"

    def missing(self) -> str | None:
        return None

    def problems(self, network: Network) -> list[Problem]:
        return []

    def run(self, network: Network, inputs: Inputs, *, probe: Probe) -> Trace:
        return interpret.run(network, inputs, probe=probe)
