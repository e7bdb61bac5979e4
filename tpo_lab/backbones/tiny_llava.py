"""A LLaVA-OneVision checkpoint of a few hundred thousand random weights on disk, in everything but its size as the hub has them.

It has learned nothing. It is there to run, without any download, the code that a real one runs through.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SIDE, PATCH = 28, 4
"""Pixels; 7 x 7 patches, an odd number as in the real model, so that pooling has a rest to deal with."""
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")


def write_tiny_llava(folder: Path | str, *, seed: int = 0, width: int = 48, layers: int = 4, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write such a checkpoint: Qwen2's chat tokens, untied output rows and more of them than there are tokens, in bfloat16.

    Args:
        folder: made where it is missing.
        seed: of the weights.
        width: of the language model; a multiple of 8, since it has four heads that share two keys.
        layers: of the language model.
        dtype: in which the weights are stored, and loaded.

    Returns:
        The folder, as `tpo_lab.build(backbone=...)` takes it.
    """
    from transformers import LlavaOnevisionForConditionalGeneration

    folder = Path(folder)
    tokenizer = _tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made: Any = LlavaOnevisionForConditionalGeneration(_config(tokenizer, width, layers))
    made.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


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
            # a multiple of 64 rows, as larger models pad theirs, and room for tokens that are added
            vocab_size=-(-(len(tokenizer) + 16) // 64) * 64,
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


def _tokenizer(vocabulary: int = 600, scenes: int = 60) -> Any:
    """Byte-level BPE over the words of the synthetic world."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from tpo_lab.backbones.nano_tokenizer import corpus

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(scenes, 0), trainer)
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>")
