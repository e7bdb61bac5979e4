"""`tpo-lab predict`: one JSON answer, pictures that show it, and a sentence for boxes and videos that will not do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from tpo_lab.answer import Answer
from tpo_lab.cli.overlays import frames_picture, write_overlays
from tpo_lab.cli.predict import parse_box, parse_points
from tpo_lab.drawing import GROUND_TRUTH, PALETTE, PREDICTION
from tpo_lab.errors import UsageError
from tpo_lab.heads.base import ClipInfo
from tpo_lab.heads.sliding import Sliding
from tpo_lab.rle import encode_rle

STRUCTURED = {
    "region": {"boxes_xyxy": [[4.0, 6.0, 40.0, 44.0]]},
    "temporal": {"windows_sec": [[0.5, 1.25]], "saliency": [[0.25, 0.1], [0.75, 0.9], [1.75, 0.3]]},
}


def share_of(image: Image.Image, colour: str) -> float:
    return float((np.asarray(image.convert("RGB")) == ImageColor.getrgb(colour)).all(-1).mean())


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Models answer with a box and a window, whatever is asked; gives what they were asked."""
    asked: list[dict] = []

    def ask(model, video, question, **options):
        asked.append({"video": video, "question": question, **options})
        return Answer("It is here <region> then <temporal>", ("region", "temporal"), STRUCTURED), ClipInfo(64, 48, 2.0, (0.25, 1.0, 1.75))

    monkeypatch.setattr("tpo_lab.asking.ask", ask)
    return asked


def test_answer_of_a_model_is_one_document(call, trained: Path, clip: Path):
    done = call("predict", trained, clip, "Where is it?", "--box", "1,2,30,40", "--start", 0.5, "--end", 1.5, "--json")
    assert done.status == 0, done.err
    found = done.document
    assert {"text", "task", "boxes_xyxy", "windows_sec", "saliency", "structured", "truncated"} <= found.keys()
    assert isinstance(found["text"], str)
    assert (found["question"], found["start_sec"], found["duration_sec"]) == ("Where is it?", 0.5, pytest.approx(1.0))


def test_call_reaches_the_model_word_by_word(call, trained: Path, clip: Path, answers: list[dict]):
    words = (
        "--box",
        "1,2,30,40",
        "--box=0,0,8,8.5",
        "--scribble",
        "1,2,3,4",
        "--point",
        "5,6",
        "--on-corrupt",
        "drop",
        "--start",
        0.25,
        "--end",
        1.75,
        "--window",
        6,
    )
    assert call("predict", trained, clip, "Where is <prompt:0>?", *words).status == 0
    options = {
        "boxes": [(1, 2, 30, 40), (0, 0, 8, 8.5)],
        "strokes": [((5, 6),), ((1, 2), (3, 4))],
        "start_sec": 0.25,
        "end_sec": 1.75,
        "features": None,
        "on_corrupt": "drop",
    }
    options["sliding"] = Sliding(frames=6, overlap=3)
    assert answers == [{"video": clip, "question": "Where is <prompt:0>?", **options}]


def test_person_sees_text_box_and_window(call, trained: Path, clip: Path, answers: list[dict]):
    done = call("predict", trained, clip, "Where?")
    assert "text It is here <region> then <temporal>" in done.words
    assert "task region+temporal box (pixels) 4.0, 6.0, 40.0, 44.0 window 0.50 to 1.25 s" in done.words


def test_out_holds_answer_frames_and_timeline(call, trained: Path, clip: Path, answers: list[dict], tmp_path: Path):
    done = call("predict", trained, clip, "Where?", "--box", "1,2,30,40", "--out", tmp_path / "a" / "b", "--json")
    assert done.status == 0, done.err
    names = ["answer.json", "frames.png", "timeline.png"]
    assert done.document["files"] == [str(tmp_path / "a" / "b" / name) for name in names]
    assert json.loads((tmp_path / "a" / "b" / "answer.json").read_text()) == done.document
    with Image.open(tmp_path / "a" / "b" / "frames.png") as image:
        assert share_of(image, GROUND_TRUTH) > 0 and share_of(image, PREDICTION) > 0
    with Image.open(tmp_path / "a" / "b" / "timeline.png") as image:
        bar = np.flatnonzero((np.asarray(image.convert("RGB"))[10] == ImageColor.getrgb(PREDICTION)).all(-1))
        seconds_per_pixel = (1.25 - 0.5) / (bar[-1] - bar[0])
        assert (bar[-1] - bar[0]) * seconds_per_pixel == pytest.approx(0.75) and 720 / 4 < bar[0] < bar[-1] < 720 * 3 / 4


