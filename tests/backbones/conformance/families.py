"""By family, the forward pass of its unmodified transformers model on a row of tokens with a clip: what an adapter is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Plain = Callable[[Any, Tensor, Tensor, Sequence[float]], Tensor]
"""(backbone, ids [1, token], uint8 frames [1, frame, 3, h, w], times of the frames) to logits [1, token, vocabulary]."""


def llava_onevision(backbone: Any, ids: Tensor, frames: Tensor, times_sec: Sequence[float]) -> Tensor:
    pixels = (frames.float() / 255 - 0.5) / 0.5
    logits: Tensor = backbone.model(input_ids=ids, pixel_values_videos=pixels).logits
    return logits


def internvl(backbone: Any, ids: Tensor, frames: Tensor, times_sec: Sequence[float]) -> Tensor:
    pixels = normalised(frames[0], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    logits: Tensor = backbone.model(input_ids=ids, pixel_values=pixels).logits
    return logits


def qwen2_5_vl(backbone: Any, ids: Tensor, frames: Tensor, times_sec: Sequence[float]) -> Tensor:
    pixels = normalised(frames[0], (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    frames_per_second = 1 / (times_sec[1] - times_sec[0]) if len(times_sec) > 1 else 24.0
    timing = {"second_per_grid_ts": torch.tensor([2 / frames_per_second])}
    logits: Tensor = backbone.model(input_ids=ids, **timing, **qwen_video(backbone, ids, pixels)).logits
    return logits


def qwen3_vl(backbone: Any, ids: Tensor, frames: Tensor, times_sec: Sequence[float]) -> Tensor:
    half = (0.5, 0.5, 0.5)
    logits: Tensor = backbone.model(input_ids=ids, **qwen_video(backbone, ids, normalised(frames[0], half, half))).logits
    return logits


def videochat2(backbone: Any, ids: Tensor, frames: Tensor, times_sec: Sequence[float]) -> Tensor:
    pixels = normalised(frames[0], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))[None]
    logits: Tensor = backbone.model(input_ids=ids, pixel_values=pixels).logits
    return logits


def normalised(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Channel by channel: what is subtracted and divided by is scaled to bytes, as the processors do it."""
    colours = zip(frames.float().unbind(1), mean, std, strict=True)
    return torch.stack([(colour - 255 * torch.tensor(at)) / (255 * torch.tensor(by)) for colour, at, by in colours], 1)


def qwen_video(backbone: Any, ids: Tensor, pixels: Tensor) -> dict[str, Tensor]:
    """What a Qwen-VL processor makes of a clip, patch by patch."""
    vision = backbone.model.config.vision_config
    patch, merge = vision.patch_size, vision.spatial_merge_size
    pixels = torch.cat([pixels, pixels[-1:]]) if len(pixels) % 2 else pixels
    patches = pixels.unfold(2, patch, patch).unfold(3, patch, patch)
    side = patches.shape[2]
    corners = [(y, x) for y in range(0, side, merge) for x in range(0, side, merge)]
    within = [(y, x) for y in range(merge) for x in range(merge)]
    values = [
        patches[pair : pair + 2, :, y + dy, x + dx].transpose(0, 1).flatten()
        for pair in range(0, len(pixels), 2)
        for y, x in corners
        for dy, dx in within
    ]
    return {
        "pixel_values_videos": torch.stack(values),
        "video_grid_thw": torch.tensor([[len(pixels) // 2, side, side]]),
        "mm_token_type_ids": 2 * (ids == backbone.model.config.video_token_id).int(),
    }


PLAIN: dict[str, Plain] = {
    "videochat2": videochat2,
    "llava_onevision": llava_onevision,
    "internvl": internvl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
}
