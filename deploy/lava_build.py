"""From a network to Lava processes. Runs in the worker only (`stformer.deploy.lava_worker`).

All populations are flat in Lava; a convolution alone sees a shape, in Lava's order W, H, C.
A synapse of Lava delivers one step late, which is what `Network` latencies count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from lava.proc.conv.models import PyConvModelFixed
from lava.proc.conv.process import Conv as LavaConv
from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDenseModelBitAcc
from lava.proc.dense.process import DelayDense as LavaDelayDense
from lava.proc.dense.process import Dense as LavaDense
from lava.proc.io.source import PySendModelFixed
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.models import PyLifResetModelBitAcc
from lava.proc.lif.process import LIFReset
from lava.proc.sparse.models import PyDelaySparseModelBitAcc, PySparseModelBitAcc
from lava.proc.sparse.process import DelaySparse as LavaDelaySparse
from lava.proc.sparse.process import Sparse as LavaSparse
from lava.proc.sparse.process import csr_matrix
from lava.utils.weightutils import SignMode
from typing_extensions import assert_never

from stformer import fixedpoint as fx
from stformer.deploy.lava_fast import (
    PyConvModelFast,
    PyDelayDenseModelFast,
    PyDelaySparseModelFast,
)
from stformer.deploy.lava_own import (
    Axon,
    GradedSums,
    MatrixProduct,
    PyAxonModel,
    PyGradedSumsModel,
    PyMatrixProductModel,
)
from stformer.deploy.lava_tap import make_tap
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
    Projection,
    Readout,
    Relay,
    SumTokens,
    conv_output,
    effective_weight,
    is_graded,
)

# What `Loihi2SimCfg(select_tag="fixed_pt")` selects for each process (a test holds them equal).
# Naming them spares Lava's search, which executes every module around a process, once for each.
STOCK: dict[type[Any], type[Any]] = {
    LIFReset: PyLifResetModelBitAcc,
    LavaDense: PyDenseModelBitAcc,
    LavaDelayDense: PyDelayDenseModelBitAcc,
    LavaSparse: PySparseModelBitAcc,
    LavaDelaySparse: PyDelaySparseModelBitAcc,
    LavaConv: PyConvModelFixed,
    Source: PySendModelFixed,
}
FAST = {
    **STOCK,
    LavaConv: PyConvModelFast,
    LavaDelayDense: PyDelayDenseModelFast,
    LavaDelaySparse: PyDelaySparseModelFast,
    Axon: PyAxonModel,
    GradedSums: PyGradedSumsModel,
    MatrixProduct: PyMatrixProductModel,
}

# One above the 17-bit register: a readout's membrane, clipped at 2^23 - 1, never exceeds it.
NEVER = 2**17
GRADED_BITS = 24
HELD_BACK = -2  # weight of the start marker: 2 - 2 does not reach a relay's threshold


@dataclass(frozen=True)
class Built:
    """The processes of a network.

    Attributes:
        populations: name -> process; inputs that feed nothing have none.
        processes: all processes of the network, no tap among them.
    """

    populations: dict[str, Any]
    processes: list[Any]


@dataclass
class _Builder:
    network: Network
    enter: Callable[[Any], Any]
    shift: int
    populations: dict[str, Any] = field(default_factory=dict)
    processes: list[Any] = field(default_factory=list)
    markers: dict[int, Any] = field(default_factory=dict)
    entries: dict[int, Any] = field(default_factory=dict)

    def sender(self, process: Any) -> Any:
        """The port that gives what a population or marker sends."""
        if not isinstance(process, Source):
            return process.s_out
        if id(process) not in self.entries:
            self.entries[id(process)] = self.enter(process)
        return self.entries[id(process)]

    def add(self, process: Any) -> Any:
        self.processes.append(process)
        return process


def _directly(source: Any) -> Any:
    return source.s_out


def build(
    network: Network,
    frames: dict[str, IntArray],
    *,
    enter: Callable[[Any], Any] = _directly,
    shift: int = 0,
) -> Built:
    """Lava processes for a network that has no problems (`lava_problems.find_problems`).

    What stock Lava runs is made of its processes; only what it has no process for becomes one
    of ours (`lava_own`).

    Args:
        network: what to build.
        frames: input -> integers [S, T, *shape]; the samples follow each other without a gap.
        enter: of a source, the port from which synapses take what it sends; on hardware the one
            behind an adapter, which moves messages onto the chip.
        shift: steps that such an adapter takes.

    Sample k of a population of latency L runs from Lava's time step k * T + L + 1 on (its time
    steps start at 1), and there the population is reset.
    """
    b = _Builder(network, enter, shift)
    used = {p.pre for p in network.projections}
    for p in network.populations:
        if not isinstance(p, Input) or p.name in used:
            b.populations[p.name] = b.add(_population(network, p, frames, shift))
    for projection in network.projections:
        _connect(b, projection)
        if projection.delay and isinstance(network[projection.post], Relay):
            _hold_back(b, network[projection.post])
    return Built(b.populations, b.processes)


def tap(built: Built, states: list[tuple[str, str]]) -> tuple[Any, type[Any]] | None:
    """A tap on (population, "u" or "v") pairs that also ties unconnected parts together.

    Returns None where nothing is to be read and everything hangs together already.
    """
    read = [getattr(built.populations[name], which) for name, which in states]
    tied = {id(built.populations[name]) for name, _ in states}
    parts = _parts(built.processes)
    loose = [part for part in parts if not any(id(process) in tied for process in part)]
    if not read and len(parts) == 1:
        return None
    anchors = [next(filter(None, map(_anchor, part))) for part in loose]
    return make_tap(read, anchors)


def _anchor(process: Any) -> Any:
    """A small Var of a population that computes, None for other processes."""
    match process:
        case LIFReset():
            return process.vth
        case GradedSums():
            return process.shift
        case MatrixProduct():
            return process.heads
        case _:
            return None


def _parts(processes: list[Any]) -> list[list[Any]]:
    """Processes in groups that are connected through ports."""
    group = {id(process): i for i, process in enumerate(processes)}
    for process in processes:
        for port in process.out_ports.members:
            for target in port.get_dst_ports():
                old, new = group[id(target.process)], group[id(process)]
                group = {key: new if value == old else value for key, value in group.items()}
    parts: dict[int, list[Any]] = {}
    for process in processes:
        parts.setdefault(group[id(process)], []).append(process)
    return list(parts.values())


def _population(network: Network, p: Population, frames: dict[str, IntArray], shift: int) -> Any:
    match p:
        case Input():
            x = frames[p.name]
            flat = x.reshape(x.shape[0] * x.shape[1], -1)
            return Source(data=np.ascontiguousarray(flat.T, np.int32))
        case Lif():
            return _lif(network, p, shift, vth=p.vth, du=p.du, dv=p.dv)
        case Relay():
            return _lif(network, p, shift, vth=1, du=fx.NO_CURRENT, dv=fx.MEMORYLESS)
        case Readout():
            return _lif(network, p, shift, vth=NEVER, du=fx.NO_CURRENT, dv=0)
        case Graded():
            return GradedSums(p)
        case Product():
            factors = {
                q.port: network[q.pre].shape
                for q in network.incoming(p.name)
                if isinstance(q, Operand)
            }
            return MatrixProduct(p, left=factors["left"], right=factors["right"])
        case _:
            assert_never(p)


def _lif(
    network: Network, p: Lif | Relay | Readout, shift: int, *, vth: int, du: int, dv: int
) -> Any:
    bias, exponent = (0, 0) if isinstance(p, Relay) else (p.bias_mant, p.bias_exp)
    return LIFReset(
        name=p.name,
        shape=(prod(p.shape),),
        vth=vth,
        du=du,
        dv=dv,
        bias_mant=np.broadcast_to(bias, p.shape).reshape(-1).astype(np.int16),
        bias_exp=exponent,
        reset_interval=network.steps,
        reset_offset=p.latency + 1 + shift,
    )


def _connect(b: _Builder, p: Projection) -> None:
    pre, post = b.network[p.pre], b.network[p.post]
    source, wait = b.sender(b.populations[p.pre]), b.network.axon_delay(p)
    crosses = p.delay and not isinstance(post, Relay)
    if crosses or (wait and isinstance(p, (Conv, Operand))):
        source, wait = _axon(b, p, source, wait), 0
    if isinstance(p, Operand):
        source.connect(getattr(b.populations[p.post], p.port))
        return
    target, bits = b.populations[p.post].a_in, GRADED_BITS if is_graded(pre) else 0
    if isinstance(p, Conv):
        conv = b.add(_conv(p, pre, bits))
        source.reshape(pre.shape).transpose((2, 1, 0)).connect(conv.s_in)
        conv.a_out.transpose((2, 1, 0)).reshape((prod(post.shape),)).connect(target)
        return
    weights = _matrix(p, pre, post)
    shared = {
        "name": p.name,
        "num_message_bits": bits,
        # With mixed signs Lava drops the lowest of 9 bits (weightutils.py:305): double the
        # weight here, halve the sum there. Both are exact.
        "num_weight_bits": 8,
        "sign_mode": SignMode.MIXED,
        "weight_exp": p.weight_exp - 1,
    }
    synapses = b.add(_synapses(weights, wait, shared))
    source.connect(synapses.s_in)
    synapses.a_out.connect(target)


def _axon(b: _Builder, p: Projection, source: Any, wait: int) -> Any:
    """The port of an axon that keeps a projection's delay within each sample."""
    pre, steps = b.network[p.pre], b.network.steps
    sent_at = [(step - pre.latency) % steps for step in range(steps)]  # in the source's time
    keep = [0 <= t + p.delay < steps for t in sent_at]
    axon = b.add(Axon(name=f"axon of {p.name}", shape=source.shape, wait=wait, keep=keep))
    source.connect(axon.s_in)
    return axon.s_out


