"""Passes: plain functions Network -> Network, run in order by `schedule`.

What each requires and ensures is a predicate of this module, checked around it. Folding and
quantising come before there is a network, in the blocks (`stformer.nn.Block.quantise`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from stformer import fixedpoint as fx
from stformer.errors import InputError, Unsupported
from stformer.network import (
    Conv,
    Network,
    OneToOne,
    Population,
    Projection,
    Relay,
    is_graded,
)

Pass = Callable[[Network], Network]
Condition = Callable[[Network], bool]


@dataclass(frozen=True, slots=True)
class Step:
    """A pass and what holds around it.

    Attributes:
        run: the pass.
        ensures, requires: predicates on the network after and before; None for any network.
    """

    run: Pass
    ensures: Condition
    requires: Condition | None = None


def schedule(network: Network) -> Network:
    """A network that hardware can stream: latencies assigned, delays balanced and legal.

    Ensures: every projection has an axon delay its synapses can make; no projection but a
    relay's and recurrent ones has a delay, so nothing crosses from one sample to the next.

    Raises:
        InputError: a loop with too little delay, or a path that would have to wait longer than
            a synapse can.
    """
    for step in STEPS:
        fits = step.requires is None or step.requires(network)
        assert fits, f"{step.run.__name__} was given what it cannot take"
        network = step.run(network)
        assert step.ensures(network), f"{step.run.__name__} broke its promise"
    check_delays(network)
    return network


def timed(network: Network) -> bool:
    """No projection delivers before its synapse can: latencies are assigned."""
    return all(network.axon_delay(p) >= 0 for p in network.projections)


def flushed(network: Network) -> bool:
    """Convolutions need no axon delay; delays lead into relays, look ahead or are recurrent."""
    recurrent = {p.name for p in network.recurrent}
    rest = [p for p in network.projections if p.name not in recurrent]
    return timed(network) and all(
        (not isinstance(p, Conv) or network.axon_delay(p) == 0)
        and (p.delay <= 0 or isinstance(network[p.post], Relay))
        for p in rest
    )


def assign_latency(network: Network) -> Network:
    """Give every population the smallest latency its incoming projections allow.

    A synapse takes a step: the target of a source at latency L lives at L + 1 or later. Where
    two paths meet, the longest decides and the others wait (`Network.axon_delay`). The delay of
    a recurrent projection pays for its step, and so does a relay's; other delays become relays
    and pay for nothing here. Looking ahead is waiting for what comes: it adds to the latency.

    Ensures: `timed`; inputs at latency 0 where nothing forces otherwise.

    Raises:
        InputError: a loop whose delays do not cover its synapses.
    """
    latency = {p.name: 0 for p in network.populations}
    recurrent = {p.name for p in network.recurrent}
    step = {
        p.name: 1 - p.delay
        if p.name in recurrent or isinstance(network[p.post], Relay)
        else 1 - min(p.delay, 0)
        for p in network.projections
    }
    for _ in range(len(network.populations) + 1):
        changed = False
        for p in network.projections:  # sorted by target: one round does without recurrence
            needed = latency[p.pre] + step[p.name]
            if latency[p.post] < needed:
                latency[p.post] = needed
                changed = True
        if not changed:
            break
    else:
        loops = ", ".join(p.name for p in network.recurrent)
        raise InputError(
            f"network {network.name}",
            f"a loop with too little delay through {loops}",
            "loops whose delays add up to at least their number of projections",
        )
    populations = tuple(replace(p, latency=latency[p.name]) for p in network.populations)
    return replace_network(network, populations=populations)


def insert_relays(network: Network) -> Network:
    """Put relays where a projection must wait and its synapses cannot.

    Two cases. A delay of the computation (a temporal tap) becomes a shift register: one relay
    a step, each with an incoming delay of 1, where a backend keeps samples apart. A convolution
    has no delay of its own in Lava, so waiting for a longer path takes a relay a step too.
    Relays of one source are shared by all projections that need them. A recurrent projection
    is left as it is: a register would add the step that its loop does not have. One that looks
    ahead keeps its negative delay, which latency has paid for.

    Requires: `timed`. Ensures: `flushed`; spikes of every population that was there unchanged.

    Raises:
        Unsupported: a delayed graded source, since relays pass spikes only.
    """
    recurrent = {p.name for p in network.recurrent}
    relays: dict[str, list[Relay]] = {p.name: [] for p in network.populations}
    feeds: list[Projection] = []
    known: dict[tuple[str, int, int], str] = {}

    def relay(source: Population, delay: int, wait: int) -> str:
        """Name of the relay that sends what `source` sent `delay` ago, `wait` steps late."""
        if not delay and not wait:
            return source.name
        key = (source.name, delay, wait)
        if key not in known:
            if is_graded(source):
                raise Unsupported(
                    "relays", f"a delay of graded '{source.name}'", "relays pass spikes only"
                )
            before = relay(source, delay, wait - 1) if wait else relay(source, delay - 1, 0)
            name = f"{source.name}@{delay}" + (f"+{wait}" if wait else "")
            while name in network:  # scheduled before, or a user's own choice
                name += "#"
            new = Relay(name=name, shape=source.shape, latency=source.latency + wait)
            relays[source.name].append(new)
            feeds.append(
                OneToOne(
                    name=f"{before}>{name}",
                    pre=before,
                    post=name,
                    weight=2,
                    delay=0 if wait else 1,
                )
            )
            known[key] = name
        return known[key]

    projections: list[Projection] = []
    for p in network.projections:
        pre, post = network[p.pre], network[p.post]
        if p.name in recurrent or isinstance(post, Relay):
            projections.append(p)
            continue
        wait = network.axon_delay(p) - max(p.delay, 0) if isinstance(p, Conv) else 0
        ahead = min(p.delay, 0)
        projections.append(replace(p, pre=relay(pre, p.delay - ahead, wait), delay=ahead))
    populations = [q for p in network.populations for q in (p, *relays[p.name])]
    return replace_network(
        network, populations=tuple(populations), projections=tuple(feeds + projections)
    )


STEPS = (
    Step(assign_latency, ensures=timed),
    Step(insert_relays, ensures=flushed, requires=timed),
)


def check_delays(network: Network) -> None:
    """Raise InputError for a projection whose axon delay no synapse can make (0...62)."""
    for p in network.projections:
        if not 0 <= network.axon_delay(p) <= fx.AXON_DELAY_RANGE[1]:
            raise InputError(
                f"projection {p.name}",
                f"an axon delay of {network.axon_delay(p)}",
                f"0...{fx.AXON_DELAY_RANGE[1]}",
                "shorten the parallel path that it waits for",
            )


def replace_network(
    network: Network,
    *,
    populations: tuple[Population, ...] | None = None,
    projections: tuple[Projection, ...] | None = None,
    source: str | None = None,
) -> Network:
    """The same network with other parts, checked anew."""
    return Network(
        name=network.name,
        steps=network.steps,
        populations=network.populations if populations is None else populations,
        projections=network.projections if projections is None else projections,
        source=network.source if source is None else source,
    )
