"""One question about one file: what is put to the model, what comes back, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tpo_lab.answer import Answer, Answerer
from tpo_lab.asking import ask, stream
from tpo_lab.batch import Row
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample
from tpo_lab.video.writer import write_clip


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (12, 48, 80, 3), dtype=np.uint8)
    write_clip(path, noise, 4.0)
    return path


def test_ask_reads_a_file_and_gives_pixels_of_its_frames(tiny: TPOModel, video: Path) -> None:
    tiny.train()
    answer, clip = ask(tiny, video, "Where is it?", max_tokens=3)
    assert (clip.width, clip.height) == (80, 48)
    assert clip.duration_sec == pytest.approx(3.0, abs=0.1)
    assert answer.truncated and tiny.training, "the mode is as it was"
    assert tiny.answer(str(video), "Where is it?", max_tokens=3).text == answer.text


def test_ask_puts_boxes_that_the_question_does_not_mention_at_its_end(tiny: TPOModel, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Row] = []
    monkeypatch.setattr(Answerer, "answer", lambda self, given, **options: [rows.extend(given)] and [Answer("")])
    ask(tiny, video, "Is <prompt:1> it?", boxes=[[0, 0, 40, 24], [40, 24, 80, 48]], history=[("Hm?", "Yes <region>.")])
    (sample,) = rows[0].samples
    assert [turn.text for turn in sample.conversation] == ["Hm?", "Yes <region>.", "Is <prompt:1> it? <prompt:0>"]
    assert tiny.collate(rows).prompts.boxes_xyxy.tolist() == [[0.5, 0.5, 1, 1], [0, 0, 0.5, 0.5]]


def test_ask_about_a_part_of_a_file_or_a_scene_of_the_world(tiny: TPOModel, video: Path, world: Callable[..., list[Sample]]) -> None:
    _, part = ask(tiny, video, "?", start_sec=1.0, end_sec=2.0, max_tokens=1)
    assert part.duration_sec == pytest.approx(1.0)
    assert all(0 <= time <= 1 for time in part.times_sec)
    _, scene = ask(tiny, world(0, "conversation")[0].media.path, "?", max_tokens=1)
    assert (scene.width, scene.height, scene.duration_sec) == (64, 64, 4.0)


@pytest.mark.parametrize(
    ("boxes", "got"),
    [([[5, 5, 81, 9]], "81"), ([[9, 5, 5, 9]], r"\[9, 5, 5, 9\]"), ([[-1, 0, 5, 5]], "-1"), ([[0, 0, 5]], r"\[0, 0, 5\]")],
)
def test_ask_refuses_a_box_outside_of_the_frame(tiny: TPOModel, video: Path, boxes: Sequence[Sequence[float]], got: str) -> None:
    with pytest.raises(UsageError, match=rf"box: expected x0 < x1 and y0 < y1 inside the frame of 80 x 48 pixels, got .*{got}"):
        ask(tiny, video, "Where?", boxes=boxes)


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        (" ", {}, "question: expected some text in every turn, got ' '"),
        ("Hm?", {"history": [("a", "")]}, "question: expected some text in every turn, got ''"),
        ("Is <prompt:1>?", {"boxes": [[0, 0, 9, 9]]}, r"prompts: expected an entry for <prompt:1>, got 1"),
        ("What is <video>?", {}, r"expected text without special tokens of the tokenizer, got '<video>'"),
        ("Hm?", {"history": [("a", "<depth>")]}, r"expected a head of this model \(region, temporal\), got '<depth>'"),
        ("Hm?", {"start_sec": 9.0}, "start_sec"),
    ],
)
def test_ask_refuses_what_it_cannot_answer(tiny: TPOModel, video: Path, question: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask(tiny, video, question, **options)


def test_ask_refuses_a_file_that_is_not_there(tiny: TPOModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.mp4"):
        ask(tiny, tmp_path / "none.mp4", "?")


def test_stream_yields_the_text_of_ask_and_the_answer_last(tiny: TPOModel, video: Path) -> None:
    *pieces, last = stream(tiny, video, "What?", max_tokens=6)
    assert isinstance(last, Answer)
    assert "".join(str(piece) for piece in pieces) == last.text == ask(tiny, video, "What?", max_tokens=6)[0].text


def test_stream_hands_errors_on_and_stops_the_model_when_it_is_closed(tiny: TPOModel, video: Path) -> None:
    with pytest.raises(UsageError, match="question"):
        list(stream(tiny, video, " "))
    passes: list[int] = []
    tiny.backbone.embedding.register_forward_hook(lambda *_: passes.append(1))
    running = stream(tiny, video, "What?", max_tokens=500)
    next(running)
    running.close()
    assert len(passes) < 400
