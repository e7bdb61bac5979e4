"""What formats of moments share: the JSONL rows of four data sets, and their way back to a score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpo_lab.datasets.formats import format_named
from tpo_lab.errors import UsageError
from tpo_lab.sample import TemporalTarget
from tpo_lab.scoring import Request, score

ROWS = {
    "charades-sta": ("charades-sta/charades_test_release.jsonl", "AB1CD.mp4"),
    "activitynet": ("activitynet/activitynet_val_release.jsonl", "v_abcDEF.mp4"),
    "tacos": ("tacos/tacos_val_release.jsonl", "s01-d02.avi"),
    "nlq": ("nlq/val.jsonl", "clip-1.mp4"),
}
ROW = {"qid": 3, "query": "a dog barks", "duration": 20.5, "vid": "v", "relevant_windows": [[1, 4]]}


@pytest.mark.parametrize("form", ROWS)
def test_rows_are_told_apart_by_their_suffix_and_score_100(form: str, take, tiny, same_from_file, tmp_path: Path):
    name, media = ROWS[form]
    samples, dropped, _ = take(form, tiny / name, split="val")
    assert (samples[0].media.path, samples[0].split, samples[0].source, dropped) == (media, "val", form, [])
    raw = samples[0].meta["raw"]
    assert samples[0].id == f"{form}-{raw['qid']}" and samples[0].meta["duration_sec"] == raw["duration"]
    assert [list(each) for each in samples[0].targets.temporal.windows_sec] == raw["relevant_windows"]
    same_from_file(samples)
    out = tmp_path / "submission.jsonl"
    assert format_named(form).write(samples, out) == len(samples)
    metrics = score(form, Request(out, tiny / name)).metrics
    assert set(metrics.values()) == {100.0}


@pytest.mark.parametrize("form", ROWS)
def test_an_answer_without_windows_is_a_miss(form: str, take, tiny, tmp_path: Path):
    path = tiny / ROWS[form][0]
    samples = [each.model_copy(update={"targets": type(each.targets)()}) for each in take(form, path)[0]]
    format_named(form).write(samples, tmp_path / "s.jsonl")
    report = score(form, Request(tmp_path / "s.jsonl", path))
    assert set(report.metrics.values()) == {0.0} and report.counts.unparsable == len(samples)


def test_windows_are_submitted_in_the_order_of_the_answer(take, tiny, tmp_path: Path):
    (sample,), _, _ = take("tacos", tiny / ROWS["tacos"][0])
    targets = sample.targets.model_copy(update={"temporal": TemporalTarget(windows_sec=((9.0, 12.0), (1.0, 2.0)))})
    answered = sample.model_copy(update={"targets": targets, "meta": {**sample.meta, "scores": [0.75, 0.5]}})
    format_named("tacos").write([answered], tmp_path / "s.jsonl")
    assert json.loads((tmp_path / "s.jsonl").read_text()) == {
        "qid": "s01-d02_0",
        "vid": "s01-d02",
        "query": "He washes a leek.",
        "pred_relevant_windows": [[9.0, 12.0, 0.75], [1.0, 2.0, 0.5]],
    }


@pytest.mark.parametrize("form", ["charades-sta", "activitynet", "tacos", "hirest", "nlq", "didemo"])
def test_a_sample_without_its_raw_record_cannot_be_submitted(form: str, say, tmp_path: Path):
    with pytest.raises(UsageError, match=r"sample s0, meta\.raw: expected the raw record"):
        format_named(form).write([say(0, "When?")], tmp_path / "s.jsonl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changed", "field", "rule"),
    [
        ({"relevant_windows": [[4, 1]]}, "relevant_windows[0]", "window_order"),
        ({"relevant_windows": [[4, 4]]}, "relevant_windows[0]", "window_order"),
        ({"relevant_windows": [[-1, 4]]}, "relevant_windows", "window_in_video"),
        ({"relevant_windows": []}, "relevant_windows", "window_some"),
        ({"relevant_windows": [[1, "4"]]}, "relevant_windows[0]", "numbers"),
        ({"duration": 0}, "duration", "positive"),
        ({"query": " "}, "query", "words"),
        ({"vid": 7}, "vid", "words"),
        ({"qid": None}, "qid", "text"),
        ({"qid": 1}, "id", "id_unique"),
    ],
)
@pytest.mark.parametrize("form", ROWS)
def test_a_bad_row_is_named_and_the_others_go_on(form: str, take, tmp_path: Path, changed, field, rule):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ({**ROW, "qid": 1}, {**ROW, **changed}, {**ROW, "qid": 9})))
    samples, dropped, _ = take(form, path)
    assert [sample.id for sample in samples] == [f"{form}-1", f"{form}-9"]
    assert [(each.where, each.field, each.rule) for each in dropped] == [(f"{path}, line 2", field, rule)]


def test_rows_without_windows_are_questions_only(take, tmp_path: Path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({key: value for key, value in ROW.items() if key != "relevant_windows"}))
    (sample,), _, _ = take("nlq", path)
    assert [turn.role for turn in sample.conversation] == ["user"] and not sample.targets.names


@pytest.mark.parametrize("form", ROWS)
def test_broken_rows_are_dropped_or_read(form: str, withstands, tmp_path: Path):
    def put(line: bytes) -> Path:
        first, last = (json.dumps({**ROW, "qid": f"good{place}"}).encode() for place in range(2))
        (tmp_path / "rows.jsonl").write_bytes(b"\n".join([first, line, last]))
        return tmp_path / "rows.jsonl"

    withstands(form, put, ROW, good=[f"{form}-good0", f"{form}-good1"], rounds=250)
