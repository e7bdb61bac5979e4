"""Evaluation: every metric twice, routed (the model must emit the route itself) and teacher-forced (the route is given)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from tpo_lab.answer import Answer, Answerer
from tpo_lab.batch import Row
from tpo_lab.errors import UsageError
from tpo_lab.features import FeatureCache
from tpo_lab.media import Frames
from tpo_lab.metrics.intervals import bootstrap
from tpo_lab.metrics.qa import qa_correct, qa_scores
from tpo_lab.metrics.region import box_set_scores, rec_ious, rec_scores
from tpo_lab.metrics.routing import routing_scores
from tpo_lab.metrics.temporal import moment_ious, moment_scores
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample, markers

CAPTION_KINDS = frozenset({"caption"})
"""Kinds of conversation whose answers are no short exact match."""
ABSENT_KINDS = frozenset({"absent"})
"""Kinds of questions that are put like a task's, and to which no route is right: what they ask for is not in the video."""


@dataclass(frozen=True)
class Record:
    """One sample and what the model made of it, JSON-ready.

    Attributes:
        expected, emitted: the routes of the true answer and of the model's.
        routed: the structured answers that the model gave by itself, per head.
        forced: what each head reads where the true routes are given, per head.
        target: the sample's targets.
    """

    id: str
    kind: str
    question: str
    expected_text: str
    text: str
    expected: tuple[str, ...]
    emitted: tuple[str, ...]
    routed: dict[str, Any]
    forced: dict[str, Any]
    target: dict[str, Any]
    media: str


@dataclass(frozen=True)
class Evaluation:
    """Scores by group ("region", "temporal", "qa", "absent", "routing"), and the records behind them.

    Scores of a head come as "routed" and "teacher_forced"; a routed answer of the wrong kind counts as a miss, never as absent.
    "qa" is plain conversation; "absent" is questions put like a task's, about what is not in the video.
    """

    scores: dict[str, Any]
    records: list[Record] = field(default_factory=list)

    def headline(self) -> dict[str, float]:
        """The figures of the report's table, missing ones left out."""
        paths = {
            "REC Acc@0.5": ("region", "routed", "acc@0.5"),
            "REC Acc@0.5 (forced)": ("region", "teacher_forced", "acc@0.5"),
            "REC mIoU": ("region", "routed", "miou"),
            "R1@0.3": ("temporal", "routed", "r1@0.3"),
            "R1@0.5": ("temporal", "routed", "r1@0.5"),
            "R1@0.5 (forced)": ("temporal", "teacher_forced", "r1@0.5"),
            "R1@0.7": ("temporal", "routed", "r1@0.7"),
            "window mIoU": ("temporal", "routed", "miou"),
            "QA accuracy": ("qa", "accuracy"),
            "absent accuracy": ("absent", "accuracy"),
            "route accuracy": ("routing", "accuracy"),
            "false-route rate": ("routing", "false_route_rate"),
            "false-route rate (conversation)": ("qa", "false_route_rate"),
            "false-route rate (absent)": ("absent", "false_route_rate"),
        }
        found = {}
        for name, path in paths.items():
            value: Any = self.scores
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                found[name] = float(value)
        return found

    def to_dict(self, *, records: bool = False) -> dict[str, Any]:
        """JSON-ready; with the records where asked."""
        return {"scores": self.scores, **({"records": [asdict(record) for record in self.records]} if records else {})}


