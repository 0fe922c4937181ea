"""Every key a target's TOML may have: its type, unit and legal range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any, Generic, TypeVar

V = TypeVar("V")

BASES = ("vendor", "code", "table", "derived", "assumption")
GENERATIONS = ("loihi1", "loihi2", "simulator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Value(Generic[V]):
    """One fact of a target.

    Attributes:
        key: "section.key" in the TOML.
        value: in `unit`.
        unit: as `schema` asks for it; "1" where there is none.
        basis: "vendor" a statement of the maker; "code" read in open source; "table" read off
            a compiler's or profiler's printed output; "derived" computed from such; "assumption"
            a guess, or another chip's number.
        source: where it can be looked up.
    """

    key: str
    value: V
    unit: str
    basis: str
    source: str

    def plain(self) -> dict[str, Any]:
        """Plain data."""
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return {
            "key": self.key,
            "value": value,
            "unit": self.unit,
            "basis": self.basis,
            "source": self.source,
        }


@dataclass(frozen=True, slots=True)
class Range:
    """What a number of the schema is counted in, and its smallest and largest value."""

    unit: str = "1"
    low: float = 0
    high: float = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Chips and cores of a board, and how cores lie: `mesh` tiles (x, y) a chip."""

    chips: Annotated[Value[int], Range("chip", 1, 2**20)]
    cores_per_chip_physical: Annotated[Value[int], Range("core", 1, 2**16)]
    cores_per_chip_usable: Annotated[Value[int], Range("core", 1, 2**16)]
    mesh: Annotated[Value[tuple[int, int]], Range("tile", 1, 2**10)]
    cores_per_tile: Annotated[Value[int], Range("core", 1, 2**10)]
    embedded_cpus_physical: Annotated[Value[int] | None, Range("cpu")] = None
    embedded_cpus_usable: Annotated[Value[int] | None, Range("cpu")] = None
    cores_total_vendor: Annotated[Value[int] | None, Range("core")] = None
    neurons_total_vendor: Annotated[Value[int] | None, Range("neuron")] = None
    synapses_total_vendor: Annotated[Value[int] | None, Range("synapse")] = None
    power_max: Annotated[Value[float] | None, Range("W")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """What one core holds, whatever its memory is counted in."""

    neurons_max: Annotated[Value[int], Range("neuron", 1)]
    neurons_max_vendor: Annotated[Value[int] | None, Range("neuron", 1)] = None
    axon_in_max: Annotated[Value[int], Range("axon", 1)]
    axon_out_max: Annotated[Value[int], Range("axon", 1)]
    neuron_groups_max: Annotated[Value[int] | None, Range("group", 1)] = None
    bytes_total_vendor: Annotated[Value[int] | None, Range("B", 1)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUnits:
    """A core's memory as Loihi 2's compiler counts it in its tables ("SynMem" units)."""

    synapses_max: Annotated[Value[int], Range("unit", 1)]
    total_max: Annotated[Value[int], Range("unit", 1)]
    per_neuron: Annotated[Value[float], Range("unit")]
    per_axon_in: Annotated[Value[float], Range("unit")]
    per_dense_synapse: Annotated[Value[float], Range("unit")]
    per_conv_tap: Annotated[Value[float], Range("unit")]
    axons_per_conv: Annotated[Value[int], Range("axon")]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBits:
    """A core's synapse memory in bits, as Loihi 1 has it."""

    synapses_max: Annotated[Value[int], Range("bit", 1)]
    per_weight: Annotated[Value[int], Range("bit", 1, 64)]
    spare: Annotated[Value[float], Range("1", 0, 0.99)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numeric:
    """Registers. Weights are the chip's own: an int8 w of a network is stored as 2 w."""

    weight_bits: Annotated[Value[int], Range("bit", 1, 64)]
    weight_range: Annotated[Value[tuple[int, int]], Range("1", -(2**15), 2**15)]
    weight_exp_range: Annotated[Value[tuple[int, int]], Range("1", -64, 64)]
    synaptic_shift: Annotated[Value[int], Range("bit", 0, 64)]
    dendritic_input_bits: Annotated[Value[int], Range("bit", 1, 64)]
    state_bits: Annotated[Value[int], Range("bit", 1, 64)]
    decay_bits: Annotated[Value[int], Range("bit", 1, 64)]
    vth_mant_bits: Annotated[Value[int], Range("bit", 1, 64)]
    vth_shift: Annotated[Value[int], Range("bit", 0, 64)]
    bias_mant_bits_signed: Annotated[Value[int], Range("bit", 1, 64)]
    bias_exp_bits: Annotated[Value[int], Range("bit", 1, 64)]
    delay_max: Annotated[Value[int], Range("step", 0, 2**16)]
    graded_payload_bits: Annotated[Value[int], Range("bit", 0, 64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What the toolchain refuses. Kinds are those of `stformer.network`, and FEATURES."""

    reset_interval_power_of_two: Annotated[Value[bool], Range()]
    conv_width_suspect: Annotated[Value[int] | None, Range("neuron", 1)] = None
    unsupported: Annotated[Value[tuple[str, ...]], Range()]
    unproven: Annotated[Value[tuple[str, ...]], Range()]


FEATURES = ("axon_delay",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Joules an event costs; a static power in watts."""

    synop: Annotated[Value[float], Range("J", 0, 1)]
    neuron_update: Annotated[Value[float], Range("J", 0, 1)]
    neuron_update_idle: Annotated[Value[float] | None, Range("J", 0, 1)] = None
    spike_out: Annotated[Value[float] | None, Range("J", 0, 1)] = None
    hop: Annotated[Value[float], Range("J", 0, 1)]
    static_power_chip: Annotated[Value[float] | None, Range("W", 0, 1000)] = None
    empirical_per_neuron_step: Annotated[Value[float] | None, Range("J", 0, 1)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Seconds an event costs on its core; the barrier closes every step."""

    synop: Annotated[Value[float], Range("s", 0, 1)]
    neuron_update: Annotated[Value[float], Range("s", 0, 1)]
    spike_out: Annotated[Value[float] | None, Range("s", 0, 1)] = None
    message_in: Annotated[Value[float] | None, Range("s", 0, 1)] = None
    barrier: Annotated[Value[float], Range("s", 0, 1)]
    barrier_multichip: Annotated[Value[float] | None, Range("s", 0, 1)] = None
    synop_speedup_vendor: Annotated[Value[float] | None, Range("1", 1, 1000)] = None
    neuron_update_speedup_vendor: Annotated[Value[float] | None, Range("1", 1, 1000)] = None
    barrier_vendor: Annotated[Value[float] | None, Range("s", 0, 1)] = None
    empirical_per_neuron: Annotated[Value[float] | None, Range("s", 0, 1)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A target.

    Attributes:
        name: of the target.
        generation: one of GENERATIONS.
        confidence: what the numbers as a whole are worth, in words.
        steppings: of the chip.
        files: the target's own first, then those it is based on.
        system, core: None for a simulator, which has no cores to fill.
        memory_units, memory_bits: one of them where there are cores.
        energy, latency: nominal constants; `_conservative` is the other set.
    """

    name: str
    generation: str
    confidence: str
    steppings: tuple[str, ...]
    files: tuple[str, ...]
    numeric: Numeric
    constraints: Constraints
    system: System | None = None
    core: Core | None = None
    memory_units: MemoryUnits | None = None
    memory_bits: MemoryBits | None = None
    energy: Energy | None = None
    energy_conservative: Energy | None = None
    latency: Latency | None = None
    latency_conservative: Latency | None = None

    def values(self) -> Iterator[Value[Any]]:
        """Every fact of the target, in the schema's order."""
        for name in SECTIONS:
            section = getattr(self, name)
            for f in fields(section) if section is not None else ():
                if (value := getattr(section, f.name)) is not None:
                    yield value


SECTIONS: dict[str, type[Any]] = {
    "system": System,
    "core": Core,
    "memory_units": MemoryUnits,
    "memory_bits": MemoryBits,
    "numeric": Numeric,
    "constraints": Constraints,
    "energy": Energy,
    "energy_conservative": Energy,
    "latency": Latency,
    "latency_conservative": Latency,
}
NEEDED = ("numeric", "constraints")
