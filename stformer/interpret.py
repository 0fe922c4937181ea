"""The reference interpreter: the living definition of the network's meaning.

NumPy, one hardware time step after the other, every population in every step, synapses that
deliver a step late, axon delays from the latencies: what the chip does, in the order in which
it does it. Small and obviously right comes before fast; `deploy/cpu.py` is the fast one.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from stformer import fixedpoint as fx
from stformer.errors import InputError
from stformer.network import (
    BroadcastTokens,
    Conv,
    Dense,
    Graded,
    Input,
    IntArray,
    Lif,
    Network,
    OneToOne,
    Operand,
    Population,
    Product,
    Readout,
    Relay,
    Shape,
    SumTokens,
    Synapses,
    bias_of,
    conv_output,
    effective_weight,
)
from stformer.trace import Inputs, Probe, Trace, check_inputs, digest_inputs, spike_dtype

Int64 = npt.NDArray[np.int64]


def synapse(projection: Synapses, spikes_NS: Int64, post: Shape) -> Int64:
    """Arriving sums of one projection for one step.

    Args:
        projection: its delay is the caller's business.
        spikes_NS: [N, *pre.shape], N independent lanes.
        post: shape of the target.

    Returns:
        int64 [N, *post]. Matrix products run in float64, exact below 2^53.
    """
    w = effective_weight(projection)
    n = len(spikes_NS)
    match projection:
        case Dense():
            flat = spikes_NS.reshape(n, -1).astype(np.float64)
            sums: npt.NDArray[np.float64] = flat @ w.T.astype(np.float64)
            return np.rint(sums).astype(np.int64).reshape(n, *post)
        case Conv():
            return _convolve(projection, w, spikes_NS)
        case OneToOne() | BroadcastTokens():
            spread: Int64 = w * np.broadcast_to(spikes_NS, (n, *post))
            return spread
        case SumTokens():
            summed: Int64 = w * spikes_NS.sum(axis=(2, 3), keepdims=True)
            return summed
        case _:
            assert_never(projection)


def _convolve(p: Conv, w: Int64, spikes_NCHW: Int64) -> Int64:
    n, _, height, width = spikes_NCHW.shape
    (ph, pw), (sh, sw), (dh, dw) = p.padding, p.stride, p.dilation
    padded = np.pad(spikes_NCHW, ((0, 0), (0, 0), (ph, ph), (pw, pw))).astype(np.float64)
    out_h, out_w = conv_output(p, height, width)
    per_group_out, per_group_in = w.shape[0] // p.groups, w.shape[1]
    out = np.zeros((n, w.shape[0], out_h, out_w))
    for g in range(p.groups):
        source = padded[:, g * per_group_in : (g + 1) * per_group_in]
        rows = slice(g * per_group_out, (g + 1) * per_group_out)
        for i in range(w.shape[2]):
            for j in range(w.shape[3]):
                taps = source[
                    :,
                    :,
                    i * dh : i * dh + (out_h - 1) * sh + 1 : sh,
                    j * dw : j * dw + (out_w - 1) * sw + 1 : sw,
                ]
                kernel = w[rows, :, i, j].astype(np.float64)
                out[:, rows] += np.einsum("oc,nchw->nohw", kernel, taps, optimize=True)
    return np.rint(out).astype(np.int64)


def multiply(product: Product, left_NS: Int64, right_NS: Int64) -> Int64:
    """A product's sums in one step, before the clip, int64 [N, *shape], of its two factors."""
    n, heads = len(left_NS), product.heads
    right = right_NS.reshape(n, heads, -1, prod(right_NS.shape[2:]))
    if product.mode == "scores":
        scores: Int64 = np.einsum("bhdn,bhdm->bhnm", left_NS.reshape(right.shape), right)
        return scores
    mixed: Int64 = np.einsum("bhnm,bhdm->bhdn", left_NS, right)
    return mixed.reshape(n, *product.shape)


def run(
    network: Network, inputs: Inputs, *, probe: Probe | None = None, stream: bool = False
) -> Trace:
    """Run every sample and record what the probe asks for.

    Args:
        network: with latencies assigned.
        inputs: see `stformer.trace.check_inputs`.
        probe: what to record; every population's spikes by default.
        stream: feed all samples one after the other through one copy of the network, as
            hardware does, instead of each through its own.

    Raises:
        InputError: bad inputs, or latencies that no pass has assigned.
    """
    probe = probe or Probe()
    frames = check_inputs(network, inputs)
    _check_latencies(network)
    samples = len(next(iter(frames.values()))) if frames else 1
    steps = network.steps
    lanes, per_lane = (1, samples) if stream else (samples, 1)
    # [lanes, time of the whole lane, *shape]
    lane_frames = {k: a.reshape(lanes, per_lane * steps, *a.shape[2:]) for k, a in frames.items()}
    reach = 2 + max((network.axon_delay(p) for p in network.projections), default=0)
    states = {p.name: _State(p.shape, lanes, reach) for p in network.populations}
    records = {
        p.name: _Record(network, p.name, lanes, per_lane * steps, probe)
        for p in network.populations
        if probe.wants(p.name)
    }
    for step in range(per_lane * steps + network.depth):
        # Nobody sees a spike of this step before the next one, so the order here is free.
        for p in network.populations:
            local = step - p.latency
            a = _arriving(network, p, step, lanes, states)
            spikes = _update(p, states[p.name], a, local, lane_frames, steps)
            states[p.name].send(step, spikes)
            if p.name in records and 0 <= local < per_lane * steps:
                records[p.name].store(local, spikes, states[p.name])
    return _trace(network, frames, records, samples)


