"""The fast simulator: layer after layer, every step and sample of a layer at once, all cores.

A network without recurrence needs no clock: the arriving sums of a population for all steps
are one matrix product over the spikes of the populations before it, delays are shifts along
the time axis, and only the neurons' own states run through time. Products run in floating point
where every partial sum is exact, which the weights decide.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from stformer import fixedpoint as fx
from stformer.bounds import FLOAT32_EXACT, bounds
from stformer.errors import Problem
from stformer.machine import cores
from stformer.network import (
    BroadcastTokens,
    Conv,
    Dense,
    Graded,
    Input,
    Lif,
    Network,
    OneToOne,
    Operand,
    Product,
    Readout,
    Relay,
    SumTokens,
    Synapses,
    bias_of,
    conv_output,
    effective_weight,
)
from stformer.trace import Inputs, Probe, Trace, check_inputs, digest_inputs, spike_dtype

CHUNK_BYTES = 2**26  # spikes and sums that one thread holds at a time
BLOCK_BYTES = 2**22  # unfolded frames of a convolution: they should stay in the cache
FLOAT64_EXACT = 2**53

Ints: TypeAlias = npt.NDArray[Any]  # uint8 spikes, int32 or int64 sums and states
Exact: TypeAlias = type[np.float32] | type[np.float64]
Progress = Callable[[int, int], None]


class Cpu:
    """Exact to every spike and state, for networks without recurrence.

    Args:
        progress: called with (samples done, samples in total), from the calling thread.
        threads: how many samples' chunks run at once; all cores by default. The result does
            not depend on it.
        chunk_bytes: memory a thread may use for a chunk of samples, about; at least one
            sample runs.
    """

    name = "cpu"

    def __init__(
        self,
        progress: Progress | None = None,
        *,
        threads: int | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.progress = progress
        self.threads = threads or cores()
        self.chunk_bytes = chunk_bytes

    def missing(self) -> str | None:
        return None

    def problems(self, network: Network) -> list[Problem]:
        recurrent = [
            Problem(where=f"projection {p.name}", why="recurrence; use the reference backend")
            for p in network.recurrent
        ]
        inexact = [
            Problem(where=f"population {name}", why=f"sums up to {bound} exceed 2^53")
            for name, bound in bounds(network).arriving.items()
            if bound >= FLOAT64_EXACT
        ]
        return recurrent + inexact

    def run(self, network: Network, inputs: Inputs, *, probe: Probe) -> Trace:
        """Run every sample from rest; see `stformer.deploy.Backend`."""
        started = time.perf_counter()
        frames = check_inputs(network, inputs)
        samples = len(next(iter(frames.values()))) if frames else 1
        out = _Records(network, samples, probe)
        chunks = list(self._chunks(network, samples))
        done = 0
        pool = ThreadPoolExecutor(min(self.threads, len(chunks)))
        try:
            pending = {
                pool.submit(_run_chunk, network, frames, chunk, out): chunk for chunk in chunks
            }
            for future in as_completed(pending):
                future.result()
                done += pending[future].stop - pending[future].start
                if self.progress:
                    self.progress(done, samples)
        finally:
            pool.shutdown(cancel_futures=True)
        return Trace(
            network=network.digest(),
            inputs=digest_inputs(frames),
            backend=self.name,
            spikes=out.spikes,
            u=out.u,
            v=out.v,
            info={"seconds": time.perf_counter() - started, "threads": self.threads},
        )

    def _chunks(self, network: Network, samples: int) -> Iterator[slice]:
        """Samples in pieces that fit the memory and keep every thread busy."""
        largest = max((prod(p.shape) for p in network.populations), default=1)
        every = sum(prod(p.shape) for p in network.populations)
        # All spikes of a chunk as bytes; sums as integers and floats, one population at a time.
        per_sample = network.steps * (every + 24 * largest)
        size = min(max(1, self.chunk_bytes // per_sample), -(-samples // self.threads))
        for start in range(0, samples, size):
            yield slice(start, min(start + size, samples))


class _Records:
    """The arrays of the trace; each chunk fills in its own samples."""

    def __init__(self, network: Network, samples: int, probe: Probe) -> None:
        self.spikes: dict[str, Ints] = {}
        self.u: dict[str, Ints] = {}
        self.v: dict[str, Ints] = {}
        for p in network.populations:
            if not probe.wants(p.name):
                continue
            shape = (samples, network.steps, *p.shape)
            self.spikes[p.name] = np.empty(shape, spike_dtype(network, p.name))
            if probe.states and isinstance(p, Lif):
                self.u[p.name] = np.empty(shape, np.int32)
            if probe.states and isinstance(p, (Lif, Readout)):
                self.v[p.name] = np.empty(shape, np.int32)


def _run_chunk(
    network: Network, frames: dict[str, npt.NDArray[np.int32]], chunk: slice, out: _Records
) -> None:
    count = chunk.stop - chunk.start
    sent: dict[str, Ints] = {}
    waiting = {
        p.name: sum(q.pre == p.name for q in network.projections) for p in network.populations
    }
    for p in network.populations:
        name = p.name
        u = out.u[name][chunk] if name in out.u else None
        v = out.v[name][chunk] if name in out.v else None
        if isinstance(p, Input):
            sent[name] = frames[name][chunk].astype(spike_dtype(network, name), copy=False)
        else:
            if isinstance(p, Product):
                sums = multiply(network, p, sent)
            else:
                sums = arriving(network, p.name, sent, count)
            match p:
                case Relay():
                    sent[name] = (sums >= 2).astype(np.uint8)
                case Lif():
                    sent[name] = fire(p, sums, u, v)
                case Readout():
                    sent[name] = accumulate(p, sums, v)
                case Graded():
                    sent[name] = fx.graded(sums.astype(np.int64), bias_of(p), p.shift).astype(
                        np.int32
                    )
                case Product():
                    sent[name] = fx.clip(sums).astype(np.int32)
                case _:
                    assert_never(p)
        if name in out.spikes:
            out.spikes[name][chunk] = sent[name]
        for projection in network.incoming(name):
            waiting[projection.pre] -= 1
            if not waiting[projection.pre]:
                del sent[projection.pre]


# --- synapses -------------------------------------------------------------------------------


def arriving(network: Network, name: str, sent: dict[str, Ints], count: int) -> Ints:
    """Arriving sums of a population at every step.

    Args:
        network: without recurrence.
        name: of the population.
        sent: what earlier populations sent, [S, T, *pre.shape].
        count: S.

    Returns:
        [S, T, *shape]; int32 where no current made of it leaves 24 bits for good, else int64.
    """
    shape, steps = network[name].shape, network.steps
    bound = bounds(network)
    # One wrap brings any such current back into 24 bits, step after step; beyond, it may grow.
    small = bound.arriving[name] << fx.SHIFT <= 2 * fx.STATE_MAX
    total: Ints = np.zeros((count, steps, *shape), np.int32 if small else np.int64)
    for p in network.incoming(name):
        assert not isinstance(p, Operand)
        source, target = _overlap(sent[p.pre], total, p.delay)
        if not source.shape[1]:
            continue
        exact: Exact = np.float32 if bound.added[p.name] < FLOAT32_EXACT else np.float64
        flat = source.reshape(-1, *source.shape[2:])
        if p.delay == 0:
            add_synapse(p, flat, target.reshape(-1, *shape), exact)
        else:
            shifted = np.zeros((len(flat), *shape), total.dtype)
            add_synapse(p, flat, shifted, exact)
            target += shifted.reshape(target.shape)
    return total


def _overlap(sent: Ints, total: Ints, delay: int) -> tuple[Ints, Ints]:
    """The steps [S, t, ...] of a source that arrive within the sample, and where they do."""
    steps = total.shape[1]
    late, early = min(max(delay, 0), steps), min(max(-delay, 0), steps)
    return sent[:, early : steps - late], total[:, late : steps - early]


def multiply(network: Network, p: Product, sent: dict[str, Ints]) -> Ints:
    """A product's sums at every step before the clip, floats [S, T, *shape]."""
    exact = np.float32 if bounds(network).arriving[p.name] < FLOAT32_EXACT else np.float64
    factors: dict[str, npt.NDArray[Any]] = {}
    for q in network.incoming(p.name):
        assert isinstance(q, Operand)
        factor = np.zeros(sent[q.pre].shape, exact)
        source, target = _overlap(sent[q.pre], factor, q.delay)
        target[...] = source
        factors[q.port] = factor
    left, right = factors["left"], factors["right"]
    lead = (*right.shape[:2], p.heads)
    right = right.reshape(*lead, -1, prod(right.shape[3:]))
    if p.mode == "scores":
        product = left.reshape(right.shape).swapaxes(-1, -2) @ right
    else:
        product = right @ left.swapaxes(-1, -2)
    whole: Ints = product.reshape(*lead[:2], *p.shape)
    return whole


