"""What TokenView is given to draw: every number is the record's, however the record looks."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tpo_lab as tpo
from tests.widgets.planted_trace import (
    HOT,
    LAYERS,
    SIDE,
    SIZE_WH,
    TIMES_SEC,
    planted_tokens,
    planted_trace,
    with_attention,
)
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.probes import plant
from tpo_lab.probes.faults import LEAKING_LABEL, WRONG_SLOT
from tpo_lab.probes.trace import Token, Trace
from tpo_widgets import TokenView
from tpo_widgets.content import Moment
from tpo_widgets.tokens.content import TokenContent, seen_film
from tpo_widgets.tokens.heat import COLOURS, Heat, attention_heat, coloured, word_heat
from tpo_widgets.tokens.picture import heated, selected_heat
from tpo_widgets.tokens.row import grid_side, places_of, runs_of


@pytest.fixture(scope="module")
def asked(say: Any) -> list[Any]:
    """A plain question, one for a place, and one for a moment."""
    box = {"time_sec": 1.0, "xyxy": [4.0, 8.0, 20.0, 40.0]}
    return [
        say(0, "How many squares are there?", "zero"),
        say(1, "Where is the red ball?", "The red ball is <region>.", region=[box]),
        say(2, "When does it stop?", "<temporal>", temporal={"windows_sec": [[1.0, 2.5]]}),
    ]


@pytest.fixture(scope="module")
def measured(build_tiny: Any, asked: list[Any]) -> Trace:
    """What a probe of a tiny model gives."""
    return tpo.probe(build_tiny().eval(), asked, gradients=False, words=True)


def numbers(content: TokenContent, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The array of a resource, and what stands beside it."""
    found = content.resource(name)
    return np.frombuffer(found.data, "<f4").reshape(found.about["shape"]), json.loads(json.dumps(dict(found.about), allow_nan=False))


def test_a_row_has_every_token_once_and_patches_in_runs(measured: Trace):
    for sample in measured.samples:
        runs, indices = runs_of(sample.tokens), []
        for run in runs:
            if run[0] != "VIDEO":
                token = sample.tokens[run[1]]
                assert run == [token.kind, token.index, token.text, token.learned, token.head]
                indices.append(run[1])
                continue
            _, first, frame, cell, count = run
            members = sample.tokens[first : first + count]
            assert [token.frame for token in members] == [frame] * count
            assert [token.cell for token in members] == ([None] * count if cell is None else list(range(cell, cell + count)))
            indices += range(first, first + count)
        assert indices == list(range(len(sample.tokens)))
        assert sum(run[0] == "VIDEO" and run[2] is not None for run in runs) == len(sample.times_sec)


def test_runs_break_where_cells_do_not_follow_each_other():
    cells = [(0, 0), (0, 1), (0, 3), (1, 0), (None, None), (None, None)]
    tokens = [Token(index, "v", "VIDEO", False, frame=frame, cell=cell) for index, (frame, cell) in enumerate(cells)]
    assert [run[1:] for run in runs_of(tokens)] == [[0, 0, 0, 2], [2, 0, 3, 1], [3, 1, 0, 1], [4, None, None, 2]]
    assert grid_side(tokens) == 2 and grid_side([]) == 0
    with pytest.raises(UsageError, match=r"a square grid.*6 patches"):
        grid_side([Token(0, "v", "VIDEO", False, frame=0, cell=5)])


def test_places_of_routes_have_the_records_probabilities(measured: Trace):
    for sample in measured.samples:
        *due, start = places_of(sample)
        assert [(place["token"], place["from"], place["expected"]) for place in due] == [
            (d.token, d.predicted_from, d.head) for d in sample.routes.due
        ]
        assert [dict(place["probability"]) for place in due] == [dict(each.probability) for each in sample.routes.due]
        assert dict(start["probability"]) == dict(sample.routes.first) and start["token"] is None
    begins = [places_of(sample)[-1]["expected"] for sample in measured.samples]
    assert begins == ["none", "none", "temporal"], "the second true answer begins with a word"


