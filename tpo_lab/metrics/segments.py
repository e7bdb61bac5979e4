"""Metrics of ranked segments with several annotators, as DiDeMo has them: segments are counted from 0, ends inclusive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tpo_lab.errors import UsageError

AGREEING = 3
"""How many annotators count: those that agree best with the prediction."""


def segment_iou(first: tuple[int, int], second: tuple[int, int]) -> float:
    """IoU of two runs of segments (first, last), both ends inclusive, over the hull; runs apart: 0."""
    shared = max(0, min(first[1], second[1]) + 1 - max(first[0], second[0]))
    return shared / (max(first[1], second[1]) + 1 - min(first[0], second[0]))


def segment_scores(ranked: Sequence[tuple[int, int]], true: ArrayLike) -> tuple[float, float]:
    """Rank and IoU of one query, each the mean of the three annotators that it agrees with best.

    Args:
        ranked: candidate moments (first, last), best first; all 21 of DiDeMo, so that every annotation is among them.
        true: the moments of the annotators [annotator, 2]; three are averaged, fewer if there are fewer.

    Returns:
        The mean of the three lowest ranks, from 1, each of its own annotation, and the mean of the three highest IoUs of the first one.

    Raises:
        UsageError: there is no candidate or no annotation, or an annotation is not among the candidates.

    Source: LocalizingMoments (DiDeMo), evaluation.
    """
    moments = [tuple(int(end) for end in moment) for moment in np.asarray(true).reshape(-1, 2)]
    if not ranked or not moments:
        raise UsageError("ranked, true", expected="at least one candidate and one annotation", got=(len(ranked), len(moments)))
    place = {tuple(moment): rank for rank, moment in reversed(list(enumerate(ranked, start=1)))}
    for moment in moments:
        if moment not in place:
            raise UsageError("ranked", expected=f"the moment {list(moment)} of an annotator among the candidates", got=len(ranked))
    ious = sorted(segment_iou(ranked[0], (first, last)) for first, last in moments)[-AGREEING:]
    ranks = sorted(place[moment] for moment in moments)[:AGREEING]
    return float(np.mean(ranks)), float(np.mean(ious))
