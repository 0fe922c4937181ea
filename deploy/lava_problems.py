"""What of a network Lava processes cannot run exactly; plain arithmetic, no Lava import.

Process models of ours ("fast") run what stock ones cannot: graded populations, products, delays
within a sample. What remains for them are sums beyond Lava's arithmetic and too long a delay.
"""

from __future__ import annotations

from collections.abc import Iterator

from stformer import fixedpoint as fx
from stformer.bounds import bounds
from stformer.errors import Problem
from stformer.network import (
    Conv,
    Graded,
    Lif,
    Network,
    Product,
    Relay,
)

SCHEDULE = "run stformer.passes.schedule"
SMALLER = "use smaller weights, exponents or input values"
FAST = "use the backend 'lava-sim-fast'"
INT8_MAX = 127  # type of Lava's stride, padding, dilation and groups (proc/conv/models.py:24-28)
CONV_LIMIT = 2**23  # Lava's convolution wraps its sums to signed 24 bits (models.py:78)
GRADED_LIMIT = 2**30 - 1  # synapses add up doubled weights in int32 (lava_build)
SUM_LIMIT = 2**31 - 2**24  # Lava adds u, v and bias in int32 (proc/lif/models.py:154-185)


def find_problems(network: Network, models: str = "stock") -> list[Problem]:
    """Every object of the network that Lava cannot run exactly, and what would work.

    Args:
        network: with latencies assigned, or that is the problem.
        models: whose process models, "stock" or "fast".
    """
    stock = models == "stock"
    found = [*(_kinds(network) if stock else ()), *_timing(network, stock)]
    if not found:
        for projection in network.projections:
            if isinstance(projection, Conv):
                found += _wraps(network, projection)
                found += _int8(network, projection) if stock else ()
        found += _sums(network)
    return found


def _kinds(network: Network) -> Iterator[Problem]:
    for p in network.populations:
        if isinstance(p, (Graded, Product)):
            why = f"stock Lava has no process for a {type(p).__name__}"
            yield Problem(where=f"population {p.name}", why=f"{why}; {FAST}")


def _timing(network: Network, stock: bool) -> Iterator[Problem]:
    recurrent = {p.name for p in network.recurrent}
    for p in network.projections:
        where, wait = f"projection {p.name}", network.axon_delay(p)
        if wait < 0:
            yield Problem(where=where, why=f"latencies are not assigned; {SCHEDULE}")
        elif wait > fx.AXON_DELAY_RANGE[1]:
            why = f"an axon delay of {wait}; a synapse holds up to {fx.AXON_DELAY_RANGE[1]}"
            yield Problem(where=where, why=why)
        elif not stock:
            continue
        elif p.name in recurrent:
            why = "recurrence; its delay lines would carry spikes from one sample into the next"
            yield Problem(where=where, why=f"{why}; {FAST}")
        elif p.delay < 0:
            why = f"it looks {-p.delay} ahead, which would bring spikes of the next sample"
            yield Problem(where=where, why=f"{why}; {FAST}, or causal taps")
        elif p.delay and not isinstance(network[p.post], Relay):
            why = f"a delay of {p.delay} would carry spikes from one sample into the next"
            yield Problem(where=where, why=f"{why}; {SCHEDULE}, which makes it relays")
        elif wait and isinstance(p, Conv):
            why = f"an axon delay of {wait}, and Lava's convolution has none"
            yield Problem(where=where, why=f"{why}; {SCHEDULE}, which makes it relays")


def _int8(network: Network, p: Conv) -> Iterator[Problem]:
    where = f"projection {p.name}"
    sizes = network[p.pre].shape[1:]
    if p.groups > INT8_MAX:
        why = f"{p.groups} groups; Lava keeps them in int8 (<= {INT8_MAX})"
        yield Problem(where=where, why=f"{why}; {FAST}")
    for size, kernel, stride, padding, dilation in zip(
        sizes, p.weight.shape[2:], p.stride, p.padding, p.dilation, strict=True
    ):
        reach = dilation * (kernel - 1) + 1
        # Lava computes its output's size in int8 where the input's size fits (conv/utils.py:130).
        padded = size + 2 * padding if size <= INT8_MAX else 2 * padding
        if max(stride, reach, dilation, padded) > INT8_MAX:
            why = (
                f"size {size}, kernel {kernel}, stride {stride}, padding {padding}, dilation "
                f"{dilation}: Lava computes in int8, so stride, dilation * (kernel - 1) + 1 and "
                f"size + 2 * padding (2 * padding alone from size 128 on) must be <= {INT8_MAX}"
            )
            yield Problem(where=where, why=f"{why}; {FAST}")


def _wraps(network: Network, p: Conv) -> Iterator[Problem]:
    if (worst := bounds(network).added[p.name]) >= CONV_LIMIT:
        why = f"sums could reach {worst}; Lava's convolution wraps at {CONV_LIMIT}"
        yield Problem(where=f"projection {p.name}", why=f"{why}; use smaller weights or exponents")


def _sums(network: Network) -> Iterator[Problem]:
    for population in network.populations:
        total = bounds(network).arriving[population.name]
        where = f"population {population.name}"
        if isinstance(population, Product):  # ours, which adds up in int64
            continue
        if isinstance(population, Graded):  # ours too, but fed through int32 ports
            if total > GRADED_LIMIT:
                yield Problem(where=where, why=f"arriving sums could reach {total}; {SMALLER}")
            continue
        # u adds up over time where it decays slowly; one wrap a step does not bound it.
        kept = 1
        if isinstance(population, Lif) and population.du < fx.NO_CURRENT:
            kept = min(network.steps, fx.DECAY_ONE // fx.current_decay(population.du) + 1)
        # A sum below 2^18 comes back into 24 bits by the one wrap of every step.
        runs_away = kept if total << fx.SHIFT > 2 * fx.STATE_MAX else 1
        if (total << fx.SHIFT) * runs_away > SUM_LIMIT:
            why = f"arriving sums could reach {total}, beyond Lava's int32 arithmetic"
            yield Problem(where=where, why=f"{why}; {SMALLER}")
