"""How many cores a population takes, and of which pieces; calibrated on public compiler tables.

Convolutions on Loihi 2: `cores` equals what the compiler used in all 15 rows of convolutions
printed in lava-dl's notebooks, dense layers lie between `least` and `cores` in all 9
(tests/test_tiling.py). The rules were chosen with those rows in sight, and the units are
inferred: an estimate. A population shares no core with another one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from stformer.deploy.demand import Demand, Fan
from stformer.hardware_configs import Hardware

ASSUMED = (
    "a population shares no core with another one",
    "one-to-one synapses, sums and broadcasts over tokens cost what a kernel of one channel does",
    "axon delays cost no memory",
    "inputs take cores as neurons without synapses do",
)
MARGIN = 1.5  # of dense layers over ideal packing: the compiler took 3 cores where 2 would do


class Load(NamedTuple):
    """What a core has to hold, or can: neurons, synapses (units or bits), axons, units in all."""

    neurons: float
    synapses: float
    axons_in: float
    memory: float


RESOURCES = {
    "neurons": "neurons",
    "synapses": "synapse memory",
    "axons_in": "input axons",
    "memory": "memory in all",
}


@dataclass(frozen=True, slots=True)
class Tile:
    """Neurons of one core: x by y pixels of c channels."""

    x: int
    y: int
    c: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A population cut into cores.

    Attributes:
        cores: how many, an estimate of the compiler's; None where not one neuron fits on one.
        least: the fewest that any rectangular tiles need.
        tile: the piece; `load` is the fullest core's, `share` the same against the limits. Where
            nothing fits, the load of one neuron.
        limited_by: key of RESOURCES that asks for the most cores.
    """

    cores: int | None
    least: int | None
    tile: Tile
    load: Load
    share: Load
    limited_by: str


def limits(hardware: Hardware) -> Load:
    """What one core of a target holds; a target without cores has no limits."""
    core, units, bits = hardware.core, hardware.memory_units, hardware.memory_bits
    if core is None:
        return Load(math.inf, math.inf, math.inf, math.inf)
    synapses: float = math.inf
    spare = 1.0
    if bits is not None:
        spare = 1 - bits.spare.value
        synapses = bits.synapses_max.value
    elif units is not None:
        synapses = units.synapses_max.value
    return Load(
        neurons=math.floor(spare * core.neurons_max.value),
        synapses=math.floor(spare * synapses),
        axons_in=math.floor(spare * core.axon_in_max.value),
        memory=math.inf if units is None else units.total_max.value,
    )


def load(hardware: Hardware, demand: Demand, tile: Tile) -> Load:
    """What the fullest core holds of a population cut into such tiles."""
    neurons = tile.x * tile.y * tile.c
    synapses = sum(synapse_memory(hardware, f, tile) for f in demand.fans)
    axons = sum(axons_in(hardware, f, tile) for f in demand.fans)
    units = hardware.memory_units
    memory = 0.0
    if units is not None:
        memory = units.per_neuron.value * neurons + synapses + units.per_axon_in.value * axons
    return Load(neurons, synapses, axons, memory)


def synapse_memory(hardware: Hardware, fan: Fan, tile: Tile) -> float:
    """Memory of one projection in one core: units on Loihi 2, bits on Loihi 1.

    Weights of a kernel are stored once, however many pixels the tile has.
    """
    units, bits = hardware.memory_units, hardware.memory_bits
    outputs = tile.x * tile.y * tile.c if fan.dense else tile.c
    stored = fan.sources if fan.dense else fan.taps * fan.channels
    if bits is not None:
        return stored * outputs * bits.per_weight.value
    if units is not None:
        price = units.per_dense_synapse.value if fan.dense else units.per_conv_tap.value
        return stored * math.ceil(price * outputs)
    return 0


def axons_in(hardware: Hardware, fan: Fan, tile: Tile) -> int:
    """Entries of the core's table of incoming axons."""
    if fan.dense:
        return fan.sources
    if hardware.memory_units is not None:
        return hardware.memory_units.axons_per_conv.value
    rows, columns = (
        min(size, (n - 1) * stride + reach)
        for size, n, stride, reach in zip(
            fan.size, (tile.y, tile.x), fan.stride, fan.reach, strict=True
        )
    )
    return rows * columns


