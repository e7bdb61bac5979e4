"""A tiny LLaVA-OneVision: Qwen2's chat tokens, untied output rows and more of them than there are tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tpo_lab.backbones.tiny.tokenizer import padded_rows, tiny_tokenizer
from tpo_lab.backbones.tiny.writing import write_drawn

SIDE, PATCH = 28, 4
"""Pixels; 7 x 7 patches, an odd number as in the real model, so that pooling has a rest to deal with."""
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")


def write(folder: Path, *, seed: int, width: int, layers: int, dtype: torch.dtype) -> Path:
    """Write it; see `tpo_lab.backbones.tiny.write_tiny`."""
    from transformers import LlavaOnevisionForConditionalGeneration

    tokenizer = tiny_tokenizer(SPECIAL_TOKENS, end="<|im_end|>", pad="<|endoftext|>")
    config = _config(tokenizer, width, layers)
    return write_drawn(folder, lambda: LlavaOnevisionForConditionalGeneration(config), tokenizer, seed=seed, dtype=dtype)


def _config(tokenizer: Any, width: int, layers: int) -> Any:
    from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
            vision_use_head=False,
        ),
        text_config=Qwen2Config(
            vocab_size=padded_rows(tokenizer),
            hidden_size=width,
            intermediate_size=5 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=False,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[SIDE, SIDE]],
        tie_word_embeddings=False,
    )
