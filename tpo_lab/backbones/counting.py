"""What a configuration says before any weight is loaded: how many parameters, how many tokens a clip of a LLaVA-OneVision takes."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from typing import Any

import torch

from tpo_lab.backbones import FAMILIES
from tpo_lab.backbones.transformers_backbone import TransformersBackbone
from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.stages import Lora


def llava_onevision_7b() -> Any:
    """The configuration of `llava-hf/llava-onevision-qwen2-7b-ov-hf`, without a download: SigLIP So400m and Qwen2 7B.

    Source: the model's published config.json. Of transformers' defaults the vision side is this model's already.
    """
    from transformers import LlavaOnevisionConfig, Qwen2Config

    language = Qwen2Config(
        vocab_size=152_000,
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    )
    return LlavaOnevisionConfig(text_config=language, tie_word_embeddings=False)


def tokens_per_clip(config: Any, frames: int) -> int:
    """Visual tokens of a clip: patches after 2 x 2 pooling for each frame, and one that ends the clip.

    Raises:
        UsageError: no frames.
    """
    if frames < 1:
        raise UsageError("frames", expected="at least 1", got=frames)
    patches = config.vision_config.image_size // config.vision_config.patch_size
    return int(frames * (-(-patches // 2)) ** 2 + 1)


def parameter_counts(config: Any) -> dict[str, int]:
    """Parameters of "vision", "connector" and "llm", counted on a model without memory; takes seconds at any size.

    Args:
        config: of one of `tpo_lab.backbones.FAMILIES`.
    """
    prefixes = _adapter(config.model_type).prefixes
    with torch.device("meta"):
        model: Any = _model_class(config)(config)
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[next(part for part, begin in prefixes.items() if name.startswith(begin))] += parameter.numel()
    return {part: counts[part] for part in ("vision", "connector", "llm")}


def _adapter(family: str) -> type[TransformersBackbone]:
    if family not in FAMILIES:
        raise unknown_name("family", family, FAMILIES)
    module = import_module(f"tpo_lab.backbones.{family}")
    classes = [found for found in vars(module).values() if isinstance(found, type) and found.__module__ == module.__name__]
    return next(found for found in classes if issubclass(found, TransformersBackbone))


def _model_class(config: Any) -> Any:
    if config.model_type == "videochat2":
        from tpo_lab.backbones.videochat2_parts.model import VideoChat2ForConditionalGeneration

        return VideoChat2ForConditionalGeneration
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText._model_mapping[type(config)]


def linear_shapes(text_config: Any) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of each linear layer of one decoder layer with a gated MLP (Qwen, Llama, Mistral), by its last name."""
    width, inner = int(text_config.hidden_size), int(text_config.intermediate_size)
    queries, keys = head_widths(text_config)
    return {
        "q_proj": (queries, width),
        "k_proj": (keys, width),
        "v_proj": (keys, width),
        "o_proj": (width, queries),
        "gate_proj": (inner, width),
        "up_proj": (inner, width),
        "down_proj": (width, inner),
    }


def head_widths(text_config: Any) -> tuple[int, int]:
    """Channels of all queries together, and of all keys, which several queries may share."""
    of_one = int(getattr(text_config, "head_dim", None) or text_config.hidden_size // text_config.num_attention_heads)
    keys = getattr(text_config, "num_key_value_heads", None) or text_config.num_attention_heads
    return of_one * int(text_config.num_attention_heads), of_one * int(keys)


def lora_parameters(config: Any, lora: Lora) -> int:
    """Parameters of LoRA: a layer of m outputs and n inputs gets rank * (m + n) of them.

    Source: Hu et al., "LoRA: Low-rank adaptation of large language models" (2021), section 4.1.

    Raises:
        UsageError: a target that no decoder layer has.
    """
    text = config.get_text_config()
    shapes = linear_shapes(text)
    for target in lora.targets:
        if target not in shapes:
            raise unknown_name("lora: targets", target, shapes)
    inside = sum(sum(shapes[target]) for target in lora.targets) * int(text.num_hidden_layers)
    outside = int(text.hidden_size + text.vocab_size) if lora.lm_head else 0
    return lora.rank * (inside + outside)
