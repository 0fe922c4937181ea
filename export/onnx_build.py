"""A network as one ONNX graph: a whole sample, or one step with its states going in and out.

Without recurrence, time is another batch axis for everything but the states of neurons, which
a Scan for each population carries from step to step. With recurrence, one Scan holds the whole
network, and its body is the graph of one step.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper
from typing_extensions import assert_never

from stformer import fixedpoint as fx
from stformer.export.onnx_graph import Dim, Graph, element, model, only_shape, value
from stformer.export.onnx_neurons import drive, graded, sent, step
from stformer.export.onnx_plan import Plan, plans
from stformer.export.onnx_synapses import Sources, arriving, product
from stformer.network import (
    Graded,
    Input,
    Lif,
    Network,
    Population,
    Product,
    Projection,
    Readout,
    Relay,
    Shape,
    is_graded,
)
from stformer.trace import spike_dtype

FORMAT = 1  # of our metadata
NEXT = ".next"  # a state's output is its input's name and this


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What goes from one step to the next; all zeros where a sample begins.

    Attributes:
        name: "population/u", "/v", or "/past": what it sent, last step first.
        dtype: integers.
        shape: without the batch.
    """

    name: str
    dtype: Any
    shape: Shape


def states(network: Network) -> list[State]:
    """States of a network's step; those that can never matter are left out."""
    out: list[State] = []
    for p in network.populations:
        plan = plans(network)[p.name]
        if plan.keeps_u:
            dtype: Any = np.int32 if plan.current < 2**31 else np.int64
            out.append(State(name=f"{p.name}/u", dtype=dtype, shape=p.shape))
        if plan.keeps_v:
            out.append(State(name=f"{p.name}/v", dtype=np.int32, shape=p.shape))
        delay = max((q.delay for q in network.projections if q.pre == p.name), default=0)
        if delay > 0:
            dtype = spike_dtype(network, p.name)
            out.append(State(name=f"{p.name}/past", dtype=dtype, shape=(delay, *p.shape)))
    return out


def whole(network: Network, notes: list[str]) -> onnx.ModelProto:
    """A whole sample: [batch, T, *shape] of each input to the same of each other population."""
    g = Graph()
    inputs, outputs = _interface(network, (_batch(network), network.steps))
    g.reserve([i.name for i in (*inputs, *outputs)])
    if network.recurrent:
        _recurrent(g, network)
    else:
        _Whole(g, network).build()
    return _model(g, network, inputs, outputs, notes, {"variant": "sample"})


def one_step(network: Network, notes: list[str]) -> onnx.ModelProto:
    """One step: [batch, *shape] of each input and the states to all others and the states."""
    g = Graph()
    batch = _batch(network)
    inputs, outputs = _interface(network, (batch,))
    kept = states(network)
    inputs += [value(s.name, s.dtype, (batch, *s.shape)) for s in kept]
    outputs += [value(s.name + NEXT, s.dtype, (batch, *s.shape)) for s in kept]
    g.reserve([i.name for i in (*inputs, *outputs)])
    lanes = _count(g, next((p.name for p in network.inputs), None))
    _Step(g, network, lanes, {i.name: i.name for i in (*inputs, *outputs)}).build()
    more = {"variant": "step", "states": json.dumps({s.name: s.name + NEXT for s in kept})}
    return _model(g, network, inputs, outputs, notes, more)


def _model(
    g: Graph,
    network: Network,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    notes: list[str],
    more: dict[str, str],
) -> onnx.ModelProto:
    metadata = {
        "stformer.digest": network.digest(),
        "stformer.network": network.name,
        "stformer.steps": str(network.steps),
        "stformer.latency": json.dumps({p.name: p.latency for p in network.populations}),
        "stformer.notes": json.dumps(notes),
        "stformer.format": str(FORMAT),
        **{f"stformer.{key}": text for key, text in more.items()},
    }
    lanes = "batch" if more["variant"] == "step" or network.recurrent else "lanes"
    return model(g.finish(network.name, inputs, outputs), metadata, lanes)


