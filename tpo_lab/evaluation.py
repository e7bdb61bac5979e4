"""Evaluation: every metric twice, routed (the model must emit the route itself) and teacher-forced (the route is given)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from tpo_lab.answer import Answer, Answerer
from tpo_lab.batch import HeadSlots, Row
from tpo_lab.errors import UsageError
from tpo_lab.features import FeatureCache
from tpo_lab.heads import Head, MaskHead
from tpo_lab.heads.sliding import slide
from tpo_lab.media import Frames
from tpo_lab.model import Forward, TPOModel
from tpo_lab.record_scores import score
from tpo_lab.records import Record
from tpo_lab.sample import Sample, heads_asked

CAPTION_KINDS = frozenset({"caption"})
"""Kinds of conversation whose answers are no short exact match."""


@dataclass(frozen=True)
class Evaluation:
    """Scores by group ("region", "temporal", "mask", "track", "qa", "absent", "routing"), and the records behind them.

    Scores of a head come as "routed" and "teacher_forced"; a routed answer of the wrong kind counts as a miss, never as absent.
    "qa" is plain conversation; "absent" is questions put like a task's, about what is not in the video, and in it "auroc" says how well
    the model tells temporal questions about what happens from those about what does not (see `found_scores`).

    "temporal", beside R1 and mean IoU of the first window: "map", "map@0.5" and "map@0.75" of the ranked windows (QVHighlights' MR-mAP,
    over all questions, and under "several" over those with two true windows or more), and "hl_hit@1" and "hl_map" of the saliency (see
    `saliency_scores`).
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
            "segmentation J&F": ("mask", "routed", "j&f"),
            "segmentation J&F (forced)": ("mask", "teacher_forced", "j&f"),
            "segmentation J&F, hidden for a while": ("mask", "routed", "hidden", "j&f"),
            "tracking AO": ("track", "routed", "ao"),
            "tracking AO (forced)": ("track", "teacher_forced", "ao"),
            "tracking AO (box to SAM2)": ("track", "direct", "ao"),
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
            records += answer_rows(model, answerer, _blinded(rows) if blind else rows)
            if progress is not None:
                progress(len(records), len(asked))
    finally:
        model.train(was_training)
    return Evaluation(score(records, tuple(model.heads)), records)


@torch.no_grad()
def answer_rows(model: TPOModel, answerer: Answerer, rows: Sequence[Row]) -> list[Record]:
    """Answers rows of one sample each, by the model's own routes and by the routes that are given; one record per row, in their order."""
    video = FeatureCache(model)(rows)
    questions = [replace(row, samples=(_question(row.samples[0]),)) for row in rows]
    answers = answerer.answer(questions, video=video)
    forced: list[dict[str, Any]] = [{} for _ in rows]
    direct: list[dict[str, Any]] = [{} for _ in rows]
    batch = model.collate(rows).to(model.backbone.device)
    if batch.slots:
        forward = model(batch, video)
        for name, slots in batch.slots.items():
            head = model.head(name)
            decoded = _decoded(head, forward, slots)
            owners = list(dict.fromkeys(slots.row.tolist()))
            for row, structured in zip(owners, decoded, strict=True):
                forced[row][name] = structured
            if isinstance(head, MaskHead):
                for row, pointed in zip(owners, _pointed(head, forward, slots), strict=True):
                    direct[row] = {} if pointed is None else {name: pointed}
    together = zip(rows, answers, forced, direct, strict=True)
    return [_record(row.samples[0], answer, given, boxed) for row, answer, given, boxed in together]


def _pointed(head: MaskHead, forward: Forward, slots: HeadSlots) -> list[dict[str, Any] | None]:
    """What the mask head answers where the user's box goes straight to SAM2; None for answers without a box."""
    boxed = slots.prompt_xyxy.isfinite().all(-1).tolist()
    if not any(boxed):
        return [None] * len(boxed)
    with head.prompted("direct"):
        prediction = head.predict(forward.task_embeddings[head.name], forward.visuals[head.name])
    decoded = head.decode(prediction, list(slots.clips), slots.answer)
    return [structured if has_box else None for structured, has_box in zip(decoded, boxed, strict=True)]


def _decoded(head: Head[Any, Any], forward: Forward, slots: HeadSlots) -> list[dict[str, Any]]:
    """What a head answers, clip by clip; clips longer than those of its training in windows, as inference does it."""
    decoded = head.decode(forward.predictions[head.name], list(slots.clips), slots.answer)
    embeddings, visual, sliding = forward.task_embeddings[head.name], forward.visuals[head.name], head.sliding
    for index, clip in enumerate(slots.clips):
        if sliding is not None and len(clip.times_sec) > sliding.frames:
            mine = slots.answer == index
            decoded[index] = slide(head, embeddings[mine], visual.rows(mine), clip, sliding)
    return decoded


def _blinded(rows: Sequence[Row]) -> list[Row]:
    return [_blinded_row(row) for row in rows]


def _blinded_row(row: Row) -> Row:
    features = {head: replace(found, values=torch.zeros_like(found.values)) for head, found in row.features.items()}
    return replace(row, frames=torch.full_like(row.frames, 127), key=f"blind|{row.clip}|{len(row.frames)}", features=features)


def _question(sample: Sample) -> Sample:
    """The sample up to its last question; earlier answers stay."""
    turns = sample.conversation[:-1] if sample.conversation[-1].role == "assistant" else sample.conversation
    return sample.model_copy(update={"conversation": turns})


def _record(sample: Sample, answer: Answer, forced: dict[str, Any], direct: dict[str, Any]) -> Record:
    expected_text = sample.conversation[-1].text if sample.conversation[-1].role == "assistant" else ""
    return Record(
        id=sample.id,
        kind=str(sample.meta.get("kind", "")),
        question=next(turn.text for turn in reversed(sample.conversation) if turn.role == "user"),
        expected_text=expected_text,
        text=answer.text,
        expected=tuple(heads_asked(expected_text)),
        emitted=answer.routes,
        routed=answer.structured,
        forced=forced,
        direct=direct,
        target=sample.targets.model_dump(mode="json", exclude_none=True),
        media=sample.media.path,
        task=str(sample.meta.get("task", "")),
        route_probability=answer.route_probability,
    )
