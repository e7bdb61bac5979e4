"""`tpo-lab track`: a line per frame as it is found, an overlay with the video's own times, and nothing lost to Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from tpo_lab import checkpoint as checkpoints
from tpo_lab import tracking
from tpo_lab.answer import Answer
from tpo_lab.cli.command import Stopped
from tpo_lab.cli.footage import Tracks, write_frames, write_overlay, write_tracks
from tpo_lab.cli.overlays import scale_of
from tpo_lab.cli.predict import parse_points
from tpo_lab.drawing import PALETTE
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.rle import decode_rle, encode_rle
from tpo_lab.sam2 import Tracker, nano_config, untrained
from tpo_lab.sam2.footage import Followed
from tpo_lab.sample import BoxPrompt, PointPrompt, Sample, ScribblePrompt
from tpo_lab.tracking import Pursuit
from tpo_lab.video import clip_writer, open_source, write_clip

FILES = ["tracks.jsonl", "overlay.mp4", "frames.png", "summary.json"]


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a SAM2 that sees something in every frame."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sam")
    made = untrained(nano_config())
    torch.nn.init.constant_(made.mask_decoder.pred_obj_score_head.proj_out.bias, 5.0)
    made.save_pretrained(folder)
    return folder


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "tracks.jsonl").read_text().splitlines()]


def overlay_of(folder: Path) -> tuple[list[float], list[np.ndarray]]:
    """Times and pictures of overlay.mp4."""
    with av.open(str(folder / "overlay.mp4")) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return [time for time, _ in frames], [picture for _, picture in frames]


def test_boxes_points_and_scribbles_become_a_line_per_frame_and_pictures(call, sam: Path, clip: Path, tmp_path: Path):
    out = tmp_path / "a" / "b"
    words = ("--scribble", "3,3,20,20,40,9", "--point", "40,20", "--box", "4,4,30,30", "--at", 0.6, "--json")
    done = call("track", sam, clip, *words, "--out", out)
    assert done.status == 0, done.err
    found = lines_of(out)
    assert [line["frame"] for line in found] == [2, 3, 4, 5, 6, 7, 1, 0]
    assert [line["time_sec"] for line in found] == [line["frame"] / 4 for line in found]
    for line in found:
        for each in line["objects"]:
            assert 0 < each["score"] < 1 and (each["rle"] is None) == (each["xyxy"] is None)
            if each["rle"] is not None:
                rows, columns = np.nonzero(decode_rle("rle", each["rle"]))
                assert each["xyxy"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    document = done.document
    assert json.loads((out / "summary.json").read_text()) == document
    assert document["files"] == [str(out / name) for name in FILES] == [str(out / name) for name in FILES if (out / name).is_file()]
    assert [prompt["type"] for prompt in document["prompts"]] == ["box", "point", "scribble"]
    assert (document["prompted"], document["frames"], document["dropped"]) == ({"frame": 2, "time_sec": 0.5}, 8, 0)
    assert (document["width"], document["height"]) == (64, 48)
    for place, each in enumerate(document["objects"]):
        times = sorted(line["time_sec"] for line in found if line["objects"][place]["rle"] is not None)
        assert each == {"frames": len(times), "first_sec": times[0], "last_sec": times[-1]}
    times, pictures = overlay_of(out)
    assert times == pytest.approx([place / 4 for place in range(8)]) and pictures[0].shape == (240, 320, 3)


def test_a_person_sees_a_table_and_the_files(call, sam: Path, clip: Path, tmp_path: Path):
    done = call("track", sam, clip, "--point", "40,20", "--out", tmp_path, "--no-overlay", "--start", 0.5, "--end", 1.5)
    assert "0 │ point │ 4 of 4 │ 0.50 s │ 1.25 s" in done.words
    assert "prompted the frame at 0.50 s" in done.words and str(tmp_path / "tracks.jsonl") in done.out
    assert "overlay.mp4" not in done.out and not (tmp_path / "overlay.mp4").exists()
    assert "frames: 4/4" in done.err


# The files, from frames made by hand


def squares(order: list[int], size: tuple[int, int] = (240, 320), stop: int | None = None) -> Iterator[Followed]:
    """Object 0 is a square that moves right by 40 pixels a frame, object 1 is there in frame 1 alone; Ctrl-C after `stop` frames."""
    for count, frame in enumerate(order):
        if count == stop:
            raise KeyboardInterrupt
        logits = torch.full((2, *size), -9.0)
        logits[0, 100:140, 40 * frame : 40 * frame + 40] = 9.0
        logits[1, 180:220, 40:80] = 9.0
        yield Followed(frame, frame / 4, logits, torch.tensor([3.0, 3.0 if frame == 1 else -3.0]), size)


def pursuit(path: Path, shown: tuple[Any, ...] = (), frames: int = 6, size: tuple[int, int] = (240, 320)) -> Pursuit:
    write_clip(path, [np.full((*size, 3), 128, np.uint8)] * frames, 4.0)
    tracker = Tracker(untrained(nano_config()))
    return Pursuit(tracker, open_source(path), lambda size: [], 2, 2, 0, frames - 1, shown=shown)


def near(pixel: np.ndarray, colour: str, veil: float = 1.0) -> bool:
    wanted = 128 + veil * (np.array(ImageColor.getrgb(colour)) - 128.0)
    return bool(np.abs(pixel - wanted).max() < 40)


def test_overlay_is_in_display_order_with_each_object_in_its_colour(tmp_path: Path):
    shown = (BoxPrompt(xyxy=(80, 60, 160, 160)), PointPrompt(xy=(200, 30)))
    made = pursuit(tmp_path / "clip.mp4", shown)
    told: list[int] = []
    tracks = write_tracks(squares([2, 3, 4, 5, 1, 0]), tmp_path / "out", told.append)
    write_overlay(made, tracks, tmp_path / "out", told.append)
    assert told == [1, 2, 3, 4, 5, 6] * 2
    times, pictures = overlay_of(tmp_path / "out")
    assert times == pytest.approx([0, 0.25, 0.5, 0.75, 1.0, 1.25])
    for frame, picture in enumerate(pictures):
        assert near(picture[120, 40 * frame + 20], PALETTE[1], 0.45), frame
        assert near(picture[120, 40 * ((frame + 3) % 6) + 20], "#808080"), frame
        assert near(picture[200, 60], PALETTE[2], 0.45) == (frame == 1)
        assert near(picture[110, 80], PALETTE[1]) == (frame == 2), "the prompt is drawn on the prompted frame"
        assert near(picture[30, 200], PALETTE[2]) == (frame == 2)


def test_frames_show_the_prompted_one_among_others_spread_evenly(tmp_path: Path):
    made = pursuit(tmp_path / "clip.mp4", (BoxPrompt(xyxy=(80, 60, 160, 160)), ScribblePrompt(xys=((10, 200), (60, 230)))), frames=40)
    (tmp_path / "out").mkdir()
    order = [*range(2, 40), 1, 0]
    moving = (Followed(each.frame, each.time_sec, each.logits, each.there, each.size) for each in squares([n % 6 for n in order]))
    renumbered = (Followed(number, number / 4, each.logits, each.there, each.size) for number, each in zip(order, moving, strict=True))
    tracks = write_tracks(renumbered, tmp_path / "out", lambda done: None)
    write_frames(made, tracks, tmp_path / "out", "a title")
    with Image.open(tmp_path / "out" / "frames.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] == 4 * (320 + 4) + 4 and pixels.shape[0] > 2 * 240
    box = (pixels == ImageColor.getrgb(PALETTE[1])).all(-1)
    # the second picture is frame 2: a gap of 4, 320 pixels, another gap, and the box's right edge at 160
    assert box[:, 4 + 324 + 159].sum() > 90 and box[:, 4 + 159].sum() < 50


def test_enlarged_overlays_have_their_prompts_in_place(tmp_path: Path):
    made = pursuit(tmp_path / "clip.mp4", (BoxPrompt(xyxy=(10, 12, 30, 40)),), size=(48, 64))
    nothing = (Followed(n, n / 4, torch.full((1, 48, 64), -9.0), torch.tensor([-3.0]), (48, 64)) for n in (2, 3, 4, 5, 1, 0))
    tracks = write_tracks(nothing, tmp_path / "out", lambda done: None)
    assert tracks.seen == [{"frames": 0, "first_sec": None, "last_sec": None}]
    write_overlay(made, tracks, tmp_path / "out", lambda done: None)
    picture = overlay_of(tmp_path / "out")[1][2]
    assert near(picture[5 * 30, 5 * 10], PALETTE[1]) and near(picture[5 * 40 - 1, 5 * 20], PALETTE[1])
    assert near(picture[5 * 30, 5 * 10 - 4], "#808080")


def test_ctrl_c_keeps_whole_lines_of_what_was_found(tmp_path: Path):
    with pytest.raises(Stopped, match=r"tracks\.jsonl holds what was found in 3 frames\."):
        write_tracks(squares([2, 3, 4, 5, 1, 0], stop=3), tmp_path / "out", lambda done: None)
    assert [line["frame"] for line in lines_of(tmp_path / "out")] == [2, 3, 4]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["tracks.jsonl"]


def test_nothing_is_touched_before_the_first_frame_and_old_results_do_not_stay(tmp_path: Path):
    for name in (*FILES, "notes.txt"):
        (tmp_path / name).write_text("old")

    def failing() -> Iterator[Followed]:
        raise UsageError("box", expected="a", got="b")
        yield

    with pytest.raises(UsageError):
        write_tracks(failing(), tmp_path, lambda done: None)
    with pytest.raises(KeyboardInterrupt):
        write_tracks(squares([0], stop=0), tmp_path, lambda done: None)
    assert {file.read_text() for file in tmp_path.iterdir()} == {"old"}
    with pytest.raises(Stopped):
        write_tracks(squares([0, 1], stop=1), tmp_path, lambda done: None)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["notes.txt", "tracks.jsonl"] and len(lines_of(tmp_path)) == 1


def test_lines_are_found_by_frame_whatever_their_order(tmp_path: Path):
    tracks = write_tracks(squares([2, 3, 1, 0]), tmp_path, lambda done: None)
    assert isinstance(tracks, Tracks)
    assert [line["frame"] for line in tracks.read([0, 1, 2, 3])] == [0, 1, 2, 3]
    assert tracks.seen == [{"frames": 4, "first_sec": 0.0, "last_sec": 0.75}, {"frames": 1, "first_sec": 0.25, "last_sec": 0.25}]


# Interruptions of the command


def test_interrupted_command_says_what_it_keeps(call, sam: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    follow = tracking.follow_footage

    def interrupted(*parts: Any, **options: Any) -> Iterator[Followed]:
        for count, found in enumerate(follow(*parts, **options)):
            if count == 3:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(tracking, "follow_footage", interrupted)
    done = call("track", sam, clip, "--point", "9,9", "--out", tmp_path / "o", "--json")
    assert done.status == 130 and done.document["error"]["kind"] == "interrupted"
    assert "tracks.jsonl holds what was found in 3 frames." in done.err and len(lines_of(tmp_path / "o")) == 3


def test_interrupted_drawing_leaves_no_half_of_a_video(call, sam: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tpo_lab.cli.footage._even", lambda picture: (_ for _ in ()).throw(KeyboardInterrupt))
    done = call("track", sam, clip, "--point", "9,9", "--out", tmp_path / "o")
    assert done.status == 130 and "tracks.jsonl is complete, with 8 frames; not all pictures are drawn." in done.err
    assert [file.name for file in (tmp_path / "o").iterdir()] == ["tracks.jsonl"] and len(lines_of(tmp_path / "o")) == 8


def test_ctrl_c_in_a_process_of_its_own(sam: Path, tmp_path: Path):
    write_clip(tmp_path / "long.mp4", [np.full((48, 64, 3), 40 + place % 100, np.uint8) for place in range(4000)], 25.0)
    words = ("-m", "tpo_lab", "track", str(sam), str(tmp_path / "long.mp4"), "--point", "9,9", "--out", str(tmp_path / "o"))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    started = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    file = tmp_path / "o" / "tracks.jsonl"
    while started.poll() is None and not (file.exists() and file.stat().st_size > 20_000):
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130, err
    kept = lines_of(tmp_path / "o")
    assert 0 < len(kept) < 4000 and f"holds what was found in {len(kept)} frames." in err
    assert [line["frame"] for line in kept] == list(range(len(kept)))


# Models and questions


@pytest.fixture(scope="module")
def checkpoint(sam: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose mask head names the SAM2."""
    import tpo_lab as tpo
    from tpo_lab.checkpoint import save

    model = tpo.build(str(tiny_base), ({"name": "mask", "head": "sam2-pointing", "sam": str(sam)},), num_frames=4)
    folder = tmp_path_factory.mktemp("checkpoint") / "made"
    save(model, folder)
    return folder