def _synapses(weights: Any, wait: int, shared: dict[str, Any]) -> Any:
    """Lava's process for doubled weights and an axon delay."""
    if isinstance(weights, np.ndarray):
        if not wait:
            return LavaDense(weights=weights, **shared)
        delays = np.full(weights.shape, wait)
        return LavaDelayDense(weights=weights, delays=delays, max_delay=wait, **shared)
    if not wait:
        return LavaSparse(weights=weights, **shared)
    delays = csr_matrix(
        (np.full(weights.nnz, wait, int), weights.indices, weights.indptr), weights.shape
    )
    return LavaDelaySparse(weights=weights, delays=delays, max_delay=wait, **shared)


def _matrix(
    p: Dense | OneToOne | SumTokens | BroadcastTokens, pre: Population, post: Population
) -> Any:
    """2 * weight as [n_post, n_pre]: an array for Dense, else a CSR matrix."""
    if isinstance(p, Dense):
        return 2 * p.weight.astype(np.int32)
    n_post, n_pre = prod(post.shape), prod(pre.shape)
    neurons = np.arange(max(n_post, n_pre))
    match p:
        case OneToOne():
            rows, columns = neurons, neurons
        case SumTokens():
            rows, columns = neurons // prod(pre.shape[1:]), neurons
        case BroadcastTokens():
            rows, columns = neurons, neurons // prod(post.shape[1:])
        case _:
            assert_never(p)
    values = np.full(len(neurons), 2 * p.weight, np.int32)
    matrix = csr_matrix((values, (rows, columns)), (n_post, n_pre))
    matrix.eliminate_zeros()
    return matrix


