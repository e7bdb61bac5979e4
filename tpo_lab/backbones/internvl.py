"""InternVL (InternViT tower, pixel shuffle, two-layer projector, Qwen2 or Llama language model) behind the backbone protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from tpo_lab.backbones.base import VideoFeatures
from tpo_lab.backbones.pixels import normalise
from tpo_lab.backbones.transformers_backbone import TransformersBackbone, load_pretrained
from tpo_lab.errors import UsageError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pixels of ImageNet, in [0,1]."""


class InternVLBackbone(TransformersBackbone):
    """An `InternVLForConditionalGeneration` and its tokenizer, built outside and passed in.

    Each frame is one tile of `image_size`, as the family shows videos; tiles of a finer grid are for single images only.

    Raises:
        UsageError: no frames, patches that pixel shuffle cannot group, or an attention implementation that takes no mask of its own.
    """

    prefixes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vision": ("model.vision_tower.",),
        "connector": ("model.multi_modal_projector.",),
        "llm": ("model.language_model.", "lm_head."),
    }

    def __init__(self, model: Any, tokenizer: Any, *, name: str, num_frames: int) -> None:
        vision = model.config.vision_config
        super().__init__(model, tokenizer, name=name, num_frames=num_frames, image_size=int(vision.image_size[0]))
        self._patches_per_side = self.image_size // int(vision.patch_size[0])
        if self._patches_per_side % self._group:
            raise UsageError("config: patches per side", expected=f"a multiple of {self._group}", got=self._patches_per_side)

    @property
    def _group(self) -> int:
        """Side of the squares of patches that pixel shuffle makes one visual token of."""
        side: int = round(1 / self.model.config.downsample_ratio)
        return side

    @property
    def video_token(self) -> int:
        """The id whose embeddings are replaced by visual tokens; images and videos have the same."""
        return int(self.model.config.image_token_id)

    @property
    def cells_per_frame(self) -> int:
        """Patches after pixel shuffle."""
        return int((self._patches_per_side // self._group) ** 2)

    def video_features(self, frames: Tensor) -> VideoFeatures:
        """Encode uint8 frames [clip, frame, 3, image_size, image_size], each on its own."""
        clips, count = frames.shape[:2]
        pixels = normalise(frames.flatten(0, 1).to(self.device), MEAN, STD)
        found = self.model.model.get_image_features(pixels, return_dict=True)
        layer = self.model.config.vision_feature_layer
        hidden = found.last_hidden_state if layer == -1 else found.hidden_states[layer]
        if self.model.config.vision_feature_select_strategy == "default":
            hidden = hidden[:, 1:]
        return VideoFeatures(found.pooler_output.reshape(clips, -1, self.hidden_size), hidden.reshape(clips, count, *hidden.shape[1:]))

    def video_placeholder(self, times_sec: Sequence[float]) -> list[int]:
        """Token ids that stand for a clip, its frames numbered from 1; this family is not told the times."""
        ids: list[int] = []
        for frame in range(len(times_sec)):
            line = f"Frame{frame + 1}: <img>"
            ids += [*self.words(f"\n{line}" if frame else line), *[self.video_token] * self.cells_per_frame, *self.words("</img>")]
        return ids


def load(path: str, *, num_frames: int, dtype: torch.dtype | None = None) -> InternVLBackbone:
    """Load an InternVL checkpoint of transformers' own layout (`...-hf`) from the hub or from a local folder.

    Raises:
        UsageError: where neither has such a checkpoint.
    """
    from transformers import InternVLForConditionalGeneration

    model, tokenizer = load_pretrained(path, "InternVL", InternVLForConditionalGeneration, dtype=dtype)
    return InternVLBackbone(model, tokenizer, name=path, num_frames=num_frames)
