"""What a population may do wrong, one mistake at a time, and what it would do then.

Each suspect is a rule broken (`stformer.rules.BROKEN`), a number of the network changed, or a
source read in another order. Suspects without a number to choose come first: they fit by chance
least of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.interpret import Int64, synapse
from stformer.network import (
    Graded,
    Lif,
    Network,
    Operand,
    Population,
    Readout,
    Relay,
    Synapses,
    bias_of,
    neurons,
    no_bias,
)
from stformer.orders import orders, other_weights
from stformer.replay import Replayed, arriving_parts, delayed, delays, integrate, sent, total
from stformer.rules import BROKEN, DEFINITION, Rules
from stformer.trace import Trace

VALUES = 2**21  # of one array of a replay; large networks are looked at in fewer samples
CARRIED = 64  # samples that a fault across samples is looked for in
FOLLOWED = 8  # of them from the first that is wrong
TRIED = 8  # thresholds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A population, some samples, and what a trace says that it was fed in them.

    Attributes:
        sources: projection -> what its source sent, int64 [S, T, *pre.shape].
        parts: projection -> what it adds before its delay (`replay.arriving_parts`).
    """

    network: Network
    name: str
    trace: Trace
    samples: npt.NDArray[np.intp]
    sources: Mapping[str, Int64]
    parts: Mapping[str, Int64]

    @property
    def population(self) -> Population:
        return self.network[self.name]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.samples), self.trace.steps, *self.population.shape)

    @property
    def delays(self) -> dict[str, int]:
        return delays(self.network, self.name)

    def arriving(
        self,
        parts: Mapping[str, Int64] | None = None,
        delay_of: Mapping[str, int] | None = None,
    ) -> Int64:
        """Arriving sums, with other parts or delays where they are given."""
        parts, delay_of = parts or self.parts, self.delays if delay_of is None else delay_of
        return total(self.network, self.name, parts, delay_of, self.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Suspect:
    """A mistake, and what the population would do with it.

    Attributes:
        kind: its class.
        detail: what the mistake is.
        replayed: what it makes of the recorded inputs.
        samples: those that were replayed.
        steps: how many of each sample's first steps it says something about.
    """

    kind: str
    detail: str
    replayed: Replayed
    samples: npt.NDArray[np.intp]
    steps: int


def case_of(
    network: Network, name: str, trace: Trace, samples: npt.NDArray[np.intp]
) -> Case | None:
    """None where the trace lacks a source of the population."""
    parts = arriving_parts(network, name, trace, samples)
    if parts is None:
        return None
    sources: dict[str, Int64] = {}
    for p in network.incoming(name):
        record = sent(network, trace, p.pre)
        assert record is not None
        sources[p.name] = record[samples].astype(np.int64)
    return Case(
        network=network, name=name, trace=trace, samples=samples, sources=sources, parts=parts
    )


def affordable(network: Network, name: str) -> int:
    """How many samples of a population, with what feeds it, a replay may hold; at least 2."""
    fed = [network[p.pre] for p in network.incoming(name)]
    largest = max(neurons(p) for p in (network[name], *fed))
    return max(VALUES // (network.steps * largest), 2)


def suspects(case: Case) -> Iterator[Suspect]:
    """All mistakes but those of single weights and biases, the simplest first."""
    for group in (_rules, _late, _wiring, _orders, _exponents, _registers, _early):
        yield from group(case)


def fits(suspect: Suspect, name: str, trace: Trace) -> bool:
    """Whether a suspect does all that the trace recorded for a population."""
    return is_record(suspect.replayed, name, trace, suspect.samples, suspect.steps)


def is_record(
    again: Replayed,
    name: str,
    trace: Trace,
    samples: npt.NDArray[np.intp],
    steps: int | None = None,
) -> bool:
    """Whether a replay equals what was recorded, spikes and states, in its first steps."""
    pairs = ((again.spikes, trace.spikes), (again.u, trace.u), (again.v, trace.v))
    return all(
        np.array_equal(array[:, :steps], record[name][samples][:, :steps])
        for array, record in pairs
        if array is not None and name in record
    )


def _suspect(
    case: Case,
    kind: str,
    detail: str,
    a: Int64,
    population: Population | None = None,
    rules: Rules = DEFINITION,
) -> Suspect:
    again = integrate(population or case.population, a, rules)
    return Suspect(
        kind=kind,
        detail=detail,
        replayed=again,
        samples=case.samples,
        steps=case.trace.steps,
    )


def _rules(case: Case) -> Iterator[Suspect]:
    p = case.population
    if isinstance(p, Graded):
        yield from _graded(case, p)
    if not isinstance(p, (Lif, Readout)):
        return
    a = case.arriving()
    right = integrate(p, a)
    broken = ((kind, *how) for kind, rules in BROKEN.items() for how in rules.items())
    for kind, detail, rules in broken:
        # A readout has no threshold; without a current or a bias, their rules break nothing.
        if isinstance(p, Readout) and (rules.tie or rules.reset != "zero"):
            continue
        if rules.bias_from and not p.bias_mant.any():
            continue
        if not rules.carry:
            suspect = _suspect(case, kind, detail, a, rules=rules)
            again = suspect.replayed
            # One without states says nothing where its spikes are those of the definition.
            if again.v is not None or not np.array_equal(again.spikes, right.spikes):
                yield suspect
        elif (longer := _from_the_first(case)) is not None:
            yield _suspect(longer, kind, detail, longer.arriving(), rules=rules)


def _graded(case: Case, p: Graded) -> Iterator[Suspect]:
    a = case.arriving()
    exact = (a << fx.SHIFT) + bias_of(p)
    bits = fx.SHIFT + p.shift
    for how, value in (
        ("down", exact >> bits),
        ("to nearest", (exact + (1 << bits >> 1)) >> bits),
    ):
        again = Replayed(arriving=a, spikes=fx.clip(value))
        yield Suspect(
            kind="graded rounding",
            detail=f"it rounds what it sends {how}, not toward zero",
            replayed=again,
            samples=case.samples,
            steps=case.trace.steps,
        )


def _from_the_first(case: Case) -> Case | None:
    """The same from the first sample to some behind the first wrong one: what is carried over
    has to be followed. None where that is too far, or nothing differs."""
    again = integrate(case.population, case.arriving())
    trace = case.trace
    pairs = ((again.spikes, trace.spikes), (again.u, trace.u), (again.v, trace.v))
    wrong = [
        int(n)
        for i, n in enumerate(case.samples)
        if any(
            array is not None
            and case.name in record
            and not np.array_equal(array[i], record[case.name][n])
            for array, record in pairs
        )
    ]
    most = min(CARRIED, 2 * affordable(case.network, case.name), case.trace.samples)
    if not wrong or wrong[0] >= most:
        return None
    everything = np.arange(min(wrong[0] + FOLLOWED, most))
    return case_of(case.network, case.name, case.trace, everything)


def _late(case: Case) -> Iterator[Suspect]:
    """Everything one step late; or spikes of one sample that reach the next."""
    yield from _shifted(case, 1, "late")
    late = [q for q, delay in case.delays.items() if delay > 0]
    longer = _from_the_first(case) if late else None
    if longer is not None:
        parts = dict(longer.parts)
        for q in late:  # as one stream, whose samples have no walls
            stream = parts[q].reshape(1, -1, *parts[q].shape[2:])
            parts[q] = delayed(stream, case.delays[q]).reshape(parts[q].shape)
        none = {q: 0 if q in late else d for q, d in case.delays.items()}
        detail = f"the last spikes of a sample reach the next one through {', '.join(late)}"
        yield _suspect(longer, "reset", detail, longer.arriving(parts, none))


def _early(case: Case) -> Iterator[Suspect]:
    """Last of all, as it says nothing about the last step."""
    yield from _shifted(case, -1, "early")


def _shifted(case: Case, shift: int, word: str) -> Iterator[Suspect]:
    right = integrate(case.population, case.arriving())
    moved = delayed(right.spikes, shift)
    steps = case.trace.steps + min(shift, 0)
    if not np.array_equal(moved[:, :steps], right.spikes[:, :steps]):
        yield Suspect(
            kind="delay offset",
            detail=f"everything {case.name} sends is one step {word}",
            replayed=Replayed(arriving=right.arriving, spikes=moved),
            samples=case.samples,
            steps=steps,
        )


def _wiring(case: Case) -> Iterator[Suspect]:
    """Delays, projections that are missing or count twice, signs."""
    right = case.delays
    for q in right:
        a = case.arriving(delay_of={k: d for k, d in right.items() if k != q})
        yield _suspect(case, "missing projection", f"projection {q} is missing", a)
    for q, delay in right.items():
        others = dict.fromkeys((delay + 1, delay - 1, 0, -delay, delay + 2, delay - 2))
        for wrong in others:
            if wrong != delay and (wrong >= 0 or delay < 0):
                a = case.arriving(delay_of={**right, q: wrong})
                detail = f"projection {q} has delay {wrong}, not {delay}"
                yield _suspect(case, "delay offset", detail, a)
    for projection in case.network.incoming(case.name):
        if isinstance(projection, Operand):
            continue
        q = projection.name
        a = case.arriving({**case.parts, q: 2 * case.parts[q]})
        yield _suspect(case, "extra projection", f"projection {q} counts twice", a)
        a = case.arriving({**case.parts, q: -case.parts[q]})
        yield _suspect(case, "weight difference", f"projection {q} has the wrong sign", a)


def _orders(case: Case) -> Iterator[Suspect]:
    """Axes of a source, a kernel or a matrix in another order."""
    post = case.population.shape
    for p in case.network.incoming(case.name):
        if isinstance(p, Operand):
            continue
        for detail, read in orders(case.network[p.pre].shape):
            x = read(case.sources[p.name])
            a = case.arriving({**case.parts, p.name: _part(p, x, post)})
            yield _suspect(case, "input order", f"projection {p.name} reads {p.pre} {detail}", a)
        for detail, changed in other_weights(p):
            part = _part(changed, case.sources[p.name], post)
            a = case.arriving({**case.parts, p.name: part})
            yield _suspect(case, "input order", f"projection {p.name} has {detail}", a)
    operands = [p for p in case.network.incoming(case.name) if isinstance(p, Operand)]
    if len(operands) == 2:
        left, right = (p.name for p in operands)
        x, y = case.parts[left], case.parts[right]
        if x.shape == y.shape:
            a = case.arriving({left: y, right: x})
            yield _suspect(case, "input order", "its two operands have changed places", a)


def _part(p: Synapses, x: Int64, post: tuple[int, ...]) -> Int64:
    """What a projection adds before its delay, of sources [S, T, *pre.shape]."""
    return synapse(p, x.reshape(-1, *x.shape[2:]), post).reshape(*x.shape[:2], *post)


def _exponents(case: Case) -> Iterator[Suspect]:
    for p in case.network.incoming(case.name):
        if isinstance(p, Operand) or isinstance(case.population, Relay):
            continue
        for exp in range(fx.WEIGHT_EXP_RANGE[1] + 1):
            if exp != p.weight_exp:
                part = case.parts[p.name] >> p.weight_exp << exp
                a = case.arriving({**case.parts, p.name: part})
                detail = f"projection {p.name} has weight exponent {exp}, not {p.weight_exp}"
                yield _suspect(case, "weight exponent", detail, a)
    q = case.population
    if isinstance(q, (Lif, Readout, Graded)) and q.bias_mant.any():
        a = case.arriving()
        bare = replace(q, bias_mant=no_bias(q.shape))
        yield _suspect(case, "bias", "its bias is missing", a, bare)
        opposite = replace(q, bias_mant=-q.bias_mant)
        yield _suspect(case, "bias", "its bias has the wrong sign", a, opposite)
        for exp in range(fx.BIAS_EXP_RANGE[1] + 1):
            if exp != q.bias_exp:
                detail = f"its bias has exponent {exp}, not {q.bias_exp}"
                yield _suspect(case, "bias", detail, a, replace(q, bias_exp=exp))


def _registers(case: Case) -> Iterator[Suspect]:
    """Thresholds and decays: for the threshold, the values that the first difference leaves."""
    p = case.population
    a = case.arriving()
    if isinstance(p, Graded):
        for shift in (p.shift + 1, p.shift - 1, 0):
            if shift >= 0 and shift != p.shift:
                detail = f"it leaves out {shift} bits, not {p.shift}"
                yield _suspect(case, "graded rounding", detail, a, replace(p, shift=shift))
    if not isinstance(p, Lif):
        return
    for vth in _thresholds(case, p, a):
        detail = f"its threshold is {vth}, not {p.vth}"
        yield _suspect(case, "threshold", detail, a, replace(p, vth=vth))
    for field in ("dv", "du"):
        value = getattr(p, field)
        steps = (1, -1, 2, -2, 3, -3)
        tried = dict.fromkeys((*(value + n for n in steps), fx.DECAY_ONE - value, 0, 4095))
        for wrong in tried:
            if wrong != value and 0 <= wrong < fx.DECAY_ONE:
                changed: Lif = replace(p, **{field: wrong})
                yield _suspect(case, "decay", f"its {field} is {wrong}, not {value}", a, changed)


def _thresholds(case: Case, p: Lif, a: Int64) -> list[int]:
    """Thresholds to try: that of the record is bounded by the membranes at its differences.

    Until a neuron's first difference its membrane is what the definition says, so that it
    fired below (at or above) the threshold tells how far the other threshold lies.
    """
    right = integrate(p, a)
    assert right.membrane is not None
    record = case.trace.spikes[case.name][case.samples]
    trusted = np.cumsum(np.cumsum(record != right.spikes, axis=1), axis=1) <= 1
    fired = right.membrane[trusted & (record > 0)]
    quiet = right.membrane[trusted & (record == 0)]
    least, most = fx.VTH_RANGE
    if fired.size:  # all above vth << 6
        most = min(most, -(-int(fired.min()) >> fx.SHIFT) - 1)
    if quiet.size:  # none above it
        least = max(least, -(-int(quiet.max()) >> fx.SHIFT))
    between = range(least, most + 1)
    nearest = between[:TRIED] if least > p.vth else between[-TRIED:][::-1]
    return [n for n in nearest if n != p.vth]
