"""The nano backbone: a few million parameters of the real LLaVA-OneVision classes, small enough to train on two CPU cores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tpo_lab.backbones.base import ChatFormat
from tpo_lab.backbones.llava_onevision import LlavaOnevisionBackbone
from tpo_lab.backbones.nano_tokenizer import build_nano_tokenizer
from tpo_lab.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

IMAGE_SIZE = 64
PATCH = 8
VISION: Mapping[str, int] = MappingProxyType(
    {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
)
LANGUAGE: Mapping[str, int] = MappingProxyType(
    {"hidden_size": 160, "intermediate_size": 448, "num_hidden_layers": 5, "num_attention_heads": 5, "num_key_value_heads": 5}
)


def nano_config(
    vocabulary: int,
    *,
    video_token: int,
    image_token: int,
    vision: Mapping[str, int] | None = None,
    language: Mapping[str, int] | None = None,
) -> LlavaOnevisionConfig:
    """SigLIP tower (64 patches of 8 pixels), two-layer projector, Qwen2 language model.

    Args:
        vision: sizes that differ from `VISION`.
        language: sizes that differ from `LANGUAGE`.

    Raises:
        UsageError: a size of another name.
    """
    from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            **_sizes("vision", VISION, vision),
            image_size=IMAGE_SIZE,
            patch_size=PATCH,
            vision_use_head=False,
        ),
        text_config=Qwen2Config(
            vocab_size=vocabulary,
            **_sizes("language", LANGUAGE, language),
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            pad_token_id=0,
        ),
        image_token_index=image_token,
        video_token_index=video_token,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[IMAGE_SIZE, IMAGE_SIZE]],
        tie_word_embeddings=True,
    )


def _sizes(part: str, defaults: Mapping[str, int], given: Mapping[str, int] | None) -> dict[str, Any]:
    for name in given or {}:
        if name not in defaults:
            raise unknown_name(f"{part} sizes of a nano model", name, defaults)
    return {**defaults, **(given or {})}


class ConvolutionalStem(nn.Module):
    """Strided 3x3 convolutions in place of the single patchify layer: [frame, 3, h, w] -> [frame, width, h / 8, w / 8].

    A single 8x8 patchify layer with few blocks does not tell shapes apart at this size; three small convolutions do.
    Source: Xiao et al., "Early convolutions help transformers see better" (2021).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width // 4, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width // 4, width // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    @property
    def weight(self) -> torch.Tensor:
        """SigLIP's embedding layer asks its patch embedding for the dtype by this name."""
        return self.layers[0].weight  # type: ignore[return-value]

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Patch features."""
        return self.layers(pixel_values)  # type: ignore[no-any-return]


def build_nano(
    vocabulary: int,
    *,
    video_token: int,
    image_token: int,
    vision: Mapping[str, int] | None = None,
    language: Mapping[str, int] | None = None,
) -> LlavaOnevisionForConditionalGeneration:
    """A randomly initialised nano model; the arguments are those of `nano_config`."""
    from transformers import LlavaOnevisionForConditionalGeneration

    config: Any = nano_config(vocabulary, video_token=video_token, image_token=image_token, vision=vision, language=language)
    model: Any = LlavaOnevisionForConditionalGeneration(config)
    embeddings = model.model.vision_tower.embeddings
    embeddings.patch_embedding = ConvolutionalStem(config.vision_config.hidden_size)
    # transformers draws everything from N(0, 0.02); at this width that leaves attention flat for long
    for module in model.modules():
        if hasattr(module, "reset_parameters") and type(module).__name__ in ("Linear", "Conv2d"):
            module.reset_parameters()
    return model  # type: ignore[no-any-return]


NANO_CHAT = ChatFormat(
    open="<bos><user>",
    before_question=" ",
    before_answer="<assistant>",
    before_reply=" ",
    end="<eos>",
    before_next_question="<user> ",
)
NUM_FRAMES = 8


class NanoBackbone(LlavaOnevisionBackbone):
    """A nano LLaVA-OneVision; only its size, its stem and its chat strings differ from the real ones."""

    def __init__(self, model: Any, tokenizer: Any, *, num_frames: int = NUM_FRAMES) -> None:
        super().__init__(model, tokenizer, name="nano", num_frames=num_frames, chat=NANO_CHAT)

    def save(self, folder: Path) -> None:
        """Write weights in half precision (they are read back into fp32), configuration and tokenizer.

        Raises:
            UsageError: the model carries LoRA, whose names the loader would not find.
        """
        from safetensors.torch import save_file

        self._refuse_lora()
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().half().contiguous() for name, tensor in self.model.state_dict().items() if name != "lm_head.weight"}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        parts = (("vision", self.model.config.vision_config, VISION), ("language", self.model.config.text_config, LANGUAGE))
        sizes = {part: {name: getattr(config, name) for name in names} for part, config, names in parts}
        config = {"num_frames": self.num_frames, "vocabulary": self.vocabulary, **sizes}
        (folder / "nano.json").write_text(json.dumps(config, indent=2) + "\n")
        self.tokenizer.save_pretrained(folder)


def new_nano(
    tokenizer: Any | None = None, *, vision: Mapping[str, int] | None = None, language: Mapping[str, int] | None = None
) -> NanoBackbone:
    """A nano backbone with random weights (seed torch first) and its tokenizer; sizes as in `nano_config`."""
    tokenizer = tokenizer or build_nano_tokenizer()
    # a multiple of 64 rows, as larger models pad theirs
    rows = -(-len(tokenizer) // 64) * 64
    return NanoBackbone(build_nano(rows, **_placeholders(tokenizer), vision=vision, language=language), tokenizer)


def _placeholders(tokenizer: Any) -> dict[str, int]:
    return {f"{name}_token": int(tokenizer.convert_tokens_to_ids(f"<{name}>")) for name in ("video", "image")}


def load_nano(folder: Path) -> NanoBackbone:
    """Load a nano backbone that `NanoBackbone.save` wrote.

    Raises:
        UsageError: where the folder holds none.
    """
    from safetensors.torch import load_file
    from transformers import PreTrainedTokenizerFast

    if not (folder / "nano.json").exists():
        raise UsageError("backbone", expected="a folder with nano.json and model.safetensors", got=str(folder))
    config = json.loads((folder / "nano.json").read_text())
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model: Any = build_nano(config["vocabulary"], **_placeholders(tokenizer), vision=config.get("vision"), language=config.get("language"))
    state = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if set(missing) - {"lm_head.weight"} or unexpected:
        raise UsageError("backbone", expected="the weights of a nano model", got={"missing": missing, "unexpected": unexpected})
    model.tie_weights()
    return NanoBackbone(model.eval(), tokenizer, num_frames=config["num_frames"])
