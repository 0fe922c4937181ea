"""Design rules of a target, by name: what each checks, against which of its numbers.

`RULES` is the list; `check` runs it over every population and projection. A finding of severity
"error" keeps the network off the target, a "warning" is for people to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stformer.bounds import bounds
from stformer.deploy.demand import Demand
from stformer.deploy.tiling import RESOURCES, Cut, limits, synapse_memory
from stformer.hardware_configs import Hardware, Value
from stformer.network import (
    Conv,
    Graded,
    Input,
    Lif,
    Network,
    Operand,
    Readout,
    Relay,
)

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule that an object breaks.

    Attributes:
        rule: its name.
        severity: see the module.
        where: "population x", "projection x" or "network".
        found, allowed, do: what is there, what may be, what to do.
    """

    rule: str
    severity: Severity
    where: str
    found: str
    allowed: str
    do: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What rules look at.

    Attributes:
        network, hardware: the two that shall fit.
        cuts: population -> how it is cut into cores; empty for a target without cores.
        demands: population -> what cores see of it.
        sums: population -> largest arriving sum over a calibration set, where it is known.
    """

    network: Network
    hardware: Hardware
    cuts: Mapping[str, Cut]
    demands: Mapping[str, Demand]
    sums: Mapping[str, int]


Breaks = Iterator[tuple[Severity, str, str, str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A design rule.

    Attributes:
        name: short, for reports.
        checks: in words.
        keys: of the target's values that it is checked against; their sources are the rule's.
        run: yields (severity, where, found, allowed, do).
    """

    name: str
    checks: str
    keys: tuple[str, ...]
    run: Callable[[Subject], Breaks]


def check(subject: Subject) -> tuple[Finding, ...]:
    """All findings of all rules, in the order of RULES, then of the network."""
    return tuple(
        Finding(rule=r.name, severity=severity, where=where, found=found, allowed=allowed, do=do)
        for r in RULES
        for severity, where, found, allowed, do in r.run(subject)
    )


def used_by(rule: Rule, hardware: Hardware) -> tuple[Value[Any], ...]:
    """The values of the target that a rule is checked against, those of them that it has."""
    values = {v.key: v for v in hardware.values()}
    return tuple(values[k] for k in rule.keys if k in values)


def _kinds(s: Subject) -> Breaks:
    refused = s.hardware.constraints.unsupported.value
    allowed = f"any kind but {', '.join(refused)}"
    for p in s.network.populations:
        if (kind := type(p).__name__) in refused:
            do = "use the preset 'hw', or a simulator"
            yield "error", f"population {p.name}", f"kind {kind}", allowed, do
    for q in s.network.projections:
        if (kind := type(q).__name__) in refused:
            do = "use the preset 'hw', or a simulator"
            yield "error", f"projection {q.name}", f"kind {kind}", allowed, do


def _unproven(s: Subject) -> Breaks:
    """One finding a kind: they come by the hundred."""
    named: dict[str, list[str]] = {}
    for q in s.network.projections:
        named.setdefault(type(q).__name__, []).append(q.name)
        if s.network.axon_delay(q) > 0:
            named.setdefault("axon_delay", []).append(q.name)
    for kind in s.hardware.constraints.unproven.value:
        if names := named.get(kind):
            found = f"{len(names)} with {kind}, first {names[0]}"
            allowed = "what public material shows on the chip"
            yield "warning", "network", found, allowed, "try these first in the lab"


def _weights(s: Subject) -> Breaks:
    low, high = s.hardware.numeric.weight_range.value
    first, last = s.hardware.numeric.weight_exp_range.value
    for q in s.network.projections:
        if isinstance(q, Operand):
            continue
        stored = 2 * np.asarray(q.weight, np.int64)  # with mixed signs the chip wants them even
        where = f"projection {q.name}"
        if stored.min() < low or stored.max() > high:
            found = f"stored weights {stored.min()}...{stored.max()}"
            yield "error", where, found, f"{low}...{high}", "quantise with a smaller scale"
        if not first <= q.weight_exp - 1 <= last:
            found = f"exponent {q.weight_exp - 1}"
            yield "error", where, found, f"{first}...{last}", "use weight_exp 0...7"


