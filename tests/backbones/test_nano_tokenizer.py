"""The nano tokenizer: every text can be written, and the world's words are short."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.backbones.nano_tokenizer import SPECIAL_TOKENS, build_nano_tokenizer, corpus


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_nano_tokenizer(vocabulary=1024, scenes=20)


def test_special_tokens_come_first_and_are_single(tokenizer: Any) -> None:
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))
    assert all(len(tokenizer.encode(token, add_special_tokens=False)) == 1 for token in SPECIAL_TOKENS)
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == ("<pad>", "<bos>", "<eos>")
    assert len(tokenizer) <= 1024


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=30).filter(lambda text: "<" not in text))
def test_any_text_survives_but_for_its_case(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == tokenizer.backend_tokenizer.normalizer.normalize_str(text)


def test_case_makes_no_difference(tokenizer: Any) -> None:
    assert tokenizer.encode("Where is the RED ball?") == tokenizer.encode("where is the red ball?")


def test_words_of_the_world_and_frame_numbers_are_single_tokens(tokenizer: Any) -> None:
    words = ["red", "ball", "ring", "the", "small", "large", "blinks", "stops", *map(str, range(1, 17))]
    assert [word for word in words if len(tokenizer.encode(f" {word}", add_special_tokens=False)) != 1] == []


def test_the_same_scenes_give_the_same_tokenizer(tokenizer: Any) -> None:
    assert build_nano_tokenizer(vocabulary=1024, scenes=20).get_vocab() == tokenizer.get_vocab()


def test_corpus_starts_each_text_with_a_space_as_answers_do() -> None:
    texts = list(corpus(3, 0))
    assert len(texts) > 50
    assert all(text.startswith(" ") for text in texts)
    assert not [text for text in texts if "{" in text]
