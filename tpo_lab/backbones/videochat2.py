"""VideoChat2 (UMT encoder, Q-Former, Mistral language model), the base of the paper's VideoChat-TPO, behind the backbone protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from tpo_lab.backbones.base import ChatFormat, VideoFeatures
from tpo_lab.backbones.pixels import normalise
from tpo_lab.backbones.transformers_backbone import TransformersBackbone, load_pretrained
from tpo_lab.errors import UsageError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pixels of ImageNet, in [0,1]."""


class VideoChat2Backbone(TransformersBackbone):
    """A `VideoChat2ForConditionalGeneration` and its tokenizer, built outside and passed in.

    The visual tokens belong to the whole clip, not to frames. Rows are filled with the token that ends an answer, since the published
    filler is the video token. The published weights have seen clips of 16 frames; any other number works, by interpolated positions.

    Args:
        frame_times: write behind the clip when its frames were taken; what the configuration says where None, which is not to.

    Raises:
        UsageError: no frames, a tokenizer without the tokens around a conversation, or an attention implementation that takes no mask of
            its own (only sdpa and eager do).

    Source: the released code of VideoChat-TPO (order of prompt and clip, slots, preprocessing).
    Differs in: the sentence with the times, which the released code writes for each question that has the word "timestamp" in it, stands or
    falls for all questions, because it comes before them and they share the clip; there is one start token, not one before each piece of
    text; and no lone space ends a prompt.
    """

    prefixes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vision": ("model.vision_tower.",),
        "connector": ("model.qformer.", "model.query_tokens", "model.extra_query_tokens", "model.projector."),
        "llm": ("model.language_model.", "lm_head."),
    }

    def __init__(self, model: Any, tokenizer: Any, *, name: str, num_frames: int, frame_times: bool | None = None) -> None:
        size, end = int(model.config.vision_config.image_size), tokenizer.eos_token
        if end is None or tokenizer.bos_token is None:
            raise UsageError("tokenizer", expected="tokens that start and end a conversation", got=(tokenizer.bos_token, end))
        if tokenizer.pad_token_id in (None, model.config.video_token_id):
            tokenizer.pad_token = end
        super().__init__(model, tokenizer, name=name, num_frames=num_frames, image_size=size, chat=instructions(tokenizer))
        self.frame_times = bool(model.config.frame_times) if frame_times is None else frame_times

    @property
    def cells_per_frame(self) -> int:
        """None: each visual token has read all frames."""
        return 0

    def video_features(self, frames: Tensor) -> VideoFeatures:
        """Encode uint8 frames [clip, frame, 3, image_size, image_size]; their features are normed, as the Q-Former reads them."""
        core = self.model.model
        pixels = normalise(frames.to(self.device), MEAN, STD)
        return VideoFeatures(*core.get_video_features(pixels.to(core.projector.weight.dtype)))

    def video_placeholder(self, times_sec: Sequence[float]) -> list[int]:
        """Token ids that stand for a clip, and where `frame_times` says so for the seconds of its frames, to a tenth."""
        told = ""
        if self.frame_times:
            times = ", ".join(f"{time:.1f}" for time in times_sec)
            told = f" The video contains {len(times_sec)} frames sampled at {times} seconds. "
        slots = [self.video_token] * int(self.model.config.visual_tokens)
        return [*slots, *self.words(f"</Video>{told}[/INST] [INST]")]


def instructions(tokenizer: Any) -> ChatFormat:
    """Mistral's instructions, the first of which holds the clip and the second the question.

    A space before a piece of text is part of the format. It is written for tokenizers that do not put one there by themselves.
    """
    first = tokenizer.convert_ids_to_tokens(tokenizer.encode("a", add_special_tokens=False))[0]
    space = "" if first.startswith("\N{LOWER ONE EIGHTH BLOCK}") else " "
    return ChatFormat(
        open=f"{tokenizer.bos_token}[INST] <Video>",
        before_question=space,
        before_answer=f"{space}[/INST]",
        before_reply=space,
        end=tokenizer.eos_token,
        before_next_question=f"{space}[INST] ",
    )


def load(path: str, *, num_frames: int, dtype: torch.dtype | None = None) -> VideoChat2Backbone:
    """Load a VideoChat2 of our layout; published weights get it by `tpo_lab.backbones.videochat2_parts.conversion.convert`.

    Raises:
        UsageError: there is no such checkpoint.
    """
    from transformers import AutoConfig

    from tpo_lab.backbones.videochat2_parts.configuration import VideoChat2Config
    from tpo_lab.backbones.videochat2_parts.model import VideoChat2ForConditionalGeneration

    AutoConfig.register("videochat2", VideoChat2Config, exist_ok=True)
    model, tokenizer = load_pretrained(path, "VideoChat2", VideoChat2ForConditionalGeneration, dtype=dtype)
    return VideoChat2Backbone(model, tokenizer, name=path, num_frames=num_frames)