def test_what_is_written_stands_beside_what_is_expected(planted: Trace):
    sample = planted.samples[0]
    region, temporal, start = places_of(sample)
    assert (region["expected"], region["written"]) == ("region", "region")
    assert (temporal["expected"], temporal["written"]) == ("temporal", "none"), "it asked one head only"
    assert (start["expected"], start["written"]) == ("region", "region")
    later = replace(sample, routes=replace(sample.routes, text="here <region>", emitted=("region", "temporal", "region")))
    assert [place["written"] for place in places_of(later)] == ["region", "temporal", "none"]
    open_question = replace(sample, tokens=sample.tokens[:-6], routes=replace(sample.routes, due=()))
    assert [(place["expected"], place["written"]) for place in places_of(open_question)] == [(None, "region")]


def test_earlier_answers_have_nothing_written_beside_them(build_tiny: Any, say: Any):
    box = {"time_sec": 1.0, "xyxy": [4.0, 8.0, 20.0, 40.0]}
    sample = say(1, "Where is the ball?", "<region>", "How many are there?", "two", region=[box])
    earlier, start = places_of(tpo.probe(build_tiny().eval(), [sample], gradients=False).samples[0])
    assert (earlier["expected"], earlier["written"], start["expected"]) == ("region", None, "none")


def test_attention_is_placed_by_frame_and_cell(measured: Trace):
    for number, each in enumerate(measured.activations.attention):
        sample = measured.samples[each.sample]
        values, about = numbers(TokenContent.of(measured), f"attention/{number}")
        assert values.shape == (1 + len(measured.activations.layers), len(sample.times_sec), 16)
        assert about["layers"] == [-1, *measured.activations.layers]
        for token in sample.tokens:
            if token.frame is not None:
                assert values[1:, token.frame, token.cell].tolist() == each.weights[:, token.index].tolist()
                assert values[0, token.frame, token.cell] == pytest.approx(float(each.weights[:, token.index].mean()), rel=1e-5)
        assert about["most"] == pytest.approx([float(layer.max()) for layer in values])
        assert np.array(about["frames"]) == pytest.approx(values.astype(float).sum(2))


def test_shares_are_sums_of_the_records_weights(planted: Trace):
    sample, each = planted.samples[0], planted.activations.attention[2]
    heat = attention_heat(sample, each, LAYERS)
    weights = each.weights.double().numpy()
    kinds = np.array([token.kind for token in sample.tokens])
    framed = np.array([token.frame is not None for token in sample.tokens])
    own = np.arange(len(kinds)) == each.token
    for layer, row in enumerate(weights, start=1):
        shares = heat.shares[layer]
        wanted = {
            "frames": row[framed].sum(),
            "clip": row[(kinds == "VIDEO") & ~framed].sum(),
            "context": row[kinds == "CONTEXT"].sum(),
            "prompts": row[kinds == "PROMPT"].sum(),
            "words": row[kinds == "TEXT"].sum(),
            "routes": row[kinds == "ROUTE"].sum(),
            "itself": row[own].sum(),
            "slots": row[(kinds == "SLOT") & ~own].sum(),
        }
        assert shares == pytest.approx(wanted, abs=1e-7) and sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
    frame, row, column = HOT
    assert np.unravel_index(heat.values[2].argmax(), (len(TIMES_SEC), SIDE, SIDE)) == (frame, row, column)
    assert heat.most(2) == float(each.weights[1].max()) > 0.5


def test_patches_that_the_row_lacks_have_no_value(planted: Trace):
    sample, each = planted.samples[0], planted.activations.attention[2]
    missing = next(token.index for token in sample.tokens if (token.frame, token.cell) == (2, 4))
    tokens = tuple(replace(token, frame=None, cell=None) if token.index == missing else token for token in sample.tokens)
    values = attention_heat(replace(sample, tokens=tokens), each, LAYERS).values
    assert np.isnan(values[:, 2, 4]).all() and np.isnan(values).sum() == len(values)


