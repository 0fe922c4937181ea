"""One population alone, with the spikes that a trace recorded for its sources.

Replay separates a population that is wrong from one that was fed wrong spikes: what it sends on
the replay is what the definition would have sent given those very inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stformer import fixedpoint as fx
from stformer.errors import InputError
from stformer.interpret import Int64, multiply, synapse
from stformer.network import (
    Graded,
    Input,
    IntArray,
    Lif,
    Network,
    Operand,
    Population,
    Product,
    Readout,
    Relay,
    bias_of,
)
from stformer.rules import DEFINITION, Rules, States, step
from stformer.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replayed:
    """What a population does with given inputs; every array is int64 [S, T, *shape].

    Attributes:
        arriving: sum of weight * spike over all its projections; for a product, the product.
        spikes: what it sends; a readout sends v.
        u, v: after the step and its reset; None where the kind has none.
        membrane: v before threshold and reset; None where the kind has none.
    """

    arriving: Int64
    spikes: Int64
    u: Int64 | None = None
    v: Int64 | None = None
    membrane: Int64 | None = None


def replay(network: Network, name: str, trace: Trace) -> Replayed:
    """Run one population with its sources' spikes taken from a trace.

    Args:
        network: what the trace should be a trace of.
        name: anything but an input.
        trace: must hold the population's sources; relays that it lacks are worked out.

    Raises:
        InputError: the population is an input, or a source is not in the trace.
    """
    population = network[name]
    if isinstance(population, Input):
        raise InputError(f"population {name}", "an input", "a population that computes")
    lacking = [p.pre for p in network.incoming(name) if sent(network, trace, p.pre) is None]
    if lacking:
        raise InputError(
            f"replay of {name}",
            f"no record of {', '.join(lacking)} in the trace of {trace.backend}",
            "a trace of all its sources",
        )
    everything = np.arange(trace.samples)
    parts = arriving_parts(network, name, trace, everything)
    assert parts is not None
    shape = (trace.samples, trace.steps, *population.shape)
    return integrate(population, total(network, name, parts, delays(network, name), shape))


def sent(network: Network, trace: Trace, name: str) -> IntArray | None:
    """What a population sent, [S, T, *shape]; None when the trace does not tell.

    A backend that has no relays (they compute nothing) leaves them out of its trace; they are
    worked out from what feeds them.
    """
    if name in trace.spikes:
        return trace.spikes[name]
    if isinstance(network[name], Relay):
        (feed,) = network.incoming(name)
        source = sent(network, trace, feed.pre)
        return None if source is None else delayed(source >= 1, feed.delay)
    return None


def needed(network: Network, name: str) -> set[str]:
    """Populations of whose records a replay can make use: it, its sources, theirs if relays."""
    found, left = {name}, [p.pre for p in network.incoming(name)]
    while left:
        source = left.pop()
        if source not in found and isinstance(network[source], Relay):
            left += [p.pre for p in network.incoming(source)]
        found.add(source)
    return found


def delayed(x: npt.NDArray[Any], steps: int) -> npt.NDArray[Any]:
    """x[:, t - steps] at t, 0 where there is none; nothing crosses from sample to sample."""
    if not steps:
        return x
    out = np.zeros_like(x)
    if steps > 0:
        out[:, steps:] = x[:, : max(x.shape[1] - steps, 0)]
    else:
        out[:, : max(x.shape[1] + steps, 0)] = x[:, -steps:]
    return out


def arriving_parts(
    network: Network, name: str, trace: Trace, samples: npt.NDArray[np.intp]
) -> dict[str, Int64] | None:
    """Projection -> what it adds before its delay, [len(samples), T, *shape].

    An operand adds nothing: its part is the factor that it is. The delay is left to `total`,
    so that other delays can be tried without other products.
    None when the trace lacks a source.
    """
    post = network[name].shape
    parts: dict[str, Int64] = {}
    for projection in network.incoming(name):
        source = sent(network, trace, projection.pre)
        if source is None:
            return None
        spikes = source[samples].astype(np.int64)
        if isinstance(projection, Operand):
            parts[projection.name] = spikes
            continue
        frames = [synapse(projection, spikes[:, t], post) for t in range(spikes.shape[1])]
        parts[projection.name] = np.stack(frames, axis=1)
    return parts


def delays(network: Network, name: str) -> dict[str, int]:
    """Projection -> delay, for all that lead to a population."""
    return {p.name: p.delay for p in network.incoming(name)}


def total(
    network: Network,
    name: str,
    parts: Mapping[str, Int64],
    delay_of: Mapping[str, int],
    shape: Sequence[int],
) -> Int64:
    """Arriving sums (of a product, the product): the parts that have a delay here, delayed."""
    population = network[name]
    there = {q: delayed(parts[q], delay) for q, delay in delay_of.items()}
    if isinstance(population, Product):
        ports = {
            p.port: there[p.name].reshape(-1, *there[p.name].shape[2:])
            for p in network.incoming(name)
            if isinstance(p, Operand) and p.name in there
        }
        if len(ports) == 2:
            return multiply(population, ports["left"], ports["right"]).reshape(tuple(shape))
        return np.zeros(tuple(shape), np.int64)
    a = np.zeros(tuple(shape), np.int64)
    for part in there.values():
        a += part
    return a


def integrate(population: Population, a_ST: Int64, rules: Rules = DEFINITION) -> Replayed:
    """Give a population its arriving sums and see what it does, each sample from rest.

    Args:
        population: not an Input.
        a_ST: [S, T, *shape].
        rules: what its neurons obey; what relays, graded populations and products do is fixed.

    Returns:
        No states where the rules keep fractions in them: records hold whole numbers.
    """
    if isinstance(population, Relay):
        return Replayed(arriving=a_ST, spikes=(a_ST >= 2).astype(np.int64))
    if isinstance(population, Product):
        return Replayed(arriving=a_ST, spikes=fx.clip(a_ST))
    if isinstance(population, Graded):
        sent_: Int64 = fx.graded(a_ST, bias_of(population), population.shift)
        return Replayed(arriving=a_ST, spikes=sent_)
    assert isinstance(population, (Lif, Readout))
    a = a_ST.reshape(1, -1, *a_ST.shape[2:]) if rules.carry else a_ST
    fractions = rules.rounding == "none"
    u: States = np.zeros((len(a), *a.shape[2:]), np.float64 if fractions else np.int64)
    v = u
    rows: list[tuple[States, ...]] = []
    for t in range(a.shape[1]):
        spikes, u, v, membrane = step(population, rules, u, v, a[:, t], t % a_ST.shape[1])
        rows.append((spikes, u, v, membrane))
    s_, u_, v_, m_ = (np.stack(x, axis=1).reshape(a_ST.shape) for x in zip(*rows, strict=True))
    if fractions:
        return Replayed(arriving=a_ST, spikes=np.trunc(s_).astype(np.int64))
    return Replayed(
        arriving=a_ST, spikes=s_, u=u_ if isinstance(population, Lif) else None, v=v_, membrane=m_
    )