def test_answer_without_a_window_has_no_timeline(call, trained: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tpo_lab.asking.ask", lambda *_, **__: (Answer("three"), ClipInfo(64, 48, 2.0, (0.5, 1.5))))
    done = call("predict", trained, clip, "How many?", "--out", tmp_path, "--json")
    assert done.document["task"] is None
    assert [Path(file).name for file in done.document["files"]] == ["answer.json", "frames.png"]
    assert not (tmp_path / "timeline.png").exists()


def document(**changes) -> dict:
    return {"question": "Q", "text": "A", "boxes_xyxy": [], "windows_sec": [], "saliency": [], **changes}


def test_boxes_are_drawn_on_the_last_frame_and_prompts_on_the_first():
    frames = np.stack([np.full((240, 320, 3), 60 + 40 * index, np.uint8) for index in range(3)])
    first = np.full((240, 320, 3), 10, np.uint8)
    image = frames_picture(frames, [0.1, 0.5, 0.9], document(boxes_xyxy=[[200.0, 100.0, 100.0, 220.0]]), first, [[10, 20, 60, 80]])
    pixels = np.asarray(image.convert("RGB"))
    found = {colour: np.argwhere((pixels == ImageColor.getrgb(colour)).all(-1)) for colour in (GROUND_TRUTH, PREDICTION)}
    # A gap of 4, the first frame of 320 pixels, another gap, the last frame: the box from 100 to 200 and its tag lie there.
    assert found[GROUND_TRUTH][:, 1].max() < 4 + 320
    assert (found[PREDICTION][:, 1].min(), found[PREDICTION][:, 1].max()) == (4 + 320 + 4 + 100, 4 + 320 + 4 + 199)
    assert (pixels == 10).all(-1).sum() > 200 * 300, "the frame under the prompt is the very first one"


def test_frames_in_a_window_are_framed():
    frames = np.zeros((4, 240, 320, 3), np.uint8)
    images = [frames_picture(frames, [0.0, 1.0, 2.0, 3.0], document(windows_sec=windows)) for windows in ([], [[1.0, 2.0]], [[1.0, 2.5]])]
    shares = [share_of(image.crop((0, image.height - 140, image.width, image.height)), PREDICTION) for image in images]
    assert shares[0] == 0 < shares[1] and shares[2] == pytest.approx(2 * shares[1])


def test_masks_are_veils_in_their_own_frames_each_object_in_its_own_colour():
    mask = np.zeros((100, 100), bool)
    mask[20:40, 20:40] = True
    frames = np.zeros((2, 100, 100, 3), np.uint8)
    masks = [[None, encode_rle(mask)], [None, encode_rle(mask.T[::-1])]]
    plain, veiled = (np.asarray(frames_picture(frames, [0.0, 1.0], document(masks=given))) for given in ([], masks))
    assert plain.shape == veiled.shape
    colours = {tuple(pixel) for pixel in veiled[(plain != veiled).any(-1)].tolist()}
    assert {ImageColor.getrgb(PALETTE[1]), ImageColor.getrgb(PALETTE[2])} <= colours


def test_small_frames_are_enlarged_and_large_ones_keep_their_size():
    small, large = (frames_picture(np.zeros((2, h, w, 3), np.uint8), [0.0, 1.0], document()) for h, w in ((48, 64), (480, 640)))
    assert small.width >= 64 * 5 and large.width == 640 + 2 * 4


def test_failure_of_the_pictures_writes_nothing(tmp_path: Path):
    with pytest.raises(UsageError, match=r"no such file"):
        write_overlays(document(video="absent.mp4"), tmp_path / "o", (0.0, 1.0), prompts=[], num_frames=2, on_corrupt="raise")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "a,b,c,d", "", "1,2,nan,4", "1;2;3;4", "1,2,inf,4"])
