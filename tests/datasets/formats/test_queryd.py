"""QuerYD: sentences and times by hand from pickles, and pickles that are broken or more than data."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest

from tpo_lab.errors import UsageError

GOOD = {"captions": [["a", "fox"], ["it", "runs"]], "times": [[1, 2.5], [3, 4]]}


def put(folder: Path, tables: dict[str, object], listed: str = "video-a\nvideo-b\nvideo-c\n") -> Path:
    for name in ("captions", "times"):
        prefix = {"captions": "raw", "times": "times"}[name]
        (folder / f"{prefix}_captions_combined_filtered-v2.pkl").write_bytes(pickle.dumps(tables[name], 2))
    (folder / "train_list.txt").write_text(listed)
    return folder / "train_list.txt"


def with_b(captions: object, times: object) -> dict[str, object]:
    return {
        name: {"video-a": GOOD[name], "video-b": value, "video-c": GOOD[name]} for name, value in (("captions", captions), ("times", times))
    }


def test_sentences_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("queryd", tiny / "queryd" / "train_list.txt", split="train")
    assert not dropped
    assert [each.id for each in samples] == ["queryd-aaa_1-0", "queryd-aaa_1-1", "queryd--bbb2-0"], "only what the list names"
    assert [each.targets.temporal.windows_sec for each in samples] == [((0.5, 2.25),), ((4.0, 9.5),), ((7.0, 8.0),)]
    assert '"a lamp is lit"' in samples[0].conversation[0].text
    assert (samples[2].media.path, samples[2].meta["raw"]["time"]) == ("-bbb2.mp4", [7.0, 8.0])
    same_from_file(samples)


def test_the_pickles_may_lie_elsewhere(take, tiny, tmp_path: Path):
    path = tmp_path / "val_list.txt"
    path.write_text("video-ccc3\n")
    with pytest.raises(UsageError, match=r"raw_captions_combined_filtered\*\.pkl.*--with captions=PATH"):
        take("queryd", path)
    side = {
        "captions": tiny / "queryd" / "raw_captions_combined_filtered-v2.pkl",
        "times": tiny / "queryd" / "times_captions_combined_filtered-v2.pkl",
    }
    assert [each.id for each in take("queryd", path, side=side)[0]] == ["queryd-ccc3-0"]


@pytest.mark.parametrize(
    ("captions", "times", "inside", "field", "rule"),
    [
        ([["a"]], [[1, 2], [3, 4]], "", "times", "lengths_equal"),
        ([["a"], ["b"]], [[1, 2]], "", "times", "lengths_equal"),
        ("a fox", [[1, 2]], "", "captions", "list"),
        ([["a"], ["b"]], [[1, 2], [4, 4]], ", captions[1]", "time[0]", "window_order"),
        ([["a"], ["b"]], [[5, 2], [3, 4]], ", captions[0]", "time[0]", "window_order"),
        ([["a"], ["b"]], [[-1, 2], [3, 4]], ", captions[0]", "time", "window_in_video"),
        ([["a"], ["b"]], [[1, "2"], [3, 4]], ", captions[0]", "time[0]", "numbers"),
        ([["a", 1], ["b"]], [[1, 2], [3, 4]], ", captions[0]", "caption", "texts"),
        ([[], ["b"]], [[1, 2], [3, 4]], ", captions[0]", "caption", "words"),
    ],
)
def test_what_is_bad_is_named_and_the_others_go_on(take, tmp_path: Path, captions, times, inside, field, rule):
    path = put(tmp_path, with_b(captions, times))
    samples, dropped, _ = take("queryd", path)
    good = [each.id for each in samples if not each.id.startswith("queryd-b")]
    assert good == ["queryd-a-0", "queryd-a-1", "queryd-c-0", "queryd-c-1"]
    assert len(samples) == len(good) + (1 if inside else 0)
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{path}, line 2, video-b{inside}", field, rule)]


def test_a_listed_video_that_no_pickle_has_is_named(take, tmp_path: Path):
    path = put(tmp_path, with_b([["a"]], [[1, 2]]), "video-a\nvideo-x\nvideo-\nother\n")
    samples, dropped, _ = take("queryd", path)
    assert len(samples) == 2 and [(each.where.split(", ")[-1], each.rule) for each in dropped] == [
        ("video-x", "missing"),
        ("video-", "missing"),
        ("other", "missing"),
    ]
    both = {name: {"other": value} for name, value in GOOD.items()}
    _, dropped, _ = take("queryd", put(tmp_path, both, "other\n"))
    assert {(each.field, each.rule) for each in dropped} == {("video", "video_id")}


def test_a_pickle_that_would_run_something_is_refused(take, tmp_path: Path):
    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "made"),))

    with pytest.raises(UsageError, match="mkdir"):
        take("queryd", put(tmp_path, {"captions": {"video-a": Attack()}, "times": {}}))
    assert not (tmp_path / "made").exists()
    with pytest.raises(UsageError, match="expected a dictionary by video"):
        take("queryd", put(tmp_path, {"captions": [], "times": {}}))


def test_broken_videos_are_dropped_or_read(withstands, tmp_path: Path):
    def broken(raw: bytes) -> Path:
        try:
            document = json.loads(raw)
            captions, times = document["captions"], document["times"]
        except (ValueError, TypeError, KeyError):
            captions = times = raw.decode("latin1")
        return put(tmp_path, with_b(captions, times))

    names = [f"queryd-{name}" for name in ("a-0", "a-1", "c-0", "c-1")]
    withstands("queryd", broken, GOOD, good=names)


def test_the_published_links_are_not_the_list(real, take, tiny, tmp_path: Path):
    folder = tmp_path / "queryd"
    shutil.copytree(tiny / "queryd", folder)
    path = folder / "train_list.txt"
    path.write_bytes((real / "queryd" / "relevant-video-links-v2.head100.txt").read_bytes())
    samples, dropped, reading = take("queryd", path)
    assert not samples and len(dropped) == 100 and reading.counts["dropped_by_rule"] == {"missing": 100}
