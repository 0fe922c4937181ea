"""Untrained models whose every population fires: what measures of size and equality run on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stformer.config import STFormerConfig
from stformer.model import STFormer


def sane_model(config: STFormerConfig, batch: int = 2, seed: int = 0) -> STFormer:
    """A model with random weights and norms that have seen random frames, in eval mode.

    Args:
        config: any.
        batch: samples that the norms see.
        seed: of weights and frames.
    """
    torch.manual_seed(seed)
    model = STFormer(config).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 1.0  # exactly the statistics of these frames
    with torch.no_grad():
        model(random_frames(config, batch))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def random_frames(config: STFormerConfig, samples: int) -> Tensor:
    """Whole numbers 0...largest_input as floats [T, samples, C, H, W]."""
    shape = (config.steps, samples, config.channels, config.size, config.size)
    return torch.randint(0, config.largest_input + 1, shape).float()
