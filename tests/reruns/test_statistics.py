"""Intervals over seeds: values worked out by hand, scipy, and the library's own bootstrap as oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tpo_lab.errors import UsageError
from tpo_lab.metrics import intervals
from tpo_lab.reruns.results.statistics import BOOTSTRAP, STUDENT_T, interval, method_for, paired, spread

SEVEN = [0.31, 0.52, 0.14, 0.93, 0.77, 0.4, 0.58]


def test_mean_and_standard_error_by_hand():
    found = spread([1.0, 2.0, 6.0], STUDENT_T)
    # squared deviations 4 + 1 + 9 = 14, variance 7, over three values
    assert (found.count, found.mean) == (3, 3.0)
    assert found.standard_error == pytest.approx(math.sqrt(7 / 3))


def test_students_t_by_the_table_and_by_scipy():
    values = [1.0, 2.0, 6.0]
    found = spread(values, STUDENT_T)
    assert found.high - found.mean == pytest.approx(4.302652730 * math.sqrt(7 / 3))  # t(0.975, 2) of the printed tables: 4.303
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_bootstrap_agrees_with_scipy():
    found = interval(SEVEN, BOOTSTRAP)
    drawn = stats.bootstrap((SEVEN,), np.mean, n_resamples=200_000, method="percentile", rng=np.random.default_rng(9))
    assert (found.low, found.high) == pytest.approx(tuple(drawn.confidence_interval), abs=0.01)
    assert found.estimate == pytest.approx(np.mean(SEVEN))


def test_bootstrap_is_that_of_the_metrics():
    expected = intervals.bootstrap(SEVEN, resamples=10_000)
    found = interval(SEVEN, BOOTSTRAP)
    assert (found.low, found.high, found.count) == (pytest.approx(expected.low), pytest.approx(expected.high), 7)


def test_bootstrap_of_two_values_by_hand():
    # the mean of two draws from {0, 1} is 0, 0.5 or 1 with probabilities 1/4, 1/2, 1/4: both ends lie in the outer quarters
    found = interval([0.0, 1.0], BOOTSTRAP)
    assert (found.low, found.high) == (0.0, 1.0)


def test_bootstrap_is_drawn_the_same_way_each_time_and_knows_no_order():
    assert interval(SEVEN, BOOTSTRAP) == interval(SEVEN, BOOTSTRAP)
    shifted = interval([value + 1 for value in SEVEN], BOOTSTRAP)
    assert shifted.low - 1 == pytest.approx(interval(SEVEN, BOOTSTRAP).low)


@pytest.mark.parametrize(
    ("counts", "method"),
    [([5, 6, 1, 0], BOOTSTRAP), ([5, 4], STUDENT_T), ([2], STUDENT_T), ([1, 0], BOOTSTRAP), ([], BOOTSTRAP), ([20, 3, 20], STUDENT_T)],
)
def test_one_method_for_a_whole_table(counts: list[int], method: str):
    assert method_for(counts) == method


def test_one_seed_has_no_interval_and_none_has_nothing():
    assert spread([0.5], STUDENT_T).__dict__ == {"count": 1, "mean": 0.5, "standard_error": None, "low": None, "high": None}
    assert spread([], BOOTSTRAP).__dict__ == {"count": 0, "mean": None, "standard_error": None, "low": None, "high": None}


def test_pairs_are_the_seeds_that_both_have():
    assert paired({0: 5.0, 1: 7.0, 3: 1.0}, {3: 4.0, 0: 3.0, 2: 9.0}) == [2.0, -3.0]


def test_wrong_calls_are_refused():
    with pytest.raises(UsageError, match=r"method: expected 'bootstrap over seeds' or \"Student's t\", got 'normal'"):
        interval([1.0, 2.0], "normal")
    with pytest.raises(UsageError, match=r"values: expected two or more finite values, got \[1.0, nan\]"):
        interval([1.0, math.nan], BOOTSTRAP)
