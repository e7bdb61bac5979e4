"""A tiny InternVL: Qwen2's chat tokens and those around images, a class token in the tower, tied output rows as in the smallest release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tpo_lab.backbones.tiny.tokenizer import padded_rows, tiny_tokenizer
from tpo_lab.backbones.tiny.writing import write_drawn

SIDE, PATCH = 32, 4
"""Pixels; 8 x 8 patches, 4 x 4 visual tokens after pixel shuffle."""
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")


def write(folder: Path, *, seed: int, width: int, layers: int, dtype: torch.dtype) -> Path:
    """Write it; see `tpo_lab.backbones.tiny.write_tiny`."""
    from transformers import InternVLForConditionalGeneration

    tokenizer = tiny_tokenizer(SPECIAL_TOKENS, end="<|im_end|>", pad="<|endoftext|>")

    def draw() -> Any:
        made: Any = InternVLForConditionalGeneration(_config(tokenizer, width, layers))
        # transformers draws these as zeros, which would make patches of one colour alike wherever they lie
        torch.nn.init.normal_(made.model.vision_tower.embeddings.position_embeddings, std=0.02)
        return made

    return write_drawn(folder, draw, tokenizer, seed=seed, dtype=dtype)


def _config(tokenizer: Any, width: int, layers: int) -> Any:
    from transformers import InternVLConfig, InternVLVisionConfig, Qwen2Config

    return InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=2,
            attention_bias=True,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=Qwen2Config(
            vocab_size=padded_rows(tokenizer),
            hidden_size=width,
            intermediate_size=5 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=(SIDE // PATCH // 2) ** 2,
        tie_word_embeddings=True,
    )
