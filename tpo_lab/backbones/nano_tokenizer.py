"""The nano backbone's tokenizer: byte-level BPE over the words of the synthetic world, so that any text can be encoded."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

SPECIAL_TOKENS = ("<pad>", "<bos>", "<user>", "<assistant>", "<eos>", "<video>", "<image>")


def corpus(scenes: int, seed: int) -> Iterator[str]:
    """Captions, questions and answers of training scenes, and every template, for training a tokenizer."""
    from tpo_lab.datasets import templates
    from tpo_lab.datasets.world import language
    from tpo_lab.datasets.world.facts import Facts
    from tpo_lab.datasets.world.scene import sample_scene

    for index in range(scenes):
        facts = Facts(sample_scene(index, seed=seed))
        rng = random.Random(index)
        yield " " + language.caption(facts)
        for question in language.questions(facts, rng):
            yield f" {question.text} {question.answer}"
        for event in facts.events:
            yield f" {language.event_query(facts, event, rng)}"
    for _ in range(50):
        for group in (templates.TEMPORAL, templates.REGION, templates.TRACKING, templates.SEGMENTATION, templates.CAPTION):
            yield from (" " + text.replace("{query}", "").replace("{box}", "") for text in group)
        yield "".join(f" {number}" for number in range(100))
        yield " It does not happen. It is not there. the small thing in the box nothing yes no"


def build_nano_tokenizer(*, vocabulary: int = 1024, scenes: int = 1500, seed: int = 0) -> Any:
    """Train the tokenizer; every word of the world becomes one token, everything else falls back to bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(scenes, seed), trainer)
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
