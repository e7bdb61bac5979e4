"""Scores of windows from files, against slow oracles in exact fractions: R@K and mIoU, DiDeMo, NExT-GQA, and all of QVHighlights."""

from __future__ import annotations

import itertools
import json
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scoring.samples import MOMENTS, jsonl, text
from tpo_lab.scoring import Report, Request, score

second = st.integers(0, 40).map(lambda halves: halves / 2)
true_window = st.tuples(second, st.integers(1, 30)).map(lambda each: [each[0], each[0] + each[1] / 2])
any_window = st.tuples(second, second).map(list)
near_window = st.one_of(true_window, any_window)
queries = st.lists(st.tuples(true_window, st.none() | st.lists(near_window, max_size=7)), min_size=1, max_size=9)


def mean(values) -> Fraction:
    values = list(values)
    return Fraction(sum(values, Fraction(0)), 1) / len(values)


def iou(one, other, added: Fraction = Fraction(0)) -> Fraction:
    """Of two windows, over the hull; nothing is shared by a window that ends before it starts."""
    (a, b), (c, d) = ([Fraction(end) for end in each] for each in (one, other))
    shared = min(b, d) - max(a, c)
    return shared / (max(b, d) - min(a, c) + added) if shared > 0 else Fraction(0)


def in_folder(run) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder))


# -- one window per query ----------------------------------------------------------------------------------------------------------------


def charades(root: Path, windows: list) -> Path:
    return text(root / "gt.txt", "".join(f"V{n} {start} {end}##a person walks.\n" for n, (start, end) in enumerate(windows)))


def activitynet(root: Path, windows: list) -> Path:
    videos = {"v_a": windows[::2], "v_b": windows[1::2]}
    return text(
        root / "gt.json",
        json.dumps({name: {"duration": 99, "timestamps": each, "sentences": [" x"] * len(each)} for name, each in videos.items()}),
    )


def tacos(root: Path, windows: list) -> Path:
    stamps = [[2 * end for end in each] for each in windows]
    row = {"timestamps": stamps, "sentences": [str(n) for n in range(len(windows))], "fps": 2.0, "num_frames": 999}
    return text(root / "gt.json", json.dumps({"s1-d1.avi": row}))


def qvhighlights_form(root: Path, windows: list) -> Path:
    return jsonl(root / "gt.jsonl", [{"qid": n, "relevant_windows": [each]} for n, each in enumerate(windows)])


@pytest.mark.parametrize(
    ("benchmark", "form"),
    [
        ("charades-sta", charades),
        ("charades-sta", qvhighlights_form),
        ("activitynet", activitynet),
        ("tacos", tacos),
        ("hirest", qvhighlights_form),
    ],
)
@given(queries=queries)
@settings(max_examples=25)
def test_recall_and_mean_iou_equal_the_definition(benchmark: str, form, queries):
    true, given_ = zip(*queries, strict=True)
    # activity net's numbers go through its videos one after the other
    order = [*range(0, len(true), 2), *range(1, len(true), 2)] if form is activitynet else range(len(true))
    asked = {str(place): given_[n] or [] for place, n in enumerate(order)}

    def run(root: Path) -> Report:
        pred = text(root / "p.json", json.dumps({key: {"timestamp": each} for key, each in asked.items()}))
        return score(benchmark, Request(pred, form(root, list(true)), allow_missing=True))

    added = Fraction(1, 10**8) if benchmark == "hirest" else Fraction(0)
    ious = [iou(rows[0], window, added) if rows else Fraction(0) for window, rows in queries]
    report = in_folder(run)
    expected = {f"R1@{t}": 100 * mean(Fraction(each >= Fraction(t)) for each in ious) for t in ("0.3", "0.5", "0.7")}
    assert report.metrics == pytest.approx({**expected, "mIoU": 100 * mean(ious)}, abs=1e-9)
    assert report.counts.unparsable == sum(not rows or rows[0][1] < rows[0][0] for _, rows in queries)


