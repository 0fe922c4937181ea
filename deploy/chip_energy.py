"""What a sample would cost on a chip. Estimates, all of them: nothing here was measured.

::

    E = synops * e_synop + N * T * e_update + messages * e_out + hops * e_hop
        + P_static * chips * t
    t = T * (max over cores(synops * t_synop + n * t_update + ...) + t_barrier)

Two sets of constants (Davies 2018 and a fit to silicon, both of Loihi 1), for Loihi 2 also the
speed-ups that its maker claims, and values from the one public measurement of a network of
spiking neurons. They differ by more than an order of magnitude; none of them is a bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stformer.deploy.energy import Activity
from stformer.deploy.mapping import Mapped
from stformer.deploy.traffic import Flow, cores_of, flows
from stformer.hardware_configs import Value
from stformer.hardware_configs.schema import Energy, Latency
from stformer.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What an average sample does to the chip.

    Attributes:
        synops, messages, hops: over all projections.
        updates: neurons times steps.
        busiest: (population, synops, neurons, messages out, messages in) of an average core of
            each population, a step.
        most_neurons: in the fullest core.
        steps, chips: T; chips that the cores fill.
    """

    synops: float
    messages: float
    hops: float
    updates: int
    busiest: tuple[tuple[str, float, float, float, float], ...]
    most_neurons: float
    steps: int
    chips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One estimate of a sample's cost.

    Attributes:
        name: of the set of constants; `about` says where it comes from.
        dynamic: item -> joules.
        step, sample: seconds; a sample's T steps in a full pipeline.
        static: joules of the chips' static power over a sample.
        slowest: population whose cores decide the step; empty where that is not modelled.
        used: the target's numbers that went in.
    """

    name: str
    about: str
    dynamic: dict[str, float]
    step: float
    sample: float
    static: float
    slowest: str
    used: tuple[Value[Any], ...]

    @property
    def total(self) -> float:
        return sum(self.dynamic.values()) + self.static


def load_of(network: Network, mapped: Mapped, seen: Activity) -> Load:
    """Events of an average sample, from a run and a placement."""
    found = flows(network, mapped, seen)
    cores = {p.demand.population: cores_of(p) for p in mapped.places}
    system = mapped.hardware.system
    assert system is not None
    return Load(
        synops=sum(f.synops for f in found),
        messages=sum(f.messages for f in found),
        hops=sum(f.hops for f in found),
        updates=sum(p.demand.neurons for p in mapped.places if p.demand.kind != "Input")
        * network.steps,
        busiest=tuple(
            _core(name, found, network.steps * count, place.cut.load.neurons)
            for (name, count), place in zip(cores.items(), mapped.places, strict=True)
        ),
        most_neurons=max(p.cut.load.neurons for p in mapped.places),
        steps=network.steps,
        chips=-(-sum(cores.values()) // system.cores_per_chip_usable.value),
    )


def _core(
    name: str, found: tuple[Flow, ...], shares: int, neurons: float
) -> tuple[str, float, float, float, float]:
    """One core's share of a population's work in a step: sums divided by cores * steps."""
    synops = sum(f.synops for f in found if f.post == name) / shares
    sent = sum(f.messages for f in found if f.pre == name) / shares
    received = sum(f.messages for f in found if f.post == name) / shares
    return name, synops, neurons, sent, received


def estimates(load: Load, mapped: Mapped) -> Iterator[Estimate]:
    """Every estimate that the target has constants for; none for a simulator."""
    h = mapped.hardware
    if h.energy is None or h.latency is None:
        return
    assert h.energy_conservative is not None and h.latency_conservative is not None
    assert h.energy.static_power_chip is not None
    static = h.energy.static_power_chip
    sets = (
        ("nominal", h.energy, h.latency, "Davies 2018, before silicon; synops are a minimum"),
        (
            "conservative",
            h.energy_conservative,
            h.latency_conservative,
            "fitted to Loihi 1's silicon; the larger of two sources for each item",
        ),
    )
    for name, energy, latency, about in sets:
        step, slowest, used = _step(load, latency)
        yield _estimate(name, about, load, energy, static, step, slowest, used)
    if h.latency.synop_speedup_vendor is not None:
        step, slowest, used = _claimed(load, h.latency)
        about = "nominal energies at the speed that Loihi 2's maker claims against Loihi 1"
        yield _estimate("claimed speed", about, load, h.energy, static, step, slowest, used)
    per_neuron, seconds = h.energy.empirical_per_neuron_step, h.latency.empirical_per_neuron
    if per_neuron is not None and seconds is not None:
        step = seconds.value * load.most_neurons
        yield Estimate(
            name="empirical",
            about="energy per neuron and step, time per neuron of the fullest core, of the one "
            "public measurement (PilotNet); a single point",
            dynamic={"neurons": per_neuron.value * load.updates},
            step=step,
            sample=step * load.steps,
            static=static.value * load.chips * step * load.steps,
            slowest="",
            used=(per_neuron, seconds, static),
        )


def _estimate(
    name: str,
    about: str,
    load: Load,
    energy: Energy,
    static: Value[float],
    step: float,
    slowest: str,
    used: tuple[Value[Any], ...],
) -> Estimate:
    items = (
        ("synops", load.synops, energy.synop),
        ("neuron updates", load.updates, energy.neuron_update),
        ("messages out", load.messages, energy.spike_out),
        ("hops", load.hops, energy.hop),
    )
    return Estimate(
        name=name,
        about=about,
        dynamic={item: n * price.value for item, n, price in items if price is not None},
        step=step,
        sample=step * load.steps,
        static=static.value * load.chips * step * load.steps,
        slowest=slowest,
        used=(*(price for _, _, price in items if price is not None), *used, static),
    )


Step = tuple[float, str, tuple[Value[Any], ...]]


def _step(load: Load, latency: Latency) -> Step:
    """(seconds of a step, the population that decides them, numbers used)."""
    barrier = latency.barrier
    if load.chips > 1 and latency.barrier_multichip is not None:
        barrier = latency.barrier_multichip
    prices = (latency.synop, latency.neuron_update, latency.spike_out, latency.message_in)
    costs = [p.value if p is not None else 0.0 for p in prices]
    work, slowest = _slowest(load, costs)
    used = tuple(p for p in (*prices, barrier) if p is not None)
    return work + barrier.value, slowest, used


def _claimed(load: Load, latency: Latency) -> Step:
    fast, update = latency.synop_speedup_vendor, latency.neuron_update_speedup_vendor
    floor = latency.barrier_vendor
    assert fast is not None and update is not None and floor is not None
    costs = [latency.synop.value / fast.value, latency.neuron_update.value / update.value, 0, 0]
    work, slowest = _slowest(load, costs)
    used = (latency.synop, latency.neuron_update, fast, update, floor)
    return max(work, floor.value), slowest, used


def _slowest(load: Load, costs: list[float]) -> tuple[float, str]:
    return max(
        (sum(n * cost for n, cost in zip(events, costs, strict=True)), name)
        for name, *events in load.busiest
    )
