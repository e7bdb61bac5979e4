"""Answering equals training: same sequence, same task embeddings, and the side branch leaves no trace."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tpo_lab.answer import Answer, Answerer
from tpo_lab.batch import Row
from tpo_lab.errors import UsageError
from tpo_lab.heads import Head
from tpo_lab.heads.base import Visual
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample

BOX = [{"time_sec": 3.0, "xyxy": [4.0, 8.0, 20.0, 40.0]}]
WINDOW = {"windows_sec": [[1.0, 2.5]]}


@pytest.fixture
def full(tiny: TPOModel, say: Callable[..., Sample]) -> list[Row]:
    """Complete conversations, one a row, of different lengths: heads in the middle, two of them, history, prompts, an image, words."""
    frames = Frames(tiny.backbone)
    rows = [
        frames.row([say(0, "Where is it?", "Here <region> it is", region=BOX)]),
        frames.row(
            [say(1, "When do the two of them meet, and where?", "<temporal> <region> <region>", region=[*BOX, *BOX], temporal=WINDOW)]
        ),
        frames.row(
            [
                say(
                    2,
                    "Is it <prompt:0>?",
                    "no",
                    "Where?",
                    "<region>!",
                    "When?",
                    "<temporal>",
                    strokes=[[[9, 9], [30, 40]]],
                    region=BOX,
                    temporal=WINDOW,
                )
            ]
        ),
        frames.row([say(3, "How many?", "three")]),
    ]
    image = frames.row([say(4, "And <prompt:0>?", "<region>", boxes=[[0, 16, 32, 64]], region=BOX)])
    return [*rows, Row(image.frames[:1], replace(image.clip, times_sec=(0.0,)), image.samples, "image")]


def asked(row: Row) -> Row:
    """The row without its last answer."""
    (sample,) = row.samples
    return Row(row.frames, row.clip, (sample.model_copy(update={"conversation": sample.conversation[:-1]}),), row.key)


def trained(model: TPOModel, row: Row) -> dict[str, Tensor]:
    """Task embeddings of the last answer as training computes them."""
    batch = model.collate([row])
    with torch.no_grad():
        forward = model(batch)
    last = model.encoder.encode([(turn.role, turn.text) for turn in row.samples[0].conversation]).question
    offset = len(model.collate.prefix(row.clip.times_sec))
    found = {}
    for head, slots in batch.slots.items():
        here = slots.question[:, 0] == offset + last[0]
        if here.any():
            found[head] = forward.task_embeddings[head][here]
    return found


def same(answer: Answer, expected: dict[str, Tensor]) -> None:
    assert set(answer.task_embeddings) == set(expected)
    for head, embedding in expected.items():
        assert torch.allclose(answer.task_embeddings[head], embedding, atol=1e-5, rtol=0), head


def test_single_answers_have_the_embeddings_of_training(tiny: TPOModel, full: list[Row], script: Any) -> None:
    script(tiny, full)
    answerer = Answerer(tiny, max_tokens=20)
    for row in full:
        (answer,) = answerer.answer([asked(row)])
        assert answer.text == row.samples[0].conversation[-1].text.lower()
        assert not answer.truncated
        same(answer, trained(tiny, row))


@pytest.mark.parametrize("task_input", ["token", "token+prompts"])
def test_batched_answers_have_the_embeddings_of_training_whatever_their_lengths(
    tiny: TPOModel, full: list[Row], script: Any, monkeypatch: pytest.MonkeyPatch, task_input: str
) -> None:
    monkeypatch.setattr(tiny, "task_input", task_input)
    script(tiny, full)
    answers = Answerer(tiny, max_tokens=20).answer([asked(row) for row in full])
    assert [answer.text for answer in answers] == [row.samples[0].conversation[-1].text.lower() for row in full]
    assert [answer.routes for answer in answers] == [("region",), ("temporal", "region", "region"), ("temporal",), (), ("region",)]
    assert [answer.task for answer in answers] == ["region", "temporal+region", "temporal", None, "region"]
    for row, answer in zip(full, answers, strict=True):
        same(answer, trained(tiny, row))
    assert answers[1].task_embeddings["region"].shape == (2, 64)
    assert not torch.allclose(*answers[1].task_embeddings["region"]), "the second box is read further on"


def test_batched_equals_one_by_one(tiny: TPOModel, full: list[Row], script: Any) -> None:
    script(tiny, full)
    answerer, rows = Answerer(tiny, max_tokens=20), [asked(row) for row in full]
    for together, row in zip(answerer.answer(rows), rows, strict=True):
        (alone,) = answerer.answer([row])
        assert (together.text, together.routes, together.truncated) == (alone.text, alone.routes, alone.truncated)
        assert set(together.structured) == set(alone.structured)
        for head, values in alone.structured.items():
            for name, value in values.items():
                assert np.allclose(together.structured[head][name], value, atol=1e-3), name


def test_structured_answers_are_those_of_the_heads_on_training_s_predictions(tiny: TPOModel, full: list[Row], script: Any) -> None:
    script(tiny, full)
    (answer,) = Answerer(tiny, max_tokens=20).answer([asked(full[1])])
    batch = tiny.collate([full[1]])
    with torch.no_grad():
        forward = tiny(batch)
    for head, slots in batch.slots.items():
        (expected,) = tiny.head(head).decode(forward.predictions[head], list(slots.clips), slots.answer)
        for name, value in expected.items():
            assert np.allclose(answer.structured[head][name], value, atol=1e-3), name
    assert np.allclose(answer.boxes_xyxy, answer.structured["region"]["boxes_xyxy"]) and len(answer.boxes_xyxy) == 2
    assert answer.windows_sec and answer.saliency
    document = answer.to_dict()
    assert (document["task"], document["windows_sec"], document["truncated"]) == ("temporal+region", answer.windows_sec, False)


def test_the_side_branch_leaves_the_text_as_if_it_had_never_been_taken(
    tiny: TPOModel, full: list[Row], script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without scripted words: 14 tokens that the model chooses itself after a route, first with and then without the side pass."""
    script(tiny, full)
    tiny.backbone.model.lm_head.weight = torch.nn.Parameter(torch.randn_like(tiny.backbone.model.lm_head.weight))
    answerer, rows = Answerer(tiny, max_tokens=14), [asked(full[0]), asked(full[1])]
    fed: list[list[int]] = []
    feed = Answerer._feed

    def recorded(self: Answerer, reading: Any, tokens: list[int], beside: Tensor | None = None) -> Tensor:
        fed.append(list(tokens))
        return feed(self, reading, tokens, beside)

    monkeypatch.setattr(Answerer, "_feed", recorded)
    with_side = answerer.answer(rows)
    assert with_side[1].routes[:1] == ("temporal",)
    passes = len(fed)
    routes = tiny.tokens.ids.head_of_route
    monkeypatch.setattr(type(tiny.tokens.ids), "head_of_route", {})
    without = answerer.answer(rows)
    assert len(fed) - passes < passes, "no side pass was taken the second time"
    ids = tiny.tokens.ids.slot.values()
    main = [tokens for tokens in fed[:passes] if not set(tokens) & set(ids)]
    assert main == fed[passes:]
    assert [answer.text for answer in with_side] == [answer.text for answer in without]
    assert routes and not without[1].routes


