"""One window per query: Charades-STA, ActivityNet Captions, TACoS and HiREST, in the official forms or as QVHighlights JSONL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from tpo_lab.errors import UsageError
from tpo_lab.files import Record, by_id, numbered, read_json, read_jsonl, read_text, record, records, windows, without_scores
from tpo_lab.metrics.temporal import moment_ious
from tpo_lab.scoring.report import Measure, Request, Scored, matched

THRESHOLDS = (0.3, 0.5, 0.7)
_VIDEO_SUFFIXES = {".mp4", ".avi", ".mkv", ".webm", ".mov"}


def score_moments(request: Request) -> Scored:
    """R1 at IoU >= 0.3, 0.5 and 0.7 and mean IoU of the first window; no window is a miss in every denominator.

    So is one that ends before it starts, as language models write it; both are counted as unparsable.

    Source: TimeChat, metrics of temporal grounding.
    """
    return _score(request, epsilon=0.0)


def score_hirest(request: Request) -> Scored:
    """The same with 1e-8 added to the union, so that an IoU of exactly 0.5 is no hit.

    Only entries with a clip are scored; predictions for the other entries of the ground truth are passed over.

    Source: HiREST, evaluation of moment retrieval, which reads the files all_data_*.json.
    """
    return _score(request, epsilon=1e-8, unasked=_without_clip(request.gt))


def _score(request: Request, *, epsilon: float, unasked: frozenset[str] = frozenset()) -> Scored:
    predicted, by_text = _predictions(request.pred, rows_by_text=request.gt.suffix != ".jsonl")
    predicted = {key: row for key, row in predicted.items() if key not in unasked}
    truth = by_id(_truth(request.gt, by_text=by_text))
    ids, counts = matched(list(predicted), truth, request, what="query")
    given = [_first(predicted[key]) for key in ids]
    true = [truth[key].windows("relevant_windows", some=True) for key in ids]
    ious = moment_ious(given, true, epsilon=epsilon)
    unparsable = int(sum(not len(each) or each[0, 1] < each[0, 0] for each in given))
    measures = {f"R1@{threshold}": Measure(ious >= threshold) for threshold in THRESHOLDS} | {"mIoU": Measure(ious)}
    return Scored(replace(counts, unparsable=unparsable), measures, rules={"iou": ">=", "epsilon": epsilon})


def _first(row: Record) -> Any:
    """The first window [1, 2] of a prediction, or none [0, 2]."""
    name = row.named("pred_relevant_windows", "timestamp")
    value = row.value(name)
    if name == "timestamp" and isinstance(value, list) and len(value) == 2 and not isinstance(value[0], list):
        value = [value]
    first = value[:1] if isinstance(value, list) else value
    return windows(f"{row.where}, {name}", without_scores(first), ordered=False)


def _predictions(path: Path, *, rows_by_text: bool) -> tuple[dict[str, Record], bool]:
    """Predictions by id, and whether the ids are made of video and query, since the official annotations hold no qid."""
    if path.suffix == ".jsonl":
        rows = read_jsonl(path)
        if not rows_by_text:
            return by_id((row.text("qid"), row) for row in rows), False
        texts = numbered(_text_key(row.text("vid"), row.text("query")) for row in rows)
        return by_id(zip(texts, rows, strict=True)), True
    document = read_json(path)
    if not isinstance(document, dict) or not document:
        raise UsageError(str(path), expected="an object of predictions by query id", got=type(document).__name__)
    if all(isinstance(each, dict) and "timestamp" in each for each in document.values()):
        return {key: record(f"{path}, key {key}", value) for key, value in document.items()}, False
    found = {}
    for prompt, videos in document.items():
        for video, fields in record(f"{path}, key {prompt}", videos).fields.items():
            row = record(f"{path}, key {prompt}, {video}", fields)
            found[_text_key(video, prompt)] = Record(row.where, {"timestamp": [row.value("bounds")]})
    return found, True


def _truth(path: Path, *, by_text: bool) -> Iterator[tuple[str, Record]]:
    rows = list(_rows(path))
    texts = numbered(_text_key(row.text("vid"), row.text("query")) for row in rows) if by_text else [row.text("qid") for row in rows]
    return zip(texts, rows, strict=True)


def _rows(path: Path) -> Iterator[Record]:
    """Rows with qid, vid, query and relevant_windows; where the file has no ids, the qid is the place in the file, from 0."""
    if path.suffix == ".jsonl":
        yield from read_jsonl(path)
    elif path.suffix == ".txt":
        yield from _charades(path)
    else:
        document = read_json(path)
        if not isinstance(document, dict):
            raise UsageError(str(path), expected="an object of annotations", got=type(document).__name__)
        yield from _timechat(path, document) if "annotations" in document else _by_video(path, document)


def _charades(path: Path) -> Iterator[Record]:
    for number, line in enumerate(read_text(path).splitlines()):
        head, found, query = line.partition("##")
        words = head.split()
        where = f"{path}, line {number + 1}"
        if not found or len(words) != 3:
            raise UsageError(where, expected="'video start end##sentence'", got=line)
        try:
            window = [float(words[1]), float(words[2])]
        except ValueError:
            raise UsageError(where, expected="start and end in seconds", got=head) from None
        yield Record(where, {"qid": number, "vid": words[0], "query": query, "relevant_windows": [window]})


def _timechat(path: Path, document: dict[str, Any]) -> Iterator[Record]:
    for row in records(path, document["annotations"], "annotations"):
        named = {"qid": row.value("id"), "vid": row.text("image_id"), "query": row.text("caption")}
        yield Record(row.where, {**named, "relevant_windows": [row.value("timestamp")]})


def _by_video(path: Path, document: dict[str, Any]) -> Iterator[Record]:
    """ActivityNet Captions (seconds), TACoS (frames, with fps) and HiREST (by prompt, then by video)."""
    number = 0
    for key, fields in document.items():
        row = record(f"{path}, key {key}", fields)
        if "timestamps" not in row.fields:
            for video, each in _entries(row):
                if each.value("clip"):
                    yield Record(each.where, {"qid": number, "vid": video, "query": key, "relevant_windows": [each.value("bounds")]})
                    number += 1
            continue
        stamps, sentences = row.rows("timestamps", 2), row.texts("sentences")
        if len(stamps) != len(sentences):
            raise UsageError(f"{row.where}, sentences", expected=f"one per timestamp ({len(stamps)})", got=len(sentences))
        unit = row.number("fps") if "fps" in row.fields else 1.0
        for window, sentence in zip(stamps, sentences, strict=True):
            yield Record(row.where, {"qid": number, "vid": key, "query": sentence, "relevant_windows": [(window / unit).tolist()]})
            number += 1


def _entries(row: Record) -> Iterator[tuple[str, Record]]:
    """The videos of a prompt of HiREST."""
    if {"bounds", "captions"} <= row.fields.keys():
        hint = "Steps by video are for moment segmentation and step captioning, which are not scored here."
        raise UsageError(row.where, expected="videos by prompt, as in all_data_test.json", got="steps of a video", hint=hint)
    for video, entry in row.fields.items():
        yield video, record(f"{row.where}, {video}", entry)


def _without_clip(path: Path) -> frozenset[str]:
    """The entries of a ground truth by prompt that show no moment."""
    if path.suffix != ".json":
        return frozenset()
    document = read_json(path)
    if not isinstance(document, dict) or "annotations" in document:
        return frozenset()
    rows = ((key, record(f"{path}, key {key}", each)) for key, each in document.items())
    prompts = [(key, row) for key, row in rows if "timestamps" not in row.fields]
    return frozenset(_text_key(video, key) for key, row in prompts for video, each in _entries(row) if not each.value("clip"))


def _text_key(video: str, query: str) -> str:
    name = PurePath(video)
    return f"{name.stem if name.suffix in _VIDEO_SUFFIXES else video}: {' '.join(query.split())}"
