"""Many questions: each answered as if it were asked alone, each clip read once, and nothing stopped by what is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tpo_lab
from tpo_lab.answer import Answerer
from tpo_lab.asking import ask
from tpo_lab.backbones import FAMILIES
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.errors import UsageError
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample
from tpo_lab.serving import Answered, Question, ask_many
from tpo_lab.video import write_clip


@pytest.fixture(scope="module")
def trained() -> TPOModel:
    """The shipped model, which answers with all three heads."""
    return tpo_lab.load("nano-tpo")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three scenes of the world as files."""
    from tpo_lab.datasets.world.render import render
    from tpo_lab.datasets.world.scene import FRAME_COUNT, FRAME_RATE, sample_scene

    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"{name}.mp4" for name in ("one", "two", "three")]
    for index, path in enumerate(paths):
        write_clip(path, render(sample_scene(40 + index, seed=3), list(range(FRAME_COUNT))), FRAME_RATE)
    return [str(path) for path in paths]


def mixed(clips: list[str]) -> list[Question]:
    """Eleven questions of every kind, the clips in turns."""
    asked = [
        ("Where is the red ball?", {}),
        ("How many things are there?", {}),
        (
            "Find the video segment that corresponds to the given textual query the white cross turns cyan and determine its start and end "
            "seconds.",
            {"start_sec": 0.5, "end_sec": 3.0},
        ),
        ("Segment the blue square.", {}),
        ("Track <prompt:0> in the video.", {"boxes": [[10, 12, 30, 40]]}),
        ("Where does <prompt:0> go?", {"points": [[20, 22.5]]}),
        ("What is this?", {"scribbles": [[[5, 5], [9, 9], [12, 8]]]}),
        (
            "Localize the visual content described by the given textual query the yellow thing turns green in the video, and output the "
            "start and end timestamps in seconds.",
            {},
        ),
        ("And then?", {"history": [["What is it?", "a ball"]]}),
        ("What colour has the thing in the middle?", {}),
        ("Where is the green triangle at the end of the video?", {}),
    ]
    return [Question(id=f"q{place}", video=clips[place % 3], question=text, **more) for place, (text, more) in enumerate(asked)]


def alone(model: TPOModel, question: Question) -> Any:
    strokes = [*([point] for point in question.points), *question.scribbles]
    options = {"boxes": question.boxes, "strokes": strokes, "history": question.history}
    return ask(model, question.video, question.question, start_sec=question.start_sec, end_sec=question.end_sec, **options)