def _registers(s: Subject) -> Breaks:
    n = s.hardware.numeric
    vth, decay = 2**n.vth_mant_bits.value - 1, 2**n.decay_bits.value - 1
    bias, exponent = 2 ** (n.bias_mant_bits_signed.value - 1), 2**n.bias_exp_bits.value - 1
    for p in s.network.populations:
        where = f"population {p.name}"
        if isinstance(p, Lif):
            if not 1 <= p.vth <= vth:
                yield "error", where, f"vth = {p.vth}", f"1...{vth}", "halve weights and threshold"
            for name, value in (("du", p.du), ("dv", p.dv)):
                if not 0 <= value <= decay:
                    yield "error", where, f"{name} = {value}", f"0...{decay}", ""
        if isinstance(p, (Lif, Readout, Graded)):
            low, high = int(p.bias_mant.min()), int(p.bias_mant.max())
            if not -bias <= low <= high < bias or p.bias_exp > exponent:
                found = f"bias {low}...{high} << {p.bias_exp}"
                allowed = f"{-bias}...{bias - 1} << 0...{exponent}"
                yield "error", where, found, allowed, "halve weights, threshold and bias"


def _delays(s: Subject) -> Breaks:
    most = s.hardware.numeric.delay_max.value
    for q in s.network.projections:
        if not 0 <= (wait := s.network.axon_delay(q)) <= most:
            do = "run stformer.passes.schedule" if wait < 0 else "shorten the parallel path"
            yield "error", f"projection {q.name}", f"an axon delay of {wait}", f"0...{most}", do


def _samples(s: Subject) -> Breaks:
    """On hardware the next sample follows at once: what a synapse holds back goes into it."""
    recurrent = {q.name for q in s.network.recurrent}
    for q in s.network.projections:
        if q.name in recurrent:
            found = "recurrence"
        elif q.delay < 0:
            found = f"a look {-q.delay} steps ahead"
        elif q.delay and not isinstance(s.network[q.post], Relay):
            found = f"a delay of {q.delay}"
        else:
            continue
        do = "run stformer.passes.schedule, or train with causal taps"
        yield "error", f"projection {q.name}", found, "delays that end in relays", do


def _sums(s: Subject) -> Breaks:
    most = 2 ** (s.hardware.numeric.dendritic_input_bits.value - 1) - 1
    for name, worst in bounds(s.network).arriving.items():
        if worst <= most:
            continue
        seen = s.sums.get(name)
        measured = f", {seen:,} when calibrated" if seen is not None else ""
        found = f"sums that could reach {worst:,}{measured}"
        severity: Severity = "error" if seen is not None and seen > most else "warning"
        do = "compile with calibration, which keeps sums within" if seen is None else ""
        if severity == "error":
            do = "halve this population's weights and threshold"
        yield severity, f"population {name}", found, f"{most:,}", do


def _messages(s: Subject) -> Breaks:
    width = s.hardware.numeric.graded_payload_bits.value
    sources = {q.pre for q in s.network.projections}
    for p in s.network.populations:
        if p.name not in sources:
            continue
        most = bounds(s.network).sent[p.name]
        signed = not isinstance(p, Input) or p.low < 0
        bits = (
            most.bit_length() + signed if most > 1 or (isinstance(p, Input) and p.low < 0) else 0
        )
        if bits > width:
            found = f"messages of {bits} bits (up to {most:,})"
            allowed = f"{width} bits" if width else "spikes, 0 or 1"
            do = "encode the input as spikes" if isinstance(p, Input) else "use the preset 'hw'"
            yield "error", f"population {p.name}", found, allowed, do


def _reset(s: Subject) -> Breaks:
    steps = s.network.steps
    if s.hardware.constraints.reset_interval_power_of_two.value and steps & (steps - 1):
        near = [2 ** (steps.bit_length() - 1), 2 ** steps.bit_length()]
        found = f"T = {steps} steps, the interval of the reset"
        yield "error", "network", found, "a power of two", f"train with T = {near[0]} or {near[1]}"


def _suspect(s: Subject) -> Breaks:
    limit = s.hardware.constraints.conv_width_suspect
    for q in s.network.projections:
        if limit is None or not isinstance(q, Conv):
            continue
        width = s.network[q.pre].shape[2]
        if (width + 1) % limit.value == 0:
            found, allowed = f"frames {width} wide", f"other widths than n * {limit.value} - 1"
            do = "pad or crop the input by a pixel"
            yield "warning", f"projection {q.name}", found, allowed, do


