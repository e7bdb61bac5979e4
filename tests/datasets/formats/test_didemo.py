"""DiDeMo: annotators as windows by hand, the ranking, the official scorer, the real files, and broken records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpo_lab.datasets.formats import format_named
from tpo_lab.metrics.segments import segment_scores
from tpo_lab.sample import Targets, TemporalTarget
from tpo_lab.scoring import Request, score

FILE = Path("didemo") / "val_data.json"
RECORD = {"num_segments": 6, "description": "a goat", "times": [[1, 1], [1, 2], [1, 1], [1, 1]], "video": "v.mov", "annotation_id": 5}
RUNS = [(first, last) for first in range(6) for last in range(first, 6)]


@pytest.mark.parametrize(
    ("variant", "windows"),
    [
        ("", [((5.0, 10.0),), ((20.0, 25.0),), ((0.0, 15.0),)]),
        ("best", [((5.0, 10.0),), ((20.0, 25.0),), ((0.0, 15.0),)]),
        ("all", [((5.0, 10.0), (0.0, 20.0)), ((20.0, 25.0), (15.0, 25.0)), ((0.0, 10.0), (0.0, 15.0), (5.0, 15.0), (10.0, 30.0))]),
        # (0.75, 1.5), (3.8, 4) and (0.75, 2.5) segments; halves go to the even second
        ("mean", [((4.0, 12.0),), ((19.0, 25.0),), ((4.0, 18.0),)]),
    ],
)
def test_annotators_as_windows_by_hand(take, tiny, same_from_file, variant, windows):
    samples, dropped, _ = take("didemo", tiny / FILE, variant=variant, split="val")
    assert [each.targets.temporal.windows_sec for each in samples] == windows and not dropped
    assert [each.id for each in samples] == ["didemo-31", "didemo-32", "didemo-33"]
    assert samples[1].media.path == "4@N00_5_6.m4v" and [each.meta["duration_sec"] for each in samples] == [30.0, 25.0, 30.0]
    assert samples[2].meta["raw"]["times"] == [[0, 1], [0, 2], [1, 2], [2, 5]], "every annotator is kept"
    same_from_file(samples)


def test_the_best_window_is_the_best_that_the_official_measure_knows(real, take):
    samples, _, _ = take("didemo", real / "didemo" / "val_data.head400.json")
    for each in samples[:100]:
        (window,) = each.targets.temporal.windows_sec
        own = (int(window[0] / 5), int(window[1] / 5) - 1)
        ious = {run: segment_scores([run, *RUNS], each.meta["raw"]["times"])[1] for run in RUNS}
        assert ious[own] == pytest.approx(max(ious.values()))


def test_where_annotators_agree_the_truth_as_a_submission_scores_100(take, tiny, tmp_path: Path):
    rows = json.loads((tiny / FILE).read_text())[:2]
    path, out = tmp_path / "val_data.json", tmp_path / "submission.jsonl"
    path.write_text(json.dumps(rows))
    assert format_named("didemo").write(take("didemo", path)[0], out) == 2
    assert score("didemo", Request(out, path)).metrics == {"rank@1": 100, "rank@5": 100, "mIoU": 100}


def test_where_they_do_not_the_score_is_the_official_one(take, tiny, tmp_path: Path):
    out = tmp_path / "submission.jsonl"
    format_named("didemo").write(take("didemo", tiny / FILE)[0], out)
    # the third: (0, 2) with (0, 1), (0, 2) and (1, 2)
    assert score("didemo", Request(out, tiny / FILE)).metrics["mIoU"] == pytest.approx(100 * (2 + (2 / 3 + 1 + 2 / 3) / 3) / 3)


def test_the_ranking_begins_with_the_answers_in_their_order(take, tiny, tmp_path: Path):
    sample = take("didemo", tiny / FILE)[0][0]
    temporal = TemporalTarget(windows_sec=((11.0, 19.0), (0.0, 5.0)))
    several = sample.model_copy(update={"targets": Targets(temporal=temporal)})
    nothing = sample.model_copy(update={"targets": Targets()})
    format_named("didemo").write([several, nothing], tmp_path / "s.jsonl")
    first, second = (json.loads(line)["segments"] for line in (tmp_path / "s.jsonl").read_text().splitlines())
    # by IoU with 11-19 s: (2, 3) 8/10, (2, 2) 4/9, then runs around it, and what does not touch it by the second window, then by distance
    assert first[:3] == [[2, 3], [1, 3], [2, 4]]
    assert first.index([0, 0]) < first.index([1, 1]) < first.index([5, 5])
    assert sorted(first) == sorted(second) == sorted(map(list, RUNS)) and second[0] == [5, 5]


@pytest.mark.parametrize(
    ("changed", "field", "rule"),
    [
        ({"times": [[1, 6]]}, "times", "segment_in_video"),
        ({"times": [[-1, 1]]}, "times", "segment_in_video"),
        ({"times": [[0.5, 1]]}, "times", "segment_in_video"),
        ({"times": [[2, 1]]}, "times[0]", "window_order"),
        ({"times": []}, "times", "window_some"),
        ({"num_segments": 5, "times": [[5, 5]]}, "times", "segment_in_video"),
        ({"num_segments": 7}, "num_segments", "segment_count"),
        ({"num_segments": 5.5}, "num_segments", "integer"),
        ({"description": ""}, "description", "words"),
        ({"video": None}, "video", "words"),
        ({"annotation_id": [1]}, "annotation_id", "text"),
    ],
)
def test_a_bad_record_is_named_and_the_others_go_on(take, tmp_path: Path, changed, field, rule):
    path = tmp_path / "val_data.json"
    path.write_text(json.dumps([RECORD, {**RECORD, "annotation_id": 6, **changed}, {**RECORD, "annotation_id": 7}]))
    samples, dropped, _ = take("didemo", path)
    assert [each.id for each in samples] == ["didemo-5", "didemo-7"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{path}, [1]", field, rule)]


@pytest.mark.parametrize("variant", ["best", "all", "mean"])
def test_broken_records_are_dropped_or_read(withstands, tmp_path: Path, variant: str):
    def put(raw: bytes) -> Path:
        first, last = (json.dumps({**RECORD, "annotation_id": name}).encode() for name in ("x", "y"))
        (tmp_path / "val_data.json").write_bytes(b"[" + first + b", " + raw + b", " + last + b"]")
        return tmp_path / "val_data.json"

    withstands("didemo", put, RECORD, good=["didemo-x", "didemo-y"], rounds=1000 if variant == "best" else 100, variant=variant)


@pytest.mark.parametrize(("name", "count"), [("val_data.head400", 400), ("test_data.head200", 200)])
def test_the_real_files_read_without_a_drop(real, take, same_from_file, tmp_path: Path, name: str, count: int):
    path, found = real / "didemo" / f"{name}.json", {}
    for variant in ("best", "all", "mean"):
        samples, dropped, _ = take("didemo", path, variant=variant)
        assert (len(samples), dropped) == (count, [])
        same_from_file(samples)
        format_named("didemo").write(samples, tmp_path / "s.jsonl")
        found[variant] = score("didemo", Request(tmp_path / "s.jsonl", path)).metrics
    # what annotators agree on is the most that one answer can score
    assert found["best"]["mIoU"] >= found["all"]["mIoU"] >= found["mean"]["mIoU"] and found["best"]["mIoU"] > 90
