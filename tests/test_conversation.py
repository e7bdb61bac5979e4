"""Conversations to ids: what is context, what is learnt, where routes and slots are."""

from __future__ import annotations

import copy
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.backbones.base import ChatFormat
from tpo_lab.backbones.nano import NANO_CHAT
from tpo_lab.conversation import ConversationEncoder, Encoded, Kind
from tpo_lab.errors import UsageError
from tpo_lab.tokens import add_tokens

HEADS = ("region", "temporal")
C, T, R, S = Kind.CONTEXT, Kind.TEXT, Kind.ROUTE, Kind.SLOT


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: Any) -> Any:
    copied = copy.deepcopy(tiny_tokenizer)
    add_tokens(copied, HEADS)
    return copied


@pytest.fixture(scope="module")
def encoder(tokenizer: Any) -> ConversationEncoder:
    return ConversationEncoder(tokenizer, NANO_CHAT, add_tokens(tokenizer, HEADS))


def runs(encoder: ConversationEncoder, encoded: Encoded) -> list[tuple[Kind, str]]:
    """The text of neighbouring tokens of one kind."""
    pairs = groupby(zip(encoded.kinds, encoded.ids, strict=True), key=lambda pair: pair[0])
    return [(kind, encoder.tokenizer.decode([token for _, token in run])) for kind, run in pairs]


def test_encode_says_what_each_token_is(encoder: ConversationEncoder) -> None:
    encoded = encoder.encode([("user", "What colour is <prompt:0>?"), ("assistant", "red <region> ball")])
    assert runs(encoder, encoded) == [
        (C, " what colour is <prompt>?<assistant>"),
        (T, " red"),
        (R, "<region:route>"),
        (S, "<region:slot>"),
        (T, " ball<eos>"),
    ]


def test_encode_of_a_user_turn_learns_nothing_and_leaves_the_answer_open(encoder: ConversationEncoder) -> None:
    encoded = encoder.encode([("user", "Where is the red ball?")])
    assert set(encoded.kinds) == {C}
    assert encoder.tokenizer.decode(encoded.ids[-1:]) == "<assistant>"


def test_slots_are_never_learnt_routes_always_and_the_end_is_a_word(encoder: ConversationEncoder) -> None:
    encoded = encoder.encode(
        [("user", "All?"), ("assistant", "<region> <region> then <temporal>"), ("user", "Sure?"), ("assistant", "yes")]
    )
    kinds = dict.fromkeys((C, T, R, S), 0) | {kind: encoded.kinds.count(kind) for kind in set(encoded.kinds)}
    assert (kinds[R], kinds[S]) == (3, 3)
    routes = [token for token, kind in zip(encoded.ids, encoded.kinds, strict=True) if kind is R]
    ids = encoder.ids
    assert routes == [ids.route["region"], ids.route["region"], ids.route["temporal"]]
    assert all(
        encoded.kinds[place - 1] is R and encoded.ids[place] == ids.slot[slot.head] for slot in encoded.slots for place in [slot.token]
    )
    ends = [kind for token, kind in zip(encoded.ids, encoded.kinds, strict=True) if token == encoder.end_id]
    assert ends == [T, T]


def test_each_slot_knows_the_question_that_it_answers(encoder: ConversationEncoder) -> None:
    encoded = encoder.encode(
        [("user", "the red ball"), ("assistant", "<region>"), ("user", "when it stops"), ("assistant", "<temporal><region>")]
    )
    asked = [encoder.tokenizer.decode(encoded.ids[slice(*slot.question)]) for slot in encoded.slots]
    assert [slot.head for slot in encoded.slots] == ["region", "temporal", "region"]
    assert asked[0] == " the red ball"
    assert asked[1] == asked[2] == "<user> when it stops"
    assert encoded.question == encoded.slots[-1].question


def test_mentions_become_prompt_tokens_in_the_order_of_their_places(encoder: ConversationEncoder) -> None:
    encoded = encoder.encode([("user", "Does <prompt:1> meet <prompt:0> or <prompt:1>?"), ("assistant", "no"), ("user", "<prompt:2>?")])
    assert encoded.prompts == [1, 0, 1, 2]
    assert encoded.ids.count(encoder.ids.prompt) == 4


def test_marker_of_an_unknown_head_is_refused_with_the_heads_there_are(encoder: ConversationEncoder) -> None:
    with pytest.raises(UsageError, match=r"expected a head of this model \(region, temporal\), got '<mask>'"):
        encoder.encode([("user", "?"), ("assistant", "<mask>")])


@pytest.mark.parametrize("token", ["<video>", "<eos>", "<region:slot>", "<prompt>", "<temporal:route>"])
@pytest.mark.parametrize("role", [0, 1])
def test_special_tokens_in_the_text_are_refused_by_name(encoder: ConversationEncoder, token: str, role: int) -> None:
    turns = [("user", f"where {token}?"), ("assistant", "yes")] if role == 0 else [("user", "where?"), ("assistant", f"yes {token}")]
    with pytest.raises(UsageError, match=r"expected (text without special tokens|a head of this model)") as error:
        encoder.encode(turns)
    assert token in str(error.value)


def test_end_must_be_one_token(tokenizer: Any) -> None:
    chat = ChatFormat("", "", "", "", end="the red ball", before_next_question="")
    with pytest.raises(UsageError, match=r"chat\.end: expected a single token, got 'the red ball'"):
        ConversationEncoder(tokenizer, chat, add_tokens(tokenizer, HEADS))


def test_special_ids_hold_the_added_tokens_and_the_tokenizers_own(encoder: ConversationEncoder) -> None:
    assert set(encoder.ids.all) < set(encoder.special_ids.values())
    assert encoder.special_ids["<eos>"] == encoder.end_id
    assert encoder.opening() == encoder.tokenizer.convert_tokens_to_ids(["<bos>", "<user>"])


words = st.sampled_from(["the", "red", "ball", "stops", "and", "é", "a?"])
parts = st.lists(st.one_of(words, st.sampled_from(["<region>", "<temporal>"])), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(parts=parts, seed=st.integers(0, 3))
def test_every_learnt_text_can_be_read_back(encoder: ConversationEncoder, parts: list[str], seed: int) -> None:
    text = " ".join(parts)
    encoded = encoder.encode([("user", "q"), ("assistant", text)])
    routes = [kind for kind in encoded.kinds if kind in (R, S)]
    assert routes == [R, S] * sum(part.startswith("<") for part in parts)
    learnt = [token for token, kind in zip(encoded.ids, encoded.kinds, strict=True) if kind in (T, R)]
    assert learnt[-1] == encoder.end_id
    read = encoder.tokenizer.decode(learnt[:-1]).replace(":route>", ">")
    assert read.replace(" ", "") == text.replace(" ", "")


def test_prompt_places_do_not_change_the_words_around_them(encoder: ConversationEncoder) -> None:
    ids = encoder.encode([("user", "is <prompt:0> red")]).ids
    place = ids.index(encoder.ids.prompt)
    assert encoder.tokenizer.decode(ids[:place]) == " is "
    assert encoder.tokenizer.decode(ids[place + 1 : -1]) == " red"
