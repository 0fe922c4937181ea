"""The network on a Loihi 2 chip: the processes of `lava-sim`, under Lava's run configuration for
hardware, which Intel's extension of Lava makes work.

Spikes of every population come back through adapters; states and the membranes of readouts do
not. What the adapters' ways take is to be found out on the machine at hand: where all spikes
come too late by the same number of steps, `verify` says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

from stformer.deploy.lava import LavaSim
from stformer.errors import InputError, Problem
from stformer.network import Network, Readout
from stformer.trace import Inputs, Probe, Trace, numbered

MEASURES = ("power", "time", "activity")
PLACES = ("PARTITION", "BOARD", "NXSDKHOST")  # Lava's own variables, one of them
MOST_DELAY = 62  # steps
NOT_READ = "membranes of readouts stay on the chip: {} not recorded"


class Loihi2(LavaSim):
    """Runs networks on a board; which one, Lava's own variables say (docs/lab.md).

    Attributes:
        measure: "power", "time" or "activity", or None; a run may have one.
        config: "module:attribute" of the run configuration, called with `callback_fxs`.
    """

    name = "loihi2"
    config = "lava.magma.core.run_configs:Loihi2HwCfg"

    def __init__(
        self,
        progress: Callable[[int, int], None] | None = None,
        stall_seconds: float = 7 * 24 * 3600.0,  # a board says nothing until it is done
    ) -> None:
        super().__init__(progress, stall_seconds)
        self.measure: str | None = None

    def missing(self) -> str | None:
        if reason := super().missing():
            return reason
        if find_spec("lava.utils.loihi2_profiler") is None:
            return (
                "Intel's extension of Lava for Loihi is not installed; members of the "
                "neuromorphic research community get it from Intel, see docs/lab.md"
            )
        if not any(map(os.environ.get, PLACES)):
            return f"no board is named; set {', '.join(PLACES[:-1])} or {PLACES[-1]}"
        return None

    def problems(self, network: Network) -> list[Problem]:
        found = super().problems(network)
        if network.steps & (network.steps - 1):
            why = f"T = {network.steps} is the interval of the reset, a power of two on the chip"
            found.append(Problem(where="network", why=f"{why}; train with another T"))
        return found

    def run(self, network: Network, inputs: Inputs, *, probe: Probe) -> Trace:
        """See `stformer.deploy.Backend`; no states, and no readouts."""
        readouts = [p.name for p in network.readouts if probe.wants(p.name)]
        wanted = [p.name for p in network.populations if not isinstance(p, Readout)]
        kept = tuple(name for name in wanted if probe.wants(name))
        self.board = {
            "config": self.config,
            "measure": self.measure,
            "input_delay": _delay("STFORMER_INPUT_DELAY"),
            "output_delay": _delay("STFORMER_OUTPUT_DELAY"),
        }
        trace = super().run(network, inputs, probe=Probe(populations=kept))
        notes = [NOT_READ.format(", ".join(readouts))] if readouts else []
        return replace(trace, info={**trace.info, **numbered(notes)})


def _delay(variable: str) -> int:
    """Steps that an adapter takes, from a variable of the environment."""
    text = os.environ.get(variable, "0")
    if not (text.isascii() and text.isdigit() and int(text) <= MOST_DELAY):
        raise InputError(variable, f"'{text}'", f"0...{MOST_DELAY} steps")
    return int(text)