def _batch(network: Network) -> Dim:
    """The axis of samples; a network without inputs runs one."""
    return "batch" if network.inputs else 1


def _interface(
    network: Network, lead: tuple[Dim, ...]
) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    def described(p: Population) -> onnx.ValueInfoProto:
        return value(p.name, spike_dtype(network, p.name), (*lead, *p.shape))

    rest = [p for p in network.populations if not isinstance(p, Input)]
    return [described(p) for p in network.inputs], [described(p) for p in rest]


def _count(g: Graph, frames: str | None) -> str:
    """How many samples there are, int64 [1]."""
    if frames is None:
        return g.constant([1], np.int64)
    return g.add("Shape", [frames], "batch", start=0, end=1)


def _zeros(g: Graph, lanes: str, shape: Shape, dtype: Any) -> str:
    """Zeros [lanes, *shape]."""
    label = f"zeros/{lanes}/{np.dtype(dtype).name}/{'x'.join(map(str, shape))}"
    whole_shape = g.once("Concat", [lanes, g.constant(shape, np.int64)], f"{label}.shape", axis=0)
    zero = numpy_helper.from_array(np.zeros(1, dtype))
    return g.once("ConstantOfShape", [whole_shape], label, value=zero)


Typed: TypeAlias = tuple[str, Any]  # a tensor's name and its type in NumPy

# What neurons do with their drive: (population, plan, drive) -> what it sends.
Neurons: TypeAlias = Callable[[Lif | Readout, Plan, str], Typed]


def _send(
    g: Graph, network: Network, p: Population, sources: Sources, lanes: str, neurons: Neurons
) -> Typed:
    """What a population sends [lanes, *shape], as booleans or whole numbers of some type."""
    plan = plans(network)[p.name]
    match p:
        case Relay():
            (feed,) = network.incoming(p.name)
            x = sources(feed)
            if x is None:
                return _zeros(g, lanes, p.shape, np.float32), np.float32
            if not is_graded(network[feed.pre]):  # the weight of 2 meets the threshold of 2
                return x, np.float32
            sums = arriving(g, network, p, sources, 0)
            assert sums is not None
            one = g.constant(1, plan.dtype)
            return g.add("Greater", [sums, one], f"{p.name}/fired", label=p.name), np.bool_
        case Product():
            made = product(g, network, p, sources)
            if made is None:
                return _zeros(g, lanes, p.shape, np.float32), np.float32
            return sent(g, made, plan, p.name), np.float32
        case Graded():
            shift = fx.SHIFT if plan.bias or p.shift else 0
            sums = arriving(g, network, p, sources, shift)
            return graded(g, p, plan, drive(g, p, plan, sums, lanes)), np.float32
        case Lif() | Readout():
            sums = arriving(g, network, p, sources, fx.SHIFT)
            return neurons(p, plan, drive(g, p, plan, sums, lanes))
        case Input():
            raise AssertionError("an input sends what it is given")
        case _:
            assert_never(p)


