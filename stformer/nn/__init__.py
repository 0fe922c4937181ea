"""Blocks: synapse + norm + LIF, as users of `slayer.block.cuba` know them.

Anything built from these trains, quantises, lowers to a `Network`, and is proven there.
"""

from stformer.nn.block import Block
from stformer.nn.gates import Gate, HeadGate, HeadSum, Join, Pool, TokenSum
from stformer.nn.layers import conv_block, dense_block, stream_block, temporal_block
from stformer.nn.neuron import Neuron, lif
from stformer.nn.product import Count, Mix, Scores
from stformer.nn.readout import Readout
from stformer.nn.stream import Fire, Stream, StreamScale, TokenMean
from stformer.nn.weighted import Spiking, Synapse, Weighted

__all__ = [
    "Block",
    "Count",
    "Fire",
    "Gate",
    "HeadGate",
    "HeadSum",
    "Join",
    "Mix",
    "Neuron",
    "Pool",
    "Readout",
    "Scores",
    "Spiking",
    "Stream",
    "StreamScale",
    "Synapse",
    "TokenMean",
    "TokenSum",
    "Weighted",
    "conv_block",
    "dense_block",
    "lif",
    "stream_block",
    "temporal_block",
]
