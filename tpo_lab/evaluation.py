"""Evaluation: every metric twice, routed (the model must emit the route itself) and teacher-forced (the route is given)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from numpy.typing import ArrayLike

from tpo_lab.answer import Answer, Answerer
from tpo_lab.batch import Row
from tpo_lab.errors import UsageError
from tpo_lab.features import FeatureCache
from tpo_lab.media import Frames
from tpo_lab.metrics.auroc import auroc
from tpo_lab.metrics.highlights import MINIMA, clip_scores, highlight_average_precisions, highlight_hits, highlight_scores
from tpo_lab.metrics.intervals import bootstrap, two_samples
from tpo_lab.metrics.moment_retrieval import average_precisions, ranked_scores
from tpo_lab.metrics.qa import ABSENT_KINDS, qa_correct, qa_scores
from tpo_lab.metrics.region import box_set_scores, rec_ious, rec_scores
from tpo_lab.metrics.routing import routing_scores
from tpo_lab.metrics.temporal import moment_ious, moment_scores
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample, markers

CAPTION_KINDS = frozenset({"caption"})
"""Kinds of conversation whose answers are no short exact match."""


@dataclass(frozen=True)
class Record:
    """One sample and what the model made of it, JSON-ready.

    Attributes:
        expected, emitted: the routes of the true answer and of the model's.
        routed: the structured answers that the model gave by itself, per head.
        forced: what each head reads where the true routes are given, per head.
        target: the sample's targets.
        task: the head that the sample is about, where its `meta` says so; for questions about what is not there no route does.
        route_probability: per head, as in `Answer`; empty in records of before it was kept.
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
    task: str = ""
    route_probability: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Scores by group ("region", "temporal", "qa", "absent", "routing"), and the records behind them.

    Scores of a head come as "routed" and "teacher_forced"; a routed answer of the wrong kind counts as a miss, never as absent.
    "qa" is plain conversation; "absent" is questions put like a task's, about what is not in the video, and in it "auroc" says how well
    the model tells temporal questions about what happens from those about what does not (see `found_scores`).

    "temporal", beside R1 and mean IoU of the first window: "map", "map@0.5" and "map@0.75" of the ranked windows (QVHighlights' MR-mAP,
    over all questions, and under "several" over those with two true windows or more), and "hl_hit@1" and "hl_map" of the saliency (see
    `highlights`).
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
            "MR mAP": ("temporal", "routed", "map"),
            "HL HIT@1": ("temporal", "routed", "hl_hit@1"),
            "HL mAP": ("temporal", "routed", "hl_map"),
            "QA accuracy": ("qa", "accuracy"),
            "absent accuracy": ("absent", "accuracy"),
            "absent AUROC": ("absent", "auroc"),
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
        task=str(sample.meta.get("task", "")),
        route_probability=answer.route_probability,
    )


def score(records: Sequence[Record], heads: Iterable[str]) -> dict[str, Any]:
    """Scores of records; pure, so that stored records can be scored again."""
    scores: dict[str, Any] = {}
    region = [record for record in records if record.target.get("region")]
    if region:
        scores["region"] = {"routed": _region(region, "routed"), "teacher_forced": _region(region, "forced")}
    temporal = [record for record in records if record.target.get("temporal")]
    if temporal:
        scores["temporal"] = {"routed": _temporal(temporal, "routed"), "teacher_forced": _temporal(temporal, "forced")}
    plain = [record for record in records if not record.expected]
    absent = [record for record in plain if record.kind in ABSENT_KINDS]
    conversation = [record for record in plain if record.kind not in ABSENT_KINDS]
    scores |= {name: _plain(some) for name, some in (("qa", conversation), ("absent", absent)) if some}
    if absent:
        scores["absent"] |= found_scores(records)
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


