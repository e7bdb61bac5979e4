"""Word maps: the formula by hand and against least squares, a signal that is planted and found, and the model's own logits behind it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tpo_lab as tpo
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.probes import word_maps as module
from tpo_lab.probes.sequence import tokens_of
from tpo_lab.probes.trace import Token, WordMap
from tpo_lab.probes.word_maps import emitted_word_maps, last_answer, logits_of, maps_of_words, word_map
from tpo_lab.sample import Sample

BOX = {"time_sec": 1.0, "xyxy": [4.0, 8.0, 20.0, 40.0]}
QUESTION, ANSWER = "Where is the red ball?", "the red ball is <region>."
FRAMES, CELLS = 4, 16


def test_a_map_by_hand():
    activation = torch.tensor([3.0, 1.0, 2.0])
    earlier = torch.tensor([[1.0, 0.0, 1.0], [0.0, 5.0, 0.0]])
    # the second word has nothing to do with this one: I = 2 x (1, 0, 1), s = (6 + 4) / 8, A - s I = (0.5, 1, -0.5)
    assert word_map(activation, earlier, torch.tensor([2.0, -1.0])).tolist() == [0.5, 1.0, 0.0]
    # I = 2 x (1, 0, 1) + 1 x (0, 5, 0) = (2, 5, 2), s = (6 + 5 + 4) / 33
    assert word_map(activation, earlier, torch.tensor([2.0, 1.0])).tolist() == pytest.approx([3 - 30 / 33, 0.0, 2 - 30 / 33])


def test_a_word_without_related_ones_keeps_what_speaks_for_it():
    activation = torch.tensor([-3.0, 0.0, 2.0])
    for earlier, relation in ((torch.zeros(0, 3), torch.zeros(0)), (torch.ones(2, 3), -torch.ones(2)), (torch.zeros(2, 3), torch.ones(2))):
        assert word_map(activation, earlier, relation).tolist() == [0.0, 0.0, 2.0]


def test_the_scale_is_that_of_least_squares():
    for _ in range(20):
        activation, earlier, relation = torch.randn(7), torch.randn(5, 7), torch.randn(5)
        interference = np.clip(relation.numpy(), 0, None) @ earlier.numpy()
        scale = np.linalg.lstsq(interference[:, None], activation.numpy(), rcond=None)[0][0]
        wanted = np.clip(activation.numpy() - scale * interference, 0, None)
        assert word_map(activation, earlier, relation).numpy() == pytest.approx(wanted, abs=1e-4)


def test_a_signal_is_found_under_the_interference_of_earlier_words():
    signal = torch.zeros(12)
    signal[9] = 1.5
    earlier = torch.rand(3, 12) * (signal == 0)
    relation = torch.tensor([0.5, 2.0, 1.0])
    activation = signal + 4 * (relation @ earlier)
    assert int(activation.argmax()) != 9, "the raw map points to what the earlier words light up"
    assert torch.allclose(word_map(activation, earlier, relation), signal, atol=1e-5)


def test_only_earlier_and_other_words_count():
    ids, visual = [7, 8, 7, 9], 6
    logits = torch.rand(visual + 4, 4)
    logits[:, 2] = logits[:, 0]  # equal tokens have equal logits
    found = maps_of_words(logits, ids, [0, 2, 3], visual)
    assert found.shape == (3, visual)
    assert torch.equal(found[0], logits[:visual, 0])
    assert torch.allclose(found[1], word_map(logits[:visual, 2], logits[:visual, 1][None], logits[visual + 1, 2][None]))
    assert torch.allclose(found[2], word_map(logits[:visual, 3], logits[:visual, :3].T, logits[visual : visual + 3, 3]))
    later = logits.clone()
    later[:, 3], later[visual + 3] = 5.0, 5.0
    assert torch.equal(maps_of_words(later, ids, [0, 2], visual), found[:2])
    assert maps_of_words(logits, ids, [], visual).shape == (0, visual)


@pytest.fixture
def asked(say: Any) -> Sample:
    return say(1, QUESTION, ANSWER, region=[BOX])


def read(model: TPOModel, sample: Sample) -> tuple[Any, Any, Tensor]:
    """Row, batch and last states of a sample."""
    row = Frames(model.backbone).row([sample])
    batch = model.collate([row])
    with torch.no_grad():
        return row, batch, model(batch).hidden[0]


def test_logits_are_those_that_the_model_learns_with(tiny: TPOModel, asked: Sample, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "STATES_AT_ONCE", 3)
    _, batch, hidden = read(tiny, asked)
    with torch.no_grad():
        wanted = tiny(batch).logits[:, batch.target]
        found = logits_of(tiny, hidden[batch.predictor[:, 1]], batch.target.tolist())
    assert bool(batch.is_route.any()) and len(batch.target) > 3
    assert torch.allclose(found, wanted, atol=1e-5)


def test_last_answer_is_what_is_learned_after_the_last_question(tiny: TPOModel, say: Any):
    def words(*texts: str, **targets: Any) -> str:
        row = Frames(tiny.backbone).row([say(0, *texts, **targets)])
        return "".join(token.text for token in last_answer(tokens_of(tiny, row))).strip()

    assert words("How many squares are there?", "zero", QUESTION, "<region>", region=[BOX]) == "<region:route>"
    assert words(QUESTION, "<region>", "How many squares are there?", "zero balls", region=[BOX]) == "zero balls"
    assert words(QUESTION) == "" and last_answer([Token(0, "", "VIDEO", False)]) == []


def test_nothing_is_mapped_unless_asked(tiny: TPOModel, asked: Sample):
    plain, mapped = (tpo.probe(tiny, [asked], words=words).to_dict() for words in (False, True))
    assert plain["samples"][0]["words"] == [] and mapped["samples"][0]["words"]
    mapped["samples"][0]["words"] = []
    assert json.dumps(plain) == json.dumps(mapped)


def test_words_of_the_true_answer_lie_where_the_tokens_say(tiny: TPOModel, asked: Sample):
    sample = tpo.probe(tiny, [asked], words=True).samples[0]
    expected = [word for word in sample.words if word.answer == "expected"]
    assert [word.number for word in expected] == list(range(len(expected)))
    places = [word.token for word in expected]
    assert places == [token.index for token in sample.tokens if token.learned][:-1], "all that is learned but the end"
    assert [word.text for word in expected] == [sample.tokens[place].text for place in places]
    assert [(word.head, word.text) for word in expected if word.head] == [("region", "<region:route>")]
    assert all(word.map.shape == (FRAMES, CELLS) and word.grid == (4, 4) and float(word.map.min()) >= 0 for word in expected)


def test_a_map_is_made_of_the_models_output_rows(tiny: TPOModel, asked: Sample):
    """The route's map, from states and output rows alone."""
    row, batch, hidden = read(tiny, asked)
    found = next(word for word in tpo.probe(tiny, [asked], words=True).samples[0].words if word.head == "region")
    tokens, ids, own = tokens_of(tiny, row), batch.ids[0].tolist(), tiny.tokens.ids
    states, rows = hidden.double().numpy(), tiny.backbone.output_rows.detach().double().numpy()
    route = tiny.tokens.rows["output"].detach().double().numpy()[own.all.index(own.route["region"])]
    patches = [token.index for token in tokens if token.kind == "VIDEO" and token.frame is not None]
    special = set(tiny.encoder.special_ids.values())
    first = max(token.index for token in tokens if token.kind == "VIDEO") + 1
    before = [place for place in range(first, found.token) if ids[place] not in special]
    interference = sum(max(0.0, states[place] @ route) * (states[patches] @ rows[ids[place]]) for place in before)
    activation = states[patches] @ route
    wanted = np.clip(activation - (activation @ interference) / (interference @ interference) * interference, 0, None)
    assert len(before) > 6 and float(np.abs(interference).max()) > 0
    assert found.map.flatten().numpy() == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_a_row_that_answers_to_one_patch_lights_up_that_patch(tiny: TPOModel, asked: Sample):
    frame, cell = 2, 5
    row, _, hidden = read(tiny, asked)
    patches = [token.index for token in tokens_of(tiny, row) if token.frame is not None]
    due = torch.full((len(patches), 1), -1.0, dtype=torch.float64)
    due[frame * CELLS + cell] = 8.0
    ids = tiny.tokens.ids
    with torch.no_grad():
        solved = torch.linalg.lstsq(hidden[patches].double(), due, driver="gelsd").solution[:, 0]
        tiny.tokens.rows["output"][ids.all.index(ids.route["region"])] = solved.float()
    found = next(word for word in tpo.probe(tiny, [asked], words=True).samples[0].words if word.head == "region")
    assert divmod(int(found.map.argmax()), CELLS) == (frame, cell)