def test_a_checkpoint_with_a_box_follows_as_its_sam2_does(call, sam: Path, checkpoint: Path, clip: Path, tmp_path: Path):
    for name, model in (("a", sam), ("b", checkpoint)):
        done = call("track", model, clip, "--box", "4,4,30,30", "--out", tmp_path / name, "--no-overlay", "--json")
        assert done.status == 0, done.err
    assert (tmp_path / "a" / "tracks.jsonl").read_text() == (tmp_path / "b" / "tracks.jsonl").read_text()


def test_a_question_that_leads_to_no_mask_is_status_1_with_the_words(call, checkpoint: Path, clip: Path, tmp_path: Path):
    done = call("track", checkpoint, clip, "--question", "Which one?", "--out", tmp_path / "o", "--json")
    assert done.status == 1 and done.document["error"]["kind"] == "failed"
    assert "There is nothing to follow: the model answered '" in done.err and not (tmp_path / "o").exists()


def test_a_question_that_leads_to_a_mask_is_followed_through_every_frame(
    call, checkpoint: Path, clip: Path, tmp_path: Path, script: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    import tpo_lab as tpo
    from tpo_lab.media import Frames

    model = tpo.load(checkpoint).eval()
    model.backbone.num_frames = 4
    turns = [{"role": "user", "text": "Which one?"}, {"role": "assistant", "text": "<mask>"}]
    target = {"mask": {"times_sec": [0.0], "rle": [encode_rle(np.ones((48, 64), bool))]}}
    record = {"id": "a", "media": {"path": str(clip)}, "conversation": turns, "targets": target}
    script(model, [Frames(model.backbone).row([Sample.model_validate(record)])])
    monkeypatch.setattr("tpo_lab.cli.models.open_model", lambda name: model)
    done = call("track", checkpoint, clip, "--question", "Which one?", "--out", tmp_path, "--json")
    assert done.status == 0, done.err
    assert (done.document["answer"], done.document["question"], done.document["prompts"]) == ("<mask>", "Which one?", [])
    at = done.document["prompted"]["frame"]
    assert [line["frame"] for line in lines_of(tmp_path)] == [*range(at, 8), *range(at - 1, -1, -1)]
    assert len(overlay_of(tmp_path)[0]) == 8


def test_a_question_is_asked_with_its_boxes_and_its_part(call, sam: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    track = tracking.track

    def heard(model: Any, video: Path, prompts: Any, **options: Any) -> Pursuit:
        asked.append((type(model).__name__, [prompt.xyxy for prompt in prompts], options))
        made = track(model, video, [BoxPrompt(time_sec=0.5, xyxy=(4, 4, 30, 30))], start_sec=0.5, end_sec=1.0)
        return replace(made, answer=Answer("Here <mask>."), shown=())

    monkeypatch.setattr(tracking, "track", heard)
    words = ("--question", "Follow <prompt:0>.", "--box", "1,2,30,40", "--start", 0.5, "--end", 1, "--on-corrupt", "drop")
    done = call("track", sam, clip, *words, "--out", tmp_path)
    options = {"question": "Follow <prompt:0>.", "start_sec": 0.5, "end_sec": 1.0, "on_corrupt": "drop"}
    assert asked == [("Sam2VideoModel", [(1, 2, 30, 40)], options)]
    assert "0 │ question │ 2 of 2" in done.words and "answer Here <mask>." in done.words
    assert "the model answered: Here <mask>." in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "prompts: expected --box, --point, --scribble or --question, got 'none of them'"),
        (["--box", "10,10,400,20"], "box: expected x0 < x1 and y0 < y1 inside the frame of 64 x 48 pixels"),
        (["--box", "1,2,3"], "--box: expected x0,y0,x1,y1"),
        (["--point", "1,2,3"], "--point: expected x,y in pixels, such as 40,60, got '1,2,3'"),
        (["--point", "64,2"], "point: expected points inside the frame of 64 x 48 pixels, got [64.0, 2.0]"),
        (["--scribble", "1,2"], "--scribble: expected x,y,x,y,... of two points or more"),
        (["--scribble=1,2,-3,4"], "scribble: expected points inside"),
        (["--point", "1,2", "--at", "9"], "from 0.000 s and before 2.000 s, where the frames to follow end, got [9.0]"),
        (["--point", "1,2", "--at", "nan"], "got [nan]"),
        (["--point", "1,2", "--at", "0", "--start", "1"], "from 1.000 s"),
        (["--point", "1,2", "--start", "9"], "expected a time from 0 s, before the end"),
        (["--point", "1,2", "--start", "1", "--end", "0.5"], "end_sec: expected a time of at least start_sec (1.0 s), got 0.5."),
        (["--point", "1,2", "--on-corrupt", "warn"], "on_corrupt: expected one of drop, raise, got 'warn'."),
        (["--question", "Where?"], "question: expected a checkpoint with a mask head to answer it"),
        (["--question", " "], "--question: expected some words"),
        (["--question", "Where?", "--at", "0"], "--at: expected no such option beside --question"),
    ],
)
def test_wrong_option_is_a_sentence(call, sam: Path, clip: Path, tmp_path: Path, words: list[str], message: str):
    done = call("track", sam, clip, *words, "--out", tmp_path / "o")
    assert done.status == 2 and message in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_wrong_models_are_sentences(call, sam: Path, tiny, clip: Path, tmp_path: Path):
    def told(model: object) -> str:
        done = call("track", model, clip, "--point", "1,2", "--out", tmp_path / "o")
        assert done.status == 2 and not (tmp_path / "o").exists()
        return done.err

    assert "got 'nano-sam'. Did you mean 'nano-sam2'" in told("nano-sam")
    assert "expected an official SAM2 .pt file" in told(tmp_path / "absent.pt")
    assert "expected a folder with tpo.json" in told(tmp_path)
    checkpoints.save(tiny, tmp_path / "without_masks")
    assert "a checkpoint with a mask head, got 'a checkpoint with region, temporal'" in told(tmp_path / "without_masks")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((sam / "config.json").read_bytes())
    assert "It cannot be read: " in told(broken) and "model.safetensors" in told(broken)
    (broken / "model.safetensors").write_bytes((sam / "model.safetensors").read_bytes()[:5000])
    assert "It cannot be read: " in told(broken)