def found_scores(records: Sequence[Record], head: str = "temporal") -> dict[str, Any]:
    """AUROC of "what is asked for is there" among the questions put to a head, and its 95% bootstrap interval.

    A question's score is the probability of the head's route as the first token of the answer (`Answer.route_probability`). Positive are
    questions whose true answer asks the head, negative those about what is not there ("It does not happen."). The score is the
    model's before it decides, so the figure does not depend on where the decision is cut, as the accuracy and the false-route rate do.
    The score of the head's best window takes no part: a head is read only behind its route, so an answer without one has none.

    Nothing where one of the two groups is empty or a record holds no probability.
    """
    there = [record for record in records if head in record.expected]
    absent = [record for record in records if not record.expected and record.kind in ABSENT_KINDS and record.task == head]
    if not there or not absent or any(head not in record.route_probability for record in (*there, *absent)):
        return {}
    positive, negative = ([record.route_probability[head] for record in group] for group in (there, absent))
    found: dict[str, Any] = {"auroc": auroc(positive, negative)}
    if min(len(positive), len(negative)) > 1:
        interval = two_samples(positive, negative, auroc)
        found["auroc/interval"] = [interval.low, interval.high]
    return found | {"auroc_there_count": float(len(positive)), "auroc_absent_count": float(len(negative))}


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
    found: dict[str, Any] = {}
    some = [record for record in records if record.target["temporal"].get("windows_sec")]
    if some:
        found |= moments(some, how)
    graded = [record for record in records if record.target["temporal"].get("saliency")]
    if graded:
        found |= highlights(graded, how)
    return found


def moments(records: Sequence[Record], how: str) -> dict[str, Any]:
    """R1 and mean IoU of the first window, and average precision of all, of records that have true windows.

    Args:
        how: "routed" or "forced", which of a record's answers to read. Where the temporal head gave none, no window is found.
    """
    answers = [getattr(record, how).get("temporal", {}) for record in records]
    windows, ranked = [answer.get("windows_sec") for answer in answers], [_ranked(answer) for answer in answers]
    truth = [record.target["temporal"]["windows_sec"] for record in records]
    found: dict[str, Any] = moment_scores(windows, truth) | _interval("r1@0.5", moment_ious(windows, truth) >= 0.5)
    for kind in sorted({record.kind for record in records}):
        chosen = [index for index, record in enumerate(records) if record.kind == kind]
        found[f"r1@0.5/{kind}"] = moment_scores([windows[i] for i in chosen], [truth[i] for i in chosen])["r1@0.5"]
    found |= ranked_scores(ranked, truth) | _interval("map", average_precisions(ranked, truth).mean(1))
    several = [index for index, true in enumerate(truth) if len(true) > 1]
    if several:
        scores = ranked_scores([ranked[index] for index in several], [truth[index] for index in several])
        found["several"] = scores | {"count": float(len(several))}
    return found


def highlights(records: Sequence[Record], how: str) -> dict[str, Any]:
    """HIT@1 and mean average precision of the saliency of records whose saliency is annotated: QVHighlights' HL at "VeryGood".

    Officially three annotators grade each clip of 2 seconds from 0 to 4, a clip is positive for those that gave 4, and the model gives one
    score per clip. A sample's target is one annotator with clips of its own length. In the world a grade is the share of the clip that
    the event fills, times 4, so that a positive clip is one that lies inside the event as a whole. The head's curve of frames is
    brought to the clips by `clip_scores`.

    A head that gives all clips the same score hits where the first clip is positive, and its average precision is the share of positive
    clips. Where all grades are alike the model can change nothing: both are 1 where every clip is positive, and 0 where none is, which
    "hl_no_positive_rate" counts. Grades on another scale than 0 to 4 would find no positive clip, too.

    Args:
        how: "routed" or "forced", which of a record's answers to read. Where the temporal head gave no saliency, both are 0.
    """
    found: list[ArrayLike | None] = []
    positive: list[ArrayLike] = []
    for record in records:
        curve, target = getattr(record, how).get("temporal", {}).get("saliency"), record.target["temporal"]["saliency"]
        found.append(clip_scores(curve, step_sec=target["step_sec"], count=len(target["scores"])) if curve else None)
        positive.append([[grade >= MINIMA["VeryGood"]] for grade in target["scores"]])
    scores: dict[str, Any] = highlight_scores(found, positive)
    precisions = highlight_average_precisions(found, positive).mean(1)
    return scores | _interval("hl_hit@1", highlight_hits(found, positive)) | _interval("hl_map", precisions)


def _ranked(answer: Mapping[str, Any]) -> list[list[float]]:
    """Windows as (start, end, score); those of a head that gives no scores keep their order."""
    windows = answer.get("windows_sec") or []
    scores = answer.get("scores") or [-rank for rank in range(len(windows))]
    return [[start, end, score] for (start, end), score in zip(windows, scores, strict=True)]


def _interval(name: str, values: Any) -> dict[str, Any]:
    """The 95% bootstrap interval of a mean; a single sample has none."""
    if len(values) < 2:
        return {}
    interval = bootstrap(values.astype(float))
    return {f"{name}/interval": [interval.low, interval.high]}
