"""Overflow ruled out: what every accumulator and state can hold, over all inputs.

Interval arithmetic with the chip's own integer rules (`stformer.fixedpoint`): the sums of
`stformer.bounds`, then currents and membranes step by step, every neuron of a dense and every
channel of a convolutional population for itself. What is called proven no input can break.
What is not may still be unreachable: each interval takes the worst spikes of the population
before, and the weights further up may never let them come together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import assert_never

from stformer import fixedpoint as fx
from stformer.bounds import Int64, Interval, bounds
from stformer.bounds_states import ever, near, neuron_of, within
from stformer.errors import StformerError
from stformer.network import (
    Graded,
    Input,
    Lif,
    Network,
    Population,
    Product,
    Readout,
    Relay,
    bias_of,
)

if TYPE_CHECKING:
    from stformer.replay import Replayed
    from stformer.trace import Trace

Range = tuple[int, int]

SUM = "sum"  # what arrives in a step
CURRENT = "u"
MEMBRANE = "v"
SHOWN = 4  # populations that an error names
LIMITS = {SUM: fx.ACCUMULATOR_MAX, CURRENT: fx.STATE_MAX - 1, MEMBRANE: fx.STATE_MAX - 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """What one number that a neuron holds can be.

    Attributes:
        what: "sum", which the 16-bit accumulator holds; "u", the current before its wrap;
            "v", the membrane before clip and threshold, of a graded population what it sends,
            before the clip. The last two have 24 bits.
        low, high: no input leads outside, with 0, which all start from.
        limit: the largest absolute value that fits.
    """

    what: str
    low: int
    high: int
    limit: int

    @property
    def fits(self) -> bool:
        return self.largest <= self.limit

    @property
    def largest(self) -> int:
        return max(-self.low, self.high)

    @property
    def bits(self) -> int:
        """Of the shortest two's complement that holds it."""
        return max((-self.low - 1).bit_length() if self.low else 0, self.high.bit_length()) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One population: its registers, each with what any input can make of it.

    Attributes:
        registers: of all kinds "sum", but for a product, whose sums have 24 bits, as "v"; "u"
            and "v" where the kind has them.
    """

    name: str
    kind: str
    registers: tuple[Register, ...]

    @property
    def proven(self) -> bool:
        return not self.exceeding

    @property
    def exceeding(self) -> tuple[Register, ...]:
        """Registers that are not shown to be large enough."""
        return tuple(r for r in self.registers if not r.fits)

    @property
    def reason(self) -> str:
        """Why it is not proven; empty where it is."""
        return ", ".join(f"{r.what} up to {r.largest:,} of {r.limit:,}" for r in self.exceeding)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """All populations of a network but its inputs.

    Attributes:
        steps: T of the samples it holds for; None for any number of steps.
    """

    network: str
    digest: str
    steps: int | None
    populations: tuple[Claim, ...]

    @property
    def proven(self) -> bool:
        return not self.open

    @property
    def open(self) -> tuple[Claim, ...]:
        """Populations that are not proven."""
        return tuple(c for c in self.populations if not c.proven)

    def to_json(self) -> dict[str, Any]:
        populations = [
            {
                "name": c.name,
                "kind": c.kind,
                "proven": c.proven,
                "registers": [asdict(r) | {"bits": r.bits, "proven": r.fits} for r in c.registers],
            }
            for c in self.populations
        ]
        return {
            "network": self.network,
            "digest": self.digest,
            "steps": self.steps,
            "proven": self.proven,
            "populations": populations,
        }


class NotProven(StformerError):
    """A network that some input may overflow, where none was to be.

    Args:
        where: the network.
        claims: what was found; the message names the populations that are not proven.
    """

    exit_code = 1

    def __init__(self, where: str, claims: Claims) -> None:
        super().__init__(where, claims)
        named = [f"{c.name}: {c.reason}" for c in claims.open]
        more = f", and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        self.message = (
            f"{where}: not proven free of overflow: {'; '.join(named[:SHOWN])}{more}. "
            "Compile with --scales bounds, or without --require-proof."
        )


def prove(network: Network, *, any_steps: bool = False) -> Claims:
    """Bounds of every sum, current and membrane over all inputs that the network takes.

    Args:
        network: any.
        any_steps: for samples of any length, not only the network's T steps.
    """
    steps = None if any_steps else network.steps
    sums = bounds(network).sums
    claims = tuple(
        Claim(name=p.name, kind=type(p).__name__, registers=_registers(p, sums[p.name], steps))
        for p in network.populations
        if not isinstance(p, Input)
    )
    return Claims(network=network.name, digest=network.digest(), steps=steps, populations=claims)


def _registers(p: Population, total: Interval, steps: int | None) -> tuple[Register, ...]:
    match p:
        case Input():
            return ()
        case Lif() | Relay() | Readout():
            n = neuron_of(p)
            u, v = ever(n, total) if steps is None else within(n, total, steps)
            return _register(SUM, total), _register(CURRENT, u), _register(MEMBRANE, v)
        case Graded():
            a = near(total)
            low, high = (fx.message(end, bias_of(p), p.shift) for end in (a.low, a.high))
            sent = Interval(np.minimum(low, 0), np.maximum(high, 0))
            return _register(SUM, total), _register(MEMBRANE, sent)
        case Product():
            return (_register(MEMBRANE, total),)
        case _:
            assert_never(p)


def _register(what: str, x: Interval) -> Register:
    low, high = x.ends
    return Register(what=what, low=low, high=high, limit=LIMITS[what])


# --- what samples make of it -----------------------------------------------------------------


def observe(network: Network, trace: Trace) -> dict[str, dict[str, Range]]:
    """Population -> register -> (lowest, highest) value in a run, with 0.

    Args:
        network: what ran.
        trace: of every population's spikes; sums and states are worked out from them.
    """
    from stformer.replay import replay

    found: dict[str, dict[str, Range]] = {}
    for p in network.populations:
        if not isinstance(p, Input):
            held = _held(p, replay(network, p.name, trace))
            found[p.name] = {
                what: (min(int(x.min()), 0), max(int(x.max()), 0)) for what, x in held.items()
            }
    return found


def _held(p: Population, run: Replayed) -> Mapping[str, Int64]:
    from stformer.replay import delayed

    match p:
        case Input():
            return {}
        case Product():
            return {MEMBRANE: run.arriving}
        case Graded():
            sent: Int64 = fx.message(run.arriving, bias_of(p), p.shift)
            return {SUM: run.arriving, MEMBRANE: sent}
        case Relay():
            raised = run.arriving << fx.SHIFT
            return {SUM: run.arriving, CURRENT: raised, MEMBRANE: raised}
        case Lif() | Readout():
            neuron = neuron_of(p)
            assert run.v is not None
            zero = np.zeros_like(run.arriving)
            u = zero if run.u is None else delayed(run.u, 1)
            raw_u = fx.unwrapped(u, run.arriving, neuron.du)
            raw_v = fx.unclipped(delayed(run.v, 1), fx.wrap(raw_u), neuron.dv, neuron.bias)
            return {SUM: run.arriving, CURRENT: raw_u, MEMBRANE: raw_v}
        case _:
            assert_never(p)


def merge(
    one: Mapping[str, Mapping[str, Range]], other: Mapping[str, Mapping[str, Range]]
) -> dict[str, dict[str, Range]]:
    """What two runs of one network have held together; either may be empty."""
    if not one or not other:
        return {name: dict(held) for name, held in (one or other).items()}
    return {
        name: {
            what: (min(low, other[name][what][0]), max(high, other[name][what][1]))
            for what, (low, high) in held.items()
        }
        for name, held in one.items()
    }
