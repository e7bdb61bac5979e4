"""What the adapters of transformers' models share: sizes, masks, the output layer, LoRA's targets, loading and saving."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tpo_lab.backbones.base import Backbone, ChatFormat, Inputs
from tpo_lab.errors import UsageError

QWEN2_CHAT = ChatFormat(
    open="<|im_start|>user\n",
    before_question="\n",
    before_answer="<|im_end|>\n<|im_start|>assistant\n",
    before_reply="",
    end="<|im_end|>",
    before_next_question="\n<|im_start|>user\n",
)


class TransformersBackbone(Backbone):
    """A vision-language model of transformers and its tokenizer, built outside and passed in.

    Args:
        model: a `...ForConditionalGeneration` whose language model lies at `model.model.language_model`.
        image_size: side of the squares that frames become, in pixels.

    Raises:
        UsageError: no frames, or an attention implementation that takes no mask of its own (only sdpa and eager do).
    """

    prefixes: ClassVar[Mapping[str, tuple[str, ...]]]
    """How the names of the parameters of "vision", "connector" and "llm" begin."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str, num_frames: int, image_size: int, chat: ChatFormat = QWEN2_CHAT) -> None:
        super().__init__()
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.num_frames, self.image_size, self.chat = num_frames, image_size, chat
        if num_frames < 1:
            raise UsageError("num_frames", expected="at least 1", got=num_frames)
        if self._attention not in ("sdpa", "eager"):
            raise UsageError("attn_implementation", expected='"sdpa" or "eager"', got=self._attention)

    @property
    def text_model(self) -> Any:
        """The language model without its output layer."""
        return self.model.model.language_model

    @property
    def _attention(self) -> str:
        return str(self.text_model.config._attn_implementation)

    @property
    def hidden_size(self) -> int:
        """Width d of the language model."""
        return int(self.text_model.config.hidden_size)

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
        """Bicubic with antialiasing on uint8, as the families' own video processors (differs by 2.4e-7 after normalisation)."""
        size = (self.image_size, self.image_size)
        if tuple(frames.shape[-2:]) == size:
            return frames
        return F.interpolate(frames, size=size, mode="bicubic", antialias=True)

    def words(self, text: str) -> list[int]:
        """Token ids of a text, nothing added."""
        return self.tokenizer.encode(text, add_special_tokens=False)  # type: ignore[no-any-return]

    def language_model(
        self, inputs: Inputs, *, mask: Tensor | None, cache: Any | None = None, use_cache: bool = False
    ) -> tuple[Tensor, Any | None]:
        """Run the language model; see `Backbone.language_model`."""
        if mask is not None and self._attention == "eager":
            # eager attention adds its mask to the scores, and True would add 1
            mask = torch.zeros_like(mask, dtype=inputs.embeds.dtype).masked_fill(~mask, torch.finfo(inputs.embeds.dtype).min)
        output = self.text_model(
            inputs_embeds=inputs.embeds,
            attention_mask=mask,
            position_ids=inputs.positions,
            past_key_values=cache,
            use_cache=use_cache,
            **self.extra_inputs(inputs),
        )
        return output.last_hidden_state, output.past_key_values

    def extra_inputs(self, inputs: Inputs) -> dict[str, Any]:
        """What a family's language model takes beside embeddings and positions."""
        return {}

    def logits(self, hidden: Tensor) -> Tensor:
        """Output layer: [..., d] to [..., vocabulary]."""
        return self.model.get_output_embeddings()(hidden)  # type: ignore[no-any-return]

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """Prefixes of the parameter names of `model`."""
        return self.prefixes

    def lora_targets(self, layers: tuple[str, ...]) -> str:
        """A regular expression for peft that matches these linear layers of the language model only."""
        inside = "|".join(re.escape(prefix) for prefix in self.prefixes["llm"] if not prefix.startswith("lm_head"))
        names = "|".join(re.escape(layer) for layer in layers)
        within = rf"({inside}).*\.({names})"
        return rf"({within})|(lm_head)" if "lm_head" in layers else within

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


def load_pretrained(path: str, family: str, model_class: Any, *, dtype: torch.dtype | None = None) -> tuple[Any, Any]:
    """A model and its tokenizer from the hub or from a local folder.

    Args:
        path: a folder or hub id.
        family: what a person calls models of this class.
        model_class: of transformers; its configuration must be that of the checkpoint.
        dtype: of the weights; that of the checkpoint where None.

    Raises:
        UsageError: where there is no such checkpoint.
    """
    from transformers import AutoConfig, AutoTokenizer

    expected = f"a folder or hub id of {family}"
    try:
        config = AutoConfig.from_pretrained(path)
        if not isinstance(config, model_class.config_class):
            raise UsageError("backbone", expected=expected, got=path, hint=f"That is a {config.model_type} model.")
        tokenizer = AutoTokenizer.from_pretrained(path)
        if torch.get_default_device().type == "meta":
            # shapes are asked for, not weights, which may not be there yet
            return model_class._from_config(config, dtype=dtype or config.dtype), tokenizer
        return model_class.from_pretrained(path, dtype=dtype or "auto"), tokenizer
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError("backbone", expected=expected, got=path, hint=first) from error
