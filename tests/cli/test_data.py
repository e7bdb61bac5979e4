"""`tpo-lab data`: samples are made whole, problems are named, and what is true is drawn where it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from tpo_lab.cli import sheet
from tpo_lab.drawing import GROUND_TRUTH, PREDICTION
from tpo_lab.sample import Sample, read, write
from tpo_lab.video import write_clip


def record(**changes) -> dict:
    return {"id": "a", "media": {"path": "a.mp4"}, "conversation": [{"role": "user", "text": "Well?"}], **changes}


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in records))
    return path


def share_of(image: Image.Image, colour: str) -> float:
    return float((np.asarray(image.convert("RGB")) == ImageColor.getrgb(colour)).all(-1).mean())


def test_synth_writes_the_samples_it_was_asked_for(call, tmp_path: Path):
    done = call(
        "data", "synth", "--out", tmp_path / "w", "--samples", 5, "--seed", 3, "--split", "val", "--tasks", "region,temporal", "--json"
    )
    assert done.status == 0, done.err
    assert done.document["file"] == str(tmp_path / "w" / "val.jsonl")
    samples = read(done.document["file"])
    assert len(samples) == 5
    assert {sample.meta["task"] for sample in samples} == {"region", "temporal"}
    assert "samples: 5/5" in done.err
    assert call("data", "validate", done.document["file"], "--media").status == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "regoin"], "Did you mean 'region'?"),
        (["--split", "trian"], "Did you mean 'train'?"),
        (["--level", "hrad"], "Did you mean 'hard'?"),
        (["--samples", "0"], "samples: expected at least 1, got 0."),
    ],
)
def test_synth_refuses_what_it_does_not_know(call, tmp_path: Path, words: list[str], message: str):
    done = call("data", "synth", "--out", tmp_path / "w", "--samples", 2, *words)
    assert done.status == 2
    assert message in done.err
    assert not (tmp_path / "w").exists()


def test_synth_leaves_a_strangers_folder_alone(call, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    done = call("data", "synth", "--out", tmp_path, "--samples", 2)
    assert done.status == 2 and "notes.txt" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_validate_counts_good_samples(call, data: Path):
    done = call("data", "validate", data, "--json")
    assert (done.status, done.document["valid"], done.document["problems"]) == (0, True, [])
    assert done.document["samples"] == len(read(data))
    assert f"{len(read(data))} samples, no problem" in call("data", "validate", data).words


def test_validate_names_line_field_value_and_rule(call, tmp_path: Path):
    box = {"type": "box", "xyxy": [9, 2, 3, 4]}
    path = lines(tmp_path / "bad.jsonl", record(), "no json", record(id="b", prompts=[box]), record(id="a"))
    done = call("data", "validate", path)
    assert (done.status, done.err) == (1, "")
    assert done.out.splitlines()[1:] == [
        f"{path}, line 3, prompts[0].xyxy: expected x1 < x2 and y1 < y2, got [9, 2, 3, 4] (rule box_corners)",
        f"{path}, line 4, id: expected an id other than that of line 1, got 'a' (rule id_unique)",
        "3 problems in 3 of 4 records: box_corners 1, id_unique 1, json 1",
    ]
    assert done.out.startswith(f"{path}, line 2: expected one JSON object in UTF-8")
    found = call("data", "validate", path, "--json").document["problems"]
    assert [(problem["where"], problem["field"], problem["rule"]) for problem in found] == [
        (f"{path}, line 2", "", "json"),
        (f"{path}, line 3", "prompts[0].xyxy", "box_corners"),
        (f"{path}, line 4", "id", "id_unique"),
    ]


def test_validate_looks_for_media_only_when_asked(call, tmp_path: Path):
    path = lines(tmp_path / "a.jsonl", record())
    assert call("data", "validate", path).status == 0
    done = call("data", "validate", path, "--media", "--json")
    assert done.status == 1
    assert (done.document["problems"][0]["rule"], done.document["problems"][0]["value"]) == ("media_exists", "a.mp4")


def test_validate_opens_media_when_asked_and_counts_the_records_that_do_not_fit(call, tmp_path: Path):
    write_clip(tmp_path / "a.mp4", np.zeros((6, 12, 20, 3), np.uint8), 2.0)
    (tmp_path / "b.mp4").write_text("no video")
    wide, late = {"type": "box", "xyxy": [0, 0, 21, 12]}, {"type": "box", "time_sec": 9.0, "xyxy": [0, 0, 20, 13]}
    fine = {"type": "box", "xyxy": [0, 0, 20, 12]}

    def pointed(name: str, box: dict) -> dict:
        return record(id=name, prompts=[box], conversation=[{"role": "user", "text": "What is <prompt:0>?"}])

    rows = [pointed("a", fine), pointed("b", wide), pointed("c", late), record(id="d", media={"path": "b.mp4"})]
    path = lines(tmp_path / "s.jsonl", *rows)
    assert call("data", "validate", path).status == 0
    done = call("data", "validate", path, "--media", "--json")
    assert (done.status, done.document["records"], done.document["bad_records"]) == (1, 4, 3)
    found = [(each["where"].rpartition(", ")[2], each["field"], each["rule"]) for each in done.document["problems"]]
    first, second, third, fourth = found
    assert first == ("line 2", "prompts[0].xyxy", "box_in_frame")
    assert (second, third) == (("line 3", "prompts[0].xyxy", "box_in_frame"), ("line 3", "prompts[0].time_sec", "time_in_video"))
    assert fourth == ("line 4", "media.path", "media_opens")
    assert call("data", "validate", path, "--media", "--max-dropped", 3).status == 0


def test_validate_opens_the_media_of_official_files(call, tmp_path: Path):
    write_clip(tmp_path / "a.mp4", np.zeros((6, 12, 20, 3), np.uint8), 2.0)
    row = {"qid": 1, "query": "x", "duration": 9, "vid": "a", "relevant_windows": [[0, 2]]}
    rows = [row, {**row, "qid": 2, "relevant_windows": [[4, 8]]}, {**row, "qid": 3, "vid": "none"}]
    path = tmp_path / "charades_test_release.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    assert call("data", "validate", path, "--format", "charades-sta").status == 0
    done = call("data", "validate", path, "--format", "charades-sta", "--media", "--json")
    assert (done.status, done.document["bad_records"]) == (1, 2)
    assert done.document["by_rule"] == {"media_exists": 1, "time_in_video": 1}


def test_show_lists_questions_and_answers(call, data: Path):
    samples = read(data)
    done = call("data", "show", data, "--limit", 3)
    assert done.status == 0
    assert all(sample.id in done.out for sample in samples[:3]) and samples[3].id not in done.out
    assert len(call("data", "show", data, "--limit", 3, "--json").document["samples"]) == 3


def test_show_stats_count_the_whole_file(call, data: Path):
    done = call("data", "show", data, "--stats", "--limit", 1, "--json")
    assert done.status == 0, done.err
    assert done.document["stats"]["samples"] == len(read(data))
    assert f"{len(read(data))} samples about 6 clips" in call("data", "show", data, "--stats").words


def test_show_stats_of_other_data_are_refused(call, tmp_path: Path):
    done = call("data", "show", lines(tmp_path / "a.jsonl", record()), "--stats")
    assert done.status == 2 and "synthetic world" in done.err


def test_show_draws_a_sheet(call, data: Path, tmp_path: Path):
    done = call("data", "show", data, "--out", tmp_path / "new" / "sheet.png", "--limit", 6, "--json")
    assert done.status == 0, done.err
    assert done.document["sheet"] == str(tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as image:
        assert share_of(image, GROUND_TRUTH) > 0


def test_show_of_a_file_without_its_video_says_which(call, tmp_path: Path):
    done = call("data", "show", lines(tmp_path / "a.jsonl", record()), "--out", tmp_path / "sheet.png")
    assert done.status == 2 and "a.mp4" in done.err
    assert not (tmp_path / "sheet.png").exists()


def test_show_of_an_empty_file_is_refused(call, tmp_path: Path):
    done = call("data", "show", lines(tmp_path / "a.jsonl"), "--out", tmp_path / "sheet.png")
    assert done.status == 2 and "samples: expected at least one, got 0." in done.err


def clip_sample(clip: Path, **changes) -> Sample:
    media = {"path": str(clip), "start_sec": 0.0, "end_sec": 2.0}
    return Sample.model_validate(record(media=media, **changes))


def test_sheet_puts_each_box_on_the_frame_of_its_time(clip: Path):
    turns = [{"role": "user", "text": "Where is <prompt:0>?"}, {"role": "assistant", "text": "<region>"}]
    sample = clip_sample(
        clip,
        conversation=turns,
        prompts=[{"type": "box", "time_sec": 0.0, "xyxy": [1, 2, 30, 40]}],
        targets={"region": [{"time_sec": 1.99, "xyxy": [5, 6, 50, 40]}]},
    )
    image = sheet.contact_sheet([sample])
    left, right = image.crop((0, 0, image.width // 6, image.height)), image.crop((image.width * 5 // 6, 0, image.width, image.height))
    middle = image.crop((image.width // 6 + 8, 0, image.width * 5 // 6 - 8, image.height))
    assert share_of(left, PREDICTION) > 0.005 and share_of(left, GROUND_TRUTH) == 0
    assert share_of(right, GROUND_TRUTH) > 0.005 and share_of(right, PREDICTION) == 0
    assert share_of(middle, PREDICTION) == share_of(middle, GROUND_TRUTH) == 0


def test_sheet_shows_the_frame_of_a_time_between_the_evenly_spaced_ones(clip: Path):
    track = {"times_sec": [0.7, 0.9], "xyxy": [[1, 2, 30, 40], None]}
    plain = clip_sample(clip)
    turns = [{"role": "user", "text": "Follow it."}, {"role": "assistant", "text": "<track>"}]
    tracked = clip_sample(clip, conversation=turns, targets={"track": track})
    images = [sheet.contact_sheet([sample]) for sample in (plain, tracked)]
    assert images[1].width > images[0].width
    assert share_of(images[0], GROUND_TRUTH) == 0 < share_of(images[1], GROUND_TRUTH)


def test_sheet_draws_windows_and_saliency_beside_the_frames(clip: Path):
    turns = [{"role": "user", "text": "When?"}, {"role": "assistant", "text": "<temporal>"}]
    temporal = {"windows_sec": [[0.5, 1.0]], "saliency": {"step_sec": 0.5, "scores": [0, 4, 2, 0]}}
    images = [
        sheet.contact_sheet([clip_sample(clip)]),
        sheet.contact_sheet([clip_sample(clip, conversation=turns, targets={"temporal": temporal})]),
    ]
    assert images[1].width > images[0].width + 200
    beside = images[1].crop((images[0].width, 0, images[1].width, images[1].height))
    assert share_of(beside, GROUND_TRUTH) > 0.01


def test_caption_holds_the_name_the_task_and_every_turn(clip: Path):
    turns = [{"role": role, "text": text} for role, text in (("user", "A?"), ("assistant", "b"), ("user", "C?"))]
    sample = clip_sample(clip, conversation=turns, meta={"task": "conversation", "kind": "count"})
    assert sheet.caption(sample) == "a  conversation/count\nQ: A?\nA: b\nQ: C?"


def test_sheet_of_large_frames_stays_small(tmp_path: Path):
    from tpo_lab.video import write_clip

    write_clip(tmp_path / "wide.mp4", np.zeros((4, 720, 1280, 3), np.uint8), 4.0)
    write(tmp_path / "a.jsonl", [Sample.model_validate(record(media={"path": "wide.mp4"}))])
    image = sheet.contact_sheet(read(tmp_path / "a.jsonl"))
    assert image.height < 400 and image.width < 4000
