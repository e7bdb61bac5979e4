"""Two evaluations of the same samples side by side, with bootstrap intervals of each and of their difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError
from tpo_lab.metrics.intervals import bootstrap, paired_difference
from tpo_lab.metrics.qa import ABSENT_KINDS, qa_correct
from tpo_lab.metrics.region import rec_ious
from tpo_lab.metrics.routing import route_correct
from tpo_lab.metrics.temporal import moment_ious

if TYPE_CHECKING:
    from tpo_lab.evaluation import Record

Values = NDArray[np.float64]
ROUTED, GIVEN = "routed", "forced"
Triple = tuple[float, float, float]
"""Estimate, low end, high end."""


@dataclass(frozen=True)
class Row:
    """One measure before and after; a triple is None where the measure has no such reading or fewer than two samples.

    Attributes:
        group: "region", "temporal", "questions" or "routing".
        measure: what is measured, a share or a mean in [0, 1].
        count: samples.
        before, after: with the route emitted by the model.
        before_given, after_given: with the route given (teacher-forced); None for what has no head.
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


def comparison(before: Sequence[Record], after: Sequence[Record], *, seed: int = 0) -> list[Row]:
    """Rows for every task that the samples hold.

    Args:
        before: records of one evaluation.
        after: records of another one on the same samples in the same order.
        seed: of the bootstrap.

    Raises:
        UsageError: the samples differ.
    """
    if [record.id for record in before] != [record.id for record in after]:
        raise UsageError(
            "after", expected="records of the same samples in the same order", got=f"{len(after)} records, not these {len(before)}"
        )
    rows: list[Row] = []
    single = [len(record.target.get("region") or ()) == 1 for record in before]
    moments = [bool((record.target.get("temporal") or {}).get("windows_sec")) for record in before]
    absent = [not record.expected and record.kind in ABSENT_KINDS for record in before]
    plain = [not record.expected and record.kind not in ABSENT_KINDS for record in before]
    measures: tuple[tuple[str, str, list[bool], Callable[[list[Record], str], Values]], ...] = (
        ("region", "accuracy at IoU 0.5", single, lambda records, how: _reached(_box_ious(records, how), 0.5)),
        ("region", "mean IoU", single, _box_ious),
        ("temporal", "R1 at IoU 0.3", moments, lambda records, how: _reached(_window_ious(records, how), 0.3)),
        ("temporal", "R1 at IoU 0.5", moments, lambda records, how: _reached(_window_ious(records, how), 0.5)),
        ("temporal", "mean IoU", moments, _window_ious),
    )
    for group, name, chosen, values in measures:
        rows += _rows(group, name, before, after, chosen, values, (ROUTED, GIVEN), seed)
    rows += _rows("questions", "exact answers", before, after, plain, _answered, (ROUTED,), seed)
    rows += _rows("what is not there", "exact answers", before, after, absent, _answered, (ROUTED,), seed)
    rows += _rows("routing", "right route", before, after, [True] * len(before), _well_routed, (ROUTED,), seed)
    return rows


def _rows(
    group: str,
    name: str,
    before: Sequence[Record],
    after: Sequence[Record],
    chosen: Sequence[bool],
    values: Callable[[list[Record], str], Values],
    readings: tuple[str, ...],
    seed: int,
) -> list[Row]:
    count = sum(chosen)
    if not count:
        return []
    sides = [[record for record, wanted in zip(records, chosen, strict=True) if wanted] for records in (before, after)]
    if count < 2:
        return [Row(group, name, count, None, None, None, None, None)]
    old, new = (values(side, ROUTED) for side in sides)
    given = [_triple(values(side, GIVEN), seed) if GIVEN in readings else None for side in sides]
    difference = paired_difference(new, old, seed=seed)
    change = (difference.estimate, difference.low, difference.high)
    return [Row(group, name, count, _triple(old, seed), _triple(new, seed), given[0], given[1], change)]


def _triple(values: Values, seed: int) -> Triple:
    interval = bootstrap(values, seed=seed)
    return interval.estimate, interval.low, interval.high


def _reached(ious: Values, threshold: float) -> Values:
    return (ious >= threshold).astype(float)


def _box_ious(records: list[Record], how: str) -> Values:
    boxes = [getattr(record, how).get("region", {}).get("boxes_xyxy") for record in records]
    return rec_ious([found[0] if found else None for found in boxes], [record.target["region"][0]["xyxy"] for record in records])


def _window_ious(records: list[Record], how: str) -> Values:
    windows = [getattr(record, how).get("temporal", {}).get("windows_sec") for record in records]
    return moment_ious(windows, [record.target["temporal"]["windows_sec"] for record in records])


def _answered(records: list[Record], how: str) -> Values:
    return np.asarray(qa_correct([record.text for record in records], [record.expected_text for record in records]), dtype=float)


def _well_routed(records: list[Record], how: str) -> Values:
    # Several routes of one head make one answer of that head.
    pairs = [(tuple(dict.fromkeys(record.expected)), tuple(dict.fromkeys(record.emitted))) for record in records]
    return np.asarray(route_correct([pair[0] for pair in pairs], [pair[1] for pair in pairs]), dtype=float)


def overlap(record: Record, head: str) -> str:
    """A phrase on how well one routed answer of a head fits its target: "IoU 0.71", or that the head was not asked."""
    if head not in record.routed:
        return f"the {head} head was not asked"
    if head == "temporal" and (record.target.get("temporal") or {}).get("windows_sec"):
        return f"IoU {_window_ious([record], ROUTED)[0]:.2f}"
    if head == "region" and len(record.target.get("region") or ()) == 1:
        return f"IoU {_box_ious([record], ROUTED)[0]:.2f}"
    return ""