def add_synapse(p: Synapses, spikes_NS: Ints, sums_NS: Ints, exact: Exact) -> None:
    """Add a projection's sums to `sums_NS` in place.

    Args:
        p: its delay is the caller's business.
        spikes_NS: [N, *pre.shape].
        sums_NS: [N, *post.shape], integers.
        exact: float type in which every partial sum is exact.
    """
    w = effective_weight(p)
    match p:
        case Dense():
            flat = spikes_NS.reshape(len(spikes_NS), -1).astype(exact)
            product = flat @ w.T.astype(exact)
            sums_NS += product.reshape(sums_NS.shape).astype(sums_NS.dtype)
        case Conv():
            _convolve(p, spikes_NS, sums_NS, exact)
        case OneToOne() | BroadcastTokens():
            # With a type: NumPy 1 multiplies an int32 array and an int64 number in int32.
            sums_NS += np.multiply(spikes_NS, w, dtype=sums_NS.dtype)
        case SumTokens():
            sums_NS += spikes_NS.sum(axis=(2, 3), keepdims=True, dtype=sums_NS.dtype) * w.astype(
                sums_NS.dtype
            )
        case _:
            assert_never(p)


def _convolve(p: Conv, spikes_NCHW: Ints, sums_NCHW: Ints, exact: Exact) -> None:
    """Unfold frames into columns, then one matrix product a frame and group."""
    n, channels, height, width = spikes_NCHW.shape
    kh, kw = p.weight.shape[2:]
    (ph, pw), (sh, sw), (dh, dw) = p.padding, p.stride, p.dilation
    out_h, out_w = conv_output(p, height, width)
    rows = len(p.weight) // p.groups
    kernel = effective_weight(p).reshape(p.groups, rows, -1).astype(exact)
    column = channels * kh * kw * out_h * out_w * np.dtype(exact).itemsize
    block = max(1, BLOCK_BYTES // column)
    for start in range(0, n, block):
        frames = spikes_NCHW[start : start + block]
        m = len(frames)
        padded = np.zeros((m, channels, height + 2 * ph, width + 2 * pw), exact)
        padded[:, :, ph : ph + height, pw : pw + width] = frames
        sn, sc, sy, sx = padded.strides
        taps = np.lib.stride_tricks.as_strided(
            padded,
            (m, channels, kh, kw, out_h, out_w),
            (sn, sc, sy * dh, sx * dw, sy * sh, sx * sw),
            writeable=False,
        )
        columns = taps.reshape(m, p.groups, channels // p.groups * kh * kw, out_h * out_w)
        product = np.matmul(kernel, columns)
        sums = sums_NCHW[start : start + block]
        sums += product.reshape(sums.shape).astype(sums.dtype)


# --- neurons --------------------------------------------------------------------------------


def decay(x: Ints, decay_: int) -> Ints:
    """`fixedpoint.decay`, without 64-bit products where the factor is a power of two.

    x * 2^k / 4096 toward zero is a shift by 12 - k, after adding what makes the shift of
    a negative number round up.
    """
    factor = fx.DECAY_ONE - decay_
    if factor == 0:
        return np.zeros_like(x)
    if factor & (factor - 1) == 0:
        shift = 12 - (factor.bit_length() - 1)
        if shift == 0:
            return x
        bits = 8 * x.dtype.itemsize
        out: Ints = (x + ((x >> (bits - 1)) & ((1 << shift) - 1))) >> shift
        return out
    wide: Ints = fx.decay(x.astype(np.int64), decay_)
    return wide.astype(x.dtype)


def fire(p: Lif, sums: Ints, u_out: Ints | None, v_out: Ints | None) -> Ints:
    """Spikes [S, T, *shape] of LIF neurons from rest; fills in states where asked.

    The same arithmetic as `fixedpoint.lif_step`, in 32 bits where `sums` has them.
    """
    dtype = sums.dtype
    bias = bias_of(p).astype(dtype)
    spikes = np.empty(sums.shape, np.uint8)
    u: Ints = np.zeros((len(sums), *p.shape), dtype)
    v: Ints = np.zeros_like(u)
    for t in range(sums.shape[1]):
        u = _current(u, sums[:, t], p.du)
        v = fx.clip(decay(v, p.dv) + u + bias)
        fired = v > (p.vth << fx.SHIFT)
        v[fired] = 0
        spikes[:, t] = fired
        if u_out is not None:
            u_out[:, t] = u
        if v_out is not None:
            v_out[:, t] = v
    return spikes


def accumulate(p: Readout, sums: Ints, v_out: Ints | None) -> Ints:
    """Membranes int32 [S, T, *shape] of a readout from rest."""
    dtype = sums.dtype
    bias = bias_of(p).astype(dtype)
    out = np.empty(sums.shape, np.int32)
    nothing: Ints = np.zeros((len(sums), *p.shape), dtype)
    v: Ints = nothing
    for t in range(sums.shape[1]):
        v = fx.clip(v + _current(nothing, sums[:, t], fx.NO_CURRENT) + bias)
        out[:, t] = v
    if v_out is not None:
        v_out[...] = out
    return out


def _current(u: Ints, a: Ints, du: int) -> Ints:
    raised = a << fx.SHIFT
    if du != fx.NO_CURRENT:
        raised += decay(u, fx.current_decay(du))
    # Two passes over memory to find that nothing wraps, which is the rule, instead of five.
    if raised.size and (raised.max() > fx.STATE_MAX or raised.min() <= -fx.STATE_MAX):
        raised = fx.wrap(raised)
    return raised