def test_what_the_model_writes_itself_is_mapped_like_the_true_answer(tiny: TPOModel, asked: Sample, script: Any):
    script(tiny, [Frames(tiny.backbone).row([asked])])
    sample = tpo.probe(tiny, [asked], words=True).samples[0]
    assert sample.routes.text == ANSWER and sample.routes.emitted == ("region",)
    emitted, expected = ([word for word in sample.words if word.answer == answer] for answer in ("emitted", "expected"))
    assert [(word.text, word.number, word.head) for word in emitted] == [(word.text, word.number, word.head) for word in expected]
    assert all(word.token is None for word in emitted) and all(word.token is not None for word in expected)
    assert all(torch.allclose(mine.map, true.map, atol=1e-4) for mine, true in zip(emitted, expected, strict=True))
    assert any(float(word.map.max()) > 0 for word in emitted)


def test_an_answer_of_its_own_to_an_open_question(tiny: TPOModel, asked: Sample, script: Any):
    script(tiny, [Frames(tiny.backbone).row([asked])])
    opened = asked.model_copy(update={"conversation": asked.conversation[:1]})
    words = tpo.probe(tiny, [opened], words=True).samples[0].words
    assert {word.answer for word in words} == {"emitted"} and [word.head for word in words if word.head] == ["region"]


@pytest.mark.parametrize("text", ["", "a <nobody> b"])
def test_an_answer_that_cannot_be_read_again_has_no_maps(tiny: TPOModel, asked: Sample, text: str):
    row, _, _ = read(tiny, asked)
    with torch.no_grad():
        assert emitted_word_maps(tiny, row, tiny.encode_video([row]), text) == ()


def test_a_map_is_json():
    word = WordMap(" ball", "emitted", 2, None, None, torch.tensor([[0.123456, 0.0, 1.0, 2.0]] * 3))
    document = json.loads(json.dumps(word.to_dict()))
    assert document == {
        "text": " ball",
        "answer": "emitted",
        "number": 2,
        "token": None,
        "head": None,
        "grid": [2, 2],
        "map": [[0.1235, 0.0, 1.0, 2.0]] * 3,
    }
