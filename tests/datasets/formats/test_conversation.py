"""VideoChat2-IT and LLaVA's form: turns by hand, what is dropped and why, the real files, and broken records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpo_lab.errors import UsageError


def texts(sample) -> list[str]:
    return [turn.text for turn in sample.conversation]


def test_videochat2_it_of_a_folder_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("videochat2-it", tiny / "videochat2-it", split="train")
    image, first, second = samples
    assert (image.id, image.media.path) == ("videochat2-it-image-vqa-made-train-0", "made/one.jpg")
    assert texts(image) == ["How many pears lie in the bowl?", "Four."]
    assert (first.id, first.media.start_sec, first.media.end_sec) == ("videochat2-it-video-caption-made-train-0", 2.5, 9.0)
    assert texts(first) == [
        "Say what happens in the clip.",
        "A grey cat walks along a wall.",
        "Where does it stop?",
        "At a blue door.\nIt waits there.",
    ], "the instruction stands in the first turn only"
    assert texts(second) == ["Answer briefly.\nWho waves?", "A baker with a [temporal] hat."] and second.media.end_sec is None
    assert second.meta["raw"]["QA"][0]["a"] == "A baker with a <temporal> hat." and second.split == "train"
    assert not dropped
    same_from_file(samples)


ASKED = {"video": "a.mp4", "start": 1, "end": 4, "QA": [{"i": "Look.", "q": "Who?", "a": "A cat."}, {"q": "Where?", "a": "There."}]}


@pytest.mark.parametrize(
    ("changed", "where", "field", "rule"),
    [
        ({"video": None}, "", "video", "words"),
        ({"start": 4}, "", "end[0]", "window_order"),
        ({"start": -1}, "", "end", "window_in_video"),
        ({"end": "4"}, "", "end", "number"),
        ({"QA": []}, "", "QA", "turns_some"),
        ({"QA": {}}, "", "QA", "list"),
        ({"QA": ["Who?"]}, ", QA[0]", "", "object"),
        ({"QA": [{"i": " ", "q": "", "a": "A cat."}]}, "", "QA[0].q", "words"),
        ({"QA": [{"q": "Who?", "a": "A cat."}, {"i": "Look.", "q": "", "a": "There."}]}, "", "QA[1].q", "words"),
        ({"QA": [{"q": "Who?", "a": ""}]}, ", QA[0]", "a", "words"),
        ({"QA": [{"q": "Who?"}]}, ", QA[0]", "", "missing"),
        ({"QA": [{"i": None, "q": "Who?", "a": "A cat."}]}, ", QA[0]", "i", "text"),
    ],
)
def test_a_bad_record_of_videochat2_it_is_named(take, tmp_path: Path, changed, where, field, rule):
    path = tmp_path / "set" / "train.json"
    path.parent.mkdir()
    path.write_text(json.dumps([ASKED, {**ASKED, **changed}, ASKED]))
    samples, dropped, _ = take("videochat2-it", path)
    assert [sample.id for sample in samples] == ["videochat2-it-set-train-0", "videochat2-it-set-train-2"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{path}, [1]{where}", field, rule)]


def test_videochat2_it_needs_an_image_or_a_video(take, tmp_path: Path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps([{"QA": ASKED["QA"]}]))
    assert [each.rule for each in take("videochat2-it", path)[1]] == ["media"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty: expected a folder with \.json files, got 'none'"):
        take("videochat2-it", tmp_path / "empty")


@pytest.mark.parametrize("name", ["llava_complex_reasoning_2k", "minigpt_caption_3k"])
def test_the_real_instructions_read_without_a_drop(real, take, same_from_file, name: str):
    samples, dropped, _ = take("videochat2-it", real / "videochat_it" / f"{name}.head40.json")
    assert (len(samples), dropped) == (40, [])
    assert all(len(sample.conversation) == 2 for sample in samples)
    same_from_file(samples)


def test_sharegpt4v_by_hand(take, tiny, same_from_file):
    samples, dropped, reading = take("sharegpt4v", tiny / "sharegpt4v" / "sharegpt4v_made.json")
    first, second = samples
    assert [sample.id for sample in samples] == ["sharegpt4v-p1-0", "sharegpt4v-p1-1"], "an image comes twice, and so does its id"
    assert first.media.path == "coco/made/p1.jpg"
    assert texts(first) == [
        "What stands on the table?",
        "A lamp and two cups.",
        "Which colour is the lamp?",
        "It is green.\nThe cups are white.",
    ]
    assert texts(second)[0] == "Describe the picture."
    assert [(each.field, each.rule) for each in dropped] == [("", "media")] and reading.counts["dropped_by_rule"] == {"media": 1}
    same_from_file(samples)


def test_sharegpt_4o_of_images_and_videos_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("sharegpt-4o", tiny / "sharegpt-4o" / "gpt-4o.jsonl")
    assert [sample.media.path for sample in samples] == ["images/b0.jpg", "images/walk_[1-2].jpg", "videos/b2.mp4"]
    assert [sample.id for sample in samples] == ["sharegpt-4o-0-0", "sharegpt-4o-1-1", "sharegpt-4o-2-2"]
    assert [texts(sample)[0] for sample in samples] == ["What is this?", "What changes?", "Describe it."]
    assert samples[0].meta["size"] == [64, 48] and "size" not in samples[1].meta and not dropped
    same_from_file(samples)


def test_a_preference_gives_the_chosen_answer_and_keeps_the_other(take, tiny, same_from_file):
    samples, dropped, _ = take("llava-hound", tiny / "llava-hound" / "sft_dpo_made.jsonl")
    assert [sample.media.path for sample in samples] == ["made/girl_1/*", "made/goat.jpg", "made/kite.mp4"]
    assert texts(samples[0]) == ["What does the girl throw?", "She throws a red ball."]
    assert samples[0].meta["raw"]["rejected"] == "She throws a stick." and samples[0].meta["raw"]["chosen_score"] == 5
    assert texts(samples[2]) == ["Describe the clip.", "A kite falls into a tree."] and not dropped
    same_from_file(samples)


def turns(*said: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": role, "value": value} for role, value in said]


SAID = {"id": "x", "image": "a.jpg", "conversations": turns(("human", "<image>\nWho?"), ("gpt", "A cat."))}


@pytest.mark.parametrize(
    ("changed", "where", "field", "rule"),
    [
        ({"image": None}, "", "", "media"),
        ({"image": []}, "", "image", "media"),
        ({"image": ["a.jpg", "c.jpg"]}, "", "image", "several_images"),
        ({"image": ["x/1.jpg", "y/2.jpg"]}, "", "image", "several_images"),
        ({"image": ["2.jpg", "1.jpg"]}, "", "image", "several_images"),
        ({"image": ["5.jpg", "6.jpg", "8.jpg"]}, "", "image", "several_images"),
        ({"image": [f"{place}.jpg" for place in range(8, 12)]}, "", "image", "several_images"),
        ({"id": None}, "", "id", "text"),
        ({"conversations": []}, "", "conversations", "turns_some"),
        ({"conversations": "Who?"}, "", "conversations", "list"),
        ({"conversations": [1]}, ", conversations[0]", "", "object"),
        ({"conversations": turns(("system", "Be brief."))}, "", "conversations[0].from", "role_known"),
        ({"conversations": turns(("gpt", "A cat."))}, "", "conversations[0].from", "roles_alternate"),
        ({"conversations": turns(("human", "Who?"), ("human", "Say."))}, "", "conversations[1].from", "roles_alternate"),
        ({"conversations": turns(("human", " <image>\n"), ("gpt", "A cat."))}, "", "conversations[0].value", "words"),
        ({"conversations": turns(("human", "Who?"), ("gpt", ""))}, "", "conversations[1].value", "words"),
        ({"conversations": [{"from": "human"}]}, ", conversations[0]", "", "missing"),
    ],
)
def test_a_bad_conversation_is_named_and_the_others_go_on(take, tmp_path: Path, changed, where, field, rule):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (SAID, {**SAID, **changed}, SAID)))
    samples, dropped, _ = take("sharegpt-4o", path)
    assert [sample.id for sample in samples] == ["sharegpt-4o-x-0", "sharegpt-4o-x-2"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{path}, line 2{where}", field, rule)]


def test_markers_in_foreign_texts_are_no_markers(take, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**SAID, "conversations": turns(("human", "<prompt:0> <prompt:x"), ("gpt", "<region> it is."))}))
    assert texts(take("sharegpt-4o", path)[0][0]) == ["[prompt:0] [prompt:x", "[region] it is."]


def test_a_line_that_is_no_record_keeps_the_names_of_those_after_it(take, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([json.dumps(SAID), "{", json.dumps(SAID)]))
    samples, dropped, _ = take("sharegpt4v", path)
    assert [sample.id for sample in samples] == ["sharegpt4v-x-0", "sharegpt4v-x-2"] and [each.rule for each in dropped] == ["json"]


@pytest.mark.parametrize(
    ("changed", "field"), [({"chosen": ""}, "chosen"), ({"rejected": None}, "rejected"), ({"prompt": "<video>"}, "prompt")]
)
def test_half_a_preference_is_dropped(take, tmp_path: Path, changed, field):
    row = {"id": "d", "video": "v.mp4", "prompt": "Who?", "chosen": "A cat.", "rejected": "A dog."}
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(each) for each in ({**row, **changed}, row)))
    samples, dropped, _ = take("llava-hound", path)
    assert [sample.id for sample in samples] == ["llava-hound-d-1"]
    assert [(each.field, each.rule) for each in dropped] == [(field, "words")]


@pytest.mark.parametrize(
    ("images", "pattern"),
    [
        (["a/00009.jpg"], "a/00009.jpg"),
        (["./a/00001.jpg", "./a/00002.jpg", "./a/00003.jpg"], "a/0000[1-3].jpg"),
        ([f"a/q_7_{place}.png" for place in range(12)], "a/q_7_[0-9]*.png"),
        ([f"a/{place:02d}_7.png" for place in range(20, 24)], "a/2[0-3]_7.png"),
        (["b[1]/x1.png", "b[1]/x2.png"], "b[[]1]/x[1-2].png"),
    ],
)
def test_images_that_count_up_are_a_pattern(take, tmp_path: Path, images, pattern):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**SAID, "image": images}))
    (sample,), _, _ = take("sharegpt-4o", path)
    assert sample.media.path == pattern


def test_a_pattern_that_would_take_another_image_is_refused(take, tmp_path: Path):
    images = [f"a/q_{place}.png" for place in range(12)]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**SAID, "image": images}))
    (tmp_path / "a").mkdir()
    for name in images:
        (tmp_path / name).touch()
    assert take("sharegpt-4o", path)[0][0].media.path == "a/q_[0-9]*.png"
    (tmp_path / "a" / "q_12.png").touch()
    assert [each.rule for each in take("sharegpt-4o", path)[1]] == ["several_images"]


def test_a_pattern_shows_the_images_of_the_list(take, tmp_path: Path):
    image = pytest.importorskip("PIL.Image")
    from tpo_lab.video import open_source

    images = [f"a/q_{place}.png" for place in range(12)]
    (tmp_path / "a").mkdir()
    for name in images:
        image.new("RGB", (20, 12)).save(tmp_path / name)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**SAID, "image": images}))
    (sample,), _, _ = take("sharegpt-4o", path)
    assert list(open_source(sample.media_path).times_sec) == list(range(12))


def test_a_thousand_broken_conversations(withstands, tmp_path: Path):
    def put(line: bytes) -> Path:
        good = json.dumps({**SAID, "id": "good"}).encode()
        (tmp_path / "rows.jsonl").write_bytes(b"\n".join([good, line]))
        return tmp_path / "rows.jsonl"

    withstands("sharegpt-4o", put, {**SAID, "image": ["a/1.jpg", "a/2.jpg"]}, good=["sharegpt-4o-good-0"])
    preference = {"id": "d", "video": "v", "prompt": "Who?", "chosen": "A cat.", "rejected": "A dog."}
    withstands("llava-hound", put, preference, good=["llava-hound-good-0"], seed=1)


def test_a_thousand_broken_records_of_videochat2_it(withstands, tmp_path: Path):
    def put(row: bytes) -> Path:
        path = tmp_path / "set" / "train.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"[" + json.dumps(ASKED).encode() + b"," + row + b"]")
        return path

    withstands("videochat2-it", put, ASKED, good=["videochat2-it-set-train-0"])