def test_word_maps_and_cosines_are_the_records(measured: Trace):
    content = TokenContent.of(measured)
    for place, sample in enumerate(measured.samples):
        for number, word in enumerate(sample.words):
            values, about = numbers(content, f"word/{place}/{number}")
            assert np.array_equal(values[0], word.map.numpy()) and about["shares"] == [] and about["most"] == [float(word.map.max())]
    cosines, _ = numbers(content, "cosines")
    assert np.array_equal(cosines, measured.activations.cosines().numpy())
    assert cosines.shape == (content.document["depths"], 2, 2) and cosines[-1].diagonal() == pytest.approx([1, 1])
    assert content.document["slots"] == [list(slot) for slot in measured.activations.slots]


def test_a_sample_says_whose_attention_and_words_it_has(planted: Trace):
    found = TokenContent.of(planted).sample(0)
    tokens = {token.text: token.index for token in planted.samples[0].tokens}
    assert [(look["kind"], look["shows"]) for look in found["looks"]] == [
        ("ROUTE", tokens["<region:route>"]),
        ("ROUTE", tokens["<temporal:route>"]),
        ("SLOT", tokens["<region:slot>"]),
        ("SLOT", tokens["<temporal:slot>"]),
    ]
    assert [look["hidden"] for look in found["looks"]] == [0.125, 0.125, 0.0, 0.0]
    assert [(word["text"], word["answer"], word["number"], word["token"]) for word in found["words"]] == [
        ("<region:route>", "emitted", 0, None),
        (" here", "emitted", 1, None),
        (" there", "expected", 1, tokens[" there"]),
    ]
    assert found["slots"][1] == {
        "head": "temporal",
        "token": tokens["<temporal:slot>"],
        "reads": tokens["<temporal:slot>"] - 1,
        "cosine": 0.25,
    }


@pytest.mark.parametrize(("fault", "key"), [(WRONG_SLOT, "reads"), (LEAKING_LABEL, "hidden")])
def test_planted_faults_show(build_tiny: Any, asked: list[Any], fault: str, key: str):
    model = build_tiny().eval()
    with plant(model, fault, head="region"):
        detail = TokenContent.of(tpo.probe(model, asked[1:2], gradients=False)).sample(0)
    if key == "reads":
        assert [slot["reads"] == slot["token"] for slot in detail["slots"]] == [False]
    else:
        assert max(look["hidden"] for look in detail["looks"]) > 1e-6


def test_frames_are_those_that_the_model_saw(planted: Trace):
    film = seen_film(planted.samples[0])
    assert film.size_wh == SIZE_WH and film.times_sec == TIMES_SEC and len(film) == 4
    levels = np.linspace(30, 220, 10)[[0, 2, 5, 8]]
    shown = [np.asarray(film.picture(number)).mean() for number in (2, 0, 3, 1)]
    assert shown == pytest.approx(levels[[2, 0, 3, 1]], abs=4)
    content = TokenContent.of(planted)
    assert np.asarray(Image.open(io.BytesIO(content.resource("frame/0/3").data))).shape == (SIZE_WH[1], SIZE_WH[0], 3)


def test_two_frames_of_the_model_may_be_one_of_the_clip(planted: Trace):
    sample = replace(planted.samples[0], times_sec=(0.5, 0.6, 0.7, 2.0))
    shown = [np.asarray(seen_film(sample).picture(number)).mean() for number in range(4)]
    assert shown[0] == shown[1] == shown[2] and shown[3] > shown[0] + 50


def test_films_of_many_samples_are_not_all_kept(clip: Path):
    content = TokenContent.of(planted_trace(clip, samples=6))
    for place in range(6):
        content.resource(f"frame/{place}/0")
    assert list(content._films) == [3, 4, 5]


