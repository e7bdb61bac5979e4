"""YouCook2: steps by hand, its splits in one document, and broken videos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpo_lab.errors import UsageError

FILE = Path("youcook2") / "youcookii_annotations_trainval.json"
VIDEO = {
    "duration": 100.5,
    "subset": "training",
    "recipe_type": "113",
    "annotations": [{"id": 0, "segment": [10, 25], "sentence": "peel it"}, {"id": 1, "segment": [30, 40], "sentence": "boil it"}],
}


def test_steps_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("youcook2", tiny / FILE)
    assert not dropped
    assert [each.id for each in samples] == ["youcook2-xxXX_1-0", "youcook2-xxXX_1-1", "youcook2-yyYY_2-0"]
    assert [each.targets.temporal.windows_sec for each in samples] == [((10.0, 25.0),), ((40.0, 101.0),), ((0.0, 5.0),)]
    assert [each.media.path for each in samples[1:]] == ["training/113/xxXX_1.mp4", "validation/205/yyYY_2.mp4"]
    assert [each.split for each in samples] == ["training", "training", "validation"] and samples[0].meta["duration_sec"] == 100.25
    assert '"grate the beetroot"' in samples[0].conversation[0].text
    same_from_file(samples)
    assert take("youcook2", tiny / FILE, clip=True)[0][1].targets.temporal.windows_sec == ((40.0, 100.25),)


@pytest.mark.parametrize(("split", "count"), [("training", 2), ("validation", 1)])
def test_a_split_is_read_alone(take, tiny, split: str, count: int):
    samples, _, reading = take("youcook2", tiny / FILE, split=split)
    assert len(samples) == reading.records == count and {each.split for each in samples} == {split}


@pytest.mark.parametrize(
    ("changed", "inside", "field", "rule"),
    [
        ({"annotations": None}, "", "annotations", "list"),
        ({"subset": "testing"}, ", annotations[0]", "subset", "subset"),
        ({"duration": -4}, ", annotations[0]", "duration", "positive"),
        ({"annotations": [7, VIDEO["annotations"][0]]}, ", annotations[0], annotation", "", "object"),
        ({"annotations": [{"segment": [5, 5], "sentence": "a"}]}, ", annotations[0], annotation", "segment[0]", "window_order"),
        ({"annotations": [{"segment": [5], "sentence": "a"}]}, ", annotations[0], annotation", "segment[0]", "numbers"),
        ({"annotations": [{"segment": [5, 6], "sentence": ""}]}, ", annotations[0], annotation", "sentence", "words"),
    ],
)
def test_what_is_bad_is_named_and_the_others_go_on(take, tmp_path: Path, changed, inside, field, rule):
    path = tmp_path / "youcookii.json"
    path.write_text(json.dumps({"database": {"a": VIDEO, "b": {**VIDEO, **changed}, "c": VIDEO}}))
    samples, dropped, _ = take("youcook2", path)
    assert {f"youcook2-{name}" for name in ("a-0", "a-1", "c-0", "c-1")} <= {each.id for each in samples}
    assert (dropped[0].where, dropped[0].field, dropped[0].rule) == (f"{path}, b{inside}", field, rule)


def test_a_document_without_a_database_is_refused(take, tmp_path: Path):
    path = tmp_path / "youcookii.json"
    path.write_text('{"annotations": []}')
    with pytest.raises(UsageError, match="database: expected an object"):
        take("youcook2", path)


def test_a_thousand_broken_videos_are_dropped_or_read(withstands, tmp_path: Path):
    def put(raw: bytes) -> Path:
        whole, path = json.dumps(VIDEO).encode(), tmp_path / "youcookii.json"
        path.write_bytes(b'{"database": {"a": ' + whole + b', "b": ' + raw + b', "c": ' + whole + b"}}")
        return path

    withstands("youcook2", put, VIDEO, good=[f"youcook2-{name}" for name in ("a-0", "a-1", "c-0", "c-1")])
