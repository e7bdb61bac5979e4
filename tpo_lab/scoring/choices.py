"""Multiple choice: MVBench, Video-MME, MLVU, MMIU and SEED-Bench-2, each with its official rule to read an answer and a strict one."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError
from tpo_lab.files import Record, by_id, numbered, read_json, read_jsonl, records
from tpo_lab.metrics import multiple_choice as rules
from tpo_lab.scoring.report import Measure, Request, Scored, matched

Floats = NDArray[np.float64]

_ANSWERS = ("prediction", "pred", "response", "option", "output_text", "answer")
_IDS = ("question_id", "id")
_NUMBERS = string.digits + "_"
_TASKS = ("task_type", "question_type", "task", "question_type_id")


@dataclass(frozen=True)
class Rule:
    """How a benchmark reads and averages answers.

    Attributes:
        judge: (answer, true letter) to whether it is right, and whether one option could be read from it. MVBench takes an answer
            that says nothing for the right one.
        unread: what becomes of an answer that cannot be read: "wrong", "left out" of the denominator, or "judged all the same".
        macro: whether Avg is the mean over tasks; else over questions.
        open_tasks: tasks whose answers are texts, which a language model judges: left out.
        files: names of the official files without suffix, in the order in which the official tool writes its answers.
    """

    judge: Callable[[str, str], tuple[bool, bool]]
    unread: str = "wrong"
    macro: bool = False
    open_tasks: frozenset[str] = frozenset()
    files: tuple[str, ...] = ()


def _strict(answer: str, letter: str) -> tuple[bool, bool]:
    found = rules.strict_letter(answer)
    return found == letter, found is not None


def _mvbench(answer: str, letter: str) -> tuple[bool, bool]:
    return rules.mvbench_correct(answer, letter), rules.strict_letter(answer) is not None


def _video_mme(answer: str, letter: str) -> tuple[bool, bool]:
    found = rules.video_mme_letter(answer)
    return found == letter, bool(found)


def _mlvu(answer: str, letter: str) -> tuple[bool, bool]:
    found = rules.mlvu_letter(answer)
    return found == letter, _is_option(found)


def _mmiu(answer: str, letter: str) -> tuple[bool, bool]:
    found = rules.mmiu_letter(answer)
    return found == letter, found is not None


def _seed_bench(answer: str, letter: str) -> tuple[bool, bool]:
    found = answer.strip()
    return found == letter, _is_option(found)


def _is_option(text: str) -> bool:
    return len(text) == 1 and text in string.ascii_uppercase


# fmt: off
_MVBENCH_FILES = (
    "action_sequence", "action_prediction", "action_antonym", "fine_grained_action", "unexpected_action", "object_existence",
    "object_interaction", "object_shuffle", "moving_direction", "action_localization", "scene_transition", "action_count", "moving_count",
    "moving_attribute", "state_change", "fine_grained_pose", "character_order", "egocentric_navigation", "episodic_reasoning",
    "counterfactual_inference",
)
# fmt: on

RULES = {
    "mvbench": Rule(_mvbench, unread="judged all the same", files=_MVBENCH_FILES),
    "video-mme": Rule(_video_mme, unread="left out"),
    "mlvu": Rule(_mlvu, macro=True, open_tasks=frozenset({"sub_scene", "summary"})),
    "mmiu": Rule(_mmiu, macro=True),
    "seed-bench-2": Rule(_seed_bench),
}


def scorer(benchmark: str) -> Callable[[Request], Scored]:
    """The function that scores one of `RULES`: Avg, the accuracy per task, and how many answers could not be read."""

    def score(request: Request) -> Scored:
        return _score(request, RULES[benchmark])

    return score


def _score(request: Request, rule: Rule) -> Scored:
    truth, left_out = _questions(request.gt, rule)
    predicted = _predictions(request.pred, truth)
    ids, counts = matched(list(predicted), truth, request, what="question")
    judge, unread = (_strict, "wrong") if request.variant == "strict" else (rule.judge, rule.unread)
    judged = [judge(predicted[key], truth[key].letter) for key in ids]
    tasks = sorted({truth[key].task for key in ids})
    place_of = {task: place for place, task in enumerate(tasks)}
    rows = np.array([[right, read, place_of[truth[key].task]] for key, (right, read) in zip(ids, judged, strict=True)], dtype=np.float64)
    drops = unread == "left out"
    measures = {"Avg": Measure(rows, statistic=lambda drawn: _average(drawn, drops=drops, macro=rule.macro))}
    for place, task in enumerate(tasks):
        measures[task] = Measure(rows[rows[:, 2] == place], statistic=lambda drawn: _average(drawn, drops=drops, macro=False))
    failures = int((rows[:, 1] == 0).sum())
    other = "Avg over questions" if rule.macro else "Avg over tasks"
    detail: dict[str, Any] = {
        "parse_failures": failures,
        "counts": {task: int((rows[:, 2] == place).sum()) for place, task in enumerate(tasks)},
        other: 100 * _average(rows, drops=drops, macro=not rule.macro),
    }
    if left_out:
        detail["left_out"] = left_out
    durations = np.array([truth[key].duration for key in ids])
    if any(durations):
        detail["duration"] = {name: 100 * _average(rows[durations == name], drops=drops, macro=False) for name in sorted(set(durations))}
    stated = {"average": "tasks" if rule.macro else "questions", "unread": unread}
    return Scored(replace(counts, unparsable=failures), measures, detail, stated)


def _average(rows: Floats, *, drops: bool, macro: bool) -> float:
    """Accuracy of rows (right, read, task): over questions, or the mean over tasks; nothing left is 0."""
    kept = rows[rows[:, 1] == 1] if drops else rows
    if not len(kept):
        return 0.0
    if not macro:
        return float(kept[:, 0].mean())
    return float(np.mean([kept[kept[:, 2] == task, 0].mean() for task in np.unique(kept[:, 2])]))


@dataclass(frozen=True)
class Question:
    """One question: its task, true option, and the text by which a prediction without an id is found."""

    task: str
    letter: str
    text: str
    duration: str = ""


def _questions(path: Path, rule: Rule) -> tuple[dict[str, Question], dict[str, int]]:
    """The questions by id, and how many of each open task are left out."""
    listed, left_out = [], Counter[str]()
    for folder_task, row in _rows(path, rule.files):
        kind = next((name for name in rule.open_tasks if name in (row.fields.get("question_type"), folder_task.lstrip(_NUMBERS))), None)
        if kind is None:
            listed.append((folder_task, row))
        else:
            left_out[kind] += 1
    texts = list(numbered(_text_key(row) if "question" in row.fields else row.where for _, row in listed))
    rows = by_id((_text_or(text, row, _IDS), row) for (_, row), text in zip(listed, texts, strict=True))
    found = {}
    for (key, row), (folder_task, _), text in zip(rows.items(), listed, texts, strict=True):
        duration = str(row.fields.get("duration", "")) if "videos" in row.fields else ""
        found[key] = Question(_text_or(folder_task, row, _TASKS), _letter(row), text, duration)
    return found, dict(left_out)


def _text_or(other: str, row: Record, names: tuple[str, ...]) -> str:
    """The text of the first of these fields that the record has, or another one."""
    return row.text(*names) if any(name in row.fields for name in names) else other


def _rows(path: Path, official: tuple[str, ...] = ()) -> Iterator[tuple[str, Record]]:
    """The rows of a file, or of every file of a folder, with the file's (or its folder's) name as the task.

    Files that are not `official` come after those that are, by name.
    """
    if path.is_dir():
        files = sorted(path.rglob("*.json"), key=lambda file: (official.index(file.stem) if file.stem in official else len(official), file))
        if not files:
            raise UsageError(str(path), expected="a folder with .json files", got="none")
        for file in files:
            task = file.parent.name if file.stem == "metadata_info" else file.stem
            yield from ((task, row) for _, row in _rows(file))
        return
    if path.suffix == ".jsonl":
        yield from (("all", row) for row in read_jsonl(path))
        return
    yield from _rows_of(path, read_json(path, trailing_commas=True))


def _rows_of(path: Path, document: Any) -> Iterator[tuple[str, Record]]:
    """The rows of a JSON document: a list of questions or of videos with questions, alone or under a key, or lists by task."""
    if isinstance(document, dict):
        document = next((document[name] for name in ("questions", "res_list", "results", "data") if name in document), document)
    if isinstance(document, dict):
        for task, listed in document.items():
            if not isinstance(listed, list):
                raise UsageError(f"{path}, key {task}", expected="a list of rows", got=type(listed).__name__)
            yield from ((task, row) for row in records(path, listed, f"{task}"))
        return
    for row in records(path, document):
        if isinstance(row.fields.get("questions"), list):
            outer = {name: value for name, value in row.fields.items() if name != "questions"}
            for question in records(row.where, row.fields["questions"], "questions"):
                yield "all", Record(question.where, {**outer, **question.fields, "videos": True})
        else:
            yield path.stem, row


def _letter(row: Record) -> str:
    """The true option: a letter, "(C) text", or the text of one of the candidates."""
    answer = row.text("answer", "output", "gt").strip()
    candidates = row.fields.get("candidates")
    if isinstance(candidates, list) and answer in [str(each).strip() for each in candidates]:
        return string.ascii_uppercase[[str(each).strip() for each in candidates].index(answer)]
    found = rules.strict_letter(answer)
    if found is None or (len(answer) > 1 and not answer.startswith("(")):
        raise UsageError(f"{row.where}, answer", expected="a letter, or the text of one of the candidates", got=answer)
    return found


def _predictions(path: Path, truth: Mapping[str, Question]) -> dict[str, str]:
    """Answers by the id of their question: found by id, by video and question, or by their place."""
    if path.suffix == ".json" and path.is_file():
        document = read_json(path, trailing_commas=True)
        if isinstance(document, dict) and document and all(isinstance(each, str) for each in document.values()):
            return document
        rows = [row for _, row in _rows_of(path, document)]
    else:
        rows = [row for _, row in _rows(path)]
    if rows and any(name in rows[0].fields for name in _IDS):
        return {key: _answer(row) for key, row in by_id((row.text(*_IDS), row) for row in rows).items()}
    answers = [_answer(row) for row in rows]
    if rows and "question" in rows[0].fields:
        keys = {question.text: key for key, question in truth.items()}
        texts = numbered(map(_text_key, rows))
        return {keys.get(text, text): answer for text, answer in zip(texts, answers, strict=True)}
    if len(rows) != len(truth):
        raise UsageError(str(path), expected=f"ids, questions, or one row per question ({len(truth)})", got=len(rows))
    for row, (key, question) in zip(rows, truth.items(), strict=True):
        if "gt" in row.fields and _letter(row) != question.letter:
            raise UsageError(f"{row.where}, gt", expected=f"the answer {question.letter} of {key}", got=row.fields["gt"])
    return dict(zip(truth, answers, strict=True))


def _answer(row: Record) -> str:
    value = row.value(row.named(*_ANSWERS))
    if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int, float))):
        raise UsageError(f"{row.where}, prediction", expected="a text", got=value)
    return "" if value is None else str(value)


def _text_key(row: Record) -> str:
    return rules.question_key(str(row.fields.get("video", "")), row.text("question"))