class _Whole:
    """All steps at once; time comes first, so that a step of all samples lies in one piece."""

    def __init__(self, g: Graph, network: Network) -> None:
        self.g, self.network = g, network
        self.sent: dict[str, str] = {}  # float32 [T * batch, *shape]

    def build(self) -> None:
        g, network = self.g, self.network
        self.batch = _count(g, next((p.name for p in network.inputs), None))
        steps = g.constant([network.steps], np.int64)
        lanes = g.add("Mul", [self.batch, steps], "lanes")
        for p in network.populations:
            if isinstance(p, Input):
                x = g.add("Transpose", [p.name], f"{p.name}/time", perm=_swapped(p.shape))
                x = g.reshape(x, only_shape(p.shape), f"{p.name}/lanes")
                dtype = spike_dtype(network, p.name)
            else:
                x, dtype = _send(g, network, p, self._source, lanes, self._neurons)
                self._deliver(p, x, dtype)
            if any(q.pre == p.name for q in network.projections):
                self.sent[p.name] = g.cast(x, np.float32, f"{p.name}/sent", dtype)

    def _deliver(self, p: Population, x: str, dtype: Any) -> None:
        """Make a population's lanes an output of the graph."""
        g, out = self.g, spike_dtype(self.network, p.name)
        x = g.cast(x, out, f"{p.name}/{np.dtype(out).name}", dtype)
        x = g.reshape(x, (self.network.steps, -1, *p.shape), f"{p.name}/time")
        g.output("Transpose", [x], p.name, perm=_swapped(p.shape))

    def _source(self, q: Projection) -> str | None:
        g, steps = self.g, self.network.steps
        x, shape = self.sent[q.pre], self.network[q.pre].shape
        if q.delay == 0:
            return x
        if abs(q.delay) >= steps:
            return None
        name = f"{q.pre}/{'delayed' if q.delay > 0 else 'ahead'}.{abs(q.delay)}"
        unfolded = g.once(
            "Reshape", [x, g.constant((steps, -1, *shape), np.int64)], f"{q.pre}/sent.time"
        )
        # Cut at one end, silence at the other: nothing leaves its sample. One Pad with a negative
        # end would do, but not every runtime takes it.
        late, early = max(q.delay, 0), max(-q.delay, 0)
        axes = g.constant((0,), np.int64)
        ends = [g.constant((i,), np.int64) for i in (early, steps - late)]
        pads = g.constant((late, early), np.int64)
        kept = g.once("Slice", [unfolded, *ends, axes], f"{name}.kept")
        moved = g.once("Pad", [kept, pads, "", axes], name)
        return g.once("Reshape", [moved, g.constant(only_shape(shape), np.int64)], f"{name}.lanes")

    def _neurons(self, p: Lif | Readout, plan: Plan, drive_: str) -> Typed:
        g, batch = self.g, _batch(self.network)
        if not plan.keeps_u and not plan.keeps_v:  # a gate: its steps do not know each other
            sends = step(g, p, plan, drive_, None, None, label=p.name)[0]
            return sends, np.bool_ if isinstance(p, Lif) else plan.dtype
        kinds = [k for k, keeps in (("u", plan.keeps_u), ("v", plan.keeps_v)) if keeps]
        start = [_zeros(g, self.batch, p.shape, plan.dtype) for _ in kinds]
        over = g.reshape(drive_, (self.network.steps, -1, *p.shape), f"{p.name}/drive.time")
        before = {k: g.fresh(f"{p.name}/{k}.before") for k in kinds}
        now = g.fresh(f"{p.name}/drive.now")
        shape = (batch, *p.shape)
        out_type = np.bool_ if isinstance(p, Lif) else np.int32
        with g.body(f"{p.name}/step"):
            sends, u, v = step(g, p, plan, now, before.get("u"), before.get("v"))
            if isinstance(p, Readout):
                sends = g.cast(sends, np.int32, f"{p.name}/value")
            after = [x for x in (u, v) if x is not None]
            body = g.finish(
                f"{p.name}/step",
                [value(x, plan.dtype, shape) for x in (*before.values(), now)],
                [*(value(x, plan.dtype, shape) for x in after), value(sends, out_type, shape)],
            )
        ends = [f"{p.name}/{k}.end" for k in kinds]
        made = g.add_many(
            *("Scan", [*start, over], [*ends, f"{p.name}/neurons"]),
            label=p.name,
            body=body,
            num_scan_inputs=1,
        )
        return g.reshape(made[-1], only_shape(p.shape), f"{p.name}/neurons.lanes"), out_type


