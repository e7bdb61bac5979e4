"""Metrics of highlight detection: Hit@1 and average precision of a saliency per clip, against several annotators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpo_lab.errors import UsageError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def highlight_hits(pred_scores: Sequence[ArrayLike], positive: Sequence[ArrayLike]) -> Bools:
    """Whether [query] the clip with the highest score is positive for any annotator.

    Args:
        pred_scores: per query one score per clip, in any unit; of equal ones the first counts. A list longer than the video may have
            its maximum behind the end: a miss.
        positive: per query booleans [clip, annotator].

    Raises:
        UsageError: as `highlight_average_precisions`.

    Source: moment_detr, standalone_eval (HL-Hit1).
    """
    scores, truth = _checked(pred_scores, positive)
    top = [int(values.argmax()) for values in scores]
    return np.array([place < len(clips) and bool(clips[place].any()) for place, clips in zip(top, truth, strict=True)])


def highlight_average_precisions(pred_scores: Sequence[ArrayLike], positive: Sequence[ArrayLike]) -> Floats:
    """Average precision [query, annotator] in [0, 1] of the clips ranked by score.

    Equal scores are one threshold. Precision is made non-increasing over recall, and averaged over the *distinct levels of recall
    above 0*, each with the same weight. Scores are cut to the clips of the video, or filled with 0.0, which may outrank negative ones.
    An annotator without a positive clip: 0; one with positive clips only: 1.

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


def _checked(pred_scores: Sequence[ArrayLike], positive: Sequence[ArrayLike]) -> tuple[list[Floats], list[Bools]]:
    if len(pred_scores) != len(positive) or not len(positive):
        raise UsageError("pred_scores", expected=f"one list per query, at least one (queries: {len(positive)})", got=len(pred_scores))
    scores = [np.asarray(values, dtype=np.float64) for values in pred_scores]
    truth = [np.asarray(each, dtype=bool) for each in positive]
    for index, (values, each) in enumerate(zip(scores, truth, strict=True)):
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise UsageError(f"pred_scores[{index}]", expected="one or more finite scores", got=values.tolist())
        if each.ndim != 2 or not len(each) or each.shape[1] != truth[0].shape[1]:
            raise UsageError(f"positive[{index}]", expected=f"booleans [clip, {truth[0].shape[-1]}]", got=each.shape)
    return scores, truth
