"""Faults to seed, of every class that a diagnosis knows: a run of a network that has one.

The broken neurons are written here once more, in other words than `stformer.rules`, and are put
into the reference interpreter; other faults are one number or projection of the network changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from stformer import interpret
from stformer.diagnose import explain
from stformer.network import (
    Conv,
    Dense,
    Graded,
    Input,
    Lif,
    Network,
    Operand,
    Population,
    Projection,
    Readout,
    Relay,
    no_bias,
)
from stformer.passes import assign_latency, replace_network, schedule
from stformer.samples_base import lif, link
from stformer.testing import mutants
from stformer.trace import Inputs, Probe, Trace
from stformer.verify import compare

Array: TypeAlias = npt.NDArray[Any]
Run: TypeAlias = Callable[[Inputs, Probe], Trace]
Neuron: TypeAlias = Callable[[Any, Array, Array, Array, int], tuple[Array, Array, Array]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fault:
    """A network with one fault.

    Attributes:
        name: the kind of fault, a row of the table.
        where: the population that is wrong.
        kind: the class that a diagnosis should give it.
        run: the faulty run, whose trace claims to be of the network without the fault.
    """

    name: str
    where: str
    kind: str
    run: Run


def faults(network: Network, seed: int = 0) -> Iterator[Fault]:
    """Every fault that a network can have, once per object it can be in."""
    for p in network.populations:
        if not isinstance(p, Input):
            yield from _of_neurons(network, p)
    yield from _of_numbers(network, seed)
    for q in network.projections:
        yield from _of_projection(network, q)


# --- rules of neurons ---------------------------------------------------------------------

LIMIT = 2**23


def neuron(**rule: Any) -> Neuron:
    """A step of a Lif or Readout with one rule another: (p, u, v, a, t) -> (spikes, u, v)."""

    def keep(x: Array, factor: int) -> Array:
        exact = x * factor
        match rule.get("rounding"):
            case "down":
                return np.asarray(exact // 4096)
            case "nearest":
                return np.asarray((2 * exact + 4096) // 8192)
            case "none":
                return np.asarray(exact / 4096.0)
        return np.asarray(np.sign(exact) * (np.abs(exact) // 4096))

    def step(p: Any, u: Array, v: Array, a: Array, t: int) -> tuple[Array, Array, Array]:
        spiking = isinstance(p, Lif)
        du, dv = (p.du + rule.get("du", 1), p.dv + rule.get("dv", 0)) if spiking else (4096, 0)
        u = keep(u, 4096 - du) + 64 * a
        if rule.get("current") == "saturates":
            u = np.clip(u, 1 - LIMIT, LIMIT - 1)
        elif rule.get("current") != "free":
            u = np.where(u > LIMIT, u - 2 * LIMIT, np.where(u <= -LIMIT, u + 2 * LIMIT, u))
        late = t < rule.get("bias_from", 0)
        v = keep(v, 4096 - dv) + u + (0 if late else p.bias_mant.astype(np.int64) * 2**p.bias_exp)
        if rule.get("membrane") == "wraps":
            v = (v + LIMIT) % (2 * LIMIT) - LIMIT
        elif rule.get("membrane") != "free":
            v = np.clip(v, 1 - LIMIT, LIMIT - 1)
        if not spiking:
            return v, u, v
        level = 64 * p.vth
        fired = v >= level if rule.get("tie") else v > level
        match rule.get("reset"):
            case "subtracts":
                v = np.where(fired, v - level, v)
            case "keeps":
                pass
            case "current":
                u, v = np.where(fired, 0, u), np.where(fired, 0, v)
            case _:
                v = np.where(fired, 0, v)
        return fired.astype(np.int64), u, v

    return step


# fault: (class, the neuron)
NEURONS: Mapping[str, tuple[str, Neuron]] = {
    "fires at the threshold": ("threshold tie", neuron(tie=True)),
    "current does not wrap": ("wrap", neuron(current="free")),
    "current saturates": ("wrap", neuron(current="saturates")),
    "membrane is not clipped": ("clip", neuron(membrane="free")),
    "membrane wraps": ("clip", neuron(membrane="wraps")),
    "decay rounds down": ("decay rounding", neuron(rounding="down")),
    "decay rounds to nearest": ("decay rounding", neuron(rounding="nearest")),
    "decay in floating point": ("decay rounding", neuron(rounding="none")),
    "du without its 1": ("decay", neuron(du=0)),
    "dv one more": ("decay", neuron(dv=1)),
    "dv one less": ("decay", neuron(dv=-1)),
    "reset subtracts": ("reset", neuron(reset="subtracts")),
    "no reset after a spike": ("reset", neuron(reset="keeps")),
    "spike resets the current": ("reset", neuron(reset="current")),
    "bias a step late": ("bias", neuron(bias_from=1)),
}


def _of_neurons(network: Network, p: Population) -> Iterator[Fault]:
    def fault(name: str, kind: str, run: Run) -> Fault:
        return Fault(name=name, where=p.name, kind=kind, run=run)

    if isinstance(p, (Lif, Readout)):
        for name, (kind, step) in NEURONS.items():
            if isinstance(p, Lif) or kind in ("clip", "bias"):
                yield fault(name, kind, broken_neuron(network, p.name, step))
        yield fault(
            "states of the last sample", "reset", _broken(network, p.name, _carrying, True)
        )
    if not isinstance(p, Readout):
        yield fault("sends a step late", "delay offset", _broken(network, p.name, _late()))


Update: TypeAlias = Callable[..., Array]


def broken_neuron(network: Network, name: str, step: Neuron) -> Run:
    """The reference interpreter, one population of which takes a step of its own."""
    return _broken(network, name, _stepping(step))


def _stepping(step: Neuron) -> Callable[[Update], Update]:
    def wrap(_update: Update) -> Update:
        def broken(p: Any, state: Any, a: Array, local: int, _frames: Any, steps: int) -> Array:
            if local % steps == 0:
                state.u, state.v = np.zeros_like(a), np.zeros_like(a)
            spikes, state.u, state.v = step(p, state.u, state.v, a, local % steps)
            return spikes.astype(np.int64)

        return broken

    return wrap


def _carrying(update: Update) -> Update:
    def broken(p: Any, state: Any, a: Array, local: int, frames: Any, _steps: int) -> Array:
        return update(p, state, a, local, frames, 10**9)

    return broken


def _late() -> Callable[[Update], Update]:
    def wrap(update: Update) -> Update:
        last: list[Array] = []

        def broken(p: Any, state: Any, a: Array, local: int, frames: Any, steps: int) -> Array:
            now = update(p, state, a, local, frames, steps)
            sends = last.pop() if last and local % steps else np.zeros_like(now)
            last[:] = [now]
            return sends

        return broken

    return wrap


def _broken(
    network: Network, name: str, wrap: Callable[[Update], Update], stream: bool = False
) -> Run:
    """The reference interpreter with one population's update in another's hands."""

    def run(inputs: Inputs, probe: Probe) -> Trace:
        right = interpret._update
        wrong = wrap(right)

        def update(p: Population, *rest: Any) -> Array:
            return wrong(p, *rest) if p.name == name else right(p, *rest)

        with patch.object(interpret, "_update", update):
            return replace(interpret.run(network, inputs, probe=probe, stream=stream), backend="x")

    return run


# --- numbers and projections --------------------------------------------------------------

_CLASSES = (
    ("one weight", "weight difference"),
    ("delay", "delay offset"),
    ("transposed", "input order"),
    ("dropped", "missing projection"),
    ("threshold", "threshold"),
    ("one bias", "bias"),
)


def _of_numbers(network: Network, seed: int) -> Iterator[Fault]:
    for what, (where, *_), mutant in mutants(network, seed):
        name, kind = next((n, k) for n, k in _CLASSES if n in what)
        yield Fault(name=name, where=where, kind=kind, run=_posing(mutant, network))
    for p in network.populations:
        changed: list[tuple[str, str, Population]] = []
        if isinstance(p, (Lif, Readout, Graded)) and p.bias_mant.any():
            bare = replace(p, bias_mant=no_bias(p.shape))
            changed.append(("bias dropped", "bias", bare))
            changed.append(("bias exponent", "bias", replace(p, bias_exp=(p.bias_exp + 1) % 8)))
        if isinstance(p, Lif):
            complement = replace(p, dv=min(4096 - p.dv, 4095))
            changed.append(("dv is what is kept", "decay", complement))
            changed.append(("another dv", "decay", replace(p, dv=(p.dv + 500) % 4096)))
            changed.append(("another du", "decay", replace(p, du=(p.du + 3500) % 4096)))
        for name, kind, q in changed:
            populations = tuple(q if r.name == q.name else r for r in network.populations)
            mutant = replace_network(network, populations=populations)
            yield Fault(name=name, where=p.name, kind=kind, run=_posing(mutant, network))


def _posing(mutant: Network, network: Network) -> Run:
    def run(inputs: Inputs, probe: Probe) -> Trace:
        trace = interpret.run(mutant, inputs, probe=probe)
        return replace(trace, network=network.digest(), backend="x")

    return run


def _of_projection(network: Network, p: Projection) -> Iterator[Fault]:
    if isinstance(p, Operand) or isinstance(network[p.post], Relay):
        return

    def fault(name: str, kind: str, projections: tuple[Projection, ...]) -> Fault:
        mutant = assign_latency(replace_network(network, projections=projections))
        return Fault(name=name, where=p.post, kind=kind, run=_posing(mutant, network))

    others = tuple(q for q in network.projections if q.name != p.name)
    twice = replace(p, name=f"{p.name}+")
    yield fault("projection twice", "extra projection", (*network.projections, twice))
    exp = (p.weight_exp + 2) % 8  # one more would be the projection twice
    yield fault("weight exponent", "weight exponent", (*others, replace(p, weight_exp=exp)))
    if p.weight_exp:
        yield fault("exponent ignored", "weight exponent", (*others, replace(p, weight_exp=0)))
    if isinstance(p, Conv) and p.weight.shape[2:] != (1, 1):
        flipped = replace(p, weight=np.ascontiguousarray(p.weight[..., ::-1, ::-1]))
        yield fault("kernel flipped", "input order", (*others, flipped))
    if isinstance(p, (Dense, Conv)):
        wrong = p.weight.copy()
        wrong.flat[::3] = -wrong.flat[::3] - 1  # stays within int8
        yield fault("many weights", "weight difference", (*others, replace(p, weight=wrong)))
    for axes, name in (((0, 2, 1), "reads CWH"), ((1, 2, 0), "reads HWC")):
        shape = network[p.pre].shape
        if len(shape) == 3 and sum(n > 1 for n in shape) > 1:
            run = _reading(network, p.name, axes)
            yield Fault(name=name, where=p.post, kind="input order", run=run)


def _reading(network: Network, name: str, axes: tuple[int, ...]) -> Run:
    """A projection that takes the flat order of its source for that of other axes."""
    right = interpret.synapse

    def wrong(p: Any, spikes: Array, post: Any) -> Any:
        if p.name == name:
            turned = spikes.transpose(0, *(1 + i for i in axes))
            spikes = np.ascontiguousarray(turned).reshape(spikes.shape)
        return right(p, spikes, post)

    def run(inputs: Inputs, probe: Probe) -> Trace:
        with patch.object(interpret, "synapse", wrong):
            return replace(interpret.run(network, inputs, probe=probe), backend="x")

    return run


# --- what the verifier makes of a fault ------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a comparison made of a fault.

    Attributes:
        changes: how many spikes or graded values it changes.
        found: how many differences the comparison counted.
        where: population of the first difference; empty where there is none.
        alone: no other population is said to be wrong itself.
        kind: class given to the first difference; empty where there is none.
        named: classes of all explanations that fit.
        detail: what the class means there.
    """

    changes: int
    found: int
    where: str
    alone: bool
    kind: str
    named: frozenset[str]
    detail: str


