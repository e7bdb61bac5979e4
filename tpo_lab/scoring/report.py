"""What a score is asked with and what it gives: paths and options in; counts, metrics in percent and details out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpo_lab.errors import UsageError
from tpo_lab.metrics.intervals import bootstrap

_LISTED = 10


@dataclass(frozen=True)
class Request:
    """What to score.

    Attributes:
        pred: the prediction file or folder.
        gt: the ground truth, file or folder.
        variant: which rule of several; "" is the benchmark's default.
        allow_missing: score what both sides have; by default a missing or an extra id is an error.
        bootstrap: resamples of the confidence intervals; 0 for none.
        workers: processes for masks and tracks.
        pred_qa: the predicted answers (NExT-GQA).
        gt_qa: the questions with their answers (NExT-GQA).
        progress: hears, for masks and tracks, how many videos, objects or expressions are done, and of how many.
    """

    pred: Path
    gt: Path
    variant: str = ""
    allow_missing: bool = False
    bootstrap: int = 0
    workers: int = 1
    pred_qa: Path | None = None
    gt_qa: Path | None = None
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class Counts:
    """Numbers of records; `unparsable` are predictions that the benchmark's rule could not read as an answer, scored as it says."""

    predictions: int
    ground_truth: int
    missing: int = 0
    extra: int = 0
    unparsable: int = 0


@dataclass(frozen=True)
class Measure:
    """One metric as the values that it is made of.

    Attributes:
        values: one row per query, question or video [sample, ...], fractions; `statistic` of them is the metric.
        statistic: rows to one fraction; the mean by default.
        decimals: to which the percentage is rounded, as an official tool prints it; None for no rounding.
    """

    values: ArrayLike
    statistic: Callable[[NDArray[np.float64]], float] | None = None
    decimals: int | None = None

    def percent(self) -> float:
        """The metric in percent."""
        rows = np.asarray(self.values, dtype=np.float64)
        value = 100 * float(rows.mean() if self.statistic is None else self.statistic(rows))
        return value if self.decimals is None else float(f"{value:.{self.decimals}f}")

    def interval(self, resamples: int) -> list[float] | None:
        """The ends of the 95% interval in percent; None for fewer than two samples."""
        rows = np.asarray(self.values, dtype=np.float64)
        if len(rows) < 2:
            return None
        found = bootstrap(rows, statistic=self.statistic, resamples=resamples)
        return [100 * found.low, 100 * found.high]


@dataclass(frozen=True)
class Report:
    """The result of one score; metrics in percent."""

    benchmark: str
    variant: str
    options: Mapping[str, Any]
    counts: Counts
    metrics: Mapping[str, float]
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "benchmark": self.benchmark,
            "variant": self.variant,
            "options": dict(self.options),
            "counts": vars(self.counts),
            "metrics": dict(self.metrics),
            "detail": dict(self.detail),
        }


@dataclass(frozen=True)
class Scored:
    """What the scorer of one benchmark hands back, before percentages and intervals.

    Attributes:
        rules: the options that this benchmark's rule stands for, for the record.
    """

    counts: Counts
    measures: Mapping[str, Measure]
    detail: Mapping[str, Any] = field(default_factory=dict)
    rules: Mapping[str, Any] = field(default_factory=dict)


def matched(
    predicted: Collection[str], true: Sequence[str] | Mapping[str, Any], request: Request, *, what: str
) -> tuple[list[str], Counts]:
    """The ids that both sides have, in the order of the ground truth, and the counts of records, none unparsable as yet.

    Args:
        predicted: ids of the predictions.
        true: ids of the ground truth.
        request: says whether missing and extra ids are allowed.
        what: the ids are of, for the message ("qid", "video").

    Raises:
        UsageError: ids are missing or extra and that is not allowed (the first ten are named), or nothing is left.
    """
    if not true:
        raise UsageError(str(request.gt), expected=f"at least one {what}", got="none")
    wanted, given = set(true), set(predicted)
    missing, extra = [key for key in true if key not in given], [key for key in predicted if key not in wanted]
    for ids, path, problem in ((missing, request.pred, "a prediction for every"), (extra, request.pred, "no other")):
        if ids and not request.allow_missing:
            kind = "missing" if ids is missing else "extra"
            hint = "--allow-missing scores all the same, as the official tool can."
            raise UsageError(str(path), expected=f"{problem} {what} of {request.gt.name}", got=listed(kind, ids), hint=hint)
    shared = [key for key in true if key in given]
    if not shared:
        raise UsageError(str(request.pred), expected=f"a {what} of {request.gt.name}", got=listed("extra", extra))
    return shared, Counts(len(given), len(wanted), len(missing), len(extra))


def listed(kind: str, ids: Sequence[str]) -> object:
    """How an error shows ids: "12 missing: " with the first ten, and how many more there are."""
    return _Listed(kind, ids)


class _Listed:
    """The first ids and the number of the others, as an error shows them."""

    def __init__(self, kind: str, ids: Sequence[str]) -> None:
        self._text = f"{len(ids)} {kind}: {', '.join(map(str, ids[:_LISTED]))}"
        if len(ids) > _LISTED:
            self._text += f" and {len(ids) - _LISTED} more"

    def __repr__(self) -> str:
        return self._text

    __str__ = __repr__