class _State:
    """One population's state in all lanes, and what it sent in the last steps.

    Attributes:
        sent: time step -> spikes; a step of silence, of which a deep pipeline has many, is
            left out, and so is what no delay reaches any more.
    """

    def __init__(self, shape: Shape, lanes: int, reach: int) -> None:
        self.u: Int64 = np.zeros((lanes, *shape), np.int64)
        self.v: Int64 = np.zeros((lanes, *shape), np.int64)
        self.sent: dict[int, Int64] = {}
        self._reach = reach

    def send(self, step: int, spikes: Int64) -> None:
        if spikes.any():
            self.sent[step] = spikes
        self.sent.pop(step - self._reach, None)


def _arriving(
    network: Network, post: Population, step: int, lanes: int, states: Mapping[str, _State]
) -> Int64:
    """The sum of what arrives at a population in a step; the product of it for a `Product`."""
    a = np.zeros((lanes, *post.shape), np.int64)
    operands: dict[str, Int64] = {}
    for projection in network.incoming(post.name):
        pre = network[projection.pre]
        sent_at = step - 1 - network.axon_delay(projection)
        spikes = states[pre.name].sent.get(sent_at)
        # A spike of one sample does not reach another one (network.py, Time).
        sample_sent = (sent_at - pre.latency) // network.steps
        if spikes is None or sample_sent != (step - post.latency) // network.steps:
            continue
        if isinstance(projection, Operand):
            operands[projection.port] = spikes
        else:
            a += synapse(projection, spikes, post.shape)
    if isinstance(post, Product) and len(operands) == 2:
        return multiply(post, operands["left"], operands["right"])
    return a


def _update(
    p: Population,
    state: _State,
    a: Int64,
    local: int,
    lane_frames: Mapping[str, npt.NDArray[np.int32]],
    steps: int,
) -> Int64:
    """One step of one population; returns what it sends."""
    if local % steps == 0:
        state.u[:] = 0
        state.v[:] = 0
    match p:
        case Input():
            frames = lane_frames[p.name]
            inside = 0 <= local < frames.shape[1]
            return frames[:, local].astype(np.int64) if inside else np.zeros_like(a)
        case Lif():
            spikes, state.u, state.v = fx.lif_step(
                state.u, state.v, a, du=p.du, dv=p.dv, vth=p.vth, bias=bias_of(p)
            )
            fired: Int64 = spikes.astype(np.int64)
            return fired
        case Relay():
            return (a >= 2).astype(np.int64)
        case Readout():
            state.u = fx.current(state.u, a, fx.NO_CURRENT)
            state.v = fx.membrane(state.v, state.u, 0, bias_of(p))
            return state.v
        case Graded():
            sent: Int64 = fx.graded(a, bias_of(p), p.shift)
            return sent
        case Product():
            product: Int64 = fx.clip(a)
            return product
        case _:
            assert_never(p)


class _Record:
    """What one population sent in its own time, and its states when asked."""

    def __init__(self, network: Network, name: str, lanes: int, time: int, probe: Probe) -> None:
        p = network[name]
        shape = (lanes, time, *p.shape)
        self.spikes: IntArray = np.zeros(shape, spike_dtype(network, name))
        stateful = probe.states and isinstance(p, (Lif, Readout))
        self.u = np.zeros(shape, np.int32) if stateful and isinstance(p, Lif) else None
        self.v = np.zeros(shape, np.int32) if stateful else None

    def store(self, local: int, spikes: Int64, state: _State) -> None:
        self.spikes[:, local] = spikes
        if self.u is not None:
            self.u[:, local] = state.u
        if self.v is not None:
            self.v[:, local] = state.v


def _trace(
    network: Network,
    frames: Mapping[str, npt.NDArray[np.int32]],
    records: Mapping[str, _Record],
    samples: int,
) -> Trace:
    def split(array: IntArray) -> IntArray:
        return array.reshape(samples, network.steps, *array.shape[2:])

    return Trace(
        network=network.digest(),
        inputs=digest_inputs(frames),
        backend="reference",
        spikes={k: split(r.spikes) for k, r in records.items()},
        u={k: split(r.u) for k, r in records.items() if r.u is not None},
        v={k: split(r.v) for k, r in records.items() if r.v is not None},
    )


def _check_latencies(network: Network) -> None:
    for projection in network.projections:
        if network.axon_delay(projection) < 0:
            raise InputError(
                f"projection {projection.name}",
                f"a target {network.axon_delay(projection)} steps too early",
                "latencies that leave one step per synapse",
                "run stformer.passes.assign_latency on the network",
            )