def test_text_that_is_no_box_is_refused(text: str):
    with pytest.raises(UsageError, match=rf"--box: expected x0,y0,x1,y1 in pixels.*got '{text}'"):
        parse_box(text)


def test_box_is_four_numbers():
    assert parse_box("1, 2.5,-3,4e2") == (1.0, 2.5, -3.0, 400.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--box", "10,10,400,20"], "inside the frame of 64 x 48 pixels"),
        (["--box", "1,2,3"], "got '1,2,3'"),
        (["--window", "0"], "--window: expected 1 frame or more, got 0"),
        (["--on-corrupt", "rasie"], "Did you mean 'raise'?"),
        (["--start", "9"], "expected a time before the end"),
        (["--start", "1", "--end", "0.5"], "end_sec: expected a time of at least start_sec (1.0 s), got 0.5."),
    ],
)
def test_wrong_option_is_a_sentence(call, trained: Path, clip: Path, words: list[str], message: str):
    done = call("predict", trained, clip, "Where?", *words)
    assert done.status == 2 and message in done.err


def test_unknown_model_video_and_empty_question_are_sentences(call, trained: Path, clip: Path, tmp_path: Path):
    done = call("predict", "nano-tp", clip, "Where?")
    assert done.status == 2 and "got 'nano-tp'. Did you mean 'nano-tpo'" in done.err
    done = call("predict", trained, tmp_path / "absent.mp4", "Where?")
    assert done.status == 2 and "absent.mp4: expected a video" in done.err
    assert call("predict", trained, clip, " ").err == "error: question: expected some words, got ' '.\n"
    done = call("predict", tmp_path, clip, "Where?")
    assert done.status == 2 and "checkpoint: expected a folder with tpo.json" in done.err


def test_file_cut_off_in_the_middle(call, trained: Path, clip: Path, tmp_path: Path):
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 3])
    done = call("predict", trained, tmp_path / "half.mp4", "Where?")
    assert done.status == 2 and "half.mp4" in done.err and done.err.count("\n") == 1


def test_corrupt_video_is_refused_or_warned_about(call, trained: Path, tmp_path: Path, real: Path):
    video = real / "videos" / "decord_corrupted.mp4"
    done = call("predict", trained, video, "What is this?")
    assert done.status == 2 and "decord_corrupted.mp4: expected" in done.err and "on_corrupt=" in done.err
    done = call("predict", trained, video, "What is this?", "--on-corrupt", "warn", "--out", tmp_path, "--json")
    assert done.status == 0 and "warning: " in done.err
    assert done.document["duration_sec"] > 0 and (tmp_path / "frames.png").exists()


@pytest.mark.parametrize(
    ("option", "text", "most"),
    [("--point", "1", 1), ("--point", "1,2,3,4", 1), ("--point", "a,b", 1), ("--scribble", "1,2,3", None), ("--scribble", "1,nan", None)],
)
def test_text_that_is_no_point_or_scribble_is_refused(option: str, text: str, most: int | None):
    with pytest.raises(UsageError, match=rf"{option}: expected x,y.* in pixels, such as .*got '{text}'"):
        parse_points(option, text, most or 2, most)


def test_point_outside_the_frame_is_refused(call, trained: Path, clip: Path):
    done = call("predict", trained, clip, "Where does <prompt:0> go?", "--point", "5000,2")
    assert done.status == 2 and "points x,y inside the frame of" in done.err


def test_what_is_pointed_at_is_drawn(call, trained: Path, clip: Path, tmp_path: Path, answers: list[dict]):
    plain, pointed = tmp_path / "plain", tmp_path / "pointed"
    assert call("predict", trained, clip, "Where?", "--box", "1,1,4,4", "--out", plain, "--json").status == 0
    words = ("--box", "1,1,4,4", "--point", "20,20", "--scribble", "8,30,20,34,30,30")
    assert call("predict", trained, clip, "Where?", *words, "--out", pointed, "--json").status == 0
    before, after = (np.asarray(Image.open(folder / "frames.png").convert("RGB")).astype(int) for folder in (plain, pointed))
    changed = (before != after).any(2) if before.shape == after.shape else None
    assert changed is not None and 20 < changed.sum() < changed.size / 4