class _Step:
    """One step of a network.

    Args:
        lanes: name of int64 [1], how many samples.
        names: input, population or state (its next value with NEXT) -> tensor of that role.
    """

    def __init__(self, g: Graph, network: Network, lanes: str, names: dict[str, str]) -> None:
        self.g, self.network, self.lanes, self.names = g, network, lanes, names
        self.states = {s.name: s for s in states(network)}
        self.sent: dict[str, str] = {}  # float32 [batch, *shape]

    def build(self) -> None:
        g, network = self.g, self.network
        for p in network.populations:
            dtype: Any = spike_dtype(network, p.name)
            x = y = self.names[p.name]
            if not isinstance(p, Input):
                x, found = _send(g, network, p, self._source, self.lanes, self._neurons)
                g.output("Cast", [x], y, to=element(dtype))
                dtype = found
            if any(q.pre == p.name and q.delay == 0 for q in network.projections):
                self.sent[p.name] = g.cast(x, np.float32, f"{p.name}/sent", dtype)
            past = f"{p.name}/past"
            if past in self.states:
                self._remember(past, y)

    def _remember(self, past: str, now: str) -> None:
        """Put what was sent before all that was sent earlier, and forget the oldest."""
        g, axis = self.g, self.g.constant((1,), np.int64)
        long = self.states[past].shape[0]
        parts = [g.add("Unsqueeze", [now, axis], f"{past}.now")]
        if long > 1:
            ends = [g.constant((i,), np.int64) for i in (0, long - 1)]
            parts.append(g.add("Slice", [self.names[past], *ends, axis], f"{past}.rest"))
        g.output("Concat", parts, self.names[past + NEXT], axis=1)

    def _source(self, q: Projection) -> str | None:
        g = self.g
        if q.delay == 0:
            return self.sent[q.pre]
        assert q.delay > 0
        past, name = f"{q.pre}/past", f"{q.pre}/delayed.{q.delay}"
        index = g.constant(q.delay - 1, np.int64)
        then = g.once("Gather", [self.names[past], index], name, axis=1)
        return g.once("Cast", [then], f"{name}.sent", to=element(np.float32))

    def _neurons(self, p: Lif | Readout, plan: Plan, drive_: str) -> Typed:
        g = self.g
        before: dict[str, str] = {}
        for kind in "uv":
            if f"{p.name}/{kind}" in self.states:
                held = self.names[f"{p.name}/{kind}"]
                before[kind] = g.cast(held, plan.dtype, f"{p.name}/{kind}.before")
        sends, u, v = step(g, p, plan, drive_, before.get("u"), before.get("v"), label=p.name)
        for kind, after in (("u", u), ("v", v)):
            if after is not None:
                state = self.states[f"{p.name}/{kind}"]
                g.output("Cast", [after], self.names[state.name + NEXT], to=element(state.dtype))
        return sends, np.bool_ if isinstance(p, Lif) else plan.dtype


def _recurrent(g: Graph, network: Network) -> None:
    """The whole network step after step: one Scan over what `one_step` would be."""
    kept = states(network)
    batch = _batch(network)
    inputs = network.inputs
    count = _count(g, inputs[0].name)
    rest = [p for p in network.populations if not isinstance(p, Input)]
    start = [_zeros(g, count, s.shape, s.dtype) for s in kept]
    frames = [
        g.add("Transpose", [p.name], f"{p.name}/time", perm=_swapped(p.shape)) for p in inputs
    ]
    names = {p.name: g.fresh(f"{p.name}/now") for p in network.populations}
    names |= {key: g.fresh(f"{key}.now") for s in kept for key in (s.name, s.name + NEXT)}

    def of(p: Population) -> onnx.ValueInfoProto:
        return value(names[p.name], spike_dtype(network, p.name), (batch, *p.shape))

    def held(s: State, end: str) -> onnx.ValueInfoProto:
        return value(names[s.name + end], s.dtype, (batch, *s.shape))

    with g.body(f"{network.name}/step"):
        _Step(g, network, _count(g, names[inputs[0].name]), names).build()
        body = g.finish(
            f"{network.name}/step",
            [*(held(s, "") for s in kept), *map(of, inputs)],
            [*(held(s, NEXT) for s in kept), *map(of, rest)],
        )
    outputs = [*(f"{s.name}.end" for s in kept), *(f"{p.name}/steps" for p in rest)]
    made = g.add_many(
        *("Scan", [*start, *frames], outputs),
        label=network.name,
        body=body,
        num_scan_inputs=len(frames),
    )
    for p, x in zip(rest, made[len(kept) :], strict=True):
        g.output("Transpose", [x], p.name, perm=_swapped(p.shape))


def _swapped(shape: Shape) -> tuple[int, ...]:
    """Batch and time change places."""
    return (1, 0, *range(2, 2 + len(shape)))
