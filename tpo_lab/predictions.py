"""A model's answers as samples: the sample that was asked, with the answer as its targets. Official submissions are written from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tpo_lab.datasets.formats.turns import unmarked
from tpo_lab.records import ROUTED, Record
from tpo_lab.rle import decode_rle, encode_rle
from tpo_lab.sample import Sample

NO_WORDS = "No answer."
"""In place of an answer without a word, which the schema has no room for."""


def predicted_samples(samples: Iterable[Sample], records: Iterable[Record], how: str = ROUTED) -> Iterator[Sample]:
    """For every record, the sample it is about with what the model made of it.

    Args:
        samples: those that were evaluated; questions that were left out have no record.
        records: of the evaluation.
        how: which answer to take, see `tpo_lab.records`.
    """
    asked = {sample.id: sample for sample in samples}
    for record in records:
        yield predicted_sample(asked[record.id], record, how)


def predicted_sample(sample: Sample, record: Record, how: str = ROUTED) -> Sample:
    """The sample with the model's answer as its targets and as its last turn; what no head gave has no target.

    Ranked windows have their scores in `meta.scores`. Several masks of an answer are one, since the schema's target is one object.
    Saliency is given in equal steps, each with the score of the nearest frame.
    """
    targets = _targets(sample, getattr(record, how))
    words = " ".join(f"<{name}>" for name, value in targets.items() for _ in range(len(value) if name == "region" else 1))
    before = [turn.model_dump() for turn in sample.conversation]
    asked = before[:-1] if before[-1]["role"] == "assistant" else before
    # what earlier answers marked has no target any more
    said = [{**turn, "text": unmarked(turn["text"])} if turn["role"] == "assistant" else turn for turn in asked]
    scores = getattr(record, how).get("temporal", {}).get("scores")
    made = Sample.model_validate(
        {
            **sample.model_dump(mode="json", exclude={"conversation", "targets", "meta"}),
            "conversation": [*said, {"role": "assistant", "text": words or _plain(record.text)}],
            "targets": targets,
            "meta": {**sample.meta, "predicted": how, **({"scores": scores} if scores and "temporal" in targets else {})},
        }
    )
    return made if sample.root is None else made.at(sample.root)


def _targets(sample: Sample, structured: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    boxes = [box for box in structured.get("region", {}).get("boxes_xyxy", []) if box[0] < box[2] and box[1] < box[3]]
    if boxes:
        times = [target.time_sec for target in sample.targets.region or ()] or [0.0]
        found["region"] = [{"time_sec": times[min(place, len(times) - 1)], "xyxy": box} for place, box in enumerate(boxes)]
    windows = structured.get("temporal", {}).get("windows_sec") or []
    curve = structured.get("temporal", {}).get("saliency") or []
    if windows or curve:
        temporal = {"windows_sec": windows} | ({"saliency": evenly(curve)} if curve else {})
        found["temporal"] = temporal
    masks = structured.get("mask", {})
    if masks.get("masks"):
        times = masks["times_sec"]
        if sample.targets.track is not None or any(turn.text.endswith("<track>") for turn in sample.conversation):
            found["track"] = {"times_sec": times, "xyxy": [_proper(box) for box in masks["track_xyxy"][0]]}
        else:
            found["mask"] = {"times_sec": times, "rle": [_united(list(frame)) for frame in zip(*masks["masks"], strict=True)]}
    return found


def evenly(curve: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Pairs of time and score, in the order of time, as scores in equal steps: each has the score of the frame nearest to its middle."""
    times, scores = np.array(curve, dtype=float).T
    step = float(np.diff(times).mean()) if len(times) > 1 else 1.0
    count = max(1, math.ceil((times[-1] + step / 2) / step - 1e-6))
    middles = (np.arange(count) + 0.5) * step
    return {"step_sec": step, "scores": [float(scores[np.abs(times - middle).argmin()]) for middle in middles]}


def _united(masks: list[dict[str, Any] | None]) -> dict[str, Any] | None:
    """One mask of several; None where none of them is visible."""
    seen = [mask for mask in masks if mask is not None]
    if len(seen) < 2:
        return seen[0] if seen else None
    return encode_rle(np.any([decode_rle("mask", mask) for mask in seen], axis=0))


def _proper(box: list[float] | None) -> list[float] | None:
    return box if box is not None and box[0] < box[2] and box[1] < box[3] else None


def _plain(text: str) -> str:
    return unmarked(text) if text.strip() else NO_WORDS
