"""Blocks: synapse + norm + LIF, as users of `slayer.block.cuba` know them.

Anything built from these trains, quantises, lowers to a `Network`, and is proven there.
"""

from stformer.nn.block import Block, Spiking, Synapse
from stformer.nn.gates import Gate, HeadGate, HeadSum, Join, Pool, TokenSum
from stformer.nn.layers import conv_block, dense_block, temporal_block
from stformer.nn.neuron import Neuron, lif
from stformer.nn.readout import Readout

__all__ = [
    "Block",
    "Gate",
    "HeadGate",
    "HeadSum",
    "Join",
    "Neuron",
    "Pool",
    "Readout",
    "Spiking",
    "Synapse",
    "TokenSum",
    "conv_block",
    "dense_block",
    "lif",
    "temporal_block",
]