@given(queries=queries)
@settings(max_examples=25)
def test_hirest_in_its_own_form_scores_entries_with_a_clip(queries):
    def run(root: Path) -> Report:
        truth = {f"Do {n}": {"v.mp4": {"relevant": True, "clip": True, "bounds": window}} for n, (window, _) in enumerate(queries)}
        truth["Do 0"]["w.mp4"] = {"relevant": True, "clip": False, "v_duration": 3}
        made = {f"Do {n}": {"v.mp4": {"bounds": (rows or [[0, 0]])[0]}} for n, (_, rows) in enumerate(queries)}
        gt, pred = text(root / "g.json", json.dumps(truth)), text(root / "p.json", json.dumps(made))
        return score("hirest", Request(pred, gt, allow_missing=True))

    ious = [iou(rows[0], window, Fraction(1, 10**8)) if rows else Fraction(0) for window, rows in queries]
    report = in_folder(run)
    assert report.counts.ground_truth == len(queries)
    assert report.metrics["R1@0.7"] == pytest.approx(100 * mean(Fraction(each >= Fraction(7, 10)) for each in ious))
    assert report.metrics["mIoU"] == pytest.approx(100 * mean(ious))


@given(
    queries=st.lists(st.tuples(true_window | second.map(lambda at: [at, at]), st.lists(near_window, max_size=7)), min_size=1, max_size=9)
)
@settings(max_examples=25)
def test_nlq_equals_the_definition(queries):
    def run(root: Path) -> Report:
        rows = []
        for n, (window, _) in enumerate(queries):
            # a query that was never written down keeps its number
            asked = [{"query": None}, {"query": "where?", "clip_start_sec": window[0], "clip_end_sec": window[1]}]
            rows.append({"clip_uid": f"c{n}", "annotations": [{"annotation_uid": "a", "language_queries": asked}]})
        gt = text(root / "g.json", json.dumps({"videos": [{"clips": rows[:1]}, {"clips": rows[1:]}]}))
        names = [{"clip_uid": f"c{n}", "annotation_uid": "a", "query_idx": 1} for n in range(len(queries))]
        made = [{**name, "predicted_times": each} for name, (_, each) in zip(names, queries, strict=True)]
        return score("nlq", Request(text(root / "p.json", json.dumps(made)), gt, allow_missing=True))

    def best(window, rows, count) -> Fraction:
        return max((iou(each, window) for each in rows[:count]), default=Fraction(0))

    expected = {"mIoU": 100 * mean(best(*each, 1) for each in queries)}
    for count, threshold in itertools.product((1, 5), ("0.3", "0.5")):
        expected[f"R{count}@{threshold}"] = 100 * mean(Fraction(best(*each, count) > Fraction(threshold)) for each in queries)
    assert in_folder(run).metrics == pytest.approx(expected, abs=1e-9)


# -- DiDeMo and NExT-GQA -----------------------------------------------------------------------------------------------------------------


@given(
    queries=st.lists(
        st.tuples(st.permutations(MOMENTS), st.lists(st.sampled_from(MOMENTS), min_size=4, max_size=7)), min_size=1, max_size=4
    )
)
@settings(max_examples=25)
def test_didemo_equals_the_best_three_annotators_of_all_choices(queries):
    def run(root: Path) -> Report:
        gt = text(root / "g.json", json.dumps([{"annotation_id": 9 - n, "times": times} for n, (_, times) in enumerate(queries)]))
        return score("didemo", Request(text(root / "p.json", json.dumps([ranked for ranked, _ in queries])), gt))

    ranks, ious = [], []
    for ranked, times in queries:
        threes = list(itertools.combinations(times, 3))
        ranks.append(min(sum(ranked.index(moment) + 1 for moment in three) / 3 for three in threes))
        first = set(range(ranked[0][0], ranked[0][1] + 1))
        each = {tuple(moment): set(range(moment[0], moment[1] + 1)) for moment in times}
        # over the hull, which two runs of segments that meet fill
        shares = {moment: len(first & run_) / (max(first | run_) - min(first | run_) + 1) for moment, run_ in each.items()}
        ious.append(max(sum(shares[tuple(moment)] for moment in three) / 3 for three in threes))
    expected = {"rank@1": np.mean([each <= 1 for each in ranks]), "rank@5": np.mean([each <= 5 for each in ranks]), "mIoU": np.mean(ious)}
    assert in_folder(run).metrics == pytest.approx({name: 100 * value for name, value in expected.items()})


