"""PromptPad without a browser: prompts in and out, the question as a sample, asking, and what is drawn of an answer."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from traitlets import TraitError

from tests.widgets.pad_models import COUNT, PATCH_XYXY, REGION, SIZE_WH, TEMPORAL, TIMES_SEC, Failing, Fake, mask_answer, patch_frames
from tpo_lab.answer import Answer, Answerer
from tpo_lab.batch import Row
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.rle import encode_rle
from tpo_lab.sample import BoxPrompt, Media, PointPrompt, Sample, ScribblePrompt, Turn, read, write
from tpo_lab.video.writer import write_clip
from tpo_widgets import PromptPad, source
from tpo_widgets.content import Moment
from tpo_widgets.film import LONGEST
from tpo_widgets.prompts.answer import AnswerDrawing
from tpo_widgets.prompts.content import PromptPadContent
from tpo_widgets.prompts.question import DrawnQuestion, question_of

BOX = BoxPrompt(xyxy=(3, 4, 20.5, 17))
POINT = PointPrompt(xy=(7, 8.25), time_sec=1.0)
SCRIBBLE = ScribblePrompt(xys=((1, 2), (30, 4), (56, 29)))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    # encoders want even sides
    write_clip(path, np.random.default_rng(0).integers(0, 255, (12, 48, 80, 3), dtype=np.uint8), 4.0)
    return path


def pad_of(**options: Any) -> PromptPad:
    return PromptPad(patch_frames(), times_sec=TIMES_SEC, **options)


# What is drawn


def test_prompts_are_records_in_python_and_plain_json_on_the_page():
    pad = pad_of()
    pad.prompts = [BOX, POINT.model_dump(), SCRIBBLE]
    assert pad.prompts == [BOX, POINT, SCRIBBLE]
    assert pad.drawn[1] == {"type": "point", "time_sec": 1.0, "xy": [7.0, 8.25]}
    assert json.loads(json.dumps(pad.drawn, allow_nan=False)) == pad.drawn
    pad.set_state({"drawn": [{"type": "box", "time_sec": 0.5, "xyxy": [1, 2, 3, 4]}], "selected": 0})
    assert pad.prompts == [BoxPrompt(xyxy=(1, 2, 3, 4), time_sec=0.5)] and pad.selected == 0
    pad.prompts = []
    assert pad.drawn == [] and pad.selected == -1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([BOX, BoxPrompt.model_construct(xyxy=(5, 5, 5, 9))], r"prompts\[1\].xyxy: expected x1 < x2 and y1 < y2, got \(5, 5, 5, 9\)"),
        ([{"type": "box", "xyxy": [1, 2, 3]}], r"prompts\[0\].xyxy\[3\]: expected this field"),
        ([{"type": "circle", "xy": [1, 2]}], r"prompts\[0\]: expected a BoxPrompt, PointPrompt or ScribblePrompt"),
        ([3], r"prompts\[0\]: expected a BoxPrompt, PointPrompt or ScribblePrompt, .*got 3"),
        ("box", r"prompts: expected a list, .*got 'box'"),
        (None, r"prompts: expected a list, .*got None"),
        ({"type": "box"}, r"prompts: expected a list"),
        ([{"type": "point", "xy": [58, 3]}], r"prompts\[0\]: expected a place inside the frame of 57 x 31 pixels, got \[58.0, 3.0\]"),
        ([{"type": "point", "xy": [3, 32]}], r"prompts\[0\]: expected a place inside the frame of 57 x 31 pixels, got \[3.0, 32.0\]"),
        ([{"type": "point", "xy": [-1, 3]}], r"prompts\[0\].xy\[0\]: expected greater than or equal to 0, got -1"),
        ([{"type": "point", "xy": [float("nan"), 3]}], r"prompts\[0\].xy\[0\]: expected a finite number, got nan"),
        ([{"type": "point", "xy": [1, 3], "time_sec": 2.6}], r"prompts\[0\].time_sec: expected a time within the clip of 2.5 s, got 2.6"),
        ([{"type": "scribble", "xys": [[1, 2]]}], r"prompts\[0\].xys: expected at least two points"),
        ([{"type": "box", "xyxy": [1, 2, 3, 4], "label": 1}], r"prompts\[0\].label: expected only the fields of a prompt, got 1"),
    ],
)
def test_a_bad_prompt_is_refused_with_a_sentence_and_nothing_changes(bad: Any, message: str):
    pad = pad_of(prompts=[POINT])
    with pytest.raises(UsageError, match=message):
        pad.prompts = bad
    assert pad.prompts == [POINT]
    if isinstance(bad, list):
        assert message.split(":")[0].replace("\\", "") in pad_of(prompts=bad).problem


def test_what_the_page_sends_is_checked_too():
    pad = pad_of(prompts=[POINT])
    with pytest.raises(TraitError, match=r"prompts\[0\]: expected a place inside the frame of 57 x 31 pixels"):
        pad.set_state({"drawn": [{"type": "point", "xy": [58, 3]}]})
    assert pad.prompts == [POINT] and pad.drawn == [POINT.model_dump(mode="json")]


def test_prompts_on_the_right_and_lower_edge_lie_in_the_frame():
    pad = pad_of(prompts=[BoxPrompt(xyxy=(0, 0, 57, 31), time_sec=2.5)])
    assert pad.problem == "" and pad.prompts[0].xyxy == (0, 0, 57, 31)


# The question as a sample


def test_a_sample_has_the_question_with_every_prompt_and_can_be_written(video: Path, tmp_path: Path):
    pad = PromptPad(video, question="Is <prompt:1> it?", prompts=[BOX, POINT])
    sample = pad.sample("mine")
    assert sample.id == "mine" and sample.prompts == (BOX, POINT) and sample.media_path == video.absolute()
    assert [turn.text for turn in sample.conversation] == ["Is <prompt:1> it? <prompt:0>"]
    write(tmp_path / "asked.jsonl", [sample])
    (back,) = read(tmp_path / "asked.jsonl")
    assert back.model_dump() == sample.model_dump() and back.media_path == video


def test_a_relative_path_means_the_same_from_everywhere(video: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(video.parent)
    pad = PromptPad("clip.mp4", question="?")
    assert pad.problem == "" and pad.sample().media.path == str(video)


@pytest.mark.parametrize(
    ("question", "message"),
    [(" ", "question: expected some text"), ("Is <prompt:4> it?", r"text: expected mentions of the 1 prompts, counted from 0")],
)
def test_a_question_that_is_none_gives_no_sample(video: Path, question: str, message: str):
    with pytest.raises(UsageError, match=message):
        PromptPad(video, question=question, prompts=[BOX]).sample()


def test_frames_in_memory_cannot_be_named_by_a_sample():
    with pytest.raises(UsageError, match="clip: expected a file or a reference, which a sample can name, got '5 frames in memory'"):
        pad_of(question="?").sample()


def test_of_a_sample_the_last_question_is_taken_with_what_it_points_at(say: Callable[..., Sample]):
    given = say(
        0, "Is it <prompt:1>?", "No.", "Is <prompt:2> or <prompt:0> it?", boxes=[[1, 2, 9, 8], [3, 4, 9, 9]], strokes=[[[1, 2], [3, 4]]]
    )
    text, prompts = question_of(given)
    assert text == "Is <prompt:0> or <prompt:1> it?" and [prompt.type for prompt in prompts] == ["scribble", "box"]
    pad = PromptPad(given)
    assert pad.question == text and pad.prompts == list(prompts)
    asked = pad.sample()
    assert asked.media == given.media and len(asked.conversation) == 1
    other = PromptPad(given, question="What?", prompts=[])
    assert other.question == "What?" and other.prompts == []


def test_a_part_of_a_file_stays_a_part(video: Path):
    part = Sample(id="part", media=Media(path=video.name, start_sec=1.0, end_sec=2.5), conversation=(Turn(role="user", text="?"),)).at(
        video.parent
    )
    model = Fake()
    pad = PromptPad(part, model)
    assert pad.document["duration_sec"] == pytest.approx(1.5)
    pad.ask()
    ((path, _, options),) = model.asked
    assert path == str(video) and (options["start_sec"], options["end_sec"]) == (1.0, 2.5)
    assert pad.sample().media_path == video


# Asking


def test_ask_gives_the_model_what_its_answer_takes_boxes_first(video: Path):
    model = Fake(REGION)
    pad = PromptPad(
        video, model, "Is <prompt:2> left of <prompt:0>?", prompts=[ScribblePrompt(xys=SCRIBBLE.xys), PointPrompt(xy=(5, 6)), BOX]
    )
    heard: list[Answer] = []
    pad.on_answer(heard.append)
    answer = pad.ask()
    assert heard == [answer] and pad.answer is answer and answer.boxes_xyxy == REGION["region"]["boxes_xyxy"]
    ((path, text, options),) = model.asked
    assert path == str(video) and text == "Is <prompt:0> left of <prompt:1>? <prompt:2>"
    assert options == {"boxes": [[3, 4, 20.5, 17]], "strokes": [[[1, 2], [30, 4], [56, 29]], [[5, 6]]]}
    assert (pad.status, pad.sentence, pad.said) == ("answered", "", "Here it is.")
    assert pad.found["boxes"] == [[8, 5, 30, 14]] and pad.found["question"] == "Is <prompt:2> left of <prompt:0>? <prompt:1>"
    pad.on_answer(heard.append, remove=True)
    pad.ask()
    assert len(heard) == 1 and pad.found["number"] == 2


def test_the_button_asks_and_the_page_hears_first_that_the_model_works():
    states: list[Any] = []
    model = Fake(meanwhile=lambda: states.append((pad.status, pad.said)))
    pad = PromptPad(_scene(), model, "?")
    pad.observe(lambda change: states.append(change.new), "status")
    pad._answer(pad, {"ask": True}, [])
    assert states == ["asking", ("asking", "Here it is."), "answered"]
    pad._answer(pad, {"ask": False}, [])
    pad._answer(pad, "nonsense", [])
    assert len(model.asked) == 1


def test_what_is_asked_comes_with_the_question_since_notebooks_hold_changes_back():
    model = Fake()
    pad = PromptPad(_scene(), model, "Old?")
    pad.heard({"ask": True, "question": "New?", "drawn": [BOX.model_dump(mode="json")]})
    assert model.asked[0][1] == "New? <prompt:0>" and pad.question == "New?" and pad.prompts == [BOX]


def test_a_second_question_is_refused_while_the_first_is_asked():
    errors: list[UsageError] = []

    def again() -> None:
        pad.heard({"ask": True})
        try:
            pad.ask()
        except UsageError as error:
            errors.append(error)

    model = Fake(meanwhile=again)
    pad = PromptPad(_scene(), model, "?")
    assert pad.ask() is pad.answer is not None
    assert len(model.asked) == 1 and "one question at a time" in str(errors[0])
    assert pad.ask() is not None, "and the next may be asked"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(TPOError("The model has\na headache."), "The model has a headache."), (RuntimeError("out of memory"), "RuntimeError: out of memory")],
)
def test_what_goes_wrong_is_a_sentence_in_the_pad_and_not_raised(error: Exception, sentence: str):
    pad = PromptPad(_scene(), Failing(error), "?")
    assert pad.ask() is None and pad.answer is None
    assert (pad.status, pad.sentence, pad.failure) == ("failed", sentence, error)
    pad.model = Fake()
    assert pad.ask() is not None and pad.failure is None and pad.status == "answered"


def test_an_interrupt_stops_the_question_and_is_handed_on():
    pad = PromptPad(_scene(), Failing(KeyboardInterrupt()), "?")
    with pytest.raises(KeyboardInterrupt):
        pad.ask()
    assert (pad.status, pad.sentence) == ("failed", "It was interrupted.")
    pad.model = Fake()
    assert pad.ask() is not None


def test_what_is_no_answer_or_cannot_be_drawn_is_said():
    pad = PromptPad(_scene(), Fake(), "?")
    pad.model.answer = lambda *_, **__: "yes"
    assert pad.ask() is None and pad.sentence == "The model was expected to give an Answer, and gave str."
    pad.model = Fake({"region": {"boxes_xyxy": [["a", 1, 2, 3]]}})
    assert pad.ask() is pad.answer is not None and pad.status == "failed"
    assert pad.sentence.startswith("There is an answer, and it cannot be drawn: ValueError") and pad.found == {"number": 1}


@pytest.mark.parametrize(
    ("model", "sentence"),
    [(None, "There is no model to ask"), (3, "int has none"), (Fake(), "Frames in memory can be asked about with a TPOModel")],
)
def test_where_nothing_can_be_asked_it_is_said_why(model: Any, sentence: str):
    pad = pad_of(model=model, question="?")
    assert sentence in pad.hindrance
    assert pad.ask() is None and sentence in pad.sentence
    assert pad.problem == ""


def test_a_question_without_text_is_not_asked():
    pad = PromptPad(_scene(), Fake(), "  ")
    assert pad.ask() is None and pad.sentence.startswith("question: expected some text") and not pad.model.asked


# Frames that prompts lie on


@pytest.mark.parametrize(
    ("understood", "prompt", "hindrance"),
    [
        ("drawn", BoxPrompt(xyxy=(3, 4, 9, 8), time_sec=1.5), ""),
        ("box+stroke", PointPrompt(xy=(3, 4), time_sec=1.5), ""),
        (
            "box+stroke",
            BoxPrompt(xyxy=(3, 4, 9, 8), time_sec=1.5),
            "reads boxes as lying on the first frame, and <prompt:1> is a box at 1.50 s",
        ),
        ("box", BoxPrompt(xyxy=(3, 4, 9, 8), time_sec=1.5), "reads prompts as lying on the first frame, and <prompt:1> is a box at 1.50 s"),
        ("box", PointPrompt(xy=(3, 4)), "understands boxes alone, and <prompt:1> is a point"),
    ],
)
def test_prompts_on_other_frames_are_read_there_or_refused(
    build_tiny: Any, monkeypatch: pytest.MonkeyPatch, understood: str, prompt: Any, hindrance: str
):
    rows: list[Row] = []
    monkeypatch.setattr(Answerer, "answer", lambda self, given, **options: rows.extend(given) or [Answer("yes")])
    model = build_tiny().eval()
    model.prompts.understood = understood
    pad = pad_of(model=model, question="What is it?", prompts=[BoxPrompt(xyxy=(0, 0, 57, 31)), prompt])
    assert hindrance in pad.hindrance and bool(hindrance) == bool(pad.hindrance)
    answer = pad.ask()
    if hindrance:
        assert answer is None and hindrance in pad.sentence and not rows and pad.remark == ""
        return
    (row,) = rows
    assert row.clip.times_sec == (0.0, 0.5, 1.5, 2.0) and (row.clip.width, row.clip.height, row.clip.duration_sec) == (57, 31, 2.5)
    assert row.frames.shape == (4, 3, model.backbone.image_size, model.backbone.image_size)
    pointed = model.collate(rows).prompts
    assert pointed.frame.tolist() == [0, 2]
    assert pointed.boxes_xyxy[1, :2].tolist() == pytest.approx([3 / 57, 4 / 31])
    assert pad.remark == "The model sees 4 frames of the clip; a prompt counts on the one that is shown nearest to its time."


def test_a_model_that_prompts_its_tracker_by_the_first_box_knows_no_other_frame(build_tiny: Any):
    model = build_tiny().eval()
    model.prompts.understood = "drawn"
    head = torch.nn.Identity()
    head.settings = SimpleNamespace(prompt="direct")
    model.heads["mask"] = head
    pad = pad_of(model=model, question="?", prompts=[BoxPrompt(xyxy=(3, 4, 9, 8), time_sec=0.5)])
    assert "on the first frame" in pad.hindrance


def test_a_prompt_on_the_first_frame_may_have_any_time_of_it(video: Path):
    pad = PromptPad(video, Fake(), "?", prompts=[BoxPrompt(xyxy=(3, 4, 9, 8), time_sec=0.1)])
    assert pad.hindrance == "" and pad.ask() is not None
    pad.prompts = [BoxPrompt(xyxy=(3, 4, 9, 8), time_sec=0.3)]
    assert "<prompt:0> is a box at 0.30 s: move it there to ask." in pad.hindrance


def test_a_tiny_model_answers_about_files_images_and_frames_alike(build_tiny: Any, video: Path, tmp_path: Path):
    model = build_tiny().train()
    Image.fromarray(patch_frames()[0]).save(tmp_path / "one.png")
    for clip in (video, tmp_path / "one.png", _scene()):
        pad = PromptPad(clip, model, "Where?", prompts=[BoxPrompt(xyxy=(3, 4, 20, 17))])
        answer = pad.ask()
        assert pad.sentence == "" and answer is not None
        assert answer.text == model.answer(pad.sample().media.path, "Where?", boxes=[[3, 4, 20, 17]]).text
        moved = PromptPad(clip, model, "Where?", prompts=[PointPrompt(xy=(9, 8), time_sec=pad.content.clip.film.times_sec[-1])])
        assert moved.ask() is not None and model.training
    held = PromptPad(patch_frames(), model, "Where?")
    assert held.ask() is not None and held.content.clip.film.times_sec == (0, 1, 2, 3, 4)


# Clips


@pytest.mark.parametrize(
    ("clip", "options", "message"),
    [
        ("none.mp4", {}, "expected a video, an image, a directory of images or a glob pattern, got 'no such file'"),
        (3, {}, 'clip: expected the path of a video or an image, "world://...", a Sample, or uint8 RGB frames'),
        ("", {}, "clip: expected the path"),
        (None, {}, "clip: expected the path"),
        ("world://nowhere", {}, "media.path: expected world://"),
        (np.zeros((2, 3, 4), np.uint8), {}, "frames: expected uint8 RGB [frame, h, w, 3], at least one, got 'uint8 [2, 3, 4]'"),
        (np.zeros((2, 3, 4, 3)), {}, "got 'float64 [2, 3, 4, 3]'"),
        (np.zeros((0, 3, 4, 3), np.uint8), {}, "at least one"),
        (patch_frames(), {"times_sec": [0, 1]}, "times_sec: expected 5 rising seconds"),
        (patch_frames(), {"times_sec": [0, 1, 2, float("nan"), 4]}, "times_sec: expected 5 rising seconds"),
        ("clip.mp4", {"times_sec": [0]}, "times_sec: expected none for a file"),
        (patch_frames(), {"question": 3}, "question: expected a text, got 3"),
    ],
)
def test_a_clip_that_cannot_be_drawn_on_is_a_panel(clip: Any, options: dict[str, Any], message: str):
    pad = PromptPad(clip, Fake(), **{"question": "?", **options})
    assert message in pad.problem and pad.prompts == []
    assert pad.ask() is None and message in pad.sentence.replace("\\'", "'").replace('\\"', '"')
    with pytest.raises(UsageError):
        pad.sample()
    with pytest.raises(UsageError):
        pad.prompts = [BOX]
    assert message in pad.to_html().replace("\\/", "/").replace('\\"', '"')
    assert Image.open(io.BytesIO(pad.to_png())).width == 900


def test_misspelt_keywords_are_refused():
    with pytest.raises(UsageError, match=r"PromptPad keyword.*Did you mean 'prompts'"):
        PromptPad(patch_frames(), prompt=[])


def test_a_file_that_has_gone_says_so_for_frames_and_for_questions(video: Path, tmp_path: Path, build_tiny: Any):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(video.read_bytes())
    pad = PromptPad(copy, build_tiny().eval(), "Where?")
    copy.unlink()
    pad.content.clip.film._kept.clear()
    with pytest.raises(Exception, match=r"copy\.mp4|No such file|frame 3"):
        pad.content.resource("frame/3")
    assert pad.ask() is None and "copy.mp4" in pad.sentence and pad.status == "failed"
    pad.prompts = [BOX]
    assert pad.prompts == [BOX]


# What is drawn of an answer


def test_masks_are_pictures_with_alpha_where_the_object_is():
    drawing = AnswerDrawing(Answer("<mask>", ("mask",), mask_answer()), 3)
    assert list(drawing.names()) == ["mask/3/0", "mask/3/1"]
    found = drawing.resource(1)
    picture = Image.open(io.BytesIO(found.data))
    assert picture.mode == "RGBA" and picture.size == SIZE_WH
    alpha = np.asarray(picture)[..., 3]
    inside = np.zeros(SIZE_WH[::-1], bool)
    inside[4:10, 7:25] = inside[15:28, 33:40] = True
    assert ((alpha > 0) == inside).all() and alpha[4, 7] == 255 and 0 < alpha[6, 12] < 255
    assert found.about["boxes"] == [[7, 4, 25, 10], [33, 15, 40, 28]]
    assert drawing.resource(0).about["boxes"] == [[7, 4, 25, 10], None]
    with pytest.raises(UsageError, match="mask: expected a number below 2, got 2"):
        drawing.resource(2)


def test_masks_speak_of_the_frames_near_them():
    drawing = AnswerDrawing(Answer("", (), mask_answer()))
    assert [drawing.at(time) for time in (0.7, 0.75, 1.1, 1.24, 1.26, 1.75, 1.8)] == [-1, 0, 0, 0, 1, 1, -1]
    assert AnswerDrawing(Answer("")).at(0) == -1


def test_an_object_that_is_nowhere_has_no_picture_and_large_masks_are_made_smaller():
    nowhere = {"mask": {"times_sec": [0.0], "masks": [[None]], "track_xyxy": [[None]]}}
    assert AnswerDrawing(Answer("", (), nowhere)).resource(0) == (b"", {"boxes": [None]})
    large = np.zeros((700, 1400), bool)
    large[:350, :700] = True
    picture = AnswerDrawing(Answer("", (), {"mask": {"times_sec": [0.0], "masks": [[encode_rle(large)]]}})).overlay(0)
    assert picture.size == (LONGEST, LONGEST // 2)
    alpha = np.asarray(picture)[..., 3]
    assert alpha[:128, :256].all() and not alpha[128:].any() and not alpha[:, 256:].any()


def test_numbers_that_are_none_are_left_out_of_the_drawing():
    structured = {
        "region": {"boxes_xyxy": [[float("nan"), 1, 2, 3], [1, 2, 3, 4]]},
        "temporal": {"windows_sec": [[0, float("inf")]]},
        "depth": {},
    }
    found = AnswerDrawing(Answer("", ("region", "region"), structured)).document
    assert found["boxes"] == [[1, 2, 3, 4]] and found["windows"] == [] and found["undrawn"] == ["depth"] and found["routes"] == ["region"]
    json.dumps(found, allow_nan=False)


def test_fifty_objects_are_a_small_document():
    mask = mask_answer()["mask"]
    many = {
        "mask": {**mask, "masks": mask["masks"] * 25, "track_xyxy": mask["track_xyxy"] * 25},
        "region": {"boxes_xyxy": [[1.5, 2, 3, 4]] * 50},
    }
    drawing = AnswerDrawing(Answer("", ("mask",), many))
    assert len(json.dumps(drawing.document)) < 3000 and len(drawing.resource(1).about["boxes"]) == 50


# State, pages and pictures


def test_times_in_equal_steps_are_told_as_such_and_others_one_by_one():
    even = PromptPad(patch_frames(3000), times_sec=np.arange(3000) / 30).document
    assert even["times"] == {"count": 3000, "step_sec": pytest.approx(1 / 30)}
    uneven = PromptPad(patch_frames(), times_sec=[0, 0.1, 0.25, 1, 1.0000014]).document
    assert uneven["times"] == [0, 0.1, 0.25, 1, 1.000001]
    assert PromptPad(patch_frames(1)).document["times"] == {"count": 1, "step_sec": 0}


def test_state_and_code_are_small(video: Path):
    pad = PromptPad(video, Fake({**REGION, **TEMPORAL, **mask_answer()}), "Where?", prompts=[BOX, SCRIBBLE])
    pad.ask()
    state = {name: value for name, value in pad.get_state().items() if name not in ("layout", "playhead")}
    json.dumps({name: value for name, value in state.items() if name != "_anywidget_id"}, allow_nan=False, default=str)
    assert len(str(pad.get_state())) <= 100_000
    assert len(source.esm("prompt_pad")) + len(source.css("base", "prompt_pad")) <= 64_000
    data, _ = pad._repr_mimebundle_()
    assert "image/png" in data


def test_a_page_holds_the_frames_that_are_drawn_on_before_others():
    pad = pad_of(prompts=[POINT, BOX])
    names = list(pad.content.names())
    assert names == ["frame/0", "frame/2", "frame/1", "frame/3", "frame/4"]
    assert all(pad.content.resource(name).data for name in names)
    for name in ("frame/5", "frame/x", "mask/1/0", "nonsense"):
        with pytest.raises(UsageError):
            pad.content.resource(name)


def test_resources_of_an_answer_belong_to_that_answer():
    pad = PromptPad(_scene(), Fake(mask_answer()), "?")
    pad.ask()
    pad.ask()
    assert [name for name in pad.content.names() if name.startswith("mask")] == ["mask/2/0", "mask/2/1"]
    with pytest.raises(UsageError):
        pad.content.resource("mask/1/0")


def test_the_picture_shows_the_prompts_of_its_frame_the_question_and_the_answer():
    def picture(moment: float, **content: Any) -> Any:
        base = PromptPadContent.of(patch_frames(), "Where?", prompts=content.get("prompts", []), times_sec=TIMES_SEC)
        drawing = content.get("drawing")
        return np.asarray(PromptPadContent(base.question, drawing).picture(Moment(moment), dark=False, width=600)).astype(int)

    scale, edge = (600 - 24) / 57, 12
    bare = picture(1.0)
    drawn = picture(1.0, prompts=[BoxPrompt(xyxy=(8, 5, 30, 14), time_sec=1.0)])
    row = drawn[round(edge + 10 * scale)]
    white = np.flatnonzero((row == 255).all(-1) & (np.arange(600) > edge) & (np.arange(600) < 588))
    assert white.min() == pytest.approx(edge + 8 * scale, abs=1.5) and white.max() == pytest.approx(edge + 30 * scale, abs=1.5)
    height = round(31 * scale)
    elsewhere = picture(0.0, prompts=[BoxPrompt(xyxy=(8, 5, 30, 14), time_sec=1.0)])
    assert (elsewhere[edge : edge + height] == picture(0.0)[edge : edge + height]).all()
    answered = picture(1.5, drawing=AnswerDrawing(Answer("yes", ("region",), {**REGION, **TEMPORAL, **mask_answer()})))
    orange = (np.abs(answered - (0xD5, 0x5E, 0x00)) < 6).all(-1)
    assert orange[round(edge + 20 * scale), round(edge + 33.5 * scale)], "the edge of the mask"
    bar = orange[edge + height + edge + 6]
    assert np.flatnonzero(bar).min() == pytest.approx(edge + 576 * 0.5 / 2.5, abs=1.5)
    assert answered.shape[0] > bare.shape[0]
    for width in (480, 900):
        assert PromptPadContent.of(patch_frames(), prompts=[BOX, SCRIBBLE]).picture(Moment(), dark=True, width=width).width == width


def test_the_patch_is_where_the_frames_say():
    pixels = np.asarray(PromptPadContent.of(patch_frames()).clip.film.picture(0)).astype(int)
    yellow = np.argwhere(pixels[..., 0] > 120)
    assert (*yellow.min(0)[::-1], *(yellow.max(0)[::-1] + 1)) == PATCH_XYXY and pixels.shape == (31, 57, 3)
    assert len(patch_frames()) == COUNT


def test_the_answer_can_be_looked_at_in_a_head_view(video: Path, build_tiny: Any):
    pad = PromptPad(video, Fake(REGION), "Where?", prompts=[BOX])
    with pytest.raises(UsageError, match="answer: expected a question that was answered"):
        pad.head_view()
    pad.ask()
    pad.prompts = []
    view = pad.head_view()
    assert type(view).__name__ == "HeadView" and view.problem == ""
    held = pad_of(model=build_tiny().eval(), question="Where?")
    held.ask()
    assert held.head_view().problem == ""


def test_a_question_counts_its_prompts_by_frame():
    clip = PromptPadContent.of(patch_frames(), times_sec=TIMES_SEC).clip
    assert DrawnQuestion(clip, "?", (BOX, POINT, BoxPrompt(xyxy=(1, 2, 3, 4), time_sec=0.49))).elsewhere() == [1]


def _scene() -> str:
    from tpo_lab.datasets.world.samples import samples_of
    from tpo_lab.datasets.world.scene import sample_scene

    return samples_of(sample_scene(0), ("conversation",))[0].media.path