def evaluate(
    model: TPOModel,
    samples: Sequence[Sample],
    *,
    batch_size: int = 32,
    max_tokens: int = 12,
    blind: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a model on samples of any mixture of tasks.

    Args:
        max_tokens: most tokens of an answer; captions are left out of the exact-match score.
        blind: replace every frame by grey and features from files by zeros, to see what the questions alone give away.
        progress: called with the number of samples done and their total.

    Raises:
        UsageError: without samples.
    """
    if not samples:
        raise UsageError("samples", expected="at least one", got=0)
    asked = [sample for sample in samples if sample.meta.get("kind") not in CAPTION_KINDS]
    if not asked:
        raise UsageError("samples", expected="at least one that is no caption", got=len(samples))
    was_training = model.training
    model.eval()
    frames = Frames(model.backbone, features=model.feature_files, keep=False)
    answerer = Answerer(model, max_tokens=max_tokens)
    records: list[Record] = []
    try:
        for start in range(0, len(asked), batch_size):
            rows = [frames.row([sample]) for sample in asked[start : start + batch_size]]
            records += _answer_rows(model, answerer, _blinded(rows) if blind else rows)
            if progress is not None:
                progress(len(records), len(asked))
    finally:
        model.train(was_training)
    return Evaluation(score(records, tuple(model.heads)), records)


@torch.no_grad()
def _answer_rows(model: TPOModel, answerer: Answerer, rows: Sequence[Row]) -> list[Record]:
    video = FeatureCache(model)(rows)
    questions = [replace(row, samples=(_question(row.samples[0]),)) for row in rows]
    answers = answerer.answer(questions, video=video)
    forced: list[dict[str, Any]] = [{} for _ in rows]
    batch = model.collate(rows).to(model.backbone.device)
    if batch.slots:
        forward = model(batch, video)
        for name, slots in batch.slots.items():
            decoded = model.head(name).decode(forward.predictions[name], list(slots.clips), slots.answer)
            owners: list[int] = []
            for row in slots.row.tolist():
                if row not in owners:
                    owners.append(row)
            for row, structured in zip(owners, decoded, strict=True):
                forced[row][name] = structured
    return [_record(row.samples[0], answer, given) for row, answer, given in zip(rows, answers, forced, strict=True)]


def _blinded(rows: Sequence[Row]) -> list[Row]:
    return [_blinded_row(row) for row in rows]


def _blinded_row(row: Row) -> Row:
    features = {head: replace(found, values=torch.zeros_like(found.values)) for head, found in row.features.items()}
    return replace(row, frames=torch.full_like(row.frames, 127), key=f"blind|{row.clip}|{len(row.frames)}", features=features)


def _question(sample: Sample) -> Sample:
    """The sample up to its last question; earlier answers stay."""
    turns = sample.conversation[:-1] if sample.conversation[-1].role == "assistant" else sample.conversation
    return sample.model_copy(update={"conversation": turns})


def _record(sample: Sample, answer: Answer, forced: dict[str, Any]) -> Record:
    expected_text = sample.conversation[-1].text if sample.conversation[-1].role == "assistant" else ""
    return Record(
        id=sample.id,
        kind=str(sample.meta.get("kind", "")),
        question=next(turn.text for turn in reversed(sample.conversation) if turn.role == "user"),
        expected_text=expected_text,
        text=answer.text,
        expected=tuple(markers(expected_text)),
        emitted=answer.routes,
        routed=answer.structured,
        forced=forced,
        target=sample.targets.model_dump(mode="json", exclude_none=True),
        media=sample.media.path,
    )


def score(records: Sequence[Record], heads: Iterable[str]) -> dict[str, Any]:
    """Scores of records; pure, so that stored records can be scored again."""
    scores: dict[str, Any] = {}
    region = [record for record in records if record.target.get("region")]
    if region:
        scores["region"] = {"routed": _region(region, "routed"), "teacher_forced": _region(region, "forced")}
    temporal = [record for record in records if record.target.get("temporal", {}).get("windows_sec")]
    if temporal:
        scores["temporal"] = {"routed": _temporal(temporal, "routed"), "teacher_forced": _temporal(temporal, "forced")}
    plain = [record for record in records if not record.expected]
    absent = [record for record in plain if record.kind in ABSENT_KINDS]
    conversation = [record for record in plain if record.kind not in ABSENT_KINDS]
    scores |= {name: _plain(some) for name, some in (("qa", conversation), ("absent", absent)) if some}
    routing = routing_scores(
        [_unique(record.expected) for record in records], [_unique(record.emitted) for record in records], tasks=tuple(heads)
    )
    scores["routing"] = routing.as_dict()
    return scores


def _plain(records: Sequence[Record]) -> dict[str, Any]:
    """Of records to which no route is right."""
    predicted, expected, kinds = [r.text for r in records], [r.expected_text for r in records], [r.kind for r in records]
    found: dict[str, Any] = qa_scores(predicted, expected, kinds) | _interval("accuracy", qa_correct(predicted, expected))
    return found | {"false_route_rate": sum(bool(record.emitted) for record in records) / len(records)}


def _unique(routes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(routes))


def _region(records: Sequence[Record], how: str) -> dict[str, Any]:
    boxes = [getattr(record, how).get("region", {}).get("boxes_xyxy") for record in records]
    truth = [[item["xyxy"] for item in record.target["region"]] for record in records]
    single = [index for index, true in enumerate(truth) if len(true) == 1]
    found: dict[str, Any] = {}
    if single:
        first = [boxes[index][0] if boxes[index] else None for index in single]
        true = [truth[index][0] for index in single]
        found = rec_scores(first, true) | _interval("acc@0.5", rec_ious(first, true) >= 0.5)
        kinds = sorted({records[index].kind for index in single})
        for kind in kinds:
            chosen = [place for place, index in enumerate(single) if records[index].kind == kind]
            found[f"acc@0.5/{kind}"] = rec_scores([first[p] for p in chosen], [true[p] for p in chosen])["acc@0.5"]
    several = [index for index, true in enumerate(truth) if len(true) > 1]
    if several:
        found["several"] = box_set_scores([boxes[index] for index in several], [truth[index] for index in several])
    return found


def _temporal(records: Sequence[Record], how: str) -> dict[str, Any]:
    windows = [getattr(record, how).get("temporal", {}).get("windows_sec") for record in records]
    truth = [record.target["temporal"]["windows_sec"] for record in records]
    found: dict[str, Any] = moment_scores(windows, truth) | _interval("r1@0.5", moment_ious(windows, truth) >= 0.5)
    for kind in sorted({record.kind for record in records}):
        chosen = [index for index, record in enumerate(records) if record.kind == kind]
        found[f"r1@0.5/{kind}"] = moment_scores([windows[i] for i in chosen], [truth[i] for i in chosen])["r1@0.5"]
    return found


def _interval(name: str, hits: Any) -> dict[str, Any]:
    """The 95% bootstrap interval of a share; a single sample has none."""
    if len(hits) < 2:
        return {}
    interval = bootstrap(hits.astype(float))
    return {f"{name}/interval": [interval.low, interval.high]}