shares = st.tuples(st.integers(0, 10), st.integers(0, 10))
grounded = st.tuples(
    shares, st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=3), st.booleans(), st.booleans()
)


def met(span, true) -> tuple[float, float]:
    """IoU and IoP, each the best over the true spans."""
    (start, end), found = span, []
    for first, last in true:
        shared = min(end, last) - max(start, first)
        if start == end:
            found.append((0.0, float(first <= start <= last)))
        elif end < start or shared <= 0:
            found.append((0.0, 0.0))
        else:
            found.append((shared / (max(end, last) - min(start, first)), shared / (end - start)))
    return max(each for each, _ in found), max(each for _, each in found)


@pytest.mark.parametrize("variant", ["official", "gaussian"])
@given(questions=st.lists(grounded, min_size=1, max_size=8))
@settings(max_examples=40)
def test_nextgqa_equals_the_definition(variant: str, questions):
    duration = 13
    true = [[[start, start + length] for start, length in each] for _, each, _, _ in questions]
    spans = [[start / 10, end / 10] if variant == "gaussian" else [1.5 * start, 1.5 * end] for (start, end), _, _, _ in questions]
    ids = [f"7_{n}" for n in range(len(questions))]
    right = [each for _, _, each, _ in questions]
    kept = [n for n, (_, _, _, is_there) in enumerate(questions) if is_there or n == 0]

    def run(root: Path) -> Report:
        gt = text(root / "g.json", json.dumps({"7": {"duration": duration, "location": {str(n): each for n, each in enumerate(true)}}}))
        # one more question, without grounding, that is answered right
        kinds = [f"7,why,yes,{n},{'TP' if n % 2 else 'CW'},no,yes\n" for n in range(len(questions))] + ["7,what,yes,99,DO,no,yes\n"]
        csv = text(root / "q.csv", "video_id,question,answer,qid,type,a0,a1\n" + "".join(kinds))
        qa = {key: {"answer": 1, "prediction": int(each)} for key, each in zip(ids, right, strict=True)}
        answers = text(root / "a.json", json.dumps({**qa, "7_99": {"prediction": "yes"}}))
        pred = text(root / "p.json", json.dumps({ids[n]: spans[n] for n in kept}))
        return score("nextgqa", Request(pred, gt, variant=variant, allow_missing=True, pred_qa=answers, gt_qa=csv))

    scale = duration if variant == "gaussian" else 1
    values = [met([round(end * scale, 1) for end in spans[n]], true[n]) for n in kept]
    expected = {
        "Acc@QA": np.mean([*right, True]),
        "Acc@GQA": np.mean([right[n] and iop >= 0.5 for n, (_, iop) in zip(kept, values, strict=True)]),
        "mIoP": np.mean([iop for _, iop in values]),
        "mIoU": np.mean([each for each, _ in values]),
    }
    for t in (0.3, 0.5):
        expected |= {f"IoP@{t}": np.mean([iop >= t for _, iop in values]), f"IoU@{t}": np.mean([each >= t for each, _ in values])}
    report = in_folder(run)
    assert report.metrics == pytest.approx({name: 100 * value for name, value in expected.items()})
    by_type = report.detail["Acc@QA"]
    assert "TP" not in by_type and by_type["D"] == by_type["DO"] == 100.0
    if len(right) > 1:
        assert by_type["TN"] == by_type["T"] == pytest.approx(100 * np.mean(right[1::2]))


