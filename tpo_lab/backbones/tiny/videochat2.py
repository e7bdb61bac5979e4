"""A tiny VideoChat2, called nano-videochat: joint attention over space and time, a Q-Former and Mistral. Nobody has trained one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tpo_lab.backbones.tiny.tokenizer import padded_rows, tiny_tokenizer
from tpo_lab.backbones.tiny.writing import write_drawn

SIDE, PATCH = 28, 4
"""Pixels; 7 x 7 patches."""
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")


def write(folder: Path, *, seed: int, width: int, layers: int, dtype: torch.dtype) -> Path:
    """Write it; see `tpo_lab.backbones.tiny.write_tiny`."""
    from tpo_lab.backbones.videochat2_parts.model import VideoChat2ForConditionalGeneration

    tokenizer = tiny_tokenizer(SPECIAL_TOKENS, end="</s>", pad="<unk>")
    tokenizer.bos_token, tokenizer.unk_token = "<s>", "<unk>"

    def draw() -> Any:
        made: Any = VideoChat2ForConditionalGeneration(tiny_config(padded_rows(tokenizer), width, layers))
        # what starts at zero would make queries, or the layers of the tower, alike
        for name, parameter in made.named_parameters():
            if name.endswith(("extra_query_tokens", "_bias")):
                torch.nn.init.normal_(parameter, std=0.02)
        return made

    return write_drawn(folder, draw, tokenizer, seed=seed, dtype=dtype)


def tiny_config(vocabulary: int, width: int, layers: int) -> Any:
    """Its configuration, with so many rows of the vocabulary and layers of the language model; without dropout."""
    from tpo_lab.backbones.videochat2_parts.configuration import VideoChat2Config

    return VideoChat2Config(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 40,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        qformer_config={
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 36,
            "encoder_hidden_size": 32,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": 5 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            "sliding_window": None,
            "tie_word_embeddings": False,
        },
        num_query_tokens=4,
        num_extra_query_tokens=8,
    )
