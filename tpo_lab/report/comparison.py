"""Two evaluations of the same samples side by side, with bootstrap intervals of each and of their difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from tpo_lab import records as of
from tpo_lab.errors import UsageError
from tpo_lab.metrics.intervals import bootstrap, paired_difference
from tpo_lab.records import GIVEN, ROUTED, Record

Values = NDArray[np.generic]
Triple = tuple[float, float, float]
"""Estimate, low end, high end."""


@dataclass(frozen=True)
class Row:
    """One measure before and after; a triple is None where the measure has no such reading or fewer than two samples.

    Attributes:
        group: "region", "temporal", "highlights", "masks", "tracks", "questions", "what is not there" or "routing".
        measure: what is measured, a share or a mean in [0, 1].
        count: samples.
        before, after: with the route emitted by the model.
        before_given, after_given: with the route given (teacher-forced); None for what has no head.
        constant: of the answers that need no video, where they are given.
        change: after minus before, both routed, paired by sample.
    """

    group: str
    measure: str
    count: int
    before: Triple | None
    after: Triple | None
    before_given: Triple | None
    after_given: Triple | None
    change: Triple | None
    constant: Triple | None = None


def comparison(before: Sequence[Record], after: Sequence[Record], *, constant: Sequence[Record] | None = None, seed: int = 0) -> list[Row]:
    """Rows for every task that the samples hold.

    Args:
        before: records of one evaluation.
        after: records of another one on the same samples in the same order.
        constant: records of `tpo_lab.baselines.constant_records` on the same samples.
        seed: of the bootstrap.

    Raises:
        UsageError: the samples differ.
    """
    for name, other in (("after", after), ("constant", constant)):
        if other is not None and [record.id for record in before] != [record.id for record in other]:
            raise UsageError(
                name, expected="records of the same samples in the same order", got=f"{len(other)} records, not these {len(before)}"
            )
    rows: list[Row] = []
    both, own = (ROUTED, GIVEN), (ROUTED,)
    measures: tuple[tuple[str, str, Callable[[Record], bool], Callable[[list[Record], str], Values], tuple[str, ...]], ...] = (
        ("region", "accuracy at IoU 0.5", of.has_box, lambda records, how: of.box_ious(records, how) >= 0.5, both),
        ("region", "mean IoU", of.has_box, of.box_ious, both),
        ("temporal", "R1 at IoU 0.3", of.has_moment, lambda records, how: of.window_ious(records, how) >= 0.3, both),
        ("temporal", "R1 at IoU 0.5", of.has_moment, lambda records, how: of.window_ious(records, how) >= 0.5, both),
        ("temporal", "R1 at IoU 0.7", of.has_moment, lambda records, how: of.window_ious(records, how) >= 0.7, both),
        ("temporal", "mean IoU", of.has_moment, of.window_ious, both),
        ("temporal", "mAP of all windows", of.has_moment, of.window_precisions, both),
        ("highlights", "HIT@1", of.has_saliency, of.saliency_hits, both),
        ("highlights", "mAP of clips", of.has_saliency, of.saliency_precisions, both),
        ("masks", "J&F", of.has_mask, lambda records, how: of.mask_qualities(records, how).mean(1), both),
        ("tracks", "mean IoU of boxes", of.has_followed_track, of.track_overlaps, both),
        ("questions", "exact answers", of.is_plain, lambda records, _: of.answered(records), own),
        ("what is not there", "exact answers", of.is_absent, lambda records, _: of.answered(records), own),
        ("routing", "right route", lambda record: True, lambda records, _: of.well_routed(records), own),
    )
    for group, name, chosen, values, readings in measures:
        wanted = [chosen(record) for record in before]
        # the routes of constant answers are the true ones
        steady = None if group == "routing" else constant
        rows += _rows(group, name, before, after, steady, wanted, values, readings, seed)
    return rows


def _rows(
    group: str,
    name: str,
    before: Sequence[Record],
    after: Sequence[Record],
    constant: Sequence[Record] | None,
    chosen: Sequence[bool],
    values: Callable[[list[Record], str], Values],
    readings: tuple[str, ...],
    seed: int,
) -> list[Row]:
    count = sum(chosen)
    if not count:
        return []
    sides = [list(compress(records, chosen)) for records in (before, after)]
    if count < 2:
        return [Row(group, name, count, None, None, None, None, None)]
    old, new = (values(side, ROUTED).astype(float) for side in sides)
    given = [_triple(values(side, GIVEN).astype(float), seed) if GIVEN in readings else None for side in sides]
    difference = paired_difference(new, old, seed=seed)
    change = (difference.estimate, difference.low, difference.high)
    steady = None if constant is None else _triple(values(list(compress(constant, chosen)), ROUTED).astype(float), seed)
    return [Row(group, name, count, _triple(old, seed), _triple(new, seed), given[0], given[1], change, steady)]


def _triple(values: Values, seed: int) -> Triple:
    interval = bootstrap(values, seed=seed)
    return interval.estimate, interval.low, interval.high


def overlap(record: Record, head: str) -> str:
    """A phrase on how well one routed answer of a head fits its target: "IoU 0.71", or that the head was not asked."""
    if head not in record.routed:
        return f"the {head} head was not asked"
    if head == "temporal" and of.has_moment(record):
        return f"IoU {of.window_ious([record], ROUTED)[0]:.2f}"
    if head == "mask" and of.has_mask(record):
        return f"J&F {of.mask_qualities([record], ROUTED)[0].mean():.2f}"
    if head == "mask" and of.has_followed_track(record):
        return f"mean IoU {of.track_overlaps([record], ROUTED)[0]:.2f}"
    if head == "region" and of.has_box(record):
        return f"IoU {of.box_ious([record], ROUTED)[0]:.2f}"
    return ""
