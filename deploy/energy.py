"""Operations a sample costs, and the paper's estimate of its energy (Eq. 13).

::

    E = E_MAC * FL_conv + E_AC * (FL_STCore + FL_SGA + FL_STMLP)

FL_conv are the multiply-accumulates of the convolution that reads the input (numbers); all other
synapses carry spikes and only add, as often as their source fires: an operation there counts
with its source's firing rate. The paper's own formula names no rates; `literal` has none.
Operations are counted as for dense tensors, padding included, over all T steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from stformer.errors import InputError
from stformer.network import (
    Conv,
    Dense,
    Input,
    Network,
    Operand,
    Product,
    Projection,
    Readout,
    neurons,
)
from stformer.parts import PARTS, part_of
from stformer.trace import Trace

E_MAC = 4.6e-12  # J, 45 nm, 32-bit floats (Horowitz 2014, as the paper's 3.5 has it)
E_AC = 0.9e-12

TERMS = {  # of Eq. 13, and the parts of the model that are in each
    "FL_conv": ("stem",),
    "FL_STCore": ("spatial", "rpe", "temporal"),
    "FL_SGA": ("attention",),
    "FL_STMLP": ("MLP",),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Activity:
    """What each neuron sent over a run.

    Attributes:
        network: digest of what ran.
        samples, steps: how long.
        sent: population -> int64 [*shape], messages that are not 0 over all samples and steps.
    """

    network: str
    samples: int
    steps: int
    sent: Mapping[str, npt.NDArray[np.int64]]

    def rate(self, population: str) -> float:
        """Messages per neuron and step, 0...1."""
        return float(self.sent[population].mean()) / (self.samples * self.steps)


def activity(network: Network, traces: Iterable[Trace]) -> Activity:
    """Add up traces of one network, one at a time.

    Raises:
        InputError: no samples, a trace of another network or without a population.
    """
    digest = network.digest()
    sent = {p.name: np.zeros(p.shape, np.int64) for p in network.populations}
    samples = 0
    for trace in traces:
        if trace.network != digest:
            found = f"spikes of network {trace.network[:12]}"
            raise InputError(
                f"trace of {trace.backend}", found, f"of {digest[:12]}, {network.name}"
            )
        samples += trace.samples
        for name, total in sent.items():
            total += np.count_nonzero(trace[name], axis=(0, 1))
    if not samples:
        raise InputError("rates", "no samples", "at least one")
    return Activity(network=digest, samples=samples, steps=network.steps, sent=sent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """Operations of one projection, or of one product, over a sample.

    Attributes:
        name: of the projection or product.
        part: of the model, a key of `stformer.parts.PARTS`.
        dense: operations if every source fired at every step.
        source: population whose rate decides how many of them happen.
        multiplies: they are multiply-accumulates, since the source is an input.
    """

    name: str
    part: str
    dense: int
    source: str
    multiplies: bool


def operations(network: Network) -> tuple[Operations, ...]:
    """What is counted: learnt synapses and products. Gates, joins and pools are not."""
    found = []
    for p in network.populations:
        incoming = network.incoming(p.name)
        if isinstance(p, Product):
            found.append(_product(network, p, incoming))
            continue
        for q in incoming:
            if isinstance(q, (Dense, Conv)) and not _fixed(q):
                pre = network[q.pre]
                found.append(
                    Operations(
                        name=q.name,
                        part="head" if isinstance(p, Readout) else part_of(p.name),
                        dense=_dense(network, q) * network.steps,
                        source=pre.name,
                        multiplies=isinstance(pre, Input),
                    )
                )
    return tuple(found)


def _fixed(q: Dense | Conv) -> bool:
    """Whether it is a gate's: one weight everywhere, as pools and sums over heads have it."""
    return q.weight.size > 1 and q.weight.min() == q.weight.max()


def _dense(network: Network, q: Dense | Conv) -> int:
    places = prod(network[q.post].shape[1:]) if isinstance(q, Conv) else 1
    return q.weight.size * places


def _product(network: Network, p: Product, incoming: tuple[Projection, ...]) -> Operations:
    """Q K^T adds where Q fires, (Q K^T) V where V does."""
    ports = {q.port: network[q.pre] for q in incoming if isinstance(q, Operand)}
    right = ports["right"]
    terms = right.shape[0] // p.heads if p.mode == "scores" else prod(right.shape[1:])
    return Operations(
        name=p.name,
        part=part_of(p.name),
        dense=neurons(p) * terms * network.steps,
        source=ports["left" if p.mode == "scores" else "right"].name,
        multiplies=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEnergy:
    """One part of a model, for one sample.

    Attributes:
        part: a key of `stformer.parts.PARTS`.
        dense: operations if every source fired at every step.
        mac: multiply-accumulates among them.
        ac: additions that happen: the others, each with its source's rate.
        energy: E_MAC * mac + E_AC * ac, joules.
        ann: E_MAC * dense, joules: the same network on numbers, every step.
    """

    part: str
    dense: int
    mac: int
    ac: float
    energy: float
    ann: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperEnergy:
    """Eq. 13 of a network.

    Attributes:
        parts: those that have operations, in the model's order.
        steps: T.
    """

    parts: tuple[PartEnergy, ...]
    steps: int

    def term(self, name: str) -> float:
        """MACs of FL_conv, additions of the other TERMS."""
        parts = [p for p in self.parts if p.part in TERMS[name]]
        return sum(p.mac if name == "FL_conv" else p.ac for p in parts)

    @property
    def total(self) -> float:
        """Eq. 13 with rates, joules a sample; what is in none of its terms is left out."""
        additions = sum(self.term(t) for t in TERMS if t != "FL_conv")
        return E_MAC * self.term("FL_conv") + E_AC * additions

    @property
    def literal(self) -> float:
        """Eq. 13 as it is printed, every addition happening, joules a sample."""
        inside = [p for p in self.parts if any(p.part in parts for parts in TERMS.values())]
        return sum(E_MAC * p.mac + E_AC * (p.dense - p.mac) for p in inside)

    @property
    def rest(self) -> float:
        """Energy of the parts that Eq. 13 leaves out (the head), joules a sample."""
        return sum(p.energy for p in self.parts) - self.total

    @property
    def ann(self) -> float:
        """The same operations as multiply-accumulates in every step, joules a sample."""
        return sum(p.ann for p in self.parts)

    @property
    def ann_once(self) -> float:
        """The same network run once, as one without time would, joules a sample."""
        return self.ann / self.steps


def paper_energy(network: Network, rates: Mapping[str, float]) -> PaperEnergy:
    """Eq. 13 for a network.

    Args:
        network: of any origin; what reads an input counts as FL_conv if its part is the stem.
        rates: population -> spikes per neuron and step, of every source that is no input.
    """
    found = operations(network)
    parts = []
    for part in PARTS:
        some = [o for o in found if o.part == part]
        if not some:
            continue
        mac = sum(o.dense for o in some if o.multiplies)
        ac = sum(o.dense * rates[o.source] for o in some if not o.multiplies)
        dense = sum(o.dense for o in some)
        parts.append(
            PartEnergy(
                part=part,
                dense=dense,
                mac=mac,
                ac=ac,
                energy=E_MAC * mac + E_AC * ac,
                ann=E_MAC * dense,
            )
        )
    return PaperEnergy(parts=tuple(parts), steps=network.steps)
