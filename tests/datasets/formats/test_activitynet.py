"""ActivityNet Captions and TACoS, which share a form: values by hand, the real files, the official scorer, and broken videos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpo_lab.datasets.formats import format_named
from tpo_lab.errors import UsageError
from tpo_lab.scoring import Request, score

CAPTIONED = {"duration": 40.5, "timestamps": [[0, 12.25], [10, 20]], "sentences": ["One.", " Two."]}
COOKED = {"timestamps": [[50, 100], [75, 500]], "sentences": ["One.", "Two."], "fps": 25.0, "num_frames": 1000}


def test_activitynet_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("activitynet", tiny / "activitynet" / "val.json", split="val")
    assert not dropped
    assert [each.id for each in samples] == [f"activitynet-{name}" for name in ("v_abcDEF-0", "v_abcDEF-1", "v_ghi_JK-0")]
    assert [each.targets.temporal.windows_sec for each in samples] == [((0.0, 12.25),), ((10.0, 41.0),), ((3.5, 4.0),)]
    assert '"The painter rests."' in samples[1].conversation[0].text and samples[1].meta["raw"]["query"] == "  The painter rests.  "
    assert (samples[2].media.path, samples[2].meta["duration_sec"]) == ("v_ghi_JK.mp4", 12.0)
    same_from_file(samples)
    assert take("activitynet", tiny / "activitynet" / "val.json", clip=True)[0][1].targets.temporal.windows_sec == ((10.0, 40.5),)


def test_tacos_frames_are_seconds(take, tiny, same_from_file):
    samples, dropped, _ = take("tacos", tiny / "tacos" / "val.json")
    assert not dropped
    assert [each.id for each in samples] == ["tacos-s01-d02-0", "tacos-s01-d02-1", "tacos-s03-d04-0"]
    assert [each.targets.temporal.windows_sec for each in samples] == [((2.0, 4.0),), ((3.0, 20.0),), ((0.5, 2.0),)]
    assert [each.meta["duration_sec"] for each in samples] == [40.0, 40.0, 15.0]
    assert [each.media.path for each in samples[1:]] == ["s01-d02.avi", "s03-d04.avi"]
    same_from_file(samples)
    assert take("tacos", tiny / "tacos" / "val.json", variant="cam-002")[0][2].media.path == "s03-d04-cam-002.mp4"


@pytest.mark.parametrize(("form", "count"), [("activitynet", 3), ("tacos", 3)])
def test_the_truth_as_a_submission_scores_100(take, tiny, tmp_path: Path, form: str, count: int):
    path, out = tiny / form / "val.json", tmp_path / "submission.jsonl"
    assert format_named(form).write(take(form, path)[0], out) == count
    assert set(score(form, Request(out, path)).metrics.values()) == {100.0}


BOTH = [
    ({"timestamps": [[0, 1]]}, "", "sentences", "lengths_equal"),
    ({"sentences": ["One."]}, "", "sentences", "lengths_equal"),
    ({"sentences": None}, "", "sentences", "list"),
    ({"timestamps": [[5, 5], [1, 2]]}, ", sentences[0]", "timestamp[0]", "window_order"),
    ({"timestamps": [[5, 6], [3, 2]]}, ", sentences[1]", "timestamp[0]", "window_order"),
    ({"timestamps": [[5, 6], [-3, 2]]}, ", sentences[1]", "timestamp", "window_in_video"),
    ({"timestamps": [[5, 6], 7]}, ", sentences[1]", "timestamp[0]", "numbers"),
    ({"sentences": [" ", "Two."]}, ", sentences[0]", "query", "words"),
]


@pytest.mark.parametrize(
    ("form", "good", "changed", "inside", "field", "rule"),
    [("activitynet", CAPTIONED, *each) for each in [*BOTH, ({"duration": "40"}, ", sentences[0]", "duration", "number")]]
    + [("tacos", COOKED, *each) for each in [*BOTH, ({"fps": 0}, ", sentences[0]", "fps", "positive")]],
)
def test_what_is_bad_is_named_and_the_others_go_on(take, tmp_path: Path, form, good, changed, inside, field, rule):
    path = tmp_path / "val.json"
    path.write_text(json.dumps({"a": good, "b": {**good, **changed}, "c": good}))
    samples, dropped, _ = take(form, path)
    assert {f"{form}-{name}" for name in ("a-0", "a-1", "c-0", "c-1")} <= {each.id for each in samples}
    assert (dropped[0].where, dropped[0].field, dropped[0].rule) == (f"{path}, b{inside}", field, rule)
    kept = sum(each.id.startswith(f"{form}-b") for each in samples)
    assert kept == (1 if inside and len(dropped) == 1 else 0), "one bad sentence leaves the other; lists of two lengths leave none"


def test_a_length_that_no_video_has_is_refused(take, tmp_path: Path):
    path = tmp_path / "val.json"
    path.write_text(json.dumps({"a": {**COOKED, "num_frames": 1e300, "fps": 1e-300}}))
    assert {each.rule for each in take("tacos", path)[1]} == {"number"}


@pytest.mark.parametrize("form", ["activitynet", "tacos"])
def test_a_video_that_is_no_object_and_a_file_that_is_none(take, tmp_path: Path, form: str):
    path = tmp_path / "val.json"
    path.write_text(json.dumps({"a": [1], "b": COOKED | CAPTIONED}))
    samples, dropped, _ = take(form, path)
    assert len(samples) == 2 and [(each.where, each.rule) for each in dropped] == [(f"{path}, a", "object")]
    path.write_text("[]")
    with pytest.raises(UsageError, match="expected an object"):
        take(form, path)


@pytest.mark.parametrize(("form", "good"), [("activitynet", CAPTIONED), ("tacos", COOKED)])
def test_broken_videos_are_dropped_or_read(withstands, tmp_path: Path, form: str, good):
    def put(raw: bytes) -> Path:
        whole = json.dumps(good).encode()
        (tmp_path / "val.json").write_bytes(b'{"a": ' + whole + b', "b": ' + raw + b', "c": ' + whole + b"}")
        return tmp_path / "val.json"

    withstands(form, put, good, good=[f"{form}-{name}" for name in ("a-0", "a-1", "c-0", "c-1")])


@pytest.mark.parametrize(
    ("form", "name", "count", "cut"),
    [
        ("activitynet", "activitynet_captions/train.head150.json", 539, 1),
        ("activitynet", "activitynet_captions/val.head150.json", 540, 2),
        ("activitynet", "activitynet_captions/test.head150.json", 553, 0),
        ("activitynet", "activitynet_captions/activitynet_val_release.head400.jsonl", 400, 0),
        ("tacos", "tacos/train.head5.json", 729, 0),
        ("tacos", "tacos/val.head5.json", 773, 0),
        ("tacos", "tacos/test.head5.json", 757, 0),
        ("tacos", "tacos/tacos_val_release.head400.jsonl", 400, 0),
    ],
)
def test_the_real_files_read_without_a_drop_and_score_100(real, take, same_from_file, tmp_path: Path, form, name, count, cut):
    samples, dropped, _ = take(form, real / name)
    assert (len(samples), dropped) == (count, [])
    same_from_file(samples)
    assert take(form, real / name, clip=True)[2].counts["adjusted"] == ({"window cut at the end of its video": cut} if cut else {})
    format_named(form).write(samples, tmp_path / "s.jsonl")
    assert set(score(form, Request(tmp_path / "s.jsonl", real / name)).metrics.values()) == {100.0}


def test_tacos_rows_are_the_official_file_in_seconds(real, take):
    official, _, _ = take("tacos", real / "tacos" / "val.head5.json")
    rows, _, _ = take("tacos", real / "tacos" / "tacos_val_release.head400.jsonl")
    for one, other in zip(official, rows, strict=False):
        assert one.meta["raw"]["query"] == other.meta["raw"]["query"] and one.media == other.media
        assert one.targets.temporal.windows_sec[0] == pytest.approx(other.targets.temporal.windows_sec[0])
        assert one.meta["duration_sec"] == pytest.approx(other.meta["duration_sec"])
