"""A tiny Qwen2.5-VL: windows that leave a rest, one block that sees the whole frame, tied output rows as in the smallest release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tpo_lab.backbones.tiny.tokenizer import padded_rows, tiny_tokenizer
from tpo_lab.backbones.tiny.writing import write_drawn

SIDE, PATCH = 24, 4
"""Pixels; 6 x 6 patches, 3 x 3 visual tokens in windows of 2 x 2."""
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def write(folder: Path, *, seed: int, width: int, layers: int, dtype: torch.dtype) -> Path:
    """Write it; see `tpo_lab.backbones.tiny.write_tiny`."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    tokenizer = tiny_tokenizer(SPECIAL_TOKENS, end="<|im_end|>", pad="<|endoftext|>")
    config = _config(tokenizer, width, layers)
    return write_drawn(folder, lambda: Qwen2_5_VLForConditionalGeneration(config), tokenizer, seed=seed, dtype=dtype)


def marks(tokenizer: Any) -> dict[str, Any]:
    """The ids that the configuration of a Qwen-VL names."""
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad"}
    names |= {"vision_start_token_id": "vision_start", "vision_end_token_id": "vision_end"}
    return {name: int(tokenizer.convert_tokens_to_ids(f"<|{token}|>")) for name, token in names.items()}


def axes(half: int) -> list[int]:
    """Frequencies of time, height and width among half the channels of a head, near the shares of the real models."""
    height = half // 3
    return [half - 2 * height, height, height]


def _config(tokenizer: Any, width: int, layers: int) -> Any:
    from transformers import Qwen2_5_VLConfig

    return Qwen2_5_VLConfig(
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_heads": 2,
            "patch_size": PATCH,
            "window_size": 4 * PATCH,
            "fullatt_block_indexes": [1],
            "out_hidden_size": width,
            "tokens_per_second": 2,
            "image_size": SIDE,
        },
        text_config={
            "vocab_size": padded_rows(tokenizer),
            "hidden_size": width,
            "intermediate_size": 5 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": axes(width // 8)},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        },
        **marks(tokenizer),
        tie_word_embeddings=True,
    )