def test_results_never_take_the_place_of_the_video(call, sam: Path, clip: Path, tmp_path: Path):
    video = tmp_path / "overlay.mp4"
    video.write_bytes(clip.read_bytes())
    for out, message in ((tmp_path, "a folder apart from the video"), (video, "--out: expected a folder, got")):
        done = call("track", sam, video, "--point", "1,2", "--out", out)
        assert done.status == 2 and message in done.err
    Image.new("RGB", (20, 20)).save(tmp_path / "0.png")
    done = call("track", sam, tmp_path, "--point", "1,2", "--out", tmp_path / "x" / "..")
    assert done.status == 2 and "apart from the video" in done.err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.png", "overlay.mp4"] and video.read_bytes() == clip.read_bytes()


@pytest.mark.parametrize("text", ["1", "a,b", "", "1,nan", "1,2,3,4", "1;2"])
def test_text_that_is_no_point_is_refused(text: str):
    with pytest.raises(UsageError, match=r"--point: expected x,y in pixels"):
        parse_points("--point", text, 1, 1)


def test_points_are_pairs():
    assert parse_points("--scribble", "1, 2.5,-3,4e1", 2) == ((1.0, 2.5), (-3.0, 40.0))


# Videos of all kinds


def test_uneven_times_odd_sizes_and_single_frames(call, sam: Path, tmp_path: Path):
    stamps = [0.0, 0.04, 0.5, 1.7, 1.74]
    with clip_writer(tmp_path / "uneven.mp4", 3) as add:
        for place, stamp in enumerate(stamps):
            add(np.full((48, 64, 3), 30 * place, np.uint8), stamp)
    done = call("track", sam, tmp_path / "uneven.mp4", "--point", "9,9", "--at", 1, "--out", tmp_path / "a", "--json")
    assert done.status == 0 and done.document["prompted"]["frame"] == 2
    assert overlay_of(tmp_path / "a")[0] == pytest.approx(stamps, abs=1e-3)
    (tmp_path / "images").mkdir()
    for place in range(3):
        Image.fromarray(np.full((47, 31, 3), 40 * place, np.uint8)).save(tmp_path / "images" / f"{place}.png")
    assert call("track", sam, tmp_path / "images", "--point", "30,46", "--out", tmp_path / "b").status == 0
    times, pictures = overlay_of(tmp_path / "b")
    assert times == [0, 1, 2] and pictures[0].shape == (7 * 47 + 1, 7 * 31 + 1, 3), "enlarged seven times, and even"
    assert call("track", sam, tmp_path / "images" / "0.png", "--point", "3,3", "--out", tmp_path / "c").status == 0
    assert len(overlay_of(tmp_path / "c")[0]) == 1 and lines_of(tmp_path / "c")[0]["objects"][0]["rle"]["size"] == [47, 31]
    Image.new("RGB", (20, 20)).save(tmp_path / "images" / "3.png")
    done = call("track", sam, tmp_path / "images", "--point", "3,3", "--out", tmp_path / "d")
    assert done.status == 2 and "frames of one height and width" in done.err


