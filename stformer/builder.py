"""Builds a `Network` piece by piece: what blocks do when called with wires, not tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stformer.errors import Unsupported
from stformer.network import Network, Population, Projection, Shape


@dataclass(frozen=True, slots=True)
class Wire:
    """Spikes on their way: the sum of what one or more populations send.

    Adding wires adds their spikes; a block puts one projection per member onto its population,
    which sums them exactly and without a graded message.

    Attributes:
        builder: where the populations are.
        members: names of populations of one shape.
        shape: theirs.
    """

    builder: Builder
    members: tuple[str, ...]
    shape: Shape

    def __add__(self, other: Wire) -> Wire:
        if not isinstance(other, Wire) or other.shape != self.shape:
            raise Unsupported("lowering", "+", "only spikes of one shape can be added")
        return Wire(self.builder, self.members + other.members, self.shape)

    @property
    def only(self) -> str:
        """The one member; Unsupported when there are several, since gates want single spikes."""
        if len(self.members) != 1:
            raise Unsupported(
                "lowering",
                " + ".join(self.members),
                "a gate or pool takes single spikes, not a sum",
            )
        return self.members[0]


class Builder:
    """Collects populations and projections in the order in which a model calls its blocks."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps = name, steps
        self.populations: list[Population] = []
        self.projections: list[Projection] = []

    def add(self, population: Population) -> Wire:
        """Add a population; sources come before targets because models call them so."""
        self.populations.append(population)
        return Wire(self, (population.name,), population.shape)

    def connect(self, wire: Wire, post: str, template: Projection) -> str:
        """Add `template` from every member of the wire to `post`; returns the first one's name."""
        names = []
        for member in wire.members:
            stem = f"{member}>{post}" + (f"@{template.delay}" if template.delay else "")
            same = sum(p.name == stem or p.name.startswith(f"{stem}#") for p in self.projections)
            names.append(f"{stem}#{same + 1}" if same else stem)
            self.projections.append(replace(template, name=names[-1], pre=member, post=post))
        return names[0]

    def build(self) -> Network:
        """The network as collected: no latencies yet, see `stformer.passes.schedule`."""
        return Network(
            name=self.name,
            steps=self.steps,
            populations=tuple(self.populations),
            projections=tuple(self.projections),
        )
