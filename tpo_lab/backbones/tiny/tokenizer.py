"""The tokenizer of tiny checkpoints: byte-level BPE over the words of the synthetic world."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

ROWS_BESIDE = 16
"""Rows for tokens that are added, beside those of the tokenizer."""


def tiny_tokenizer(special: Sequence[str], *, end: str, pad: str, vocabulary: int = 600, scenes: int = 60) -> Any:
    """A fast tokenizer that splits any text, with these special tokens first."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=Tokenizer.from_str(_trained(tuple(special), vocabulary, scenes)), pad_token=pad, eos_token=end)


@lru_cache
def _trained(special: tuple[str, ...], vocabulary: int, scenes: int) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from tpo_lab.backbones.nano_tokenizer import corpus

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(scenes, 0), trainer)
    return str(tokenizer.to_str())


def padded_rows(tokenizer: Any) -> int:
    """Rows of the embedding: a multiple of 64, as larger models pad theirs, with room for tokens that are added."""
    return int(-(-(len(tokenizer) + ROWS_BESIDE) // 64) * 64)
