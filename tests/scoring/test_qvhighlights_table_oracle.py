"""Every number of QVHighlights' table, from real predictions as they are and spoilt, by plain loops with the official 0/0 kept as NaN."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.scoring.samples import jsonl
from tpo_lab.scoring import Request, score

Row = dict[str, Any]
_PRED = "pred_relevant_windows"
AP_AT = [round(0.5 + step / 20, 2) for step in range(10)]
RECALL_AT = [round(0.3 + step / 20, 2) for step in range(14)]
RANGES = {"short": (0, 10), "middle": (10, 30), "long": (30, 150), "full": (-math.inf, math.inf)}


def percent(value: float) -> float:
    return float(f"{100 * value:.2f}")


def cross_iou(pred: list[float], true: list[float]) -> float:
    shared = max(0, min(pred[1], true[1]) - max(pred[0], true[0]))
    union = (pred[1] - pred[0]) + (true[1] - true[0]) - shared
    return shared / union if union else math.nan


def paired_iou(pred: list[float], true: list[float]) -> float:
    hull = max(pred[1], true[1]) - min(pred[0], true[0])
    return max(0, min(pred[1], true[1]) - max(pred[0], true[0])) / hull if hull else 0.0


def precision_at(pred: list[list[float]], true: list[list[float]], threshold: float) -> float:
    taken: set[int] = set()
    hits = []
    for window in sorted(pred[:10], key=lambda each: -each[2]):
        ious = [cross_iou(window, each) for each in true]
        # nothing is below a threshold that is NaN, and NaN comes before all numbers
        reached = [place for place in np.argsort(ious)[::-1].tolist() if not ious[place] < threshold and place not in taken]
        hits.append(bool(reached))
        taken.update(reached[:1])
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    recall = [0.0, *(found / len(true))]
    return sum((recall[rank + 1] - recall[rank]) * max(precision[rank:]) for rank in range(len(hits)))


def moments(rows: list[tuple[list[list[float]], list[list[float]]]]) -> dict[str, Any]:
    precisions = np.array([[precision_at(pred, true, threshold) for threshold in AP_AT] for pred, true in rows]).mean(0)
    best = []
    for pred, true in rows:
        chosen = int(np.argmax([cross_iou(pred[0], each) for each in true]))
        best.append(paired_iou(pred[0], true[chosen]))
    return {
        "MR-mAP": {**{str(t): percent(value) for t, value in zip(AP_AT, precisions, strict=True)}, "average": percent(precisions.mean())},
        "MR-R1": {str(t): percent(np.mean(np.array(best) >= t)) for t in RECALL_AT},
        "MR-mIoU": percent(np.mean(best)),
    }


def clip_precision(positive: list[bool], scores: list[float]) -> float:
    """The mean of the best precisions from each number of positives on that some threshold finds."""
    best: dict[int, float] = {}
    for threshold in set(scores):
        picked = [label for label, each in zip(positive, scores, strict=True) if each >= threshold]
        best[sum(picked)] = max(best.get(sum(picked), 0.0), sum(picked) / len(picked))
    levels = [level for level in best if level]
    return float(np.mean([max(best[other] for other in levels if other >= level) for level in levels])) if levels else 0.0


def highlights(rows: list[tuple[Row, Row]], least: int) -> dict[str, float]:
    hits, precisions = [], []
    for pred, true in rows:
        levels = np.zeros((int(true["duration"] / 2), 3))
        levels[true["relevant_clip_ids"]] = true["saliency_scores"]
        positive, scores = levels >= least, pred["pred_saliency_scores"]
        top = int(np.argmax(scores))
        hits.append(top < len(positive) and bool(positive[top].any()))
        filled = (scores + [0.0] * len(positive))[: len(positive)]
        precisions.append([clip_precision(positive[:, each].tolist(), filled) for each in range(3)])
    return {"HL-mAP": percent(np.mean(precisions)), "HL-Hit1": percent(np.mean(hits))}


def table(made: list[Row], truth: list[Row]) -> dict[str, Any]:
    by_qid = {row["qid"]: row for row in made}
    pairs = [(by_qid[row["qid"]], row) for row in truth]
    found: dict[str, Any] = {}
    for name, (above, most) in RANGES.items():
        kept = [(pred[_PRED], [w for w in true["relevant_windows"] if above < w[1] - w[0] <= most]) for pred, true in pairs]
        found[name] = moments([each for each in kept if each[1]])
    return found | {f"HL-min-{name}": highlights(pairs, least) for name, least in (("Fair", 2), ("Good", 3), ("VeryGood", 4))}


def spoilt(row: Row, rng: random.Random) -> Row:
    """Windows reversed, moved beyond the video, unsorted and left out; saliency too short, too long, or with equal values."""
    windows = [
        each[1::-1] + each[2:] if rng.random() < 0.2 else [each[0], each[1] + rng.choice([0, 0, 0, 90]), each[2]] for each in row[_PRED]
    ]
    if rng.random() < 0.3:
        rng.shuffle(windows)
    scores = row["pred_saliency_scores"]
    other = rng.choice(
        [scores, scores[: rng.randint(1, len(scores))], scores + [rng.random()] * 4, [float(round(each)) for each in scores]]
    )
    return {**row, _PRED: windows[: rng.choice([10, 10, rng.randint(1, 9)])], "pred_saliency_scores": other}


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("name", ["cgdetr_best_hl", "momentdetr_ckpt"])
def test_every_number_of_the_table(real: Path, tmp_path: Path, name: str, seed: int | None):
    truth = [json.loads(line) for line in (real / "qvhighlights" / "highlight_val_release.jsonl").read_text().splitlines()][::8]
    asked = {row["qid"] for row in truth}
    lines = (real / "evaluation" / "qvhighlights" / f"{name}_val_preds.jsonl").read_text().splitlines()
    made = [row for row in map(json.loads, lines) if row["qid"] in asked]
    if seed is not None:
        rng = random.Random(seed)
        made = [spoilt(row, rng) for row in rng.sample(made, len(made))]
    report = score("qvhighlights", Request(jsonl(tmp_path / "p.jsonl", made), jsonl(tmp_path / "g.jsonl", truth)))
    assert report.detail == table(made, truth)
    assert report.counts.unparsable == sum(each[1] < each[0] for row in made for each in row[_PRED])
