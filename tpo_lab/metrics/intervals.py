"""Confidence intervals: percentile bootstrap over samples (alone, two systems on the same ones, or two groups), t over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpo_lab.errors import UsageError

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], float]


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its two-sided confidence interval at `level`, from `count` samples or seeds."""

    estimate: float
    low: float
    high: float
    level: float
    count: int

    def __str__(self) -> str:
        """For a table, e.g. `0.412 [0.380, 0.447]`."""
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    values: ArrayLike, *, statistic: Statistic | None = None, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap over samples.

    Args:
        values: [sample] or [sample, ...]; rows are drawn with replacement.
        statistic: rows to one number; the mean of all by default. For a ratio of sums (pooled F1) give the rows of counts and the ratio.
        level: confidence, in (0, 1).
        resamples: how often to draw.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        UsageError: fewer than two samples, a value that is not finite, or a level or number of resamples out of range.
    """
    rows = _finite("values", values)
    of = statistic or _mean
    return _percentiles(float(of(rows)), [of(rows[draw]) for draw in _draws(len(rows), resamples, seed)], level, len(rows))


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    statistic: Statistic | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of statistic(first) - statistic(second): row i of both is the same sample, and both are drawn together.

    Args:
        first: as `values` of `bootstrap`.
        second: the same samples, in the same order.
        statistic: as in `bootstrap`.
        level: as in `bootstrap`.
        resamples: as in `bootstrap`.
        seed: as in `bootstrap`.

    Raises:
        UsageError: as `bootstrap`, or the numbers of samples differ.
    """
    one, other = _finite("first", first), _finite("second", second)
    if len(one) != len(other):
        raise UsageError("second", expected=f"the same {len(one)} samples as first", got=len(other))
    of = statistic or _mean
    differences = [of(one[draw]) - of(other[draw]) for draw in _draws(len(one), resamples, seed)]
    return _percentiles(float(of(one) - of(other)), differences, level, len(one))


def two_samples(
    first: ArrayLike,
    second: ArrayLike,
    statistic: Callable[[Floats, Floats], float],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of statistic(first, second), two groups of different samples: each is drawn on its own and keeps its size.

    Args:
        first: as `values` of `bootstrap`.
        second: another group; as `values` of `bootstrap`.
        statistic: rows of both to one number.
        level: as in `bootstrap`.
        resamples: as in `bootstrap`.
        seed: as in `bootstrap`.

    Raises:
        UsageError: as `bootstrap`.
    """
    one, other = _finite("first", first), _finite("second", second)
    # different streams: groups of one size must not be drawn alike
    draws = zip(_draws(len(one), resamples, (seed, 0)), _draws(len(other), resamples, (seed, 1)), strict=True)
    resampled = [statistic(one[here], other[there]) for here, there in draws]
    return _percentiles(float(statistic(one, other)), resampled, level, len(one) + len(other))


def over_seeds(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Mean of one number per seed, with the interval of Student's t on n - 1 degrees of freedom.

    Raises:
        UsageError: fewer than two seeds (one says nothing about the spread), values not [seed] or not finite, or a level out of range.
    """
    from scipy import stats  # here, since it takes longer to load than most scores take

    numbers = _finite("values", values)
    if numbers.ndim != 1:
        raise UsageError("values", expected="one number per seed", got=numbers.shape)
    _check_level(level)
    mean = float(numbers.mean())
    half = float(stats.t.ppf((1 + level) / 2, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return Interval(mean, mean - half, mean + half, level, len(numbers))


def _mean(rows: Floats) -> float:
    return float(rows.mean())


def _draws(samples: int, resamples: int, seed: int | tuple[int, ...]) -> Iterator[NDArray[np.int64]]:
    if resamples < 1:
        raise UsageError("resamples", expected="1 or more", got=resamples)
    generator = np.random.default_rng(seed)
    return (generator.integers(samples, size=samples) for _ in range(resamples))


def _percentiles(estimate: float, resampled: list[float], level: float, count: int) -> Interval:
    _check_level(level)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level, count)


def _finite(name: str, values: ArrayLike) -> Floats:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim == 0 or len(rows) < 2:
        raise UsageError(name, expected="two or more values", got=rows.shape)
    if not np.isfinite(rows).all():
        raise UsageError(name, expected="finite values", got=float(rows[~np.isfinite(rows)][0]))
    return rows


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UsageError("level", expected="a confidence in (0, 1)", got=level)
