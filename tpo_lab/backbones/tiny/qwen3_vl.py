"""A tiny Qwen3-VL: features of two depths, a table of positions of another size than the frame, tied output rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tpo_lab.backbones.tiny.qwen2_5_vl import SPECIAL_TOKENS, axes, marks
from tpo_lab.backbones.tiny.tokenizer import padded_rows, tiny_tokenizer
from tpo_lab.backbones.tiny.writing import write_drawn

SIDE, PATCH = 24, 4
"""Pixels; 6 x 6 patches, 3 x 3 visual tokens."""


def write(folder: Path, *, seed: int, width: int, layers: int, dtype: torch.dtype) -> Path:
    """Write it; see `tpo_lab.backbones.tiny.write_tiny`."""
    from transformers import Qwen3VLForConditionalGeneration

    tokenizer = tiny_tokenizer(SPECIAL_TOKENS, end="<|im_end|>", pad="<|endoftext|>")
    config = _config(tokenizer, width, layers)
    return write_drawn(folder, lambda: Qwen3VLForConditionalGeneration(config), tokenizer, seed=seed, dtype=dtype)


def _config(tokenizer: Any, width: int, layers: int) -> Any:
    from transformers import Qwen3VLConfig

    return Qwen3VLConfig(
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_heads": 2,
            "patch_size": PATCH,
            "out_hidden_size": width,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1][:layers],
            "image_size": SIDE,
        },
        text_config={
            "vocab_size": padded_rows(tokenizer),
            "hidden_size": width,
            "intermediate_size": 5 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            # wider than the share of a head, as in the released models
            "head_dim": width // 2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": axes(width // 4),
                "mrope_interleaved": True,
            },
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        },
        **marks(tokenizer),
        tie_word_embeddings=True,
    )