def _core(resource: str) -> Callable[[Subject], Breaks]:
    """A rule that one neuron of a population must fit on a core, for one resource."""

    def run(s: Subject) -> Breaks:
        index = list(RESOURCES).index(resource)
        most = limits(s.hardware)[index]
        for name, cut in s.cuts.items():
            if cut.cores is None and cut.load[index] > most:
                fans = s.demands[name].fans
                prices = [(synapse_memory(s.hardware, f, cut.tile), f) for f in fans]
                _, worst = max(prices, key=lambda pair: pair[0])
                found = (
                    f"one neuron needs {cut.load[index]:,.0f} of {most:,.0f} "
                    f"({cut.share[index]:.2g} times a core), most of it for {worst.projection}"
                )
                if worst.whole_frame:
                    found += f", which spans all {worst.size[0] * worst.size[1]} places at once"
                parts = -(-cut.load[index] // most)
                do = f"spread its sources over {parts:.0f} populations, or see the alternatives"
                yield "error", f"population {name}", found, f"{most:,.0f} a core", do

    return run


def _axons_out(s: Subject) -> Breaks:
    """Dense projections list every neuron of a core once; kernels are listed as a whole."""
    core = s.hardware.core
    if core is None:
        return
    listed: dict[str, int] = {}
    for demand in s.demands.values():
        for fan in demand.fans:
            if fan.dense:
                listed[fan.pre] = listed.get(fan.pre, 0) + 1
    for name, count in listed.items():
        cut = s.cuts[name]
        entries = count * cut.tile.x * cut.tile.y * cut.tile.c
        if cut.cores is not None and entries > core.axon_out_max.value:
            found = f"{entries:,} entries for {count} dense projections"
            allowed = f"{core.axon_out_max.value:,} a core"
            yield "error", f"population {name}", found, allowed, "join the projections' targets"


UNITS = tuple(
    f"memory_units.{k}"
    for k in (
        *("total_max", "per_neuron", "per_axon_in"),
        *("per_dense_synapse", "per_conv_tap", "axons_per_conv"),
    )
)
BITS = ("memory_bits.synapses_max", "memory_bits.per_weight", "memory_bits.spare")

RULES: tuple[Rule, ...] = (
    Rule(
        name="kinds",
        checks="populations and projections are of kinds that the chip has",
        keys=("constraints.unsupported",),
        run=_kinds,
    ),
    Rule(
        name="unproven",
        checks="nothing relies on what nobody has shown on the chip",
        keys=("constraints.unproven",),
        run=_unproven,
    ),
    Rule(
        name="weights",
        checks="stored weights (2 w) and exponents within the synapses' format",
        keys=("numeric.weight_bits", "numeric.weight_range", "numeric.weight_exp_range"),
        run=_weights,
    ),
    Rule(
        name="registers",
        checks="thresholds, decays and biases within their registers",
        keys=(
            "numeric.vth_mant_bits",
            "numeric.decay_bits",
            "numeric.bias_mant_bits_signed",
            "numeric.bias_exp_bits",
        ),
        run=_registers,
    ),
    Rule(
        name="delays",
        checks="axon delays within the synapses' field",
        keys=("numeric.delay_max",),
        run=_delays,
    ),
    Rule(
        name="samples",
        checks="no spike crosses from one sample into the next",
        keys=(),
        run=_samples,
    ),
    Rule(
        name="sums",
        checks="arriving sums fit the dendrite, as calibrated and for any input",
        keys=("numeric.dendritic_input_bits",),
        run=_sums,
    ),
    Rule(
        name="messages",
        checks="graded values fit a spike's payload",
        keys=("numeric.graded_payload_bits",),
        run=_messages,
    ),
    Rule(
        name="reset",
        checks="the reset interval, T, is a power of two",
        keys=("constraints.reset_interval_power_of_two",),
        run=_reset,
    ),
    Rule(
        name="conv-width",
        checks="no frame has a width at which the compiler drops results",
        keys=("constraints.conv_width_suspect",),
        run=_suspect,
    ),
    Rule(
        name="core-neurons",
        checks="a core holds a neuron's place",
        keys=("core.neurons_max",),
        run=_core("neurons"),
    ),
    Rule(
        name="core-synapses",
        checks="a core's synapse memory holds the synapses of one neuron at least",
        keys=("memory_units.synapses_max", *BITS),
        run=_core("synapses"),
    ),
    Rule(
        name="core-axons-in",
        checks="a core's table of incoming axons holds those of one neuron at least",
        keys=("core.axon_in_max",),
        run=_core("axons_in"),
    ),
    Rule(
        name="core-memory",
        checks="neurons, synapses and axons of a core fit its memory together",
        keys=UNITS,
        run=_core("memory"),
    ),
    Rule(
        name="core-axons-out",
        checks="a core's table of outgoing axons holds those of its neurons",
        keys=("core.axon_out_max",),
        run=_axons_out,
    ),
)
