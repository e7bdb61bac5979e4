"""QVHighlights: values by hand, the real files, a round trip through the official scorer, and broken records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpo_lab.datasets.formats import format_named
from tpo_lab.errors import UsageError
from tpo_lab.sample import TemporalTarget
from tpo_lab.scoring import Request, score


def test_windows_and_saliency_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("qvhighlights", tiny / "qvhighlights" / "highlight_train_release.jsonl", split="train")
    first = samples[0]
    assert (first.id, first.split, first.media.path, first.media.end_sec) == ("qvhighlights-7", "train", "abc_0.0_20.0.mp4", None)
    assert first.targets.temporal.windows_sec == ((2.0, 6.0), (10.0, 12.0))
    assert first.targets.temporal.saliency.scores == (0, 0.75, 0.5, 0, 0, 1.0, 0, 0, 0, 0)
    assert first.targets.temporal.saliency.step_sec == 2.0
    assert '"A cat jumps."' in first.conversation[0].text and first.conversation[1].text == "<temporal>"
    assert not dropped
    same_from_file(samples)


def test_a_split_without_answers_has_questions_only(take, tmp_path: Path):
    path = tmp_path / "highlight_test_release.jsonl"
    path.write_text(json.dumps({"qid": 1, "query": "a dog", "duration": 150, "vid": "v"}) + "\n")
    (sample,), _, _ = take("qvhighlights", path)
    assert [turn.role for turn in sample.conversation] == ["user"] and not sample.targets.names


ROW = {
    "qid": 3,
    "query": "a dog",
    "duration": 20,
    "vid": "v",
    "relevant_windows": [[0, 4]],
    "relevant_clip_ids": [0, 1],
    "saliency_scores": [[4, 4, 4], [0, 1, 2]],
}


@pytest.mark.parametrize(
    ("changed", "field", "rule"),
    [
        ({"relevant_windows": [[4, 0]]}, "relevant_windows[0]", "window_order"),
        ({"relevant_windows": [[4, 4]]}, "relevant_windows[0]", "window_order"),
        ({"relevant_windows": [[-2, 4]]}, "relevant_windows", "window_in_video"),
        ({"relevant_windows": []}, "relevant_windows", "window_some"),
        ({"relevant_clip_ids": [0]}, "relevant_clip_ids", "lengths_equal"),
        ({"relevant_clip_ids": [0, 10]}, "relevant_clip_ids", "clip_in_video"),
        ({"saliency_scores": [[4, 4, 5], [0, 0, 0]]}, "saliency_scores", "score_range"),
        ({"saliency_scores": [[4, 4], [0, 0, 0]]}, "saliency_scores[0]", "numbers"),
        ({"duration": float("inf")}, "", "json"),
        ({"duration": "20"}, "duration", "number"),
        ({"query": "  "}, "query", "words"),
        ({"vid": None}, "vid", "words"),
    ],
)
def test_a_bad_row_is_named_and_the_others_go_on(take, tmp_path: Path, changed, field, rule):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ({**ROW, "qid": 1}, {**ROW, **changed}, {**ROW, "qid": 9})))
    samples, dropped, reading = take("qvhighlights", path)
    assert [sample.id for sample in samples] == ["qvhighlights-1", "qvhighlights-9"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{path}, line 2", field, rule)]
    assert reading.counts["dropped_by_rule"] == {rule: 1}


def test_clip_cuts_windows_at_the_end_of_the_video(take, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    row = {key: value for key, value in ROW.items() if key not in ("saliency_scores", "relevant_clip_ids")}
    path.write_text(json.dumps({**row, "relevant_windows": [[10, 21]]}))
    assert take("qvhighlights", path)[0][0].targets.temporal.windows_sec == ((10, 21),)
    samples, _, reading = take("qvhighlights", path, clip=True)
    assert samples[0].targets.temporal.windows_sec == ((10, 20),)
    assert reading.counts["adjusted"] == {"window cut at the end of its video": 1}


def test_the_truth_as_a_submission_scores_100(take, tiny, tmp_path: Path):
    path = tiny / "qvhighlights" / "highlight_train_release.jsonl"
    out = tmp_path / "submission.jsonl"
    assert format_named("qvhighlights").write(take("qvhighlights", path)[0], out) == 3
    metrics = score("qvhighlights", Request(out, path)).metrics
    assert metrics["MR-full-mIoU"] == metrics["MR-full-mAP"] == 100 and metrics["HL-min-VeryGood-Hit1"] > 0


def test_a_submission_keeps_the_scores_of_windows(take, tiny, tmp_path: Path):
    sample = take("qvhighlights", tiny / "qvhighlights" / "highlight_train_release.jsonl")[0][0]
    targets = sample.targets.model_copy(update={"temporal": TemporalTarget(windows_sec=((1.0, 2.0), (4.0, 6.0)))})
    answered = sample.model_copy(update={"targets": targets, "meta": {**sample.meta, "scores": [0.8, 0.1]}})
    format_named("qvhighlights").write([answered], tmp_path / "s.jsonl")
    row = json.loads((tmp_path / "s.jsonl").read_text())
    assert row["pred_relevant_windows"] == [[1.0, 2.0, 0.8], [4.0, 6.0, 0.1]] and "pred_saliency_scores" not in row


def test_a_sample_without_its_raw_record_cannot_be_submitted(say, tmp_path: Path):
    with pytest.raises(UsageError, match=r"sample s0, meta\.raw: expected the raw record with qid, query, vid"):
        format_named("qvhighlights").write([say(0, "When?")], tmp_path / "s.jsonl")


def test_a_thousand_broken_records_are_dropped_or_read(withstands, tmp_path: Path):
    def put(line: bytes) -> Path:
        first, last = (json.dumps({**ROW, "qid": f"good{place}"}).encode() for place in range(2))
        (tmp_path / "rows.jsonl").write_bytes(b"\n".join([first, line, last]))
        return tmp_path / "rows.jsonl"

    withstands("qvhighlights", put, ROW, good=["qvhighlights-good0", "qvhighlights-good1"])


@pytest.mark.parametrize(
    ("name", "count"), [("highlight_val_release", 1550), ("highlight_train_release.head200", 200), ("highlight_test_with_gt.head200", 200)]
)
def test_the_real_files_read_without_a_drop(real, take, same_from_file, name: str, count: int):
    samples, dropped, _ = take("qvhighlights", real / "qvhighlights" / f"{name}.jsonl")
    assert (len(samples), dropped) == (count, [])
    same_from_file(samples)
