"""A GPU that is none: tensors that say they are on one, and compute on the CPU.

As on a GPU, an operation with tensors of both devices is an error, and nothing of the other
device becomes a NumPy array. So what forgets to move a tensor fails here too, where no GPU is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda", 0)
INNER: Any = torch._C  # what torch's own tensors that compute nothing use
MOVES = {"aten::copy_", "aten::_to_copy"}  # take tensors of both


class OnGpu(torch.Tensor):
    """A tensor that says it is on the GPU.

    Attributes:
        here: its values, on the CPU.
    """

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> OnGpu:
        out: OnGpu = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=GPU,
        )
        out.here = here
        return out

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = pytree.tree_leaves((args, kwargs))
    tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
    on_gpu = any(isinstance(x, OnGpu) for x in tensors)
    name = func._schema.name
    if on_gpu and name not in MOVES:
        # Single numbers may come from the CPU, as on a GPU.
        strangers = [x for x in tensors if not isinstance(x, OnGpu) and x.dim()]
        if strangers:
            raise RuntimeError(f"{name}: tensors of both devices")
    device = kwargs.get("device")
    if device is not None:
        on_gpu = torch.device(device).type == "cuda"
        kwargs = {**kwargs, "device": torch.device("cpu")}
    here = pytree.tree_map(lambda x: x.here if isinstance(x, OnGpu) else x, (args, kwargs))
    out = func(*here[0], **here[1])
    # What was changed in place, or handed in to be filled, stays the tensor that it was.
    own = {id(x.here): x for x in leaves if isinstance(x, OnGpu)}

    def back(x: Any) -> Any:
        if id(x) in own:
            return own[id(x)]
        return OnGpu(x) if isinstance(x, torch.Tensor) and on_gpu else x

    return pytree.tree_map(back, out)


def _zero_gradients(loss: torch.Tensor) -> None:
    waiting: list[Any] = [loss.grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [before for before, _ in node.next_functions]
        if hasattr(node, "variable"):
            node.variable.grad = torch.zeros_like(node.variable)


def can_pretend() -> bool:
    """Whether this torch has what `pretended` needs: 2.3 has not."""
    return hasattr(INNER, "_ensureCUDADeviceGuardSet")


@contextmanager
def pretended() -> Iterator[None]:
    """Tensors that are moved to "cuda" are `OnGpu`, and torch says that there is one GPU.

    `backward` makes gradients of zeros: torch's engine asks the driver for each device.
    """
    INNER._ensureCUDADeviceGuardSet()
    cuda: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "set_device": lambda _: None,
        "is_bf16_supported": lambda *_: True,
        "get_device_name": lambda *_: "none, a pretended one",
    }
    future = torch.__future__
    with ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(torch.cuda, **cuda))
        stack.enter_context(mock.patch.object(torch.Tensor, "backward", _zero_gradients))
        before = future.get_overwrite_module_params_on_conversion()
        stack.callback(future.set_overwrite_module_params_on_conversion, before)
        future.set_overwrite_module_params_on_conversion(True)
        stack.callback(INNER._set_only_lift_cpu_tensors, False)
        INNER._set_only_lift_cpu_tensors(True)  # "cuda" in `torch.tensor` is a move then
        # Operations of cuDNN have no counterpart on the CPU.
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(_Dispatch())  # type: ignore[no-untyped-call]
        yield
