"""Number formats and repeatability: mixed precision for floats, none of it for integers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.amp.grad_scaler import GradScaler

from stformer.recipe import TrainConfig

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def mixed(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Convolutions in the recipe's short format; neurons are float32 (`stformer.nn.lif`)."""
    if config.amp == "off":
        yield
        return
    with torch.autocast(device.type, dtype=DTYPES[config.amp]):
        yield


@contextmanager
def exact(device: torch.device, *, any_algorithm: bool = False) -> Iterator[None]:
    """Nothing is rounded below float32, which holds every sum of the integer network exactly.

    Args:
        device: where it is computed.
        any_algorithm: on a GPU, lets cuDNN compute convolutions by its fastest algorithms, of
            which some (Winograd's, FFT) round between exact numbers. Populations round what
            arrives to whole numbers: good enough to train with, not to prove anything.
    """
    cudnn = torch.backends.cudnn
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(
            cudnn.flags(
                enabled=cudnn.enabled and any_algorithm,
                benchmark=cudnn.benchmark,
                deterministic=cudnn.deterministic,
                allow_tf32=False,
            )
        )
        before = torch.get_float32_matmul_precision()
        stack.callback(torch.set_float32_matmul_precision, before)
        torch.set_float32_matmul_precision("highest")
        yield


def scaler(config: TrainConfig, device: torch.device) -> GradScaler:
    """Keeps fp16 gradients from vanishing; does nothing for the other formats."""
    return GradScaler(device.type, enabled=config.amp == "fp16")


@contextmanager
def repeatable(on: bool) -> Iterator[None]:
    """Only operations that give the same bits each time; torch raises RuntimeError for others."""
    cudnn = torch.backends.cudnn
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
    )
    if on:
        # Read by cuBLAS when it starts; the value is one of the two that NVIDIA documents.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = on, not on
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = before[2:]
