"""LLaVA-OneVision (SigLIP tower, two-layer projector, Qwen2 language model) behind the backbone protocol, from nano to 7B."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tpo_lab.backbones.base import Backbone, ChatFormat, VideoFeatures
from tpo_lab.errors import UsageError

QWEN2_CHAT = ChatFormat(
    open="<|im_start|>user\n",
    before_question="\n",
    before_answer="<|im_end|>\n<|im_start|>assistant\n",
    before_reply="",
    end="<|im_end|>",
    before_next_question="\n<|im_start|>user\n",
)


class LlavaOnevisionBackbone(Backbone):
    """A `LlavaOnevisionForConditionalGeneration` and its tokenizer, built outside and passed in.

    Args:
        frame_numbers: write the number of each frame before its visual tokens, so that the language model can count time.

    Raises:
        UsageError: no frames, or an attention implementation that takes no mask of its own (only sdpa and eager do).
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str, num_frames: int, chat: ChatFormat = QWEN2_CHAT, frame_numbers: bool = True
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.num_frames, self.chat, self.frame_numbers = num_frames, chat, frame_numbers
        self.image_size = int(model.config.vision_config.image_size)
        if num_frames < 1:
            raise UsageError("num_frames", expected="at least 1", got=num_frames)
        if self._attention not in ("sdpa", "eager"):
            raise UsageError("attn_implementation", expected='"sdpa" or "eager"', got=self._attention)

    @property
    def _attention(self) -> str:
        return str(self.model.model.language_model.config._attn_implementation)

    @property
    def hidden_size(self) -> int:
        """Width d of the language model."""
        return int(self.model.config.text_config.hidden_size)

    @property
    def vision_size(self) -> int:
        """Width of the vision tower's patch features."""
        return int(self.model.config.vision_config.hidden_size)

    @property
    def vocabulary(self) -> int:
        """Rows of the output layer."""
        return int(self.output_rows.shape[0])

    @property
    def embedding(self) -> nn.Module:
        """The input embedding layer."""
        return self.model.get_input_embeddings()  # type: ignore[no-any-return]

    @property
    def output_rows(self) -> Tensor:
        """Weights of the output layer, [vocabulary, d]."""
        return self.model.get_output_embeddings().weight  # type: ignore[no-any-return]

    @property
    def video_token(self) -> int:
        """The id whose embeddings are replaced by visual tokens."""
        return int(self.model.config.video_token_id)

    def resize(self, frames: Tensor) -> Tensor:
        """Bicubic with antialiasing on uint8, as the family's own video processor (differs by 2.4e-7 after normalisation)."""
        size = (self.image_size, self.image_size)
        if tuple(frames.shape[-2:]) == size:
            return frames
        return F.interpolate(frames, size=size, mode="bicubic", antialias=True)

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

    def video_placeholder(self, num_frames: int) -> list[int]:
        """Token ids that stand for a clip."""
        ids: list[int] = []
        for frame in range(num_frames):
            if self.frame_numbers:
                ids += self.tokenizer.encode(f" {frame + 1}", add_special_tokens=False)
            ids += [self.video_token] * self.cells_per_frame
        return [*ids, self.video_token]

    def language_model(
        self, embeds: Tensor, *, mask: Tensor | None, positions: Tensor, cache: Any | None = None, use_cache: bool = False
    ) -> tuple[Tensor, Any | None]:
        """Run the language model; see `Backbone.language_model`."""
        if mask is not None and self._attention == "eager":
            # eager attention adds its mask to the scores, and True would add 1
            mask = torch.zeros_like(mask, dtype=embeds.dtype).masked_fill(~mask, torch.finfo(embeds.dtype).min)
        output = self.model.model.language_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=use_cache
        )
        return output.last_hidden_state, output.past_key_values

    def logits(self, hidden: Tensor) -> Tensor:
        """Output layer: [..., d] to [..., vocabulary]."""
        return self.model.get_output_embeddings()(hidden)  # type: ignore[no-any-return]

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """Prefixes of the parameter names of `model`."""
        return {
            "vision": ("model.vision_tower.",),
            "connector": ("model.multi_modal_projector.", "model.image_newline"),
            "llm": ("model.language_model.", "lm_head."),
        }

    def lora_targets(self, layers: tuple[str, ...]) -> str:
        """A regular expression for peft that matches these linear layers of the language model only."""
        names = "|".join(re.escape(layer) for layer in layers)
        return rf"(.*language_model.*\.({names}))|(lm_head)" if "lm_head" in layers else rf".*language_model.*\.({names})"

    def save(self, folder: Path) -> None:
        """Write weights, configuration and tokenizer.

        Raises:
            UsageError: the model carries LoRA, whose names no loader would find.
        """
        self._refuse_lora()
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _refuse_lora(self) -> None:
        if any(".lora_" in name for name, _ in self.model.named_parameters()):
            raise UsageError(
                "backbone", expected="weights without LoRA", got="LoRA", hint="Save a checkpoint, or merge the adapters first."
            )


def load_llava_onevision(path: str, *, num_frames: int = 16, dtype: torch.dtype | None = None) -> LlavaOnevisionBackbone:
    """Load a LLaVA-OneVision checkpoint from the hub or from a local folder.

    Raises:
        UsageError: where neither has such a checkpoint.
    """
    from transformers import AutoConfig, AutoTokenizer, LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    expected = "a LLaVA-OneVision folder or hub id"
    try:
        config = AutoConfig.from_pretrained(path)
        if not isinstance(config, LlavaOnevisionConfig):
            raise UsageError("backbone", expected=expected, got=path, hint=f"That is a {config.model_type} model.")
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = LlavaOnevisionForConditionalGeneration.from_pretrained(path, dtype=dtype or "auto")
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError("backbone", expected=expected, got=path, hint=first) from error
    return LlavaOnevisionBackbone(model, tokenizer, name=path, num_frames=num_frames)
