"""The processes of one training: one alone, or those that torchrun starts, and their devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

from stformer.errors import InputError, Unavailable

T = TypeVar("T")
# The first process may convert a data set while the others wait.
PATIENCE = timedelta(hours=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """Where this process stands.

    Attributes:
        rank: its number, from 0; number 0 writes and reports.
        size: how many there are.
        device: where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0


def alone(device: str = "") -> Processes:
    """One process on a device, see `find_device`."""
    return Processes(rank=0, size=1, device=find_device(device))


def find_device(name: str = "", local_rank: int = 0) -> torch.device:
    """The device of that name; without one, a GPU if there is one, else the CPU.

    Args:
        name: "cpu", "cuda" (the GPU of this process's number), "cuda:1", or "".
        local_rank: number of this process on its machine.

    Raises:
        InputError: another name, or more processes than GPUs.
        Unavailable: a GPU that torch does not see.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise InputError("--device", f"'{name}'", "cpu, cuda, cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError("--device", f"'{name}'", "cpu, cuda, cuda:N")
    if device.type == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise Unavailable(
            f"device '{name}'", "torch sees no GPU", "a build of torch for CUDA, and its driver"
        )
    index = local_rank if device.index is None else device.index
    if index >= count:
        raise InputError(
            "--device",
            f"GPU number {index}",
            f"0...{count - 1}, one process for each",
            f"torchrun --nproc-per-node {count}",
        )
    return torch.device("cuda", index)


@contextmanager
def joined(device: str = "") -> Iterator[Processes]:
    """Join the processes that torchrun started, if it did.

    Raises:
        InputError: another of them ended; also what `find_device` raises.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        here = alone(device)
        if here.device.type == "cuda":
            torch.cuda.set_device(here.device)
        yield here
        return
    rank = int(os.environ["RANK"])
    found = find_device(device, int(os.environ.get("LOCAL_RANK", rank)))
    if found.type == "cuda":
        torch.cuda.set_device(found)
    backend = "nccl" if found.type == "cuda" else "gloo"
    if not distributed.is_initialized():
        distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Processes(rank=rank, size=size, device=found)
    except (distributed.DistBackendError, RuntimeError) as e:
        if isinstance(e, distributed.DistBackendError) or "gloo" in str(e).lower():
            raise InputError(
                f"process {rank} of {size}",
                "another process of this training ended",
                "processes that all go on",
                "see what it said",
            ) from e
        raise
    # Not after an error: the others may still wait for us, and NCCL would wait for them in turn;
    # the end of the process tells them. And never gloo: it would wait for its thread while
    # holding Python's lock, which that thread may need to let go of its last tensor.
    if backend == "nccl":
        distributed.destroy_process_group()


def told(value: T, here: Processes) -> T:
    """The first process's value, on each."""
    if here.size == 1:
        return value
    box: list[Any] = [value]
    distributed.broadcast_object_list(box, device=here.device)
    return cast("T", box[0])


@contextmanager
def first_alone(here: Processes) -> Iterator[None]:
    """The first process goes through this before the others, so that one of them makes files."""
    if here.size > 1 and not here.first:
        distributed.barrier()
    yield
    if here.size > 1 and here.first:
        distributed.barrier()


def total(values: Tensor, here: Processes) -> Tensor:
    """The sum over all processes, on each."""
    if here.size > 1:
        values = values.to(here.device)
        distributed.all_reduce(values)
    return values


def shared(model: nn.Module, here: Processes) -> nn.Module:
    """The model with gradients averaged over the processes."""
    if here.size == 1:
        return model
    ids = [here.device.index] if here.device.type == "cuda" else None
    # Batch norm's statistics are shared once a step, see `stformer.training.step`.
    return nn.parallel.DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)
