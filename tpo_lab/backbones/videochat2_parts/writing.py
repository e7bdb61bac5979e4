"""A backbone's folder written tensor by tensor, and opened again without being read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tpo_lab.backbones.videochat2_parts.configuration import VideoChat2Config
from tpo_lab.backbones.videochat2_parts.model import VideoChat2ForConditionalGeneration
from tpo_lab.backbones.videochat2_parts.published import INDEX, PublishedWeights
from tpo_lab.errors import UsageError

SHARD_BYTES = 1 << 30
"""Of a file, and of what is in memory at a time."""


def wanted_shapes(config: VideoChat2Config) -> dict[str, tuple[int, ...]]:
    """Every tensor of the model by name, from a model without memory."""
    return {name: tuple(tensor.shape) for name, tensor in _empty(config).state_dict().items()}


def write_backbone(
    folder: Path, config: VideoChat2Config, read: Callable[[str], Tensor], dtype: torch.dtype, *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write weights, index and configuration.

    Args:
        folder: made where it is missing.
        config: of the model.
        read: gives one of its tensors by name.
        dtype: in which all are stored.
        shard_bytes: of a file, which a single larger tensor may exceed.

    Raises:
        UsageError: a tensor has another shape than the model's.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    shapes = wanted_shapes(config)
    shards = _shards(shapes, dtype.itemsize, shard_bytes)
    files = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for file, names in zip(files, shards, strict=True):
        save_file({name: _fitted(name, read(name), shapes[name]).to(dtype).clone() for name in names}, folder / file, {"format": "pt"})
    weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
    total = sum(dtype.itemsize * torch.Size(shape).numel() for shape in shapes.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1), encoding="utf-8")
    config.architectures, config.dtype = [VideoChat2ForConditionalGeneration.__name__], dtype
    config.save_pretrained(folder)


def open_backbone(folder: Path, config: VideoChat2Config) -> VideoChat2ForConditionalGeneration:
    """The model with its weights mapped from the disk, to be looked at and saved; it cannot be run."""
    model: VideoChat2ForConditionalGeneration = _empty(config)
    model.load_state_dict(dict(PublishedWeights(folder)), strict=True, assign=True)
    return model


def _empty(config: VideoChat2Config) -> Any:
    with torch.device("meta"):
        return VideoChat2ForConditionalGeneration(config)


def _shards(shapes: Mapping[str, tuple[int, ...]], item_bytes: int, limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    held = 0
    for name, shape in shapes.items():
        size = item_bytes * torch.Size(shape).numel()
        if shards[-1] and held + size > limit:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += size
    return shards


def _fitted(name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A published tensor in our shape: tables without the rows of added tokens, and patches without their depth of one frame."""
    fitted = tensor
    if name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        fitted = tensor[: shape[0]]
    elif name == "model.vision_tower.patch_embed.weight" and tensor.ndim == 5 and tensor.shape[2] == 1:
        fitted = tensor[:, :, 0]
    if tuple(fitted.shape) != shape:
        raise UsageError(f"weights: {name}", expected=f"the shape {shape}", got=tuple(tensor.shape), hint="The sizes are of another model.")
    return fitted