def _conv(p: Conv, pre: Population, bits: int) -> Any:
    """Lava flips its kernels and orders them C_out, W, H, C_in; exponents it ignores."""
    _, height, width = pre.shape
    process = LavaConv(
        name=p.name,
        weight=np.ascontiguousarray(
            effective_weight(p)[:, :, ::-1, ::-1].transpose(0, 3, 2, 1), np.int32
        ),
        input_shape=(width, height, pre.shape[0]),
        stride=(p.stride[1], p.stride[0]),
        padding=(p.padding[1], p.padding[0]),
        dilation=(p.dilation[1], p.dilation[0]),
        groups=p.groups,
        num_message_bits=bits,
    )
    out_h, out_w = conv_output(p, height, width)
    assert process.output_shape == (out_w, out_h, p.weight.shape[0])
    return process


def _hold_back(b: _Builder, relay: Population) -> None:
    """Keep the last spike of one sample out of the next.

    A relay with an incoming delay of 1 would pass it on at its local time 0. A spike of ours
    arrives there and then, once in every sample, with a weight that holds the relay down. The
    relay forgets within a step, so nothing else changes.
    """
    steps = b.network.steps
    phase = (relay.latency - 1) % steps  # of Lava's time step - 1; the synapse takes a step
    if phase not in b.markers:
        b.markers[phase] = b.add(Source(data=(np.arange(steps) == phase).astype(np.int32)[None]))
    weights = np.full((prod(relay.shape), 1), 2 * HELD_BACK, np.int32)
    shared = {"num_weight_bits": 8, "sign_mode": SignMode.MIXED, "weight_exp": -1}
    synapses = b.add(LavaDense(weights=weights, **shared))
    b.sender(b.markers[phase]).connect(synapses.s_in)
    synapses.a_out.connect(b.populations[relay.name].a_in)