# -- QVHighlights ------------------------------------------------------------------------------------------------------------------------

T = [Fraction(each, 100) for each in range(50, 100, 5)]
clip_window = st.tuples(st.integers(0, 40), st.integers(1, 30)).map(lambda each: [2 * each[0], 2 * each[0] + 2 * each[1]])
predicted_window = st.tuples(clip_window, st.integers(0, 3)).map(lambda each: [*each[0], each[1] / 4])
qv_query = st.fixed_dictionaries(
    {
        "true": st.lists(clip_window, min_size=1, max_size=4),
        "pred": st.lists(predicted_window, max_size=12),
        "duration": st.integers(140, 151),
        "levels": st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=4),
        "saliency": st.lists(st.integers(-2, 3), min_size=1, max_size=80),
    }
)


def precision_curve_area(hits: list[bool], total: int) -> Fraction:
    """VOC 2011: for each point of recall the best precision from there on, over the steps of recall."""
    points = [(Fraction(0), Fraction(0))]
    points += [(Fraction(sum(hits[:n]), total), Fraction(sum(hits[:n]), n)) for n in range(1, len(hits) + 1)]
    points.append((Fraction(1), Fraction(0)))
    area = Fraction(0)
    for place in range(1, len(points)):
        area += (points[place][0] - points[place - 1][0]) * max(precision for _, precision in points[place:])
    return area


def average_precision(pred: list, true: list, threshold: Fraction) -> Fraction:
    kept = pred[:10]
    ranked = sorted(range(len(kept)), key=lambda place: (-kept[place][2], place))
    free, hits = set(range(len(true))), []
    for place in ranked:
        reached = [(iou(kept[place][:2], true[at]), at) for at in free]
        best = max((each for each in reached if each[0] >= threshold), default=None)
        hits.append(best is not None)
        if best:
            free.remove(best[1])
    return precision_curve_area(hits, len(true))


def highlight_precision(scores: list, labels: list[bool]) -> Fraction:
    """The mean, over the numbers of positives that some threshold finds, of the best precision with at least so many."""
    found = {}
    for threshold in set(scores):
        picked = [label for each, label in zip(scores, labels, strict=True) if each >= threshold]
        found[sum(picked)] = max(found.get(sum(picked), Fraction(0)), Fraction(sum(picked), len(picked)))
    levels = [each for each in found if each]
    return mean(max(best for count, best in found.items() if count >= level) for level in levels) if levels else Fraction(0)


def moments_table(rows: list[tuple[list, list]]) -> dict[str, float]:
    first = [max(iou(pred[0][:2], window) for window in true) if pred else Fraction(0) for pred, true in rows]
    table = {f"R1@{t}": mean(Fraction(each >= Fraction(t)) for each in first) for t in ("0.3", "0.5", "0.7", "0.95")}
    precisions = [mean(average_precision(pred, true, t) for pred, true in rows) for t in T]
    return {**table, "mIoU": mean(first), "mAP": mean(precisions), "mAP@0.5": precisions[0], "mAP@0.75": precisions[5]}


