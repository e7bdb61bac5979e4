"""NExT-GQA: answers, the spans that ground them, and both at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tpo_lab.errors import UsageError
from tpo_lab.files import Record, by_id, read_csv, read_json, record, windows
from tpo_lab.metrics.grounded_qa import grounding
from tpo_lab.scoring.report import Measure, Request, Scored, listed, matched


def score_nextgqa(request: Request) -> Scored:
    """Scores {"<video>_<question>": [start, end]} and {"<video>_<question>": {"answer", "prediction"}}.

    Variant `gaussian`: spans are shares of the duration, turned into seconds and rounded to 0.1. Acc@GQA asks for the right answer and
    IoP >= 0.5. Acc@QA is over all rows of the CSV, the others over the grounded questions. With missing ids allowed, the questions that
    have a span are the denominator of the latter, as in the official tool, and one without an answer is wrong.
    """
    if request.pred_qa is None or request.gt_qa is None:
        name = "--pred-qa" if request.pred_qa is None else "--gt-qa"
        raise UsageError(name, expected="a file, which nextgqa needs", got=None)
    truth, spans = _truth(request.gt), _by_key(request.pred)
    rows = read_csv(request.gt_qa, ("video_id", "qid", "answer", "type"))
    questions = by_id((f"{row.text('video_id')}_{row.text('qid')}", row) for row in rows)
    answers = _by_key(request.pred_qa)
    matched(list(answers), questions, replace(request, pred=request.pred_qa, gt=request.gt_qa), what="question")
    ids, counts = matched(list(spans), truth, request, what="question")
    unasked = [key for key in ids if key not in questions]
    if unasked:
        raise UsageError(str(request.gt_qa), expected=f"a row for every question of {request.gt.name}", got=listed("missing", unasked))
    given = [_span(request, spans[key], truth[key]) for key in ids]
    met = np.array([grounding(span, truth[key].windows("spans", some=True)) for span, key in zip(given, ids, strict=True)])
    right = {key: key in answers and _is_right(answers[key], question) for key, question in questions.items()}
    grounded = np.array([right[key] for key in ids]) & (met[:, 1] >= 0.5)
    measures = {
        "Acc@QA": Measure(list(right.values())),
        "Acc@GQA": Measure(grounded),
        "mIoP": Measure(met[:, 1]),
        "IoP@0.3": Measure(met[:, 1] >= 0.3),
        "IoP@0.5": Measure(met[:, 1] >= 0.5),
        "mIoU": Measure(met[:, 0]),
        "IoU@0.3": Measure(met[:, 0] >= 0.3),
        "IoU@0.5": Measure(met[:, 0] >= 0.5),
    }
    unparsable = int(sum(span[1] < span[0] for span in given))
    detail = {"Acc@QA": _by_type(questions, right)}
    rules = {"iou": ">=", "iop": ">=", "missing span": "left out", "missing answer": "wrong"}
    return Scored(replace(counts, unparsable=unparsable), measures, detail, rules)


def _truth(path: Path) -> dict[str, Record]:
    found = {}
    for video, fields in record(str(path), read_json(path)).fields.items():
        row = record(f"{path}, key {video}", fields)
        for question, spans in record(f"{row.where}, location", row.value("location")).fields.items():
            where = f"{row.where}, location {question}"
            found[f"{video}_{question}"] = Record(where, {"spans": spans, "duration": row.fields.get("duration")})
    return found


def _by_key(path: Path) -> dict[str, Record]:
    document = record(str(path), read_json(path)).fields
    return {key: Record(f"{path}, key {key}", value if isinstance(value, dict) else {"span": value}) for key, value in document.items()}


def _span(request: Request, row: Record, truth: Record) -> Any:
    value = row.value("span")
    span = windows(f"{row.where}, span", [value], ordered=False)[0]
    return np.round(span * truth.number("duration"), 1) if request.variant == "gaussian" else span


def _is_right(row: Record, question: Record) -> bool:
    """Whether the prediction is the answer: an index into a0 to a4, or the text of the option, as the file's own `answer` is."""
    predicted = row.value("prediction")
    if "answer" in row.fields:
        return bool(row.fields["answer"] == predicted)
    text = question.fields.get(f"a{predicted}") if isinstance(predicted, int) else predicted
    return bool(text == question.fields["answer"])


def _by_type(questions: dict[str, Record], right: dict[str, bool]) -> dict[str, float]:
    """Accuracy per type of question; TP is counted as TN, and C, T, D stand for their first letters."""
    rows: dict[str, list[bool]] = {}
    for key, question in questions.items():
        kind = question.text("type").replace("TP", "TN")
        for name in (kind, kind[:1]):
            rows.setdefault(name, []).append(right[key])
    return {name: 100 * float(np.mean(values)) for name, values in sorted(rows.items())}