@pytest.fixture(scope="module")
def questions(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six questions about a clip beside the file, one of which cannot be answered."""
    folder = tmp_path_factory.mktemp("questions")
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    lines = [
        {"id": "where", "video": "clip.mp4", "question": "Where is it?"},
        {"id": "box", "video": "clip.mp4", "question": "What is <prompt:0>?", "boxes": [[1, 2, 30, 40]]},
        {"id": "gone", "video": "gone.mp4", "question": "What?"},
        {"id": "part", "video": "clip.mp4", "question": "When?", "start_sec": 0.5, "end_sec": 1.5},
        {"id": "point", "video": "clip.mp4", "question": "Where does it go?", "points": [[5, 6]]},
        {"id": "line", "video": "clip.mp4", "question": "What is it?", "scribbles": [[[5, 6], [9, 9]]]},
    ]
    (folder / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "asked.jsonl"


def answers_of(path: Path) -> dict[str, dict]:
    return {found["id"]: found for found in map(json.loads, path.read_text().splitlines())}


def test_batch_gives_the_documents_of_single_questions(call, trained: Path, questions: Path, tmp_path: Path):
    done = call("predict", trained, "--batch", questions, "--out", tmp_path / "new", "--batch-size", 4, "--json")
    assert done.status == 1, "one question failed"
    found = done.document
    assert (found["total"], found["answered"], found["failed"], found["found"], found["new"]) == (6, 5, 1, 0, 6)
    assert found["answers"] == str(tmp_path / "new" / "answers.jsonl") and found["questions_per_sec"] > 0
    answers = answers_of(tmp_path / "new" / "answers.jsonl")
    clip = questions.parent / "clip.mp4"
    single = {
        "where": ("Where is it?",),
        "box": ("What is <prompt:0>?", "--box", "1,2,30,40"),
        "part": ("When?", "--start", 0.5, "--end", 1.5),
        "point": ("Where does it go?", "--point", "5,6"),
        "line": ("What is it?", "--scribble", "5,6,9,9"),
    }
    for name, words in single.items():
        expected = call("predict", trained, clip, *words, "--json").document
        assert answers[name].keys() - {"line", "id"} == expected.keys()
        assert (answers[name]["text"], answers[name]["task"]) == (expected["text"], expected["task"])
        for field in ("boxes_xyxy", "windows_sec", "saliency"):
            assert np.allclose(answers[name][field], expected[field], atol=1e-4), (name, field)
        assert answers[name]["duration_sec"] == expected["duration_sec"]
    assert "gone.mp4" in answers["gone"]["error"]


def test_batch_says_how_far_it_is_and_what_came_of_it(call, trained: Path, questions: Path, tmp_path: Path):
    done = call("predict", trained, "--batch", questions, "--out", tmp_path / "a.jsonl")
    assert "questions: 6/6" in done.err and "/s, 0 s left" in done.err
    assert 'questions 6 answered 5 failed 1 (their lines have an "error") found from earlier calls 0' in done.words
    again = call("predict", trained, "--batch", questions, "--out", tmp_path / "a.jsonl", "--max-failed", 1)
    assert again.status == 0 and "found from earlier calls 6" in again.words and "questions:" not in again.err


def test_batch_beside_its_questions(call, trained: Path, questions: Path, tmp_path: Path):
    for name in ("asked.jsonl", "clip.mp4"):
        (tmp_path / name).write_bytes((questions.parent / name).read_bytes())
    call("predict", trained, "--batch", tmp_path / "asked.jsonl")
    assert len(answers_of(tmp_path / "asked.answers.jsonl")) == 6


def test_samples_of_a_data_set_are_asked(call, trained: Path, data: Path, tmp_path: Path):
    from tpo_lab.sample import read, write

    write(tmp_path / "few.jsonl", read(data)[:5])
    done = call("predict", trained, "--batch", tmp_path / "few.jsonl", "--out", tmp_path, "--json")
    assert (done.status, done.document["answered"]) == (0, 5)
    assert set(answers_of(tmp_path / "answers.jsonl")) == {sample.id for sample in read(data)[:5]}


def test_answers_of_another_model_are_refused_unless_told(call, trained: Path, questions: Path, tmp_path: Path):
    call("predict", "nano-tpo", "--batch", questions, "--out", tmp_path)
    refused = call("predict", trained, "--batch", questions, "--out", tmp_path)
    assert refused.status == 2 and "got 'another model'" in refused.err and "--resume-anyway" in refused.err
    assert call("predict", trained, "--batch", questions, "--out", tmp_path, "--resume-anyway", "--max-failed", 1).status == 0


def test_batch_with_too_many_failures_stops(call, trained: Path, questions: Path, tmp_path: Path):
    done = call("predict", trained, "--batch", questions, "--out", tmp_path, "--max-failed", 0, "--batch-size", 2)
    assert done.status == 1 and "More than 0 of the questions failed" in done.err
    assert len(answers_of(tmp_path / "answers.jsonl")) < 6
    done = call("predict", trained, "--batch", questions, "--out", tmp_path, "--retry-failed", "--json")
    assert done.status == 1 and done.document["total"] == done.document["answered"] + done.document["failed"] == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{clip}", "--batch", "{questions}"], "VIDEO: expected none with --batch, where each line has its own"),
        (["--batch", "{questions}", "--box", "1,2,3,4"], "--box: expected none with --batch"),
        (["--batch", "{questions}", "--point", "1,2"], "--point: expected none with --batch"),
        (["--batch", "{questions}", "--scribble", "1,2,3,4"], "--scribble: expected none with --batch"),
        (["--batch", "{questions}", "--start", "0"], "--start: expected none with --batch"),
        (["--batch", "{questions}", "--end", "2"], "--end: expected none with --batch"),
        (["--batch", "{questions}", "--out", "{questions}"], "--out: expected another file than that of the questions"),
        (["--batch", "absent.jsonl"], "--batch: expected a JSONL file of questions, got 'absent.jsonl'"),
        (["--batch", "{questions}", "--batch-size", "0"], "--batch-size"),
        (["--batch", "{questions}", "--window", "0"], "--window: expected 1 frame or more, got 0"),
        (["{clip}", "Where?", "--batch-size", "2"], "--batch-size: expected none without --batch"),
        (["{clip}", "Where?", "--retry-failed"], "--retry-failed: expected none without --batch"),
        (["{clip}", "Where?", "--resume-anyway"], "--resume-anyway: expected none without --batch"),
        (["{clip}", "Where?", "--max-failed", "0"], "--max-failed: expected none without --batch"),
        (["{clip}"], "QUESTION: expected a video and a question, or --batch FILE.jsonl"),
        ([], "VIDEO: expected a video and a question, or --batch FILE.jsonl"),
    ],
)
def test_options_that_do_not_fit_each_other_are_a_sentence(
    call, trained: Path, clip: Path, questions: Path, words: list[str], message: str
):
    done = call("predict", trained, *(word.format(clip=clip, questions=questions) for word in words))
    assert done.status == 2 and message in done.err, done.err


def test_interrupted_batch_says_how_to_go_on(call, clip: Path, tmp_path: Path):
    lines = [json.dumps({"id": str(place), "video": str(clip), "question": f"What is {place}?"}) for place in range(400)]
    (tmp_path / "q.jsonl").write_text("\n".join(lines) + "\n")
    words = [sys.executable, "-m", "tpo_lab", "predict", "nano-tpo", "--batch", "q.jsonl", "--out", "a.jsonl", "--batch-size", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not ((tmp_path / "a.jsonl").exists() and (tmp_path / "a.jsonl").stat().st_size):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    finally:
        process.kill()
    count = len(answers_of(tmp_path / "a.jsonl"))
    assert process.returncode == 130 and 0 < count < 400
    assert f"Interrupted. {count} of 400 lines are in a.jsonl; the same call goes on from there." in err and "Traceback" not in err
    (tmp_path / "q.jsonl").write_text("\n".join(lines[: count + 3]) + "\n")
    refused = call("predict", "nano-tpo", "--batch", tmp_path / "q.jsonl", "--out", tmp_path / "a.jsonl")
    assert refused.status == 2 and "got 'other questions'" in refused.err