@given(queries=st.lists(qv_query, min_size=1, max_size=5))
@settings(max_examples=25)
def test_qvhighlights_equals_the_definition(queries):
    for query in queries:
        query["clips"] = list(range(3, 3 + len(query["levels"])))

    def run(root: Path) -> Report:
        truth = [
            {
                "qid": n,
                "duration": query["duration"],
                "relevant_windows": query["true"],
                "relevant_clip_ids": query["clips"],
                "saliency_scores": query["levels"],
            }
            for n, query in enumerate(queries)
        ]
        made = [{"qid": n, "pred_relevant_windows": q["pred"], "pred_saliency_scores": q["saliency"]} for n, q in enumerate(queries)]
        return score("qvhighlights", Request(jsonl(root / "p.jsonl", made[::-1]), jsonl(root / "g.jsonl", truth)))

    report = in_folder(run)
    expected, tables = {}, {}
    for name, (above, most) in {"full": (-1, 10**6), "long": (30, 150), "middle": (10, 30), "short": (0, 10)}.items():
        rows = [(query["pred"], [each for each in query["true"] if above < each[1] - each[0] <= most]) for query in queries]
        rows = [(pred, true) for pred, true in rows if true]
        if rows:
            tables[name] = moments_table(rows)
            expected[f"MR-{name}-mAP"] = tables[name]["mAP"]
    expected |= {f"MR-full-{name}": value for name, value in tables["full"].items() if name != "R1@0.95"}
    for level, least in (("Fair", 2), ("Good", 3), ("VeryGood", 4)):
        hits, precisions = [], []
        for query in queries:
            count = query["duration"] // 2
            labels = np.zeros((count, 3), dtype=bool)
            labels[query["clips"]] = np.array(query["levels"]) >= least
            scores = (query["saliency"] + [0] * count)[:count]
            top = query["saliency"].index(max(query["saliency"]))
            hits.append(Fraction(top < count and bool(labels[top].any())))
            precisions += [highlight_precision(scores, labels[:, each].tolist()) for each in range(3)]
        expected |= {f"HL-min-{level}-Hit1": mean(hits), f"HL-min-{level}-mAP": mean(precisions)}
    assert report.metrics.keys() == expected.keys()
    # two decimals: a half may be rounded either way
    assert report.metrics == pytest.approx({name: 100 * float(value) for name, value in expected.items()}, abs=0.00501)
    for name, table in tables.items():
        assert report.detail[name]["MR-R1"]["0.95"] == pytest.approx(100 * float(table["R1@0.95"]), abs=0.00501)
        assert report.detail[name]["MR-mAP"]["0.75"] == pytest.approx(100 * float(table["mAP@0.75"]), abs=0.00501)


def test_qvhighlights_length_ranges_by_hand(tmp_path: Path):
    windows = [[0, 10], [20, 30.5], [40, 70], [0, 30.5], [0, 150], [0, 151]]
    rows = [{"qid": n, "duration": 200, "relevant_windows": [each]} for n, each in enumerate(windows)]
    pred = [{"qid": n, "pred_relevant_windows": [[*each, 1.0]]} for n, each in enumerate(windows)]
    # one query of each range is wrong: lengths 10 | 10.5, 30 | 30.5, 150; 151 is in no range but in the full one
    for wrong, name in ((0, "short"), (2, "middle"), (4, "long")):
        spoilt = [{**row, "pred_relevant_windows": [[190, 191, 1.0]]} if n == wrong else row for n, row in enumerate(pred)]
        metrics = score("qvhighlights", Request(jsonl(tmp_path / "p.jsonl", spoilt), jsonl(tmp_path / "g.jsonl", rows))).metrics
        found = {part: metrics[f"MR-{part}-mAP"] for part in ("short", "middle", "long")}
        assert found == {"short": 100.0, "middle": 100.0, "long": 100.0} | {name: 0.0 if name == "short" else 50.0}
        assert metrics["MR-full-mAP"] == 83.33


def test_qvhighlights_scores_are_of_the_first_window_as_given_and_not_of_the_highest_score(tmp_path: Path):
    gt = jsonl(tmp_path / "g.jsonl", [{"qid": 1, "duration": 60, "relevant_windows": [[0, 10]]}])
    pred = jsonl(tmp_path / "p.jsonl", [{"qid": 1, "pred_relevant_windows": [[30, 40, 0.1], [0, 10, 0.9]]}])
    metrics = score("qvhighlights", Request(pred, gt)).metrics
    assert (metrics["MR-full-R1@0.3"], metrics["MR-full-mIoU"], metrics["MR-full-mAP"]) == (0.0, 0.0, 100.0)
