"""Qwen3-VL (learned positions in the tower, features of several depths, times written as text, Qwen3) behind the backbone protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tpo_lab.backbones.base import ChatFormat, Inputs
from tpo_lab.backbones.qwen2_5_vl import Qwen2_5VLBackbone
from tpo_lab.backbones.transformers_backbone import QWEN2_CHAT, load_pretrained

CHAT = ChatFormat(
    open="<|im_start|>user\n",
    before_question="",
    before_answer=QWEN2_CHAT.before_answer,
    before_reply="",
    end="<|im_end|>",
    before_next_question=QWEN2_CHAT.before_next_question,
)


class Qwen3VLBackbone(Qwen2_5VLBackbone):
    """A `Qwen3VLForConditionalGeneration` and its tokenizer; what it shares with Qwen2.5-VL is taken from there."""

    mean = std = (0.5, 0.5, 0.5)

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str, num_frames: int, image_size: int | None = None, chat: ChatFormat = CHAT
    ) -> None:
        super().__init__(model, tokenizer, name=name, num_frames=num_frames, image_size=image_size, chat=chat)

    def _cell_order(self) -> Tensor:
        """Row by row: this tower has no windows."""
        return torch.arange(self.cells_per_frame)

    def video_placeholder(self, times_sec: Sequence[float]) -> list[int]:
        """Token ids that stand for a clip: for each pair of frames the mean of their times, then its visual tokens between two marks.

        No marks stand around the whole, as in the processor that came with the weights; later releases of transformers leave a pair there.
        """
        pair, ids = self.frames_per_grid, []
        for start in range(0, len(times_sec), pair):
            shown = times_sec[start : start + pair]
            lead = self.words(f"<{(shown[0] + shown[-1]) / 2:.1f} seconds><|vision_start|>")
            ids += [*lead, *[self.video_token] * self.cells_per_frame, *self.words("<|vision_end|>")]
        return ids

    def _timing(self, times_sec: Sequence[float]) -> dict[str, Tensor]:
        """Nothing: times are text here."""
        return {}

    def extra_inputs(self, inputs: Inputs) -> dict[str, Any]:
        """Features of the tower's earlier blocks, which the first layers add; they are zero at words, so that every token may take them."""
        if inputs.deeper is None:
            return {}
        everywhere = torch.ones(inputs.embeds.shape[:2], dtype=torch.bool, device=inputs.embeds.device)
        return {"visual_pos_masks": everywhere, "deepstack_visual_embeds": list(inputs.deeper.transpose(0, 1).flatten(1, 2))}


def load(path: str, *, num_frames: int, dtype: torch.dtype | None = None, image_size: int | None = None) -> Qwen3VLBackbone:
    """Load a Qwen3-VL checkpoint from the hub or from a local folder; `image_size` as in `Qwen2_5VLBackbone`.

    Raises:
        UsageError: where neither has such a checkpoint.
    """
    from transformers import Qwen3VLForConditionalGeneration

    model, tokenizer = load_pretrained(path, "Qwen3-VL", Qwen3VLForConditionalGeneration, dtype=dtype)
    return Qwen3VLBackbone(model, tokenizer, name=path, num_frames=num_frames, image_size=image_size)
