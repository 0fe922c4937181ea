"""Does a network fit a target: rules, cores, chips, and what would fit where it does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isfinite
from typing import Any

from stformer import hardware_configs
from stformer.deploy.demand import Demand, demands, scaled
from stformer.deploy.rules import RULES, Finding, Subject, check, used_by
from stformer.deploy.tiling import ASSUMED, RESOURCES, Cut, cut
from stformer.hardware_configs import Hardware, Value
from stformer.network import Network

WIDTHS = tuple(Fraction(n, 8) for n in (7, 6, 5, 4, 3, 2, 1))
SIDES = tuple(Fraction(n, 8) for n in (7, 6, 5, 4, 3, 2, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A population on cores.

    Attributes:
        demand, cut: what it asks for, and how it is cut.
        first: index of its first core on the board; the others follow. None where it does not
            fit on cores at all.
    """

    demand: Demand
    cut: Cut
    first: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A change under which the rules of cores and chips would hold.

    Attributes:
        change: "width", "tokens" or "board".
        detail: how much, in words.
        cores: it would take.
    """

    change: str
    detail: str
    cores: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """What `map_network` found.

    Attributes:
        network, digest: what was mapped.
        hardware: onto what.
        places: in the network's order; empty for a target without cores.
        findings: of all rules, `chips` among them.
        alternatives: where cores or chips do not suffice.
        cores, least: estimate and lower bound, over the populations that fit on cores.
        there: cores of the board; 0 where there are none to fill.
    """

    network: str
    digest: str
    hardware: Hardware
    places: tuple[Place, ...]
    findings: tuple[Finding, ...]
    alternatives: tuple[Alternative, ...]
    cores: int
    least: int
    there: int

    @property
    def fits(self) -> bool:
        return not any(f.severity == "error" for f in self.findings)

    @property
    def stuck(self) -> bool:
        """Whether cores do not suffice, whatever the other rules say."""
        return self.cores > self.there or any(p.cut.cores is None for p in self.places)

    @property
    def chips(self) -> int:
        """Chips that the cores fill."""
        system = self.hardware.system
        return -(-self.cores // system.cores_per_chip_usable.value) if system else 0

    @property
    def used(self) -> tuple[Value[Any], ...]:
        """Every value of the target that the result depends on, each once."""
        keys = dict.fromkeys(v for r in RULES for v in used_by(r, self.hardware))
        system = self.hardware.system
        extra = (system.chips, system.cores_per_chip_usable) if system else ()
        return (*keys, *extra)

    @property
    def assumptions(self) -> tuple[Value[Any], ...]:
        return tuple(v for v in self.used if v.basis == "assumption")


def map_network(
    network: Network, hardware: Hardware, *, sums: Mapping[str, int] | None = None
) -> Mapped:
    """Check a network against a target and place its populations on cores.

    Args:
        network: scheduled.
        hardware: of `stformer.hardware_configs.load`.
        sums: population -> largest arriving sum over a calibration set (`stformer compile`
            leaves it in a model's provenance); without it, sums are bounded from weights alone.
    """
    found = demands(network)
    has_cores = hardware.core is not None
    cuts = {d.population: cut(hardware, d) for d in found} if has_cores else {}
    places = _place(found, cuts)
    cores = sum(c.cores or 0 for c in cuts.values())
    there = _there(hardware)
    findings = check(
        Subject(
            network=network,
            hardware=hardware,
            cuts=cuts,
            demands={d.population: d for d in found},
            sums=sums or {},
        )
    )
    if has_cores and cores > there:
        findings = (*findings, _too_many(cores, there, hardware))
    mapped = Mapped(
        network=network.name,
        digest=network.digest(),
        hardware=hardware,
        places=places,
        findings=findings,
        alternatives=(),
        cores=cores,
        least=sum(c.least or 0 for c in cuts.values()),
        there=there,
    )
    if not mapped.stuck:
        return mapped
    return replace(mapped, alternatives=tuple(_alternatives(found, hardware)))


def _place(found: Iterable[Demand], cuts: Mapping[str, Cut]) -> tuple[Place, ...]:
    """Populations one after the other, each on cores of its own."""
    places = []
    first = 0
    for demand in found:
        if (c := cuts.get(demand.population)) is not None:
            places.append(Place(demand=demand, cut=c, first=None if c.cores is None else first))
            first += c.cores or 0
    return tuple(places)


def _there(hardware: Hardware) -> int:
    system = hardware.system
    return system.chips.value * system.cores_per_chip_usable.value if system else 0


def _too_many(cores: int, there: int, hardware: Hardware) -> Finding:
    system = hardware.system
    assert system is not None
    return Finding(
        rule="chips",
        severity="error",
        where="network",
        found=f"{cores:,} cores",
        allowed=f"{there:,} on {system.chips.value:,} of {hardware.name}'s chips",
        do="see the alternatives",
    )


def _total(found: Iterable[Demand], hardware: Hardware) -> int | None:
    """Cores that demands take; None where one of them fits on no core."""
    total = 0
    for demand in found:
        cores = cut(hardware, demand).cores
        if cores is None:
            return None
        total += cores
    return total


def _alternatives(found: tuple[Demand, ...], hardware: Hardware) -> Iterable[Alternative]:
    """The least change of each kind that makes it fit."""
    there = _there(hardware)
    total = _total(found, hardware)
    if total is not None:
        yield from _boards(total, hardware)
    for width in WIDTHS:
        changed = _total(scaled(found, width=width), hardware)
        if changed is not None and changed <= there:
            detail = f"{width} of every population's channels"
            yield Alternative(change="width", detail=detail, cores=changed)
            break
    for side in SIDES:
        changed = _total(scaled(found, side=side), hardware)
        if changed is not None and changed <= there:
            detail = f"frames of {side} the height and width, {side * side} of the tokens"
            yield Alternative(change="tokens", detail=detail, cores=changed)
            break


def _boards(total: int, hardware: Hardware) -> Iterable[Alternative]:
    boards = [hardware_configs.load(name) for name in hardware_configs.available()]
    same = [b for b in boards if b.generation == hardware.generation and _there(b) >= total]
    for board in sorted(same, key=_there)[:1]:
        detail = f"{board.name}, {_there(board):,} cores"
        yield Alternative(change="board", detail=detail, cores=total)


def limit_name(found: Cut) -> str:
    """The resource that a population's number of cores comes from, in words."""
    return RESOURCES[found.limited_by]


def measured_sums(network: Network, provenance: Mapping[str, object]) -> dict[str, int]:
    """Largest arriving sums that compiling measured, as far as the file has them."""
    measured = provenance.get("largest_sums")
    if not isinstance(measured, dict):
        return {}
    return {
        name: value
        for name, value in measured.items()
        if name in network and isinstance(value, int)
    }


def to_json(found: Mapped) -> dict[str, Any]:
    """Everything that `stformer map` tells, as plain data."""
    hardware = found.hardware
    return {
        "network": found.network,
        "digest": found.digest,
        "hardware": hardware.name,
        "files": list(hardware.files),
        "fits": found.fits,
        "cores": found.cores,
        "cores_at_least": found.least,
        "cores_there": found.there,
        "chips": found.chips,
        "populations": [_plain_place(p) for p in found.places],
        "rules": [
            {
                "name": r.name,
                "checks": r.checks,
                "values": [v.plain() for v in used_by(r, hardware)],
                "findings": sum(f.rule == r.name for f in found.findings),
            }
            for r in RULES
        ],
        "findings": [
            {
                "rule": f.rule,
                "severity": f.severity,
                "where": f.where,
                "found": f.found,
                "allowed": f.allowed,
                "do": f.do,
            }
            for f in found.findings
        ],
        "alternatives": [
            {"change": a.change, "detail": a.detail, "cores": a.cores} for a in found.alternatives
        ],
        "assumptions": [v.plain() for v in found.assumptions],
        "assumed": list(ASSUMED) if found.there else [],
    }


def _plain_place(p: Place) -> dict[str, Any]:
    cut = p.cut
    return {
        "name": p.demand.population,
        "kind": p.demand.kind,
        "neurons": p.demand.neurons,
        "cores": cut.cores,
        "cores_at_least": cut.least,
        "first_core": p.first,
        "tile": {"x": cut.tile.x, "y": cut.tile.y, "channels": cut.tile.c},
        "limited_by": RESOURCES[cut.limited_by],
        "fullest_core": {
            name: {"used": used, "share": share}
            for name, used, share in zip(cut.load._fields, cut.load, cut.share, strict=True)
            if isfinite(used) and share > 0
        },
    }