def test_route_probability_is_that_of_the_first_token_as_training_computes_it(tiny: TPOModel, full: list[Row]) -> None:
    """Without scripted words: the model's own probabilities, against a plain pass over the whole question."""
    rows = [asked(row) for row in full]
    answers = Answerer(tiny, max_tokens=1).answer(rows)
    for row, answer in zip(rows, answers, strict=True):
        with torch.no_grad():
            state = tiny(tiny.collate([row])).hidden[:, -1]
            logits = tiny.tokens.extend_logits(tiny.backbone.logits(state), state)[0].float()
        ids = tiny.tokens.ids
        special = {*tiny.encoder.special_ids.values(), *ids.all} - {*ids.route.values(), tiny.encoder.end_id}
        may = [token for token in range(len(logits)) if token not in special]
        total = logits[may].exp().sum()
        assert answer.route_probability == pytest.approx(
            {head: float(logits[ids.route[head]].exp() / total) for head in ids.route}, abs=1e-5
        )
        assert answer.to_dict()["route_probability"] == answer.route_probability


def test_route_probability_is_certain_of_a_route_that_comes_first_and_not_of_one_that_comes_later(
    tiny: TPOModel, full: list[Row], script: Any
) -> None:
    script(tiny, full)
    later, first, _, plain, _ = (answer.route_probability for answer in Answerer(tiny, max_tokens=20).answer([asked(row) for row in full]))
    assert first["temporal"] > 0.5 > first["region"]
    assert max(*later.values(), *plain.values()) < 0.5


