"""The one intermediate representation: populations and projections, all integers in chip units.

Everything to the right of lowering consumes a `Network` and nothing else. Its meaning is
`stformer.interpret`; its legality is checked here, where it is made.

Time. A sample is `steps` time steps long; index t of a population is its own time, with the
pipeline's latency removed. A projection with delay d adds, at time t of its target,
weight * (what its source sent at t - d) for 0 <= t - d < T and nothing else: no spike crosses
from one sample to another. A negative delay looks ahead (the centred convolutions of the preset
`paper`). On the chip a synapse costs one step, so a population lives `latency` steps behind the
input, and a projection needs `axon_delay` further steps of delay (docs/decisions/0002).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from stformer import fixedpoint as fx
from stformer.errors import InputError

if TYPE_CHECKING:
    from stformer.trace import Inputs, Trace

IntArray: TypeAlias = npt.NDArray[np.integer[Any]]
Shape: TypeAlias = tuple[int, ...]

MAX_NEURONS = 2**26  # per population; a bound for files, far above any board
MAX_STEPS = 2**16
MAX_SOURCE = 2**16  # characters

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Input:
    """The host's side: spikes or graded integers, one frame a time step.

    Attributes:
        shape: (C, H, W) or (n,).
        low, high: the smallest and largest value a frame may hold; (0, 1) is spikes.
        latency: steps behind the input, 0 here.
    """

    name: str
    shape: Shape
    low: int = 0
    high: int = 1
    latency: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lif:
    """Current-based leaky integrate-and-fire neurons (paper Eq. 1-3; Lava `LIF`, fixed point)::

        u[t] = wrap(u[t-1] * (4095 - du)/4096 + a[t] * 64)
        v[t] = clip(v[t-1] * (4096 - dv)/4096 + u[t] + bias_mant * 2^bias_exp)
        s[t] = v[t] > vth * 64, then v[t] = 0 where s[t]

    with decays rounded toward zero (`stformer.fixedpoint`). Gates are Lif too: AND is two
    one-to-one weights of 2 with vth 3, OR is vth 1, `x and not r` is +2, -2 with vth 1, all
    with dv = 4095 (memoryless for |v| < 4096).

    Attributes:
        shape: (C, H, W) or (n,).
        vth: threshold mantissa, 1...131071.
        du: current decay register, 0...4095; 4095 keeps no current (the paper's LIF).
        dv: membrane decay, 0...4095; k_tau of the paper is (4096 - dv)/4096.
        bias_mant: int array that broadcasts to `shape` without adding axes, -4096...4095.
        bias_exp: 0...7.
        latency: steps behind the input, set by `passes.assign_latency`.
    """

    name: str
    shape: Shape
    vth: int
    dv: int
    du: int = fx.NO_CURRENT
    bias_mant: IntArray
    bias_exp: int = 0
    latency: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Relay:
    """Holds spikes for a time step: s[t] = a[t] >= 2, no memory, no state in traces.

    Put in by `passes.insert_relays` where a path must wait and its synapses cannot; each is
    fed by one `OneToOne` of weight 2. On the chip a Lif with vth 1 and dv 4095. With an
    incoming delay of 1 it is a stage of a shift register, and the backend keeps the last
    spike of one sample out of the next.
    """

    name: str
    shape: Shape
    latency: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Readout:
    """Non-spiking accumulators: logits. v[t] = clip(v[t-1] + a[t] * 64 + bias_mant * 2^bias_exp).

    What it sends is v, after every step; the value at the last step, summed over H and W, is
    the sample's logit (`stformer.trace.logits`). On the chip a Lif with dv = 0 whose threshold
    is never reached.

    Attributes:
        shape: (n,) or (C, H, W): n or C classes.
        bias_mant, bias_exp: as in `Lif`.
    """

    name: str
    shape: Shape
    bias_mant: IntArray
    bias_exp: int = 0
    latency: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graded:
    """Sums that are sent as they are, as graded spikes: no memory, no threshold::

        s[t] = clip((a[t] * 64 + bias_mant * 2^bias_exp) / 2^(6 + shift)), toward zero

    The multi-bit stream of a membrane-shortcut residual is made of these. No public Loihi
    compiler takes them; a programmable neuron of Loihi 2 can (docs/decisions/0007).

    Attributes:
        shape: (C, H, W) or (n,).
        bias_mant, bias_exp: as in `Lif`.
        shift: low bits that the message leaves out, 0...23.
    """

    name: str
    shape: Shape
    bias_mant: IntArray
    bias_exp: int = 0
    shift: int = 0
    latency: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """Matrix products of what two populations send in the same step, head by head; graded.

    Two projections of kind `Operand` bring the left and the right factor, and what it sends is
    clipped at +-(2^23 - 1). With N = H * W tokens and D = C / heads::

        "scores": s[h, n, m] = sum_d left[h, d, n] * right[h, d, m]     (Q K^T)
                  (C, H, W) and (C, H, W) to (heads, N, N)
        "mix":    s[h, d, n] = sum_m left[h, n, m] * right[h, d, m]     ((Q K^T) V)
                  (heads, N, N) and (C, H, W) to (C, H, W)

    Attributes:
        shape: of the result.
        mode: "scores" or "mix".
        heads: divides the channels.
    """

    name: str
    shape: Shape
    mode: str
    heads: int
    latency: int = 0


Population: TypeAlias = Input | Lif | Relay | Readout | Graded | Product


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dense:
    """a[i] = sum_j (weight[i, j] << weight_exp) * s[j], over flattened neurons.

    Attributes:
        weight: int8 [n_post, n_pre].
        weight_exp: 0...7, shared.
        delay: time steps, -62...62.
    """

    name: str
    pre: str
    post: str
    weight: IntArray
    weight_exp: int = 0
    delay: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conv:
    """Two-dimensional cross-correlation, as torch.nn.Conv2d without bias.

    Attributes:
        weight: int8 [C_post, C_pre / groups, kernel_h, kernel_w].
        stride, padding, dilation: (h, w); padding is zeros on both sides.
        groups: divides both channel counts.
        weight_exp: 0...7, shared.
        delay: time steps, -62...62.
    """

    name: str
    pre: str
    post: str
    weight: IntArray
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    weight_exp: int = 0
    delay: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OneToOne:
    """a[i] = (weight << weight_exp) * s[i]; source and target have one shape.

    Attributes:
        weight: one int8.
        weight_exp: 0...7.
        delay: time steps, -62...62.
    """

    name: str
    pre: str
    post: str
    weight: int
    weight_exp: int = 0
    delay: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SumTokens:
    """a[c] = (weight << weight_exp) * sum_hw s[c, h, w]; (C, H, W) to (C, 1, 1)."""

    name: str
    pre: str
    post: str
    weight: int
    weight_exp: int = 0
    delay: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BroadcastTokens:
    """a[c, h, w] = (weight << weight_exp) * s[c]; (C, 1, 1) to (C, H, W)."""

    name: str
    pre: str
    post: str
    weight: int
    weight_exp: int = 0
    delay: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operand:
    """What a population sends, handed to a `Product` as one of its factors.

    Attributes:
        port: "left" or "right"; a product has one operand at each.
        delay: time steps, -62...62.
    """

    name: str
    pre: str
    post: str
    port: str
    delay: int = 0


Synapses: TypeAlias = Dense | Conv | OneToOne | SumTokens | BroadcastTokens
Projection: TypeAlias = Synapses | Operand

POPULATIONS: tuple[type[Population], ...] = (Input, Lif, Relay, Readout, Graded, Product)
PROJECTIONS: tuple[type[Projection], ...] = (
    Dense,
    Conv,
    OneToOne,
    SumTokens,
    BroadcastTokens,
    Operand,
)
PORTS = ("left", "right")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """Populations in topological order and the projections between them.

    Attributes:
        name: what people call it.
        steps: T, time steps a sample occupies, >= 1.
        populations: sources before targets, except across projections with delay >= 1
            (recurrence).
        projections: any order; kept sorted by target, then source, then name.
        source: JSON from which the front end rebuilds the module that this was lowered from
            (`stformer.lower.restore`); empty when there is none. Not part of the digest.

    Raises:
        InputError: at construction, naming the object, for anything a chip or backend could
            not hold (ranges in `stformer.fixedpoint`).
    """

    name: str
    steps: int
    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    source: str = ""
    _by_name: Mapping[str, Population] = field(init=False, repr=False)
    _incoming: Mapping[str, tuple[Projection, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_name("network", self.name)
        _check_range(f"network {self.name}", "steps", self.steps, 1, MAX_STEPS)
        if not isinstance(self.source, str) or len(self.source) > MAX_SOURCE:
            raise InputError(f"network {self.name}", "source", f"text up to {MAX_SOURCE} long")
        populations = tuple(_check_population(p) for p in self.populations)
        order = {p.name: i for i, p in enumerate(populations)}
        _check_unique("population", [p.name for p in populations])
        _check_unique("projection", [p.name for p in self.projections])
        by_name = {p.name: p for p in populations}
        checked = [_check_projection(p, by_name, order) for p in self.projections]
        projections = tuple(sorted(checked, key=lambda p: (order[p.post], order[p.pre], p.name)))
        incoming: dict[str, list[Projection]] = {name: [] for name in by_name}
        for projection in projections:
            incoming[projection.post].append(projection)
        for population in populations:
            if isinstance(population, Relay):
                _check_relay(population, incoming[population.name])
            if isinstance(population, Product):
                _check_product(population, incoming[population.name], by_name)
        object.__setattr__(self, "steps", int(self.steps))
        object.__setattr__(self, "populations", populations)
        object.__setattr__(self, "projections", projections)
        object.__setattr__(self, "_by_name", by_name)
        object.__setattr__(self, "_incoming", {k: tuple(v) for k, v in incoming.items()})

    def __getitem__(self, name: str) -> Population:
        """The population of that name; raises InputError with the names there are."""
        try:
            return self._by_name[name]
        except KeyError:
            raise InputError(
                f"network {self.name}", f"no population '{name}'", ", ".join(self._by_name)
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @property
    def inputs(self) -> tuple[Input, ...]:
        return tuple(p for p in self.populations if isinstance(p, Input))

    @property
    def readouts(self) -> tuple[Readout, ...]:
        return tuple(p for p in self.populations if isinstance(p, Readout))

    @property
    def depth(self) -> int:
        """Steps the deepest population lives behind the input."""
        return max((p.latency for p in self.populations), default=0)

    def incoming(self, name: str) -> tuple[Projection, ...]:
        """Projections onto a population, in the network's order."""
        return self._incoming[name]

    def axon_delay(self, projection: Projection) -> int:
        """Hardware delay of a projection: steps beyond the one that its synapse takes.

        Negative where the target's latency is too small: `passes.assign_latency` has not run.
        """
        pre, post = self._by_name[projection.pre], self._by_name[projection.post]
        return projection.delay + post.latency - pre.latency - 1

    @property
    def recurrent(self) -> tuple[Projection, ...]:
        """Projections from a population onto itself or an earlier one."""
        order = {p.name: i for i, p in enumerate(self.populations)}
        return tuple(p for p in self.projections if order[p.pre] >= order[p.post])

    def run(self, inputs: Inputs, *, backend: str = "cpu", states: bool = False) -> Trace:
        """Run samples [S, T, *shape] on a backend by name; see `stformer.deploy.run`.

        Args:
            inputs: one array, or a mapping for a network with several inputs.
            backend: what `stformer targets` lists.
            states: record u and v too.
        """
        from stformer import deploy
        from stformer.trace import Probe

        return deploy.run(backend, self, inputs, probe=Probe(states=states))

    def digest(self) -> str:
        """SHA-256 over structure and integers, as 64 hexadecimal digits; not over the name."""
        structure, arrays = to_plain(self)
        del structure["name"], structure["source"]
        h = hashlib.sha256(json.dumps(structure, sort_keys=True).encode())
        for key in sorted(arrays):
            h.update(key.encode() + b"\0" + np.ascontiguousarray(arrays[key]).tobytes())
        return h.hexdigest()


def neurons(population: Population) -> int:
    """How many neurons a population has."""
    return prod(population.shape)


def is_graded(population: Population) -> bool:
    """Whether it sends whole numbers, not only spikes (0 and 1)."""
    match population:
        case Input(low=low, high=high):
            return (low, high) != (0, 1)
        case Lif() | Relay():
            return False
        case Readout() | Graded() | Product():
            return True
        case _:
            assert_never(population)


def bias_of(population: Lif | Readout | Graded) -> npt.NDArray[np.int64]:
    """bias_mant << bias_exp, in the membrane's units, broadcastable to the population's shape."""
    return population.bias_mant.astype(np.int64) << population.bias_exp


def no_bias(shape: Shape) -> IntArray:
    """A bias_mant of zero for a population of this shape."""
    return np.zeros((1,) * len(shape), np.int16)


def effective_weight(projection: Synapses) -> npt.NDArray[np.int64]:
    """weight << weight_exp: what one spike of value 1 adds to the arriving sum."""
    return np.asarray(projection.weight, np.int64) << projection.weight_exp


def conv_output(projection: Conv, height: int, width: int) -> tuple[int, int]:
    """(H, W) of a convolution's target for a source of `height` x `width`."""
    sizes = []
    for i, size in enumerate((height, width)):
        reach = projection.dilation[i] * (projection.weight.shape[2 + i] - 1) + 1
        sizes.append((size + 2 * projection.padding[i] - reach) // projection.stride[i] + 1)
    return sizes[0], sizes[1]


# --- plain data: what is digested and what is stored ------------------------------------


def to_plain(network: Network) -> tuple[dict[str, object], dict[str, IntArray]]:
    """(structure of JSON types, arrays by path): everything the network is, nothing else."""
    arrays: dict[str, IntArray] = {}

    def plain(item: Population | Projection) -> dict[str, object]:
        out: dict[str, object] = {"kind": type(item).__name__}
        for f in fields(item):
            value = getattr(item, f.name)
            if isinstance(value, np.ndarray):
                key = f"{item.name}/{f.name}"
                arrays[key] = value
                out[f.name] = {"shape": list(value.shape), "dtype": value.dtype.name}
            else:
                out[f.name] = list(value) if isinstance(value, tuple) else value
        return out

    structure: dict[str, object] = {
        "name": network.name,
        "steps": network.steps,
        "source": network.source,
        "populations": [plain(p) for p in network.populations],
        "projections": [plain(p) for p in network.projections],
    }
    return structure, arrays


def from_plain(where: str, structure: object, arrays: Mapping[str, IntArray]) -> Network:
    """The inverse of `to_plain`, for data that is not trusted.

    Args:
        where: the file, for messages.
        structure: parsed JSON.
        arrays: as `to_plain` gives them.

    Raises:
        InputError: unknown kinds or keys, missing fields, anything `Network` refuses.
    """
    top = _mapping(where, structure, {"name", "steps", "source", "populations", "projections"})
    kinds: dict[str, Any] = {c.__name__: c for c in (*POPULATIONS, *PROJECTIONS)}

    def build(entry: object) -> object:
        if not isinstance(entry, dict) or entry.get("kind") not in kinds:
            found = entry.get("kind") if isinstance(entry, dict) else entry
            raise InputError(where, f"an object of kind {found!r:.80}", ", ".join(kinds))
        cls = kinds[entry["kind"]]
        names = {f.name for f in fields(cls)}
        values = dict(_mapping(f"{where}, {entry.get('name')!r:.80}", entry, names | {"kind"}))
        del values["kind"]
        for key, value in values.items():
            if isinstance(value, dict):
                path = f"{values.get('name')}/{key}"
                if path not in arrays:
                    raise InputError(where, f"no array '{path}'", "one array per weight and bias")
                values[key] = arrays[path]
            elif isinstance(value, list):
                values[key] = tuple(value)
        return cls(**values)

    def build_all(key: str, classes: tuple[type[T], ...]) -> tuple[T, ...]:
        entries = top[key]
        if not isinstance(entries, list):
            raise InputError(f"{where}, {key}", f"{type(entries).__name__}", "a list")
        built = [build(e) for e in entries]
        for item in built:
            if not isinstance(item, classes):
                raise InputError(
                    f"{where}, {key}", type(item).__name__, ", ".join(c.__name__ for c in classes)
                )
        return tuple(built)  # type: ignore[arg-type]

    return Network(  # whose checks refuse a name, steps or source of another type
        name=top["name"],  # type: ignore[arg-type]
        steps=top["steps"],  # type: ignore[arg-type]
        source=top["source"],  # type: ignore[arg-type]
        populations=build_all("populations", POPULATIONS),
        projections=build_all("projections", PROJECTIONS),
    )


def _mapping(where: str, value: object, keys: set[str]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InputError(where, f"{type(value).__name__}", "a mapping")
    if set(value) != keys:
        odd = sorted(set(value) ^ keys, key=str)
        raise InputError(where, f"missing or unknown keys {odd!r:.200}", ", ".join(sorted(keys)))
    return value


# --- legality -----------------------------------------------------------------------------


def _check_name(where: str, name: object) -> None:
    ok = isinstance(name, str) and 0 < len(name) <= 200
    if not ok or not all(c.isascii() and (c.isalnum() or c in "._-+@>#:") for c in str(name)):
        raise InputError(
            where,
            f"the name {name!r:.120}",
            "1 to 200 ASCII letters, digits and . _ - + @ > # :",
        )
    if str(name).strip(".") == "":
        raise InputError(where, f"the name {name!r}", "more than dots")


def _check_unique(what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{what} {name}", "the name twice", f"one {what} per name")
        seen.add(name)


def _check_range(where: str, what: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InputError(where, f"{what} = {value!r:.80}", f"an integer {low}...{high}")
    if not low <= value <= high:
        raise InputError(where, f"{what} = {value}", f"{low}...{high}")


def _check_array(
    where: str, what: str, value: object, dtype: type, low: int, high: int
) -> IntArray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
        found = value.dtype.name if isinstance(value, np.ndarray) else type(value).__name__
        raise InputError(where, f"{what} of type {found}", f"an integer array in {low}...{high}")
    if value.size and (value.min() < low or value.max() > high):
        bad = np.argwhere((value < low) | (value > high))[0]
        at = tuple(int(i) for i in bad)
        raise InputError(where, f"{what}{list(at)} = {value[at]}", f"{low}...{high}")
    out: IntArray = np.array(value, dtype=dtype, order="C")
    out.setflags(write=False)
    return out


def _ints(
    where: str, what: str, value: object, low: int, high: int, count: tuple[int, int]
) -> Shape:
    if not isinstance(value, (tuple, list)) or not count[0] <= len(value) <= count[1]:
        raise InputError(where, f"{what} = {value!r:.80}", f"{count[0]} to {count[1]} integers")
    for item in value:
        _check_range(where, what, item, low, high)
    return tuple(int(i) for i in value)


def _plain_numbers(item: Population | Projection) -> dict[str, Any]:
    """Fields given as NumPy integers, as Python's: those overflow, and JSON refuses them."""
    values = {f.name: getattr(item, f.name) for f in fields(item)}
    return {k: int(v) for k, v in values.items() if isinstance(v, np.integer)}


def _check_population(p: Population) -> Population:
    where = f"population {getattr(p, 'name', p)!s:.120}"
    if not isinstance(p, POPULATIONS):
        raise InputError(where, type(p).__name__, ", ".join(c.__name__ for c in POPULATIONS))
    _check_name("population", p.name)
    shape = _ints(where, "shape", p.shape, 1, MAX_NEURONS, (1, 3))
    if prod(shape) > MAX_NEURONS:
        raise InputError(where, f"{prod(shape)} neurons", f"up to {MAX_NEURONS}")
    _check_range(where, "latency", p.latency, 0, MAX_STEPS)
    changes = _plain_numbers(p) | {"shape": shape}
    if isinstance(p, Input):
        _check_range(where, "low", p.low, -(2**23), 2**23 - 1)
        _check_range(where, "high", p.high, p.low, 2**23 - 1)
    if isinstance(p, (Lif, Readout, Graded)):
        _check_range(where, "bias_exp", p.bias_exp, *fx.BIAS_EXP_RANGE)
        bias = _check_array(where, "bias_mant", p.bias_mant, np.int16, *fx.BIAS_MANT_RANGE)
        if bias.ndim != len(shape) or any(
            b not in (1, n) for b, n in zip(bias.shape, shape, strict=True)
        ):
            raise InputError(
                where, f"bias_mant of shape {bias.shape}", f"{shape} with any axis 1 instead"
            )
        changes["bias_mant"] = bias
    if isinstance(p, Lif):
        _check_range(where, "vth", p.vth, *fx.VTH_RANGE)
        _check_range(where, "du", p.du, *fx.DU_RANGE)
        _check_range(where, "dv", p.dv, *fx.DV_RANGE)
    if isinstance(p, Graded):
        _check_range(where, "shift", p.shift, *fx.SHIFT_RANGE)
    if isinstance(p, Product):
        if p.mode not in ("scores", "mix"):
            raise InputError(where, f"mode {p.mode!r:.80}", "'scores' or 'mix'")
        _check_range(where, "heads", p.heads, 1, 2**16)
    return replace(p, **changes)


def _check_projection(
    p: Projection, by_name: Mapping[str, Population], order: Mapping[str, int]
) -> Projection:
    where = f"projection {getattr(p, 'name', p)!s:.120}"
    if not isinstance(p, PROJECTIONS):
        raise InputError(where, type(p).__name__, ", ".join(c.__name__ for c in PROJECTIONS))
    _check_name("projection", p.name)
    for end in (p.pre, p.post):
        if end not in by_name:
            raise InputError(where, f"an end at '{end!s:.120}'", "populations of this network")
    pre, post = by_name[p.pre], by_name[p.post]
    if isinstance(pre, Readout):
        raise InputError(
            where, f"a readout, '{pre.name}', as source", "spiking populations, inputs"
        )
    if isinstance(post, Input):
        raise InputError(where, f"an input, '{post.name}', as target", "populations that compute")
    if isinstance(post, Product) != isinstance(p, Operand):
        found = f"{type(p).__name__} onto '{post.name}', a {type(post).__name__}"
        raise InputError(where, found, "an Operand onto a Product, synapses onto anything else")
    _check_range(where, "delay", p.delay, *fx.DELAY_RANGE)
    if order[p.pre] >= order[p.post] and p.delay < 1:
        raise InputError(
            where,
            f"delay {p.delay} from '{p.pre}' back to '{p.post}'",
            "delay >= 1 for recurrence; otherwise list sources before targets",
        )
    changes = _plain_numbers(p)
    if isinstance(p, Operand):
        if p.port not in PORTS:
            raise InputError(where, f"port {p.port!r:.80}", " or ".join(PORTS))
        return replace(p, **changes)
    _check_range(where, "weight_exp", p.weight_exp, *fx.WEIGHT_EXP_RANGE)
    if isinstance(p, (Dense, Conv)):
        changes["weight"] = _check_array(where, "weight", p.weight, np.int8, *fx.WEIGHT_RANGE)
    else:
        _check_range(where, "weight", p.weight, *fx.WEIGHT_RANGE)
    if isinstance(p, Conv):
        for what, low in (("stride", 1), ("padding", 0), ("dilation", 1)):
            changes[what] = _ints(where, what, getattr(p, what), low, 2**15, (2, 2))
        _check_range(where, "groups", p.groups, 1, 2**20)
    checked = replace(p, **changes)
    _check_shapes(where, checked, pre.shape, post.shape)
    return checked


def _check_shapes(where: str, p: Synapses, pre: Shape, post: Shape) -> None:
    found, allowed = f"{p.pre} {pre} to {p.post} {post}", ""
    match p:
        case Dense():
            if p.weight.shape != (prod(post), prod(pre)):
                found = f"weight of shape {p.weight.shape}"
                allowed = f"({prod(post)}, {prod(pre)}) for {p.pre} {pre} to {p.post} {post}"
        case Conv():
            allowed = _conv_problem(p, pre, post)
        case OneToOne():
            allowed = "" if pre == post else "two equal shapes"
        case SumTokens():
            allowed = "" if len(pre) == 3 and post == (pre[0], 1, 1) else "(C, H, W) to (C, 1, 1)"
        case BroadcastTokens():
            allowed = "" if len(post) == 3 and pre == (post[0], 1, 1) else "(C, 1, 1) to (C, H, W)"
    if allowed:
        raise InputError(where, found, allowed)


def _conv_problem(p: Conv, pre: Shape, post: Shape) -> str:
    if p.weight.ndim != 4 or min(p.weight.shape) < 1:
        return f"a weight of four axes [C_post, C_pre/groups, h, w], not {p.weight.shape}"
    if len(pre) != 3 or len(post) != 3:
        return "(C, H, W) to (C, H, W)"
    c_out, c_in = p.weight.shape[:2]
    if c_in * p.groups != pre[0] or c_out % p.groups:
        return (
            f"weight {p.weight.shape} with groups {p.groups} wants {c_in * p.groups} channels in"
        )
    expected = (c_out, *conv_output(p, pre[1], pre[2]))
    return "" if post == expected else f"a target of shape {expected}"


def _check_relay(relay: Relay, incoming: list[Projection]) -> None:
    match incoming:
        case [OneToOne(weight=2, weight_exp=0, delay=0 | 1)]:
            return
    raise InputError(
        f"population {relay.name}",
        f"{len(incoming)} incoming: {', '.join(type(p).__name__ for p in incoming) or 'none'}",
        "one OneToOne of weight 2, weight_exp 0 and delay 0 or 1",
    )


def _check_product(
    product: Product, incoming: list[Projection], by_name: Mapping[str, Population]
) -> None:
    where = f"population {product.name}"
    given = {p.port: by_name[p.pre].shape for p in incoming if isinstance(p, Operand)}
    if sorted(given) != sorted(PORTS) or len(incoming) != len(PORTS):
        found = ", ".join(p.name for p in incoming) or "none"
        raise InputError(where, f"incoming: {found}", "one Operand at each port, left and right")
    left, right = given["left"], given["right"]
    tokens = right[1] * right[2] if len(right) == 3 else 0
    square = (product.heads, tokens, tokens)
    expected = (right, square) if product.mode == "scores" else (square, right)
    if not tokens or right[0] % product.heads or (left, product.shape) != expected:
        raise InputError(
            where,
            f"{product.mode} of {left} and {right} with {product.heads} heads as {product.shape}",
            "(C, H, W) and (C, H, W) to (heads, N, N) as scores, (heads, N, N) and (C, H, W) to "
            "(C, H, W) as mix, with N = H * W and heads that divide C",
        )
