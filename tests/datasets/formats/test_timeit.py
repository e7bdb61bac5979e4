"""TimeIT: answers in words and captions with time tokens by hand, the real files, and broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpo_lab.errors import UsageError

ASKED = {"video": "v/b.mp4", "QA": [{"q": "When does 'it rains' happen?", "a": "The given query happens in 1.0 - 4.5 seconds."}]}
CAPTIONED = {
    "image_id": "b.mp4",
    "caption": "<time_token_10> <time_token_20> cut it <time_token_30> <time_token_40> fry it",
    "duration": 198.0,
    "segments": [[20, 40], [60, 80]],
}


def test_answers_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("timeit", tiny / "timeit" / "instruct_tvg.json", split="train")
    assert not dropped
    assert [each.id for each in samples] == ["timeit-abc-0-0", "timeit-def-1-0-0", "timeit-def-1-0-1"]
    assert [each.targets.temporal.windows_sec for each in samples] == [((1.5, 4.0),), ((3.0, 9.0),), ((12.0, 15.5),)]
    assert [turn.text for turn in samples[0].conversation] == ["When does 'a bell rings' happen in the video?", "<temporal>"]
    assert '"roll 1.5 kg of dough"' in samples[1].conversation[0].text and '"cut it"' in samples[2].conversation[0].text
    assert samples[0].media.path == "Some/videos/abc.mp4"
    same_from_file(samples)


def test_the_conversation_in_words(take, tiny, same_from_file):
    samples, dropped, _ = take("timeit", tiny / "timeit" / "instruct_tvg.json", variant="words")
    assert not dropped and [each.id for each in samples] == ["timeit-abc-0", "timeit-def-1"]
    assert samples[0].conversation[1].text == "The given query happens in 1.5 - 4.0 seconds."
    assert samples[0].meta["task"] == "conversation" and not samples[0].targets.names
    same_from_file(samples)
    with pytest.raises(UsageError, match="captions with time tokens, which have no questions"):
        take("timeit", tiny / "timeit" / "val.caption_coco_format.json", variant="words")


def test_time_tokens_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("timeit", tiny / "timeit" / "val.caption_coco_format.json")
    assert not dropped
    assert [each.id for each in samples] == ["timeit-ghi-0-0-0", "timeit-ghi-0-0-1", "timeit-jkl-1-0-0"]
    # of the segments; where there are none, of tokens that count a video of 99 s in seconds
    assert [each.targets.temporal.windows_sec for each in samples] == [((20.0, 39.0),), ((99.0, 197.0),), ((0.0, 33.0),)]
    assert '"rinse the rice"' in samples[0].conversation[0].text and samples[0].meta["duration_sec"] == 198.0
    same_from_file(samples)


@pytest.mark.parametrize(
    ("changed", "inside", "field", "rule"),
    [
        ({"QA": None}, "", "QA", "list"),
        ({"QA": [{"q": "When?", "a": "At noon."}]}, ", QA[0]", "a", "answer_times"),
        ({"QA": [{"q": "When?", "a": "The given query happens in 4.0 - 1.0 seconds."}]}, ", QA[0]", "a[0]", "window_order"),
        ({"QA": [{"q": "When?", "a": "Well, 4.0 - 5.0 seconds, so."}]}, ", QA[0]", "a", "answer_times"),
        ({"QA": [{"q": "When?", "a": "4.0 - 4.0 seconds, a."}]}, ", QA[0], event 0", "timestamp[0]", "window_order"),
        ({"QA": [{"q": "When?", "a": "4.0 - 5.0 seconds, ."}]}, ", QA[0], event 0", "query", "words"),
        ({"QA": [{"q": "", "a": "The given query happens in 1.0 - 2.0 seconds."}]}, ", QA[0]", "q", "words"),
        ({"QA": [{"q": "When?", "a": 5}]}, ", QA[0]", "a", "words"),
        ({"QA": ["When?"]}, ", QA[0]", "", "missing"),
        ({"video": ""}, ", QA[0]", "video", "words"),
    ],
)
def test_a_bad_answer_is_named_and_the_others_go_on(take, tmp_path: Path, changed, inside, field, rule):
    path = tmp_path / "instruct.json"
    path.write_text(json.dumps([ASKED, {**ASKED, **changed}, ASKED]))
    samples, dropped, _ = take("timeit", path)
    assert [each.id for each in samples] == ["timeit-b-0-0", "timeit-b-2-0"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{path}, [1]{inside}", field, rule)]


@pytest.mark.parametrize(
    ("changed", "inside", "field", "rule"),
    [
        ({"caption": "<time_token_10> cut it"}, "", "caption", "time_tokens"),
        ({"caption": "first <time_token_10> <time_token_20> cut it"}, "", "caption", "time_tokens"),
        ({"caption": "<time_token_10> and <time_token_20> cut it"}, "", "caption", "time_tokens"),
        ({"caption": "cut it"}, "", "caption", "time_tokens"),
        ({"segments": [[20, 40]]}, "", "segments", "lengths_equal"),
        ({"segments": [[60, 80], [20, 40]]}, "", "segments[0]", "time_tokens"),
        ({"duration": None}, "", "duration", "number"),
        ({"caption": "<time_token_10> <time_token_10> cut it", "segments": [[20, 20]]}, ", event 0", "timestamp[0]", "window_order"),
    ],
)
def test_a_bad_caption_is_named_and_the_others_go_on(take, tmp_path: Path, changed, inside, field, rule):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"annotations": [CAPTIONED, {**CAPTIONED, **changed}, CAPTIONED]}))
    samples, dropped, _ = take("timeit", path)
    assert [each.id for each in samples] == [f"timeit-b-{name}" for name in ("0-0-0", "0-0-1", "2-0-0", "2-0-1")]
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{path}, annotations, [1]{inside}", field, rule)]


@pytest.mark.parametrize("variant", ["moments", "words"])
def test_broken_answers_are_dropped_or_read(withstands, tmp_path: Path, variant: str):
    def put(raw: bytes) -> Path:
        whole, path = json.dumps(ASKED).encode(), tmp_path / "instruct.json"
        path.write_bytes(b"[" + whole + b", " + raw + b", " + whole + b"]")
        return path

    tail = "-0" if variant == "moments" else ""
    withstands("timeit", put, ASKED, good=[f"timeit-b-0{tail}", f"timeit-b-2{tail}"], rounds=500, variant=variant)


def test_broken_captions_are_dropped_or_read(withstands, tmp_path: Path):
    def put(raw: bytes) -> Path:
        whole, path = json.dumps(CAPTIONED).encode(), tmp_path / "captions.json"
        path.write_bytes(b'{"annotations": [' + whole + b", " + raw + b", " + whole + b"]}")
        return path

    withstands("timeit", put, CAPTIONED, good=["timeit-b-0-0-0", "timeit-b-2-0-1"], rounds=500)


@pytest.mark.parametrize(
    ("name", "variant", "count"),
    [
        ("timeit/instruct_tvg_12.4k_charades.head60.json", "moments", 60),
        ("timeit/instruct_tvg_12.4k_charades.head60.json", "words", 60),
        ("youcook2/instruct_dvc_1.2k_youcook2.head40.json", "moments", 304),
        ("youcook2/instruct_dvc_1.2k_youcook2.head40.json", "words", 40),
        ("youcook2/val.caption_coco_format.head60.json", "moments", 494),
    ],
)
def test_the_real_files_read_without_a_drop(real, take, same_from_file, name: str, variant: str, count: int):
    samples, dropped, _ = take("timeit", real / name, variant=variant)
    assert (len(samples), dropped) == (count, [])
    same_from_file(samples)


def test_the_real_answers_are_charades_sta(real, take):
    asked, _, _ = take("timeit", real / "timeit" / "instruct_tvg_12.4k_charades.head60.json")
    lines, _, _ = take("charades-sta", real / "charades_sta" / "charades_sta_train.head400.txt")
    moments = {(each.media.path, each.targets.temporal.windows_sec) for each in lines}
    assert all((Path(each.media.path).name, each.targets.temporal.windows_sec) in moments for each in asked)
