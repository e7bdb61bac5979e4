"""Tensors that are cut into pieces over several processes, as whole ones: for checkpoints, comparisons and reports.

A plain tensor passes through as it is, so that code for one process and for many is the same. What is whole is the same on every process.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

Shard = Literal["auto", "ddp", "fsdp"]
"""Whether every process holds all weights, or a piece of the language model's; "auto": as accelerate is configured."""


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds a piece of it only."""
    return hasattr(tensor, "full_tensor") or _is_cut_by_deepspeed(tensor)


def whole(tensor: Tensor) -> Tensor:
    """The full tensor, without gradient: a gathered copy of a sharded one, and a plain one itself, which shares its memory.

    All processes call it, in the same order, or all of them wait.
    """
    if _is_cut_by_deepspeed(tensor):
        from deepspeed.runtime.zero.partition_parameters import GatheredParameters

        with GatheredParameters([tensor]):
            return tensor.detach().clone()
    gather = getattr(tensor.detach(), "full_tensor", None)
    return tensor.detach() if gather is None else gather()


def whole_gradient(parameter: Tensor) -> Tensor | None:
    """The full gradient of a possibly sharded parameter; None where it has none. All processes call it, as `whole`."""
    if hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping"):
        from deepspeed.utils import safe_get_full_grad

        return safe_get_full_grad(parameter)  # type: ignore[no-any-return]
    return None if parameter.grad is None else whole(parameter.grad)


@torch.no_grad()
def put(parameter: Tensor, tensor: Tensor) -> None:
    """Give a possibly sharded tensor the values of a full one, each process its piece; dtype and device stay those of `parameter`.

    All processes call it with equal values. Shapes have to be equal, which the caller checks: `parameter.shape` is that of the whole.
    """
    mesh = getattr(parameter, "device_mesh", None)
    if mesh is None:
        parameter.copy_(tensor.to(parameter))
        return
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = parameter
    full = tensor.to(device=sharded.to_local().device, dtype=parameter.dtype)
    # every process has the full tensor already, so that none has to send it
    parameter.copy_(distribute_tensor(full, mesh, sharded.placements, src_data_rank=None))


def _is_cut_by_deepspeed(tensor: Tensor) -> bool:
    """What ZeRO-3 has cut and not kept whole."""
    return hasattr(tensor, "ds_id") and not getattr(tensor, "ds_persist", False)