@lru_cache(maxsize=4096)  # blocks of a transformer repeat
def cut(hardware: Hardware, demand: Demand) -> Cut:
    """Cut a population into cores."""
    most = limits(hardware)

    def fits(x: int, y: int, c: int) -> bool:
        return all(
            a <= b for a, b in zip(load(hardware, demand, Tile(x, y, c)), most, strict=True)
        )

    c, h, w = demand.shape
    # What asks for the most cores if everything could be divided evenly.
    whole = [a / b for a, b in zip(load(hardware, demand, Tile(w, h, c)), most, strict=True)]
    limiting = Load._fields[max(range(len(whole)), key=whole.__getitem__)]
    found = _flat(demand, fits, whole[1]) if demand.flat else _tiles(demand, fits)
    cores, least, tile = found or (None, None, Tile(1, 1, 1))
    used = load(hardware, demand, tile)
    share = Load(*(a / b for a, b in zip(used, most, strict=True)))
    if not found:
        limiting = Load._fields[max(range(len(share)), key=share.__getitem__)]
    return Cut(cores=cores, least=least, tile=tile, load=used, share=share, limited_by=limiting)


Fits = Callable[[int, int, int], bool]
Count = Callable[[int, int, int], int]


def _tiles(demand: Demand, fits: Fits) -> tuple[int, int, Tile] | None:
    """(cores, least, tile) of a population with pixels.

    The compiler's tables show x cut at a power of two first, with y and channels whole; where
    that cannot fit, y and channels are cut at divisors.
    """
    c, h, w = demand.shape
    if not fits(1, 1, 1):
        return None

    def cores(x: int, y: int, z: int) -> int:
        return -(-w // x) * -(-h // y) * -(-c // z)

    xs = [2**i for i in range(w.bit_length()) if 2**i <= w]
    found = [(cores(x, h, c), (x, h, c)) for x in xs if fits(x, h, c)]
    if not found:
        choices = product(xs, _divisors(h), _divisors(c))
        found = [(cores(x, y, z), (x, y, z)) for x, y, z in choices if fits(x, y, z)]
    best, tile = min(found)
    return best, _least(demand, fits, best, cores), Tile(*tile)


def _least(demand: Demand, fits: Fits, most: int, cores: Count) -> int:
    """The fewest cores over all tile sizes; sizes that need more than `most` are passed over."""
    c, h, w = demand.shape
    best = most
    for x, y in product(_shares(w), _shares(h)):
        for z in _shares(c):  # from the whole down: the first that fits is the best one
            if cores(x, y, z) >= best:
                break
            if fits(x, y, z):
                best = cores(x, y, z)
                break
    return best


def _flat(demand: Demand, fits: Fits, ratio: float) -> tuple[int, int, Tile] | None:
    """(cores, least, tile) of a population cut into equal shares of its neurons.

    The compiler starts from the share of synapse memory and doubles until everything fits.
    """
    n = demand.neurons
    if not fits(1, 1, 1):
        return None
    least = 1
    while not fits(1, 1, -(-n // least)):
        least += 1
    cores = max(1, math.ceil(ratio))
    while not fits(1, 1, -(-n // cores)):
        cores *= 2
    cores = max(cores, math.ceil(MARGIN * least) if least > 1 else 1)
    return min(cores, n), least, Tile(1, 1, -(-n // min(cores, n)))


def _divisors(n: int) -> list[int]:
    """All divisors of n, smallest first."""
    small = [i for i in range(1, math.isqrt(n) + 1) if n % i == 0]
    return sorted({*small, *(n // i for i in small)})


def _shares(n: int) -> list[int]:
    """Sizes of the largest of k equal shares of n, for all k, largest first, each once."""
    sizes = [n]
    while sizes[-1] > 1:
        parts = -(-n // (sizes[-1] - 1))  # the fewest whose largest is smaller
        sizes.append(-(-n // parts))
    return sizes