@pytest.mark.parametrize("name", ["sam2_bedroom", "videos/cutie_example.mp4", "videos/decord_unordered.mov", "videos/decord_video_90.mov"])
def test_real_videos_are_followed_through_every_frame(call, sam: Path, tmp_path: Path, real: Path, name: str):
    done = call("track", sam, real / name, "--box", "10,15,45,50", "--out", tmp_path, "--end", 2, "--json")
    assert done.status == 0, done.err
    source = open_source(real / name)
    wanted = [float(time) for time in source.times_sec if time < 2]
    assert [line["time_sec"] for line in lines_of(tmp_path)] == wanted
    times, pictures = overlay_of(tmp_path)
    assert times == pytest.approx(wanted, abs=1e-3)
    scale = scale_of(done.document["height"], done.document["width"])
    assert pictures[0].shape[:2] == (scale * done.document["height"], scale * done.document["width"])
    if "90" in name:
        assert pictures[0].shape[:2] == (568, 320), "upright"


def test_damaged_real_video_is_refused_or_followed_without_its_damage(call, sam: Path, tmp_path: Path, real: Path):
    video = real / "videos" / "decord_corrupted.mp4"
    done = call("track", sam, video, "--point", "30,30", "--out", tmp_path, "--start", 2.5)
    assert done.status == 2 and "expected frames that decode" in done.err and "on_corrupt=" in done.err
    done = call("track", sam, video, "--point", "30,30", "--out", tmp_path, "--start", 2.5, "--on-corrupt", "drop", "--json")
    assert done.status == 0 and (done.document["frames"], done.document["dropped"]) == (5, 20)
    assert overlay_of(tmp_path)[0] == pytest.approx([0, 0.1, 0.2, 0.3, 0.7], abs=1e-3)
    done = call("track", sam, video, "--point", "30,30", "--out", tmp_path / "x", "--at", 3, "--on-corrupt", "drop")
    assert done.status == 2 and "a frame that decodes, to prompt, got 'the corrupt one at 3.000 s'" in done.err


def test_failures_of_the_job_are_no_bugs(call, sam: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tracking, "track", lambda *_, **__: (_ for _ in ()).throw(TPOError("nothing")))
    assert call("track", sam, clip, "--point", "1,2", "--out", tmp_path / "o").err == "error: nothing\n"