def judge(network: Network, reference: Trace, other: Trace) -> Outcome:
    """Compare a faulty trace with the right one, spikes only; states that are there explain."""
    changes = sum(int((a != other.spikes[n]).sum()) for n, a in reference.spikes.items())
    report = compare(reference, other, network)
    first = report.first
    if first is None:
        return Outcome(
            changes=changes,
            found=report.differences,
            where="",
            alone=False,
            kind="",
            named=frozenset(),
            detail="",
        )
    wrong = {p.name for p in report.populations if p.itself_wrong}
    named = {first.kind}
    if wrong == {first.population}:
        off = reference.spikes[first.population] != other.spikes[first.population]
        samples = np.flatnonzero(off.reshape(len(off), -1).any(axis=1))
        named |= {e.kind for e in explain(network, first.population, other, samples)}
    return Outcome(
        changes=changes,
        found=report.differences,
        where=first.population,
        alone=wrong == {first.population},
        kind=first.kind,
        named=frozenset(named),
        detail=first.detail,
    )


# --- a network at the edges ---------------------------------------------------------------


def extreme_network() -> Network:
    """Currents beyond the 24-bit wrap, membranes beyond the clip, ties, slow decays; 24 steps."""
    rng = np.random.default_rng(5)
    steep, level = (
        np.where(rng.random((48, 16)) < np.linspace(low, 0.6, 48)[:, None], -128, 127)
        for low in (0.3, 0.45)
    )
    populations = (
        Input(name="in", shape=(16,)),
        lif("wraps", (48,), 100000, dv=3000, du=3000),
        lif("clips", (48,), 60000, dv=0),
        lif("ties", (24,), 12, dv=4095),
        lif("rounds", (96,), 7, dv=300, du=700),
        lif("decays", (48,), 900, dv=40, du=120),
    )
    projections = (
        link(Dense, "in", "wraps", weight=steep, weight_exp=7),
        link(Dense, "in", "clips", weight=level, weight_exp=7),
        link(Dense, "in", "ties", weight=np.full((24, 16), 2)),
        link(Dense, "in", "rounds", weight=rng.integers(-9, 10, (96, 16))),
        link(Dense, "in", "decays", weight=rng.integers(-20, 70, (48, 16)), weight_exp=3),
    )
    return schedule(
        Network(name="extreme", steps=24, populations=populations, projections=projections)
    )