def test_all_that_a_page_should_hold_can_be_had(measured: Trace):
    content = TokenContent.of(measured)
    names = list(content.names())
    assert len(names) == len(set(names)) and {name.split("/")[0] for name in names} >= {"cosines", "frame", "attention", "word"}
    assert all(content.resource(name).data for name in names)
    for unknown in ("", "frame", "frame/0", "frame/0/99", "frame/9/0", "attention/99", "word/0/9999", "sample/-1", "cosines/1", "../x"):
        with pytest.raises(UsageError, match="expected"):
            content.resource(unknown)


def test_a_record_without_attention_slots_or_words(build_tiny: Any, asked: list[Any]):
    model = build_tiny().eval()
    blind = TokenContent.of(tpo.probe(model, asked[1:], gradients=False, attention=False))
    assert blind.sample(0)["looks"] == [] and blind.sample(0)["slots"] and not blind.sample(0)["words"]
    plain = TokenContent.of(tpo.probe(model, asked[:1], gradients=False))
    assert plain.document["slots"] == [] and plain.document["depths"] == plain.cosines.shape[0] and plain.resource("cosines").data == b""
    for content in (blind, plain):
        json.dumps(content.document, allow_nan=False)
        assert content.picture(Moment(), dark=False, width=480).width == 480


def bad_traces(planted: Trace) -> dict[str, Any]:
    """Records that cannot be shown, by what is wrong with them."""
    first = planted.activations.attention[0]
    odd = replace(planted.samples[0], tokens=(*planted.samples[0].tokens, Token(99, "v", "VIDEO", False, frame=0, cell=9)))
    return {
        "a step record, as tpo.probe gives it, got 'str'": "trace",
        "got 'NoneType'": None,
        "trace.samples: expected at least one": replace(planted, samples=(), activations=replace(planted.activations, attention=())),
        "attention.weights: expected [2 layers": with_attention(planted, (replace(first, weights=first.weights[:, :-1]),)),
        "a square grid of patches": replace(planted, samples=(odd,), activations=replace(planted.activations, attention=())),
        "IndexError": with_attention(planted, (replace(first, sample=7),)),
    }


@pytest.mark.parametrize("place", range(6))
def test_what_cannot_be_shown_becomes_a_panel(planted: Trace, place: int):
    sentence, trace = list(bad_traces(planted).items())[place]
    view = TokenView(trace)
    assert sentence in view.problem and view.document == {}
    assert Image.open(io.BytesIO(view.to_png())).width == 900 and "role" in view.to_html()


def test_numbers_that_are_not_finite_become_none(planted: Trace):
    sample, each = planted.samples[0], planted.activations.attention[2]
    broken = replace(each, weights=torch.full_like(each.weights, torch.nan), hidden=float("nan"))
    routes = replace(sample.routes, first={"region": float("nan"), "none": 0.5})
    slots = (replace(sample.slots[0], cosine=float("nan")),)
    trace = replace(
        with_attention(planted, (broken,)),
        samples=(replace(sample, routes=routes, slots=slots),),
    )
    trace = replace(trace, activations=replace(trace.activations, states=trace.activations.states * torch.nan))
    view = TokenView(trace)
    assert view.problem == "" and json.dumps(view.document, allow_nan=False)
    detail = view.document["details"]["0"]
    assert detail["places"][-1]["probability"] == [["region", None], ["none", 0.5]]
    assert detail["slots"][0]["cosine"] is None and detail["looks"][0]["hidden"] is None
    _, about = numbers(view.content, "attention/0")
    assert about["most"] == [None] * 3 and about["shares"][0]["frames"] is None
    assert Image.open(io.BytesIO(view.to_png())).width == 900


