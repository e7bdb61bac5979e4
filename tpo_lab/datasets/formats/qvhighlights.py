"""QVHighlights: moments and highlights of 150-second videos, a JSON object a line; also the JSONL form into which others put their moments.

Source: the data set's README, moment_detr (data/README.md); the JSONL form of other data sets as CG-DETR and lighthouse ship it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.submission import ranked_windows, raw_of, write_lines
from tpo_lab.datasets.formats.turns import temporal_turns
from tpo_lab.datasets.formats.windows import spans
from tpo_lab.files import Record, Streamed, stream_jsonl
from tpo_lab.sample import Sample

CLIP_SEC = 2.0
ANNOTATORS = 3
LOWEST, HIGHEST = 0, 4


def rows(source: Source) -> Iterator[Streamed]:
    """One line, one query."""
    return stream_jsonl(source.path)


def sample(record: Record, source: Source) -> Sample:
    """One query with its windows, and with the mean of the annotators' scores for every clip of 2 s, 0 outside the windows."""
    name, video, query, duration = record.text("qid"), record.words("vid"), record.words("query"), record.seconds("duration")
    target: dict[str, Any] = {}
    if "relevant_windows" in record.fields:
        target["windows_sec"] = spans(record, "relevant_windows", source, duration)
    if "saliency_scores" in record.fields:
        target["saliency"] = {"step_sec": CLIP_SEC, "scores": _saliency(record, duration)}
    turns = temporal_turns(name, query)
    return Sample.model_validate(
        {
            "id": f"qvhighlights-{name}",
            "source": "qvhighlights",
            "split": source.split,
            "media": {"path": f"{video}.mp4"},
            # the test split is published without its answers
            "conversation": turns if target else turns[:1],
            "targets": {"temporal": target} if target else {},
            "meta": {"task": "temporal", "duration_sec": duration, "raw": dict(record.fields)},
        }
    )


def _saliency(record: Record, duration: float) -> list[float]:
    """Scores of every clip from 0 to 1; a score of 4 for all three annotators is 1."""
    scores, clips = record.rows("saliency_scores", ANNOTATORS), record.several("relevant_clip_ids")
    if len(clips) != len(scores):
        raise record.bad("relevant_clip_ids", "lengths_equal", f"one clip per row of saliency_scores ({len(scores)})", len(clips))
    if len(scores) and not ((scores >= LOWEST) & (scores <= HIGHEST)).all():
        raise record.bad("saliency_scores", "score_range", f"scores from {LOWEST} to {HIGHEST}", scores.tolist())
    found = [0.0] * int(duration // CLIP_SEC)
    for clip, given in zip(clips, scores, strict=True):
        if type(clip) is not int or not 0 <= clip < len(found):
            raise record.bad("relevant_clip_ids", "clip_in_video", f"clips from 0 to {len(found) - 1}", clip)
        found[clip] = float(given.mean()) / HIGHEST
    return found


def write(samples: Iterable[Sample], path: Path) -> int:
    """Rows as standalone_eval takes them: windows with scores, best first, and a score for every clip."""
    return write_lines(path, (json.dumps(_row(each)) for each in samples))


def _row(sample: Sample) -> dict[str, Any]:
    raw = raw_of(sample, "qid", "query", "vid")
    target = sample.targets.temporal
    made = {"qid": raw["qid"], "query": raw["query"], "vid": raw["vid"], "pred_relevant_windows": ranked_windows(sample)}
    if target is not None and target.saliency is not None:
        made["pred_saliency_scores"] = list(target.saliency.scores)
    return made


QVHIGHLIGHTS = Format(
    name="qvhighlights",
    title="QVHighlights",
    home="moment_detr, data/ (jayleicn); the videos from the same page",
    licence="CC BY-NC-SA 4.0",
    layout="highlight_train_release.jsonl, beside the videos {vid}.mp4",
    rows=rows,
    sample=sample,
    write=write,
    tasks=("temporal",),
)
