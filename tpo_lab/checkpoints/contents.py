"""Which tensors of a model a checkpoint holds, how they are taken out of it, and put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tpo_lab.errors import TPOError
from tpo_lab.model import TPOModel


@dataclass(frozen=True)
class Contents:
    """What was in memory when a checkpoint was made.

    Attributes:
        tensors: what the checkpoint holds, in main memory.
        fingerprints: of every tensor of the model, also of those that the checkpoint does not hold.
    """

    tensors: dict[str, Tensor]
    fingerprints: dict[str, int]


def changed_parts(model: TPOModel) -> dict[str, Tensor]:
    """What a checkpoint must hold: everything but weights of pretrained models that no stage has trained; the heads' buffers as well."""
    untrained = tuple(part for part in model.given_parts if part not in model.trained_backbone_parts)
    parts: dict[str, Tensor] = {name: p for name, p in model.named_parts().items() if not name.startswith(untrained)}
    for prefix, module in (("prompts", model.prompts), ("heads", model.heads)):
        kept = {f"{prefix}.{name}": value for name, value in module.state_dict(keep_vars=True).items()}
        parts.update({n: value for n, value in kept.items() if not isinstance(value, nn.Parameter) and not n.startswith(untrained)})
    return parts


def everything(model: TPOModel) -> dict[str, Tensor]:
    """Every parameter, and the heads' buffers that a checkpoint holds."""
    return {**model.named_parts(), **changed_parts(model)}


def gather(model: TPOModel, *, half: bool = False, wanted: bool = True) -> Contents:
    """Take out what a checkpoint holds; where parameters are spread over processes, every process must call this.

    Args:
        half: in half precision.
        wanted: False for a process that writes nothing: it takes part and keeps nothing.

    Raises:
        TPOError: a weight is too large for half precision.
    """
    from tpo_lab.training.steps.sharding import whole

    held = changed_parts(model)
    tensors: dict[str, Tensor] = {}
    fingerprints: dict[str, int] = {}
    for name, value in everything(model).items():
        full = whole(value)
        if not wanted:
            continue
        fingerprints[name] = fingerprint(full)
        if name in held:
            tensors[name] = _own(_stored(name, full, half))
    return Contents(tensors, fingerprints)


def fingerprint(tensor: Tensor) -> int:
    """The sum of a tensor's raw bits as whole numbers: the same on every device and in every order of summation."""
    widths = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    raw = tensor.detach().contiguous()
    return int(raw.view(widths[raw.element_size()]).sum(dtype=torch.int64)) if raw.numel() else 0


def restore(model: TPOModel, tensors: Mapping[str, Tensor], *, label: str) -> None:
    """Put saved tensors back; every tensor must find its place, and every part that a checkpoint holds its tensor.

    Raises:
        TPOError: a tensor is missing, too many, or of another shape.
    """
    from tpo_lab.training.steps.sharding import put

    parts = changed_parts(model)
    if set(parts) != set(tensors):
        missing, extra = sorted(set(parts) - set(tensors)), sorted(set(tensors) - set(parts))
        raise TPOError(
            f"checkpoint {label}: expected one tensor per trained part, got {len(missing)} missing {missing[:3]} and {extra[:3]} extra."
        )
    for name, parameter in parts.items():
        if parameter.shape != tensors[name].shape:
            raise TPOError(f"checkpoint {label}: {name} expected shape {tuple(parameter.shape)}, got {tuple(tensors[name].shape)}.")
        put(parameter, tensors[name])


def _own(value: Tensor) -> Tensor:
    """In main memory, and not part of a larger tensor."""
    return value.cpu().contiguous()


def _stored(name: str, value: Tensor, half: bool) -> Tensor:
    if not half or not value.is_floating_point():
        return value
    halved = value.half()
    if (halved.isinf() & ~value.isinf()).any():
        raise TPOError(f"{name}: expected values up to 65504, the largest in half precision, got {value.abs().max().item():g}.")
    return halved
