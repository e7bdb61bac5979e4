"""What several seeds say together: mean, standard error, interval, and the paired difference from a baseline.

An interval has one of two methods, and one table has one method throughout, so that its rows can be compared:

- the percentile bootstrap over seeds (10,000 resamples, always drawn the same way) where each of them stands on 5 seeds or more;
- Student's t on n - 1 degrees of freedom for all of them where any stands on 2, 3 or 4. So few values have so few different resamples
  (3 for 2 seeds, 10 for 3, 35 for 4) that the ends of a bootstrap interval are little more than the least and the greatest value.

One seed has no interval. Standard error: sample standard deviation (n - 1) over the square root of n.

The percentile interval of few seeds is too narrow: of 4,000 draws of normal values it held the true mean in 85% with 5 seeds, 92% with
10 and 93% with 20.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993: chapter 13 (percentile interval), section 5.2 (standard error);
Student, The Probable Error of a Mean, Biometrika 6, 1908.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpo_lab.errors import UsageError
from tpo_lab.metrics.intervals import Interval, over_seeds

BOOTSTRAP = "bootstrap over seeds"
STUDENT_T = "Student's t"
RESAMPLES = 10_000
FEWEST_FOR_BOOTSTRAP = 5
LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """Several seeds in numbers.

    Attributes:
        count: values that there were.
        mean: of them; None without any.
        standard_error: of the mean; None for fewer than two.
        low, high: ends of the interval; None for fewer than two.
    """

    count: int
    mean: float | None
    standard_error: float | None
    low: float | None
    high: float | None


def method_for(counts: Sequence[int]) -> str:
    """The method of all intervals of a table, by the numbers of values that they stand on; those below two have none and do not count."""
    return STUDENT_T if any(2 <= count < FEWEST_FOR_BOOTSTRAP for count in counts) else BOOTSTRAP


def spread(values: Sequence[float], method: str) -> Spread:
    """Mean, standard error and interval of one value per seed.

    Raises:
        UsageError: a value that is not finite, or an unknown method.
    """
    if len(values) < 2:
        return Spread(len(values), float(values[0]) if len(values) else None, None, None, None)
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    found = interval(values, method)
    return Spread(len(values), found.estimate, error, found.low, found.high)


def interval(values: ArrayLike, method: str) -> Interval:
    """The 95% interval of the mean of two or more values.

    Raises:
        UsageError: fewer values, one that is not finite, or an unknown method.
    """
    if method == STUDENT_T:
        return over_seeds(values, level=LEVEL)
    if method != BOOTSTRAP:
        raise UsageError("method", expected=f"{BOOTSTRAP!r} or {STUDENT_T!r}", got=method)
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        raise UsageError("values", expected="two or more finite values", got=numbers.tolist())
    means = numbers[_draws(len(numbers))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(numbers.mean()), float(low), float(high), LEVEL, len(numbers))


@functools.lru_cache(maxsize=8)
def _draws(count: int) -> NDArray[np.int64]:
    """[resample, place]: the same for all intervals over that many seeds."""
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))


def paired(values: Mapping[Hashable, float], baseline: Mapping[Hashable, float]) -> list[float]:
    """value - baseline for every seed that both have, in the order of `values`."""
    return [value - baseline[seed] for seed, value in values.items() if seed in baseline]
