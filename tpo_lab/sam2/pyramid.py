"""SAM2's image encoder, from the library's parts and without what the library computes in vain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from transformers.models.sam2.modeling_sam2 import Sam2MultiScaleBlock, Sam2VisionModel, Sam2VisionNeck


def feature_maps(encoder: Sam2VisionModel, pixels: Tensor) -> list[Tensor]:
    """The feature maps of normalised images [image, 3, h, w], finest first [image, c, h', w'].

    Left out are the positions of every cell, which nothing asks for here, a second set of attention weights, which nothing asks for
    anywhere, and most work on the margin that fills the last windows up.

    Source: Hiera (arXiv 2306.00989) as SAM2 has it, from the parts of `transformers`.
    """
    backbone = encoder.backbone
    cells = backbone.patch_embed(pixels)
    cells = cells + backbone._get_pos_embed(cells.shape[1:3])
    stages = []
    for number, block in enumerate(backbone.blocks):
        cells = _block(block, cells)
        if number in backbone.stage_ends:
            stages.append(cells)
    return _merged(encoder.neck, stages)[: encoder.num_feature_levels]


def _block(block: Sam2MultiScaleBlock, cells: Tensor) -> Tensor:
    """One block: cells [image, h, w, c] to cells of the same or of half the grid."""
    normed = block.layer_norm1(cells)
    if block.dim != block.dim_out:
        cells = _pooled(block.proj(normed), block.query_stride)
    cells = cells + _attended(block, normed, cells.shape[1], cells.shape[2])
    merged: Tensor = cells + block.mlp(block.layer_norm2(cells))
    return merged


def _attended(block: Sam2MultiScaleBlock, cells: Tensor, height: int, width: int) -> Tensor:
    """Attention within windows, or over all cells where the block has none: [image, height, width, c]."""
    attention, side = block.attn, block.window_size
    projected = attention.qkv(cells)
    if side and (cells.shape[1] % side or cells.shape[2] % side):
        # cells of the margin are zero, so that the projection is the same for all of them
        margin = attention.qkv(cells.new_zeros(cells.shape[-1]))
        whole = margin.expand(len(cells), _filled(cells.shape[1], side), _filled(cells.shape[2], side), -1).clone()
        whole[:, : cells.shape[1], : cells.shape[2]] = projected
        projected = whole
    down, across = (projected.shape[1] // side, projected.shape[2] // side) if side else (1, 1)
    windows = _split(projected, down, across)
    query, key, value = windows.chunk(3, dim=-1)
    query = _pooled(query, block.query_stride)
    heads = attention.num_attention_heads
    asked, keys, values = (each.reshape(len(each), -1, heads, each.shape[-1] // heads).transpose(1, 2) for each in (query, key, value))
    found = functional.scaled_dot_product_attention(asked, keys, values)
    joined = _joined(found.transpose(1, 2).reshape(query.shape), down, across)
    attended: Tensor = attention.proj(joined[:, :height, :width])
    return attended


def _filled(size: int, side: int) -> int:
    return -(-size // side) * side


def _split(cells: Tensor, down: int, across: int) -> Tensor:
    """[image, h, w, c] to windows [image * down * across, h / down, w / across, c]."""
    images, height, width, channels = cells.shape
    return cells.reshape(images, down, height // down, across, width // across, channels).transpose(2, 3).flatten(0, 2)


def _joined(windows: Tensor, down: int, across: int) -> Tensor:
    """The inverse of `_split`."""
    _, height, width, channels = windows.shape
    return windows.reshape(-1, down, across, height, width, channels).transpose(2, 3).reshape(-1, down * height, across * width, channels)


def _pooled(cells: Tensor, stride: int | Sequence[int] | None) -> Tensor:
    """The greatest of each `stride` cells, per channel: [image, h, w, c]."""
    if stride is None:
        return cells
    size = (stride, stride) if isinstance(stride, int) else tuple(stride)
    return functional.max_pool2d(cells.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)


def _merged(neck: Sam2VisionNeck, stages: list[Tensor]) -> list[Tensor]:
    """All stages at the width of the neck, finest first; the coarser ones flow into the finer where the neck says so."""
    maps: list[Tensor] = []
    for number, (convolution, cells) in enumerate(zip(neck.convs, stages[::-1], strict=True)):
        level = convolution(cells.permute(0, 3, 1, 2))
        if number and len(stages) - 1 - number in (neck.fpn_top_down_levels or ()):
            level = level + functional.interpolate(maps[0].float(), scale_factor=2.0, mode="nearest").to(level.dtype)
        maps.insert(0, level)
    return maps
