"""Scores of files: perfect predictions, official numbers, ids that do not fit, and files that are broken."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tpo_lab.errors import UsageError
from tpo_lab.files import read_json
from tpo_lab.scoring import BENCHMARKS, Report, Request, choices, score

ROOT = Path(__file__).parents[2]

MOMENTS = [[first, last] for first in range(6) for last in range(first, 6)]
TRUE_ROWS = [
    {"qid": 1, "vid": "a", "query": "x", "duration": 20, "relevant_windows": [[0, 4], [10, 16]], "relevant_clip_ids": [0, 1, 5, 6, 7]},
    {"qid": 2, "vid": "b", "query": "y", "duration": 50, "relevant_windows": [[10, 44]], "relevant_clip_ids": list(range(5, 22))},
    {"qid": 3, "vid": "b", "query": "z", "duration": 50, "relevant_windows": [[10, 30]], "relevant_clip_ids": list(range(5, 15))},
]
TRUE_ROWS = [{**row, "saliency_scores": [[4, 4, 4]] * len(row["relevant_clip_ids"])} for row in TRUE_ROWS]


def perfect(row: dict) -> dict:
    scores = [float(clip in row["relevant_clip_ids"]) for clip in range(row["duration"] // 2)]
    return {
        "qid": row["qid"],
        "pred_relevant_windows": [[*window, 1.0] for window in row["relevant_windows"]],
        "pred_saliency_scores": scores,
    }


@pytest.fixture
def put(tmp_path: Path):
    """Writes a file: JSONL from a list for .jsonl, the text itself, or JSON."""

    def write(name: str, content) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jsonl"):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def asked(benchmark: str, pred: Path, gt: Path, **options) -> Report:
    return score(benchmark, Request(pred, gt, **options))


def test_perfect_qvhighlights_is_100_in_any_order(put):
    gt, rows = put("gt.jsonl", TRUE_ROWS), [perfect(row) for row in TRUE_ROWS]
    report = asked("qvhighlights", put("pred.jsonl", rows[::-1]), gt)
    assert report.metrics == {**dict.fromkeys(report.metrics, 100.0)} and len(report.metrics) == 16
    assert report.to_dict()["counts"] == {"predictions": 3, "ground_truth": 3, "missing": 0, "extra": 0, "unparsable": 0}


def test_qvhighlights_takes_one_task_alone(put):
    rows = [{"qid": row["qid"], "pred_saliency_scores": [0.0, 1.0]} for row in TRUE_ROWS]
    metrics = asked("qvhighlights", put("pred.jsonl", rows), put("gt.jsonl", TRUE_ROWS)).metrics
    assert len(metrics) == 6 and metrics["HL-min-VeryGood-Hit1"] == pytest.approx(33.33)


def test_bootstrap_holds_the_metric(put):
    report = asked("qvhighlights", put("p.jsonl", map(perfect, TRUE_ROWS)), put("g.jsonl", TRUE_ROWS), bootstrap=20)
    assert report.detail["intervals"]["MR-full-mAP"] == [100.0, 100.0] and report.options["bootstrap"] == 20


CHARADES = "AO8RW 0.0 10.0##a person sits.\nAO8RW 2.0 6.0##a person ## stands.\n"
TRUTHS = {
    "txt": CHARADES,
    "json": {"v_a": {"duration": 9, "timestamps": [[0, 10], [2, 6]], "sentences": [" one", "two"]}},
    "jsonl": [{"qid": 0, "relevant_windows": [[0, 10]]}, {"qid": 1, "relevant_windows": [[2, 6]]}],
}


@pytest.mark.parametrize("form", TRUTHS)
def test_timechat_form_meets_every_form_of_truth(put, form: str):
    pred = put("pred.json", {"1": {"timestamp": [[2, 6], [0, 1]]}, "0": {"timestamp": [[0, 5]]}})
    metrics = asked("charades-sta", pred, put(f"gt.{form}", TRUTHS[form])).metrics
    assert metrics == {"R1@0.3": 100.0, "R1@0.5": 100.0, "R1@0.7": 50.0, "mIoU": 75.0}


def test_no_window_is_a_miss_in_the_denominator(put):
    pred = put("pred.json", {"1": {"timestamp": []}, "0": {"timestamp": [[0, 10]]}})
    report = asked("activitynet", pred, put("gt.json", TRUTHS["json"]))
    assert (report.metrics["mIoU"], report.counts.unparsable) == (50.0, 1)


def test_tacos_frames_become_seconds_and_rows_are_found_by_text(put):
    gt = put("gt.json", {"s1-d2.avi": {"timestamps": [[20, 40]], "sentences": ["Cuts  bread."], "fps": 2.0, "num_frames": 99}})
    pred = put("pred.jsonl", [{"qid": "any", "vid": "s1-d2", "query": "Cuts bread.", "pred_relevant_windows": [[10, 20, 0.5]]}])
    assert asked("tacos", pred, gt).metrics["mIoU"] == 100.0


@pytest.mark.parametrize("sentences", [None, "one", ["one", 2]])
def test_sentences_that_are_none(put, sentences):
    gt = put("gt.json", {"v": {"timestamps": [[0, 10], [2, 6]], "sentences": sentences}})
    with pytest.raises(UsageError, match="key v, sentences: expected a list of texts, got"):
        asked("activitynet", put("pred.json", {"0": {"timestamp": [[0, 10]]}}), gt)


def test_hirest_scores_clips_only_and_an_exact_half_is_no_hit(put):
    entry = {"relevant": True, "v_duration": 40, "bounds": [0, 10]}
    gt = put("gt.json", {"Make tea": {"v.mp4": {**entry, "clip": True}, "w.mp4": {**entry, "clip": False}}})
    metrics = asked("hirest", put("pred.json", {"Make tea": {"v.mp4": {"bounds": [0, 5]}}}), gt).metrics
    assert metrics["R1@0.5"] == 0.0 and metrics["R1@0.3"] == 100.0 and metrics["mIoU"] == pytest.approx(50)


def test_nlq_is_strict_and_looks_at_five(put):
    query = {"query": "where?", "clip_start_sec": 0, "clip_end_sec": 10}
    annotation = {"annotation_uid": "n", "language_queries": [query, {"query": None}]}
    gt = put("gt.json", {"videos": [{"clips": [{"clip_uid": "c", "annotations": [annotation]}]}]})
    row = {"clip_uid": "c", "annotation_uid": "n", "query_idx": 0, "predicted_times": [[0, 5], [0, 9]]}
    metrics = asked("nlq", put("pred.json", {"version": "1.0", "results": [row]}), gt).metrics
    assert metrics == {"R1@0.3": 100.0, "R5@0.3": 100.0, "R1@0.5": 0.0, "R5@0.5": 100.0, "mIoU": 50.0}


def test_didemo_in_the_order_of_the_truth_or_by_id(put):
    gt = put("gt.json", [{"annotation_id": 7, "times": [[0, 0]] * 3 + [[5, 5]]}])
    for name, content in (("list.json", [MOMENTS]), ("map.json", {"7": MOMENTS})):
        assert asked("didemo", put(name, content), gt).metrics == {"rank@1": 100.0, "rank@5": 100.0, "mIoU": 100.0}


def test_refcoco_threshold_and_misses(put):
    truth = [{"id": n, "bbox": [0, 0, 10, 10], "dataset_name": name} for n, name in enumerate(("val", "val", "testA"))]
    boxes = [[0, 0, 10, 5], None, [0, 0, 10, 10]]
    pred, gt = put("p.jsonl", [{"id": n, "pred_bbox": each} for n, each in enumerate(boxes)]), put("g.jsonl", truth)
    report = asked("refcoco", pred, gt)
    assert report.metrics == pytest.approx({"Acc@0.5": 200 / 3, "mIoU": 50.0})
    assert (report.detail["Acc@0.5"], report.counts.unparsable) == ({"testA": 100.0, "val": 50.0}, 1)
    assert asked("refcoco", pred, gt, variant="strict").metrics["Acc@0.5"] == pytest.approx(100 / 3)


def nextgqa_files(put) -> dict:
    csv = "video_id,question,answer,qid,type,a0,a1\n9,why,yes,1,CW,no,yes\n9,when,no,2,TP,no,yes\n9,what,no,3,DO,no,yes\n"
    qa = {"9_1": {"answer": 1, "prediction": 1}, "9_2": {"answer": 0, "prediction": 1}, "9_3": {"answer": 0, "prediction": 0}}
    return {"gt_qa": put("test.csv", csv), "pred_qa": put("qa.json", qa)}


def test_nextgqa_asks_for_answer_and_grounding(put):
    gt = put("gsub.json", {"9": {"duration": 20, "location": {"1": [[0, 10]], "2": [[0, 10]]}}})
    pred = put("ground.json", {"9_1": [0, 4], "9_2": [9, 9]})
    metrics = asked("nextgqa", pred, gt, **nextgqa_files(put)).metrics
    assert metrics == {
        "Acc@QA": pytest.approx(200 / 3), "Acc@GQA": 50.0,
        "mIoP": 100.0, "IoP@0.3": 100.0, "IoP@0.5": 100.0, "mIoU": 20.0, "IoU@0.3": 50.0, "IoU@0.5": 0.0,
    }  # fmt: skip
    shares = put("gs.json", {"9_1": [0, 0.2], "9_2": [0.45, 0.45]})
    assert asked("nextgqa", shares, gt, variant="gaussian", **nextgqa_files(put)).metrics == metrics


def test_nextgqa_needs_its_answers(put):
    path = put("x.json", {})
    with pytest.raises(UsageError, match="--pred-qa: expected a file, which nextgqa needs, got None"):
        asked("nextgqa", path, path)


QUESTIONS = [
    {"id": "a", "task_type": "count", "answer": "B"},
    {"id": "b", "task_type": "count", "answer": "dog", "candidates": ["cat", "dog"]},
    {"id": "c", "task_type": "order", "answer": "A"},
]


@pytest.mark.parametrize(
    ("benchmark", "official", "strict", "unread"),
    [
        ("mvbench", 100 / 3, 100 / 3, 1),
        ("video-mme", 50.0, 100 / 3, 1),
        ("mlvu", 25.0, 25.0, 1),
        ("mmiu", 25.0, 25.0, 1),
        ("seed-bench-2", 100 / 3, 100 / 3, 1),
    ],
)
def test_averages_of_questions(put, benchmark: str, official: float, strict: float, unread: int):
    gt, pred = put("gt.json", QUESTIONS), put("pred.json", {"a": "B", "b": "A", "c": "none"})
    report = asked(benchmark, pred, gt)
    assert (report.metrics["Avg"], report.detail["parse_failures"]) == (pytest.approx(official), unread)
    assert asked(benchmark, pred, gt, variant="strict").metrics["Avg"] == pytest.approx(strict)
    assert report.metrics["count"] == 50.0 and report.detail["counts"] == {"count": 2, "order": 1}


def test_a_prediction_file_is_read_once_and_ids_that_come_twice_are_named(put, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    monkeypatch.setattr(choices, "read_json", lambda path, **options: (opened.append(path.name), read_json(path, **options))[1])
    gt, rows = put("gt.json", QUESTIONS), [{"id": row["id"], "pred": "A"} for row in QUESTIONS]
    for name, pred in (("map.json", {"a": "A", "b": "A", "c": "A"}), ("rows.json", rows)):
        assert asked("mlvu", put(name, pred), gt).metrics["order"] == 100.0
    assert opened == ["gt.json", "map.json", "gt.json", "rows.json"]
    for name, both in (("gt.json", (rows, QUESTIONS * 2)), ("p.json", (rows * 2, QUESTIONS))):
        with pytest.raises(UsageError, match=rf"{name}, \[3\]: expected an id that is not yet taken at .*{name}, \[0\], got 'a'"):
            asked("mlvu", put("p.json", both[0]), put("gt.json", both[1]))


def test_video_mme_template_with_trailing_commas_and_durations(put):
    question = '{"question_id": "1", "task_type": "T", "answer": "C", "response": "C.",}'
    text = f'[{{"video_id": "001", "duration": "short", "questions": [{question},]}},]'
    report = asked("video-mme", put("p.json", text), put("g.json", text))
    assert (report.metrics["Avg"], report.detail["duration"]) == (100.0, {"short": 100.0})


def test_questions_of_a_folder_by_video_and_question_or_by_place(put, tmp_path: Path):
    rows = [{"video": "1.mp4", "question": "How many?", "candidates": ["1", "2"], "answer": "2"}]
    put("gt/count.json", rows), put("gt/order.json", [{**rows[0], "answer": "1"}])
    named = [{"video": "x/1.mp4", "question": "Question: How many?\nOptions:\n(A) 1", "pred": "(B", "gt": "(B) 2"}]
    assert asked("mvbench", put("named.json", {"res_list": named}), tmp_path / "gt", allow_missing=True).metrics["count"] == 100.0
    placed = [{"pred": "(B)", "gt": "(B) 2"}, {"pred": "(B)", "gt": "(A) 1"}]
    assert asked("mvbench", put("placed.json", {"res_list": placed}), tmp_path / "gt").metrics == {
        "Avg": 50.0,
        "count": 100.0,
        "order": 0.0,
    }
    with pytest.raises(UsageError, match=r"placed.json, \[0\], gt: expected the answer B"):
        asked("mvbench", put("placed.json", {"res_list": placed[::-1]}), tmp_path / "gt")


def test_lasot_folders_and_got10k_frames(put, tmp_path: Path):
    put("annos/cat-1.txt", "10,20,4,5\n" * 4), put("annos/absent/cat-1.txt", "0\n0\n0\n1\n"), put("pred/cat-1.txt", "10\t20\t4\t5\n" * 4)
    assert asked("lasot", tmp_path / "pred", tmp_path / "annos").metrics["P"] == 75.0
    assert asked("lasot", tmp_path / "pred", tmp_path / "annos", variant="got10k").metrics["P"] == 100.0
    for name, frames in (("V1", 3), ("V2", 11)):
        put(f"got/{name}/groundtruth.txt", "1,1,4,4\n" * frames), put(f"got/{name}/cover.label", "8\n" * frames)
        put(f"got/{name}/meta_info.ini", "[METAINFO]\nresolution: (64, 48)\n")
        put(f"run/{name}/{name}_001.txt", ("1,1,4,4\n" if name == "V1" else "40,30,4,4\n") * frames)
    # two counted frames against ten: videos do not weigh the same
    assert asked("got10k", tmp_path / "run", tmp_path / "got").metrics == pytest.approx(dict.fromkeys(("AO", "SR@0.5", "SR@0.75"), 100 / 6))


@pytest.mark.parametrize("missing", ["full_occlusion.txt", "out_of_view.txt"])
def test_lasot_without_its_flags_says_which_file(put, tmp_path: Path, missing: str):
    put("pred/cat-1.txt", "10,20,4,5\n" * 2)
    for name, text in (("groundtruth.txt", "10,20,4,5\n" * 2), ("full_occlusion.txt", "0,0"), ("out_of_view.txt", "0,0")):
        if name != missing:
            put(f"root/cat-1/{name}", text)
    with pytest.raises(UsageError, match=rf"cat-1.{missing}: expected a file, got 'nothing of that name'"):
        asked("lasot", tmp_path / "pred", tmp_path / "root")


def test_lasot_root_holds_sequences_by_class_and_images_are_not_looked_at(put, tmp_path: Path):
    put("pred/cat-1.txt", "10,20,4,5\n" * 2), put("root/cat/cat-1/img/groundtruth.txt", "")
    for name, text in (("groundtruth", "10,20,4,5\n" * 2), ("full_occlusion", "0,0"), ("out_of_view", "0,0")):
        put(f"root/cat/cat-1/{name}.txt", text)
    for root in ("root", "root/cat", "root/cat/cat-1"):
        assert asked("lasot", tmp_path / "pred", tmp_path / root).metrics["P"] == 100.0


@pytest.mark.parametrize("benchmark", ["lasot", "got10k"])
def test_a_file_in_place_of_a_folder_of_tracks_is_named(put, tmp_path: Path, benchmark: str):
    put("gt/V/groundtruth.txt", "1,1,4,4\n" * 2)
    with pytest.raises(UsageError, match=r"V.txt: expected a folder, got 'a file'"):
        asked(benchmark, put("V.txt", "1,1,4,4\n" * 2), tmp_path / "gt")


def test_lasot_intervals_are_over_videos(put, tmp_path: Path):
    for name, flags in (("cat-1", "0\n0\n0\n1\n"), ("cat-2", "0\n0\n0\n0\n")):
        put(f"annos/{name}.txt", "10,20,4,5\n" * 4), put(f"annos/absent/{name}.txt", flags), put(f"pred/{name}.txt", "10,20,4,5\n" * 4)
    report = asked("lasot", tmp_path / "pred", tmp_path / "annos", bootstrap=200)
    assert (report.metrics["P"], report.detail["intervals"]["P"]) == (87.5, [75.0, 100.0])
    assert report.detail["videos"]["cat-1"]["P"] == 75.0


def test_missing_and_extra_ids_are_listed_and_counted(put):
    truth = [{"qid": n, "relevant_windows": [[0, 4]]} for n in range(20)]
    gt, pred = put("gt.jsonl", truth), put("pred.json", {"0": {"timestamp": [[0, 4]]}, "x": {"timestamp": [[0, 4]]}})
    with pytest.raises(
        UsageError, match=r"every query of gt.jsonl, got 19 missing: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 9 more.*--allow-missing"
    ):
        asked("charades-sta", pred, gt)
    with pytest.raises(UsageError, match=r"no other query of gt.jsonl, got 1 extra: x\."):
        asked("charades-sta", pred, put("gt.jsonl", truth[:1]))
    report = asked("charades-sta", pred, put("gt.jsonl", truth), allow_missing=True)
    assert (report.metrics["mIoU"], report.counts.missing, report.counts.extra) == (100.0, 19, 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"qid": 1, "pred_relevant_windows": [[0, 4, 1.0]', r"bad.jsonl, line 1: expected a JSON object"),
        (
            '{"qid": 1, "pred_relevant_windows": [[0, NaN, 1.0]]}',
            r"line 1, pred_relevant_windows\[0\]: expected 3 finite numbers, got \[0, nan, 1",
        ),
        ('{"qid": 1, "pred_relevant_windows": [[0, 4]]}', r"pred_relevant_windows\[0\]: expected 3 finite numbers, got \[0, 4\]"),
        ('{"qid": 1, "pred_saliency_scores": [0.5, "x"]}', r"pred_saliency_scores\[1\]: expected a finite number, got 'x'"),
        ('{"qid": 1, "windows": []}', r"line 1: expected the field 'pred_relevant_windows' or"),
        ('{"qid": 1}\n{"qid": 1}', r"line 2: expected an id that is not yet taken at .*line 1, got '1'"),
        ('{"vid": 1}', r"line 1: expected the field 'qid', got \['vid'\]"),
        ('{"qid": [1]}', r"line 1, qid: expected a text, got \[1\]"),
        ("[1]", r"line 1: expected an object with fields, got \[1\]"),
    ],
)
def test_broken_rows_are_named(put, tmp_path: Path, line: str, message: str):
    pred = tmp_path / "bad.jsonl"
    pred.write_text(line)
    with pytest.raises(UsageError, match=message):
        asked("qvhighlights", pred, put("gt.jsonl", TRUE_ROWS[:1]))


def test_broken_tables_and_texts_are_named(put, tmp_path: Path):
    with pytest.raises(UsageError, match=r"gt.txt, line 1: expected start and end in seconds, got 'V a 3'"):
        asked("charades-sta", put("p.json", {"0": {"timestamp": []}}), put("gt.txt", "V a 3##x\n"))
    put("annos/a.txt", "1,1,2,2\n"), put("annos/absent/a.txt", "0\n"), put("pred/a.txt", "1,1,2\n")
    with pytest.raises(UsageError, match=r"a.txt, line 1: expected 4 numbers, got '1,1,2'"):
        asked("lasot", tmp_path / "pred", tmp_path / "annos")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9")
    with pytest.raises(UsageError, match=r"latin.jsonl: expected UTF-8 text, got 'byte 0 is none'"):
        asked("qvhighlights", tmp_path / "latin.jsonl", put("gt.jsonl", TRUE_ROWS))


@pytest.mark.parametrize(
    ("benchmark", "predicted", "truth", "message"),
    [
        ("nlq", [], {"videos": None}, r"gt.json, videos: expected a list of records, got None"),
        ("nlq", [], {"videos": [["word"] * 30]}, r"gt.json, videos\[0\]: expected an object with fields, got 'list'"),
        ("nlq", [], ["word"] * 30, r"gt.json: expected an object with fields, got 'list'"),
        ("charades-sta", {"0": {"timestamp": []}}, {"annotations": None}, r"gt.json, annotations: expected a list of records, got None"),
        ("mvbench", 3, QUESTIONS, r"pred.json: expected a list of records, got 3"),
        ("mvbench", {"count": {"a": "B"}}, QUESTIONS, r"pred.json, key count: expected a list of rows, got 'dict'"),
    ],
)
def test_documents_of_another_type_are_named_without_their_content(put, benchmark: str, predicted, truth, message: str):
    with pytest.raises(UsageError, match=message):
        asked(benchmark, put("pred.json", predicted), put("gt.json", truth))


def test_truth_without_a_window_is_named(put):
    rows = [{"qid": 1, "relevant_windows": [[0, 4]]}, {"qid": 2, "relevant_windows": []}]
    preds = [{"qid": n, "pred_relevant_windows": [[0, 4]]} for n in (1, 2)]
    scored = [{**row, "pred_relevant_windows": [[0, 4, 1.0]]} for row in preds]
    gt, pred = put("gt.jsonl", rows), put("p.jsonl", preds)
    for benchmark, predicted in (("charades-sta", pred), ("nlq", pred), ("qvhighlights", put("scored.jsonl", scored))):
        with pytest.raises(UsageError, match=r"gt.jsonl, line 2, relevant_windows: expected one or more windows, got \[\]"):
            asked(benchmark, predicted, gt)
    gsub = put("gsub.json", {"9": {"duration": 20, "location": {"1": [[0, 10]], "2": []}}})
    with pytest.raises(UsageError, match=r"key 9, location 2, spans: expected one or more windows, got \[\]"):
        asked("nextgqa", put("ground.json", {"9_1": [0, 4], "9_2": [9, 9]}), gsub, **nextgqa_files(put))


def with_mark(path: Path) -> Path:
    """The file with a byte order mark in front, as some editors write it."""
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return path


def test_byte_order_marks_are_no_text(put, tmp_path: Path):
    pred = put("p.json", {"0": {"timestamp": [[0, 10]]}, "1": {"timestamp": [[2, 6]]}})
    assert asked("charades-sta", with_mark(pred), with_mark(put("gt.txt", CHARADES))).metrics["mIoU"] == 100.0
    for name in ("cat-1", "cat-2"):
        put(f"root/{name}/groundtruth.txt", "10,20,4,5\n" * 2), put(f"pred/{name}.txt", "10,20,4,5\n" * 2)
        for flags in ("full_occlusion", "out_of_view"):
            with_mark(put(f"root/{name}/{flags}.txt", "0,0"))
    with_mark(put("root/testing_set.txt", "cat-1\n"))
    assert asked("lasot", tmp_path / "pred", tmp_path / "root", allow_missing=True).counts.ground_truth == 1
    put("got/V/groundtruth.txt", "1,1,4,4\n" * 3), put("got/V/cover.label", "8\n" * 3), put("run/V.txt", "1,1,4,4\n" * 3)
    with_mark(put("got/V/meta_info.ini", "resolution: (64, 48)\n"))
    assert asked("got10k", tmp_path / "run", tmp_path / "got").metrics["AO"] == 100.0


@pytest.mark.parametrize("name", ["root/testing_set.txt", "root/a/out_of_view.txt", "got/a/meta_info.ini", "gt.txt"])
def test_texts_that_are_not_utf8_are_named(put, tmp_path: Path, name: str):
    for root in ("root", "got"):
        put(f"{root}/a/groundtruth.txt", "1,1,4,4\n"), put(f"{root}/a/full_occlusion.txt", "0")
    put("got/a/groundtruth.txt", "1,1,4,4\n" * 2), put("got/a/cover.label", "8\n8\n")
    put("root/a/out_of_view.txt", "0"), put("root/testing_set.txt", "a"), put("pred/a.txt", "1,1,4,4\n" * 2), put("p.json", {"0": {}})
    (tmp_path / name).write_bytes(b"caf\xe9")
    asked_of = {"root": ("lasot", "pred"), "got": ("got10k", "pred"), "gt.txt": ("charades-sta", "p.json")}
    gt = name.split("/")[0]
    benchmark, pred = asked_of[gt]
    with pytest.raises(UsageError, match=rf"{Path(name).name}: expected UTF-8 text, got 'byte 3 is none'"):
        asked(benchmark, tmp_path / pred, tmp_path / gt)


def test_the_field_that_is_there_is_the_one_that_is_named(put):
    gt = put("gt.json", [{"sent_id": [7], "bbox": [0, 0, 4, 4]}])
    with pytest.raises(UsageError, match=r"gt.json, \[0\], sent_id: expected a text, got \[7\]"):
        asked("refcoco", gt, gt)
    gt, pred = put("gt.jsonl", TRUE_ROWS), put("p.jsonl", [{"qid": row["qid"], "windows": []} for row in TRUE_ROWS])
    for benchmark, name in (("charades-sta", "pred_relevant_windows"), ("nlq", "predicted_times")):
        with pytest.raises(UsageError, match=rf"p.jsonl, line 1: expected the field '{name}', got \['qid', 'windows'\]"):
            asked(benchmark, pred, gt)


def test_scores_of_windows_are_left_out(put):
    gt, scored = put("gt.jsonl", TRUE_ROWS), [{"qid": n, "pred_relevant_windows": [[0, 4, 0.9], [8, 9]]} for n in (1, 2, 3)]
    for benchmark in ("charades-sta", "nlq"):
        assert asked(benchmark, put("p.jsonl", scored), gt).metrics["mIoU"] == pytest.approx(100 / 3)
        with pytest.raises(UsageError, match=r"line 1, pred_relevant_windows: expected a list of lists of 2 numbers, got 'x'"):
            asked(benchmark, put("x.jsonl", [{"qid": n, "pred_relevant_windows": "x"} for n in (1, 2, 3)]), gt)


def test_unknown_names_are_refused(put):
    path = put("x.json", {})
    with pytest.raises(UsageError, match=r"benchmark: expected one of .*tacos.*got 'tacoss'. Did you mean 'tacos'"):
        asked("tacoss", path, path)
    with pytest.raises(UsageError, match="--variant: expected one of got10k, matlab, pytracking, got 'x'"):
        asked("lasot", path, path, variant="x")
    with pytest.raises(UsageError, match=r"--gt: expected an existing file or folder, got '.*none.json'"):
        asked("nlq", path, path.with_name("none.json"))
    assert len(BENCHMARKS) >= 16


def test_scoring_loads_neither_torch_nor_a_model():
    code = "import sys; import tpo_lab.scoring; print(sorted({'torch', 'transformers', 'scipy', 'pandas'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_official_numbers_of_the_qvhighlights_sample(put, real: Path):
    folder = real / "qvhighlights"
    official = json.loads((folder / "sample_val_preds_metrics_raw.json").read_text())
    lines = (folder / "sample_val_preds.jsonl").read_text().splitlines()
    random.Random(0).shuffle(lines)
    report = asked("qvhighlights", put("shuffled.jsonl", map(json.loads, lines)), folder / "highlight_val_release.jsonl")
    assert {name: report.metrics[name] for name in official["brief"]} == official.pop("brief")
    for part, tables in official.items():
        for name, table in tables.items():
            found = report.detail[part][name]
            assert (found if isinstance(table, float) else {key: found[key] for key in table}) == table


def test_perfect_predictions_on_real_truths(put, real: Path):
    truth = [json.loads(line) for line in (real / "tacos" / "tacos_val_release.head400.jsonl").read_text().splitlines()]
    pred = put("p.jsonl", [{"qid": row["qid"], "pred_relevant_windows": row["relevant_windows"]} for row in truth])
    assert set(asked("tacos", pred, real / "tacos" / "tacos_val_release.head400.jsonl").metrics.values()) == {100.0}
    didemo = json.loads((real / "didemo" / "val_data.head400.json").read_text())
    ranked = [sorted(MOMENTS, key=lambda moment, row=row: -row["times"].count(moment)) for row in didemo]
    assert asked("didemo", put("d.json", ranked), real / "didemo" / "val_data.head400.json").metrics["rank@5"] == 100.0