def test_route_probability_of_a_model_without_heads_is_empty(build_tiny: Callable[..., TPOModel], say: Callable[..., Sample]) -> None:
    model = build_tiny([]).eval()
    (answer,) = Answerer(model, max_tokens=1).answer([asked(Frames(model.backbone).row([say(3, "How many?", "three")]))])
    assert answer.route_probability == {}


def test_side_branch_of_one_row_does_not_touch_its_neighbour(tiny: TPOModel, full: list[Row], script: Any) -> None:
    script(tiny, full)
    plain, routed = asked(full[3]), asked(full[1])
    (alone,) = Answerer(tiny, max_tokens=20).answer([plain])
    both = Answerer(tiny, max_tokens=20).answer([routed, plain])
    assert both[1].text == alone.text == "three"
    assert not both[1].structured


def test_history_written_by_the_model_reads_back_as_the_same_tokens(tiny: TPOModel, full: list[Row], script: Any) -> None:
    script(tiny, full)
    (first,) = Answerer(tiny, max_tokens=20).answer([asked(full[0])])
    encode = tiny.encoder.encode
    question = full[0].samples[0].conversation[0].text
    written = encode([("user", question), ("assistant", first.text), ("user", "And now?")])
    given = encode([("user", question), ("assistant", full[0].samples[0].conversation[1].text), ("user", "And now?")])
    assert written.ids == given.ids


@pytest.mark.parametrize("texts", [("here <region> it is",), ("<region>",), ("<region>, <region> and <temporal>.",), ("it: <temporal>",)])
def test_text_and_tokens_are_the_inverse_of_each_other(tiny: TPOModel, texts: tuple[str]) -> None:
    encoded = tiny.encoder.encode([("user", "?"), ("assistant", texts[0])])
    words = [token for token, kind in zip(encoded.ids, encoded.kinds, strict=True) if kind.name in ("TEXT", "ROUTE")][:-1]
    assert Answerer(tiny)._text(words) == texts[0]


def test_truncated_says_whether_there_was_more_to_say(tiny: TPOModel, full: list[Row], script: Any) -> None:
    script(tiny, full)
    row = asked(full[0])
    (whole,) = Answerer(tiny, max_tokens=50).answer([row])
    encoded = tiny.encoder.encode([("user", "?"), ("assistant", whole.text)])
    length = sum(kind.name in ("TEXT", "ROUTE") for kind in encoded.kinds) - 1
    (exact,) = Answerer(tiny, max_tokens=length).answer([row])
    (cut,) = Answerer(tiny, max_tokens=length - 1).answer([row])
    assert (exact.text, exact.truncated) == (whole.text, False)
    assert cut.truncated and whole.text.startswith(cut.text) and cut.text != whole.text


def test_a_route_as_the_last_allowed_token_is_still_read(tiny: TPOModel, full: list[Row], script: Any) -> None:
    script(tiny, full)
    (answer,) = Answerer(tiny, max_tokens=1).answer([asked(full[1])])
    assert (answer.text, answer.truncated) == ("<temporal>", True)
    assert answer.windows_sec


