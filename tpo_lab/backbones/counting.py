"""What the configuration of a LLaVA-OneVision says before any weight is loaded: how many parameters, how many tokens a clip takes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

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
    """Parameters of "vision", "connector" and "llm", counted on a model without memory; takes seconds at any size."""
    from transformers import LlavaOnevisionForConditionalGeneration

    with torch.device("meta"):
        model: Any = LlavaOnevisionForConditionalGeneration(config)
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[_part(name)] += parameter.numel()
    return {part: counts[part] for part in ("vision", "connector", "llm")}


def _part(name: str) -> str:
    if name.startswith("model.vision_tower."):
        return "vision"
    return "connector" if name.startswith(("model.multi_modal_projector.", "model.image_newline")) else "llm"


def linear_shapes(text_config: Any) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of each linear layer of one decoder layer of Qwen2, by its last name."""
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
    return of_one * int(text_config.num_attention_heads), of_one * int(text_config.num_key_value_heads)


def lora_parameters(config: Any, lora: Lora) -> int:
    """Parameters of LoRA: a layer of m outputs and n inputs gets rank * (m + n) of them.

    Source: Hu et al., "LoRA: Low-rank adaptation of large language models" (2021), section 4.1.

    Raises:
        UsageError: a target that no decoder layer has.
    """
    text = config.text_config
    shapes = linear_shapes(text)
    for target in lora.targets:
        if target not in shapes:
            raise unknown_name("lora: targets", target, shapes)
    inside = sum(sum(shapes[target]) for target in lora.targets) * int(text.num_hidden_layers)
    outside = int(text.hidden_size + text.vocab_size) if lora.lm_head else 0
    return lora.rank * (inside + outside)