def close(found: Any, expected: Any) -> bool:
    """Equal, numbers within 1e-4."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(close(found[name], expected[name]) for name in expected)
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, float):
        return abs(found - expected) <= 1e-4 * max(1.0, abs(expected))
    return found == expected


def test_batched_answers_are_those_of_single_questions(trained: TPOModel, clips: list[str]) -> None:
    questions = mixed(clips)
    found = {each.id: each for each in ask_many(trained, questions, batch_size=4)}
    assert set(found) == {question.id for question in questions}
    routes = set()
    for question in questions:
        answer, clip = alone(trained, question)
        each = found[question.id]
        assert each.error == "" and each.answer is not None
        assert (each.answer.text, each.answer.routes, each.clip) == (answer.text, answer.routes, clip)
        assert close(each.answer.to_dict(), answer.to_dict()), question.question
        routes.update(answer.routes)
    assert routes == {"region", "temporal", "mask"}, "the questions ask every head"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_answers_a_batch_as_it_answers_alone(family: str, clips: list[str], tmp_path: Path) -> None:
    """Rows of different lengths share a cache, and each family counts its positions in its own way."""
    torch.manual_seed(0)
    base = write_tiny(family, tmp_path, dtype=torch.float32)
    model = tpo_lab.build(str(base), ("region", "temporal"), num_frames=4).eval()
    with torch.no_grad():
        # so that an untrained model writes routes
        rows = model.tokens.rows["output"]
        rows.add_(torch.randn_like(rows) * 0.3)
    pointed = [((), ((1, 2, 30, 40),))[place % 2] for place in range(6)]
    questions = [
        Question(id=str(place), video=clips[place % 3], question="Where " + "is it " * place + "?", boxes=boxes)
        for place, boxes in enumerate(pointed)
    ]
    for found in ask_many(model, questions, batch_size=4, max_tokens=8):
        question = questions[int(found.id or "")]
        answer, _ = ask(model, question.video, question.question, boxes=question.boxes, max_tokens=8)
        assert found.answer is not None and close(found.answer.to_dict(), answer.to_dict())
        assert all(torch.allclose(found.answer.task_embeddings[head], value, atol=1e-4) for head, value in answer.task_embeddings.items())


def test_each_clip_is_read_and_encoded_once(tiny: TPOModel, clips: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read, encoded = [], []
    row, encode = Frames.row, tiny.encode_video
    monkeypatch.setattr(Frames, "row", lambda self, samples: read.append(samples[0].media.path) or row(self, samples))
    monkeypatch.setattr(tiny, "encode_video", lambda rows: encoded.extend(row.key for row in rows) or encode(rows))
    questions = [Question(id=str(place), video=clips[place % 3], question="What?") for place in range(20)]
    found = list(ask_many(tiny, questions, batch_size=2, max_tokens=2))
    assert [len(read), len(encoded)] == [3, 3]
    assert [each.video for each in found] == [clips[0]] * 7 + [clips[1]] * 7 + [clips[2]] * 6
    assert [int(each.id or "") for each in found] == [*range(0, 20, 3), *range(1, 20, 3), *range(2, 20, 3)]


def test_questions_are_read_as_they_are_needed(tiny: TPOModel, clips: list[str]) -> None:
    pulled = 0

    def endless() -> Iterator[Question]:
        nonlocal pulled
        while True:
            pulled += 1
            yield Question(id=str(pulled), video=clips[0], question="What?")

    answers = ask_many(tiny, endless(), batch_size=2, max_tokens=1)
    for number in range(1, 80):
        assert next(answers).id == str(number)
        assert pulled <= number + 2 * 32
    answers.close()


def test_encoded_clips_do_not_grow_beyond_their_limit(tiny: TPOModel, world: Callable[..., list[Sample]]) -> None:
    from tpo_lab.serving.answering import _Clips, _size

    samples = [world(index, "conversation")[0] for index in range(6)]
    clips = _Clips(tiny, Frames(tiny.backbone, keep=False), 0)
    one = _size(clips(("0", ""), samples[0]))
    clips = _Clips(tiny, Frames(tiny.backbone, keep=False), 3 * one)
    held = []
    for place, sample in enumerate(samples):
        clips((str(place), ""), sample)
        held.append(clips._bytes // one)
    assert held == [1, 2, 3, 3, 3, 3]
    assert list(clips._kept) == [("3", ""), ("4", ""), ("5", "")]


def test_what_is_broken_is_said_and_the_rest_is_answered(tiny: TPOModel, clips: list[str], tmp_path: Path) -> None:
    (tmp_path / "half.mp4").write_bytes(Path(clips[0]).read_bytes()[:700])
    good = [Question(id=f"good {place}", video=clips[0], question="What is it?") for place in range(3)]
    bad = {
        "absent.mp4": Question(id="absent", video=str(tmp_path / "absent.mp4"), question="What?"),
        "half.mp4": Question(id="half", video=str(tmp_path / "half.mp4"), question="What?"),
        "inside the frame of 64 x 64": Question(id="outside", video=clips[0], question="What?", boxes=((0, 0, 65, 9),)),
        "some text in every turn": Question(id="empty", video=clips[0], question=" "),
        "without special tokens": Question(id="special", video=clips[0], question="What is <video>?"),
        "an entry for <prompt:3>": Question(id="mention", video=clips[0], question="What is <prompt:3>?"),
        "a time before the end": Question(id="late", video=clips[0], question="What?", start_sec=77.0),
    }
    questions = [good[0], *list(bad.values())[:4], good[1], *list(bad.values())[4:], good[2]]
    found = {each.id: each for each in ask_many(tiny, questions, batch_size=5, max_tokens=3)}
    assert len(found) == 10
    for message, question in bad.items():
        each = found[question.id]
        assert each.answer is None and message in each.error and "\n" not in each.error
    expected = ask(tiny, clips[0], "What is it?", max_tokens=3)[0].text
    for question in good:
        each = found[question.id]
        assert each.error == "" and each.answer is not None and each.answer.text == expected


def test_what_fails_in_the_model_fails_alone(tiny: TPOModel, clips: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of any class, as memory that does not suffice, halves the batch until the one that fails is alone."""
    answer, sizes = Answerer.answer, []

    def failing(self: Answerer, rows: Any, **options: Any) -> Any:
        sizes.append(len(rows))
        if any("bad" in row.samples[0].conversation[-1].text for row in rows):
            raise RuntimeError("no memory\nleft")
        return answer(self, rows, **options)

    monkeypatch.setattr(Answerer, "answer", failing)
    texts = ["a", "b", "c", "bad", "e", "f"]
    found = list(ask_many(tiny, [Question(id=text, video=clips[0], question=text) for text in texts], batch_size=6, max_tokens=1))
    assert [(each.id, each.error) for each in found] == [(text, "RuntimeError: no memory left" if text == "bad" else "") for text in texts]
    assert sizes == [6, 3, 3, 1, 2]


