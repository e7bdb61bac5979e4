"""LLaVA-OneVision (SigLIP tower, two-layer projector, Qwen2 language model) behind the backbone protocol, from nano to 7B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from tpo_lab.backbones.base import ChatFormat, VideoFeatures
from tpo_lab.backbones.transformers_backbone import QWEN2_CHAT, TransformersBackbone, load_pretrained


class LlavaOnevisionBackbone(TransformersBackbone):
    """A `LlavaOnevisionForConditionalGeneration` and its tokenizer, built outside and passed in.

    Args:
        frame_numbers: write the number of each frame before its visual tokens, so that the language model can count time.

    Raises:
        UsageError: no frames, or an attention implementation that takes no mask of its own (only sdpa and eager do).
    """

    prefixes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vision": ("model.vision_tower.",),
        "connector": ("model.multi_modal_projector.", "model.image_newline"),
        "llm": ("model.language_model.", "lm_head."),
    }

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str, num_frames: int, chat: ChatFormat = QWEN2_CHAT, frame_numbers: bool = True
    ) -> None:
        size = int(model.config.vision_config.image_size)
        super().__init__(model, tokenizer, name=name, num_frames=num_frames, image_size=size, chat=chat)
        self.frame_numbers = frame_numbers

    def video_features(self, frames: Tensor) -> VideoFeatures:
        """Encode uint8 frames [clip, frame, 3, image_size, image_size]; one newline embedding ends each clip."""
        clips, count = frames.shape[:2]
        core = self.model.model
        weight = core.multi_modal_projector.linear_1.weight
        pixels = (frames.flatten(0, 1).to(weight.device).float() / 255 - 0.5) / 0.5
        layer = self.model.config.vision_feature_layer
        hidden = core.vision_tower(pixels.to(weight.dtype), output_hidden_states=True).hidden_states[layer]
        if self.model.config.vision_feature_select_strategy == "default":
            hidden = hidden[:, 1:]
        pooled = core.apply_pooling(core.multi_modal_projector(hidden))
        tokens = pooled.reshape(clips, count * pooled.shape[1], -1)
        newline = core.image_newline[None, None, :].expand(clips, 1, -1).to(tokens)
        return VideoFeatures(torch.cat([tokens, newline], 1), hidden.reshape(clips, count, *hidden.shape[1:]))

    @property
    def cells_per_frame(self) -> int:
        """Patches after 2 x 2 pooling."""
        vision = self.model.config.vision_config
        side = -(-(vision.image_size // vision.patch_size) // 2)
        return int(side * side)

    def video_placeholder(self, times_sec: Sequence[float]) -> list[int]:
        """Token ids that stand for a clip; this family is not told the times."""
        ids: list[int] = []
        for frame in range(len(times_sec)):
            if self.frame_numbers:
                ids += self.words(f" {frame + 1}")
            ids += [self.video_token] * self.cells_per_frame
        return [*ids, self.video_token]


def load(path: str, *, num_frames: int, dtype: torch.dtype | None = None) -> LlavaOnevisionBackbone:
    """Load a LLaVA-OneVision checkpoint from the hub or from a local folder.

    Raises:
        UsageError: where neither has such a checkpoint.
    """
    from transformers import LlavaOnevisionForConditionalGeneration

    model, tokenizer = load_pretrained(path, "LLaVA-OneVision", LlavaOnevisionForConditionalGeneration, dtype=dtype)
    return LlavaOnevisionBackbone(model, tokenizer, name=path, num_frames=num_frames)
