"""Shapes of tensors, checked by the names of their axes."""

from __future__ import annotations

from torch import Tensor

from tpo_lab.errors import UsageError


def require_axes(argument: str, tensor: Tensor, **axes: int | None) -> tuple[int, ...]:
    """Return the shape of `tensor`, or raise a `UsageError` that spells the expected axes; None takes any length."""
    if tensor.ndim != len(axes) or any(want not in (None, got) for want, got in zip(axes.values(), tensor.shape, strict=True)):
        expected = ", ".join(axis if length is None else f"{axis}={length}" for axis, length in axes.items())
        raise UsageError(argument, expected=f"[{expected}]", got=tuple(tensor.shape))
    return tuple(tensor.shape)