def test_rows_of_a_large_model_stay_small(clip: Path):
    view = TokenView(planted_trace(clip, side=14, frames=32, words="word " * 300))
    assert len(view.content.trace.samples[0].tokens) > 6500
    assert len(view.content.sample(0)["runs"]) == 2 * 32 + 1 + 300 + 1 + 1 + 6
    assert len(json.dumps(view.document)) < 30_000 and len(str(view.get_state())) <= 100_000
    many = TokenView(planted_trace(clip, samples=64, side=5, frames=8))
    assert len(json.dumps(many.document)) < 30_000 and len(str(many.get_state())) <= 100_000
    assert many.document["limits"] == {"hidden": 1e-6, "cosine": 0.999}
    missing = [place for place in range(64) if str(place) not in many.document["details"]]
    assert missing and f"sample/{missing[0]}" in set(many.content.names())
    assert json.loads(many.content.resource(f"sample/{missing[0]}").data) == json.loads(json.dumps(many.content.sample(missing[0])))


def test_colours_run_from_the_first_to_the_last():
    first, last = (tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5)) for colour in (COLOURS[0], COLOURS[-1]))
    found = coloured(np.array([0.0, 1.0, -1.0, 2.0, np.nan, 0.2]))
    second = tuple(int(COLOURS[1][at : at + 2], 16) for at in (1, 3, 5))
    assert [tuple(each) for each in found.tolist()] == [first, last, first, last, first, second]
    light = found[[0, 5, 1]].astype(float) @ [0.299, 0.587, 0.114]
    assert list(light) == sorted(light)


def test_a_picture_shows_the_selected_token(planted: Trace, artifacts: Path):
    content = TokenContent.of(planted)
    slots = planted.samples[0].slots
    chosen = ((-1, ""), (slots[1].token, ""), (-1, "temporal"), (0, ""))
    titles = [selected_heat(content, 0, Moment(token=token, head=head))[0] for token, head in chosen]
    assert ["region" in title for title in titles] == [True, False, False, True]
    for dark in (False, True):
        picture = content.picture(Moment(), dark=dark, width=760)
        picture.save(artifacts / f"token_picture_{'dark' if dark else 'light'}.png")
        assert picture.width == 760 and 300 < picture.height < 1200
    assert content.picture(Moment(), dark=False, width=480).width == 480
    assert word_heat(planted.samples[0].words[1]).most() == 5.5


def test_a_map_on_a_picture_is_in_its_place(planted: Trace):
    frame, row, column = HOT
    values = np.zeros((1, len(TIMES_SEC), SIDE * SIDE), np.float32)
    values[0, frame, row * SIDE + column] = 0.25
    black = Image.new("RGB", SIZE_WH)
    wide, tall = 120, 75
    light = np.asarray(heated(black, Heat(values), frame, (wide, tall))).sum(-1) > 200
    wanted = np.zeros((tall, wide), bool)
    wanted[row * 25 : (row + 1) * 25, column * 40 : (column + 1) * 40] = True
    assert np.array_equal(light, wanted)
    assert not (np.asarray(heated(black, Heat(values), 0, (wide, tall))).sum(-1) > 200).any()
    assert np.array_equal(np.asarray(heated(black, None, frame, (wide, tall))), np.zeros((tall, wide, 3)))


def test_a_clip_that_has_gone_leaves_the_numbers(clip: Path, tmp_path: Path):
    gone = tmp_path / "gone.mp4"
    gone.write_bytes(clip.read_bytes())
    view = TokenView(planted_trace(gone))
    gone.unlink()
    view.content._films.clear()
    assert view.problem == "" and Image.open(io.BytesIO(view.to_png())).width == 900
    with pytest.raises((TPOError, OSError)):
        view.content.resource("frame/0/0")
    assert "attention/2" in view.to_html()


def test_misspelt_keywords_are_refused(planted: Trace):
    with pytest.raises(UsageError, match=r"TokenView keyword.*Did you mean 'playhead'"):
        TokenView(planted, playhed=None)


def test_tokens_of_the_planted_row_are_as_documented():
    row = planted_tokens()
    assert len(row) == 1 + 4 * 10 + 1 + 4 + 1 + 6 and [token.index for token in row] == list(range(len(row)))