def test_samples_are_asked_up_to_their_last_question(tiny: TPOModel, say: Callable[..., Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Any] = []
    answer = Answerer.answer
    monkeypatch.setattr(Answerer, "answer", lambda self, given, **options: rows.extend(given) or answer(self, given, **options))
    box = {"time_sec": 0.0, "xyxy": [1, 2, 30, 40]}
    sample = say(0, "Hm?", "yes", "Where is <prompt:0>?", "<region>", boxes=[(1, 2, 9, 9)], region=[box])
    (found,) = ask_many(tiny, [sample], max_tokens=2)
    (asked,) = rows[0].samples
    assert [turn.text for turn in asked.conversation] == ["Hm?", "yes", "Where is <prompt:0>?"]
    assert asked.targets.names == () and asked.prompts == sample.prompts
    assert (found.id, found.text, found.video) == (sample.id, "Where is <prompt:0>?", sample.media.path)


def test_skipped_questions_change_nothing_about_the_others(trained: TPOModel, clips: list[str]) -> None:
    questions = mixed(clips)
    whole = list(ask_many(trained, questions, batch_size=3))
    for kept in (set(), {"q0", "q3", "q7"}, {f"q{place}" for place in range(11)}):
        part = list(ask_many(trained, questions, batch_size=3, skip=lambda question, kept=kept: question.id not in kept))
        expected = [each for each in whole if each.id in kept]
        assert [each.id for each in part] == [each.id for each in expected]
        assert [each.answer.to_dict() for each in part if each.answer] == [each.answer.to_dict() for each in expected if each.answer]


def test_model_is_as_before_also_where_nobody_waits_for_the_end(tiny: TPOModel, clips: list[str]) -> None:
    tiny.train()
    answers = ask_many(tiny, [Question(video=clips[0], question="What?")] * 3, batch_size=1, max_tokens=1)
    assert isinstance(next(answers), Answered) and not tiny.training
    answers.close()
    assert tiny.training


def test_batch_of_nothing_is_refused(tiny: TPOModel) -> None:
    with pytest.raises(UsageError, match="batch_size: expected at least 1, got 0"):
        list(ask_many(tiny, [], batch_size=0))
    assert list(ask_many(tiny, [])) == []


def test_frames_of_an_image_folder_are_a_clip(tiny: TPOModel, tmp_path: Path) -> None:
    from PIL import Image

    for index in range(3):
        Image.fromarray(np.full((20, 30, 3), 60 * index, np.uint8)).save(tmp_path / f"{index}.png")
    (found,) = ask_many(tiny, [Question(video=str(tmp_path), question="What?", fps=0.5)], max_tokens=1)
    assert found.clip is not None and (found.clip.width, found.clip.height, found.clip.duration_sec) == (30, 20, 6.0)
