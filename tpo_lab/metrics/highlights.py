"""Metrics of highlight detection: Hit@1 and average precision of a saliency per clip, against several annotators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpo_lab.errors import UsageError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MINIMA = {"Fair": 2, "Good": 3, "VeryGood": 4}
"""The least annotated saliency, 0 to 4, of a positive clip; papers quote "VeryGood"."""


def clip_scores(saliency: ArrayLike, *, step_sec: float, count: int) -> Floats:
    """Score per clip [count], in the unit of the saliency, from a curve of frames.

    Clip k holds the frames from k * step_sec up to (k + 1) * step_sec and gets their mean; one that holds none gets the score of the frame
    nearest to its middle, the earlier of two. With one frame per clip, as in QVHighlights, these are the scores themselves.

    Args:
        saliency: (time, score) of each frame [frame, 2], times in seconds from the start of the first clip, in any order.
        step_sec: length of a clip in seconds.
        count: how many clips there are; frames before the first and behind the last count nowhere but as neighbours.

    Raises:
        UsageError: no frame, another shape, a value that is not finite, or a step or count that is not positive.
    """
    frames = np.asarray(saliency, dtype=np.float64)
    if frames.ndim != 2 or frames.shape[1] != 2 or not len(frames) or not np.isfinite(frames).all():
        raise UsageError("saliency", expected="one or more finite (time, score)", got=frames.tolist())
    if step_sec <= 0 or count < 1:
        raise UsageError("step_sec, count", expected="seconds above 0, and 1 or more clips", got=(step_sec, count))
    frames = frames[frames[:, 0].argsort(kind="stable")]
    # 0.3 / 0.1 is less than 3
    clip = np.floor(frames[:, 0] / step_sec + 1e-6)
    member = clip == np.arange(count)[:, None]
    middle = (np.arange(count) + 0.5) * step_sec
    nearest = np.abs(frames[:, 0] - middle[:, None]).argmin(1)
    sums, sizes = member @ frames[:, 1], member.sum(1)
    found: Floats = np.where(sizes > 0, sums / np.maximum(sizes, 1), frames[nearest, 1])
    return found


def highlight_scores(pred_scores: Sequence[ArrayLike | None], positive: Sequence[ArrayLike]) -> dict[str, float]:
    """Highlight detection: `hl_hit@1`, `hl_map` (mean over queries and annotators), and what bounds them.

    `hl_missing_rate` is the share of queries without a prediction, `hl_no_positive_rate` that of queries without a positive clip, which
    score 0 whatever is predicted, as officially. `hl_count` is the number of queries.

    Args:
        pred_scores: as in `highlight_hits`.
        positive: as in `highlight_hits`; all queries have the same number of annotators.

    Raises:
        UsageError: as `highlight_average_precisions`.
    """
    return {
        "hl_hit@1": float(highlight_hits(pred_scores, positive).mean()),
        "hl_map": float(highlight_average_precisions(pred_scores, positive).mean()),
        "hl_missing_rate": sum(scores is None for scores in pred_scores) / len(pred_scores),
        "hl_no_positive_rate": sum(not np.asarray(each).any() for each in positive) / len(positive),
        "hl_count": float(len(positive)),
    }


def highlight_hits(pred_scores: Sequence[ArrayLike | None], positive: Sequence[ArrayLike]) -> Bools:
    """Whether [query] the clip with the highest score is positive for any annotator.

    Args:
        pred_scores: per query one score per clip, in any unit; of equal ones the first counts. A list longer than the video may have
            its maximum behind the end: a miss. None, no prediction at all, is a miss too.
        positive: per query booleans [clip, annotator].

    Raises:
        UsageError: as `highlight_average_precisions`.

    Source: moment_detr, standalone_eval (HL-Hit1).
    """
    scores, truth = _checked(pred_scores, positive)
    top = [len(clips) if values is None else int(values.argmax()) for values, clips in zip(scores, truth, strict=True)]
    return np.array([place < len(clips) and bool(clips[place].any()) for place, clips in zip(top, truth, strict=True)])


def highlight_average_precisions(pred_scores: Sequence[ArrayLike | None], positive: Sequence[ArrayLike]) -> Floats:
    """Average precision [query, annotator] in [0, 1] of the clips ranked by score.

    Equal scores are one threshold. Precision is made non-increasing over recall, and averaged over the *distinct levels of recall
    above 0*, each with the same weight. Scores are cut to the clips of the video, or filled with 0.0, which may outrank negative ones.
    An annotator without a positive clip: 0; one with positive clips only: 1; no prediction at all: 0.

    Args:
        pred_scores: as in `highlight_hits`.
        positive: as in `highlight_hits`; all queries have the same number of annotators.

    Raises:
        UsageError: the numbers of queries differ or are 0, a query has no score or no clip, a score is not finite, or the numbers of
            annotators differ.

    Source: moment_detr, standalone_eval (HL-mAP).
    """
    scores, truth = _checked(pred_scores, positive)
    clips = np.array([len(each) for each in truth])
    real = np.arange(clips.max()) < clips[:, None]
    padded, labels = np.zeros(real.shape), np.zeros((*real.shape, truth[0].shape[1]))
    for row, (values, each) in enumerate(zip(scores, truth, strict=True)):
        # no prediction: no clip is found, at any threshold
        if values is not None:
            padded[row, : min(len(values), len(each))] = values[: len(each)]
            labels[row, : len(each)] = each
    order = np.argsort(np.where(real, -padded, np.inf), axis=1, kind="stable")
    ranked = np.take_along_axis(np.where(real, padded, -np.inf), order, axis=1)
    # real clips stand before the padding, so a threshold ends where the next score differs
    ends = _ends(ranked, real)
    found = np.take_along_axis(labels, order[..., None], axis=1).cumsum(1)
    precision = np.where(ends[..., None], found / np.arange(1, real.shape[1] + 1)[:, None], 0.0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.maximum.accumulate(np.where(ends[..., None], found, 0.0), axis=1)
    is_level = np.diff(reached, axis=1, prepend=0.0) > 0
    levels = is_level.sum(1)
    means: Floats = np.divide((envelope * is_level).sum(1), levels, out=np.zeros(levels.shape), where=levels > 0)
    return means


def _ends(ranked: Floats, real: Bools) -> Bools:
    """Where a run of equal scores ends [query, clip]; padding, at -inf behind the clips, never does."""
    following = np.concatenate([ranked[:, 1:], np.full((len(ranked), 1), -np.inf)], axis=1)
    ends: Bools = (ranked != following) & real
    return ends


def _checked(pred_scores: Sequence[ArrayLike | None], positive: Sequence[ArrayLike]) -> tuple[list[Floats | None], list[Bools]]:
    if len(pred_scores) != len(positive) or not len(positive):
        raise UsageError("pred_scores", expected=f"one list per query, at least one (queries: {len(positive)})", got=len(pred_scores))
    scores = [None if values is None else np.asarray(values, dtype=np.float64) for values in pred_scores]
    truth = [np.asarray(each, dtype=bool) for each in positive]
    for index, (values, each) in enumerate(zip(scores, truth, strict=True)):
        if values is not None and (values.ndim != 1 or not len(values) or not np.isfinite(values).all()):
            raise UsageError(f"pred_scores[{index}]", expected="one or more finite scores", got=values.tolist())
        if each.ndim != 2 or not len(each) or each.shape[1] != truth[0].shape[1]:
            raise UsageError(f"positive[{index}]", expected=f"booleans [clip, {truth[0].shape[-1]}]", got=each.shape)
    return scores, truth
