"""The usual blocks, by the names that users of slayer know: dense, convolution, temporal."""

from __future__ import annotations

from collections.abc import Sequence

from stformer.network import Shape
from stformer.nn.block import Block
from stformer.nn.neuron import Neuron
from stformer.nn.stream import Stream, StreamScale
from stformer.nn.weighted import Synapse


def conv_block(
    c_in: int | Sequence[int],
    c_out: int,
    kernel: int,
    neuron: Neuron,
    *,
    stride: int = 1,
    skip: int | None = None,
    bias: bool = False,
) -> Block:
    """Convolution block as slayer's `block.cuba.Conv`; one synapse per entry of `c_in`."""
    synapses = _synapses(c_in, c_out, kernel, stride)
    return Block(synapses, c_out, neuron, skip=skip, bias=bias)


def stream_block(
    c_in: int | Sequence[int],
    c_out: int,
    kernel: int,
    scale: StreamScale,
    *,
    skip: int | None = None,
    bias: bool = False,
    gain: float = 1.0,
) -> Stream:
    """Convolution and norm that add to a stream; see `Stream`."""
    synapses = _synapses(c_in, c_out, kernel, 1)
    return Stream(synapses, c_out, scale, skip=skip, bias=bias, gain=gain)


def _synapses(c_in: int | Sequence[int], c_out: int, kernel: int, stride: int) -> list[Synapse]:
    sources = [c_in] if isinstance(c_in, int) else list(c_in)
    pad = (kernel // 2, kernel // 2)
    return [
        Synapse(c, c_out, (kernel, kernel), source=i, stride=stride, padding=pad)
        for i, c in enumerate(sources)
    ]


def temporal_block(
    c_in: int,
    c_out: int,
    neuron: Neuron,
    *,
    taps: int = 3,
    kernel: int = 1,
    dilations: Sequence[int] = (1,),
    causal: bool = True,
) -> Block:
    """Convolution over time: tap j sees what the input sent j * dilation steps ago.

    Not causal: taps lie around the present, half of them ahead of it; their number is odd.
    With several dilations the output channels are split evenly between them, which is the
    concatenation of parallel branches (paper Fig. 3).
    """
    width = c_out // len(dilations)
    synapses = [
        Synapse(
            c_in,
            width,
            (kernel, kernel),
            padding=(kernel // 2, kernel // 2),
            delay=(tap if causal else tap - taps // 2) * dilation,
            first=branch * width,
        )
        for branch, dilation in enumerate(dilations)
        for tap in range(taps)
    ]
    return Block(synapses, c_out, neuron)


def dense_block(shape: Shape, channels: int, neuron: Neuron) -> Block:
    """All-to-all block as slayer's `block.cuba.Dense`: (C, H, W) to (channels, 1, 1).

    Args:
        shape: of the input, (C, H, W); (n, 1, 1) for what another dense block sends.
        channels: neurons.
    """
    c_in, height, width = shape
    return Block([Synapse(c_in, channels, (height, width))], channels, neuron)