def test_on_text_pieces_join_to_the_text(tiny: TPOModel, full: list[Row], script: Any) -> None:
    script(tiny, full)
    told: dict[int, list[str]] = {index: [] for index in range(len(full))}
    answers = Answerer(tiny, max_tokens=20).answer([asked(row) for row in full], on_text=lambda index, piece: told[index].append(piece))
    assert ["".join(pieces) for pieces in told.values()] == [answer.text for answer in answers]
    assert len(told[0]) > 3, "piece by piece"


def test_on_text_waits_for_all_bytes_of_a_character(tiny: TPOModel, say: Callable[..., Sample], script: Any) -> None:
    row = Frames(tiny.backbone).row([say(0, "What?", "né 東京 ok")])
    script(tiny, [row])
    pieces: list[str] = []
    (answer,) = Answerer(tiny, max_tokens=30).answer([asked(row)], on_text=lambda index, piece: pieces.append(piece))
    assert answer.text == "né 東京 ok" == "".join(pieces)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_special_tokens_are_never_written(tiny: TPOModel, full: list[Row]) -> None:
    with torch.no_grad():
        (state,) = [tiny(tiny.collate([asked(full[3])])).hidden[0, -1]]
        words = tiny.backbone.model.lm_head
        words.weight = torch.nn.Parameter(torch.zeros_like(words.weight))
        for token in tiny.encoder.special_ids.values():
            if token < len(words.weight) and token != tiny.encoder.end_id:
                words.weight[token] = state
        tiny.tokens.rows["output"][:] = 0
        for row, token in enumerate(tiny.tokens.ids.all):
            if token not in tiny.tokens.ids.head_of_route:
                tiny.tokens.rows["output"][row] = 100 * state
    (answer,) = Answerer(tiny, max_tokens=3).answer([asked(full[3])])
    assert not [token for token in tiny.encoder.special_ids if token in answer.text]


class Looking(Head[Tensor, Tensor]):
    """Answers with sums of everything that it may look at."""

    name = "looking"
    needs = frozenset({"frames", "frame_features", "frame_states", "query"})

    def predict(self, task_embedding: Tensor, visual: Visual) -> Tensor:
        assert visual.frames is not None and visual.frame_features is not None and visual.query_features is not None
        assert visual.query_valid is not None and visual.frame_states is not None
        query = (visual.query_features * visual.query_valid[..., None]).sum((1, 2))
        patches, states = (values.abs().mean((1, 2, 3)) for values in (visual.frame_features, visual.frame_states))
        seen = torch.stack([visual.frames.float().mean((1, 2, 3, 4)), patches, states, query, visual.duration_sec])
        return torch.cat([seen.T, task_embedding[:, :2]], 1)

    def losses(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {}


def test_heads_see_the_same_in_training_and_in_answering(
    build_tiny: Callable[..., TPOModel], say: Callable[..., Sample], script: Any
) -> None:
    model = build_tiny([Looking(64)]).eval()
    frames = Frames(model.backbone)
    rows = [
        frames.row([say(0, "What is it?", "<looking> <looking>", looking=1)]),
        frames.row([say(1, "red?", "no", "And what is the other one there?", "a <looking>", looking=1)]),
    ]
    script(model, rows)
    batch = model.collate(rows)
    with torch.no_grad():
        expected = model(batch).predictions["looking"]
    answers = Answerer(model, max_tokens=9).answer([asked(row) for row in rows])
    found = list(itertools.chain(*(answer.structured["looking"]["looking"] for answer in answers)))
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [Row(rows[0].frames, rows[0].clip, rows[0].samples * 2, "x")], r"row\.samples: expected one conversation, got 2"),
        (lambda rows: rows[:1], r"conversation: expected a last turn of the user, got 'assistant'"),
        (lambda rows: [], r"rows: expected at least one row, got 0"),
    ],
)
def test_answerer_refuses_rows_that_are_no_question(tiny: TPOModel, full: list[Row], change: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Answerer(tiny).answer(change(full))


def test_answerer_refuses_to_write_nothing(tiny: TPOModel) -> None:
    with pytest.raises(UsageError, match="max_tokens: expected at least 1, got 0"):
        Answerer(tiny, max_tokens=0)
