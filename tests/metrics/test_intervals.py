"""Confidence intervals: values from tables, coverage on known distributions, determinism and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tpo_lab.errors import UsageError
from tpo_lab.metrics.intervals import Interval, bootstrap, over_seeds, paired_difference, two_samples
from tpo_lab.metrics.region import precision_recall_f1


def test_over_seeds_by_hand():
    interval = over_seeds([0.4, 0.5, 0.6])  # sd 0.1, t(0.975, 2) = 4.302653
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half), abs=1e-6)
    assert (interval.level, interval.count) == (0.95, 3)
    narrower = over_seeds([0.4, 0.5, 0.6], level=0.8)  # t(0.9, 2) = 1.885618
    assert narrower.high - 0.5 == pytest.approx(1.885618 * 0.1 / math.sqrt(3), abs=1e-6)


def test_bootstrap_of_two_values_has_the_three_means_of_pairs():
    # means of two draws from {0, 1}: 0, 1/2, 1 with chances 1/4, 1/2, 1/4, so the middle half is [0 or 1/2, 1/2 or 1]
    interval = bootstrap([0.0, 1.0], level=0.95)
    assert (interval.estimate, interval.low, interval.high, interval.count) == (0.5, 0.0, 1.0, 2)
    middle = bootstrap([0.0, 1.0], level=0.4)
    assert (middle.low, middle.high) == (0.5, 0.5)


def test_bootstrap_approaches_the_normal_interval():
    values = np.random.default_rng(3).normal(2.0, 1.5, size=400)
    interval = bootstrap(values, resamples=4000)
    half = 1.959964 * values.std() / math.sqrt(400)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.12 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.12 * half)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    intervals = [bootstrap(generator.normal(size=40), level=0.8, resamples=150, seed=trial) for trial in range(120)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.70 <= covered <= 0.88


def test_bootstrap_is_decided_by_its_seed_and_leaves_the_global_generator_alone():
    values = np.linspace(0, 1, 17) ** 2
    before = np.random.get_state()[1].copy()
    assert bootstrap(values, seed=5) == bootstrap(values, seed=5)
    assert bootstrap(values, seed=5) != bootstrap(values, seed=6)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_bootstrap_widens_with_its_level():
    values = np.random.default_rng(1).random(30)
    wide, narrow = bootstrap(values, level=0.99), bootstrap(values, level=0.5)
    assert wide.low < narrow.low < narrow.estimate < narrow.high < wide.high


def test_bootstrap_of_a_pooled_ratio_draws_whole_rows():
    counts = np.array([[1, 2, 1], [0, 1, 2], [3, 3, 4], [2, 5, 2], [1, 1, 1]])
    interval = bootstrap(counts, statistic=lambda rows: precision_recall_f1(rows)[2])
    assert interval.estimate == pytest.approx(2 * 7 / (12 + 10))
    assert 0 <= interval.low < interval.estimate < interval.high <= 1
    assert interval.count == 5


def test_paired_difference_cancels_what_both_systems_share():
    difficulty = np.random.default_rng(2).normal(size=200)
    interval = paired_difference(difficulty + 0.3, difficulty)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((0.3, 0.3, 0.3))
    alone = bootstrap(difficulty + 0.3)
    assert alone.high - alone.low > 0.1


def test_paired_difference_changes_sign_with_its_arguments():
    first, second = np.random.default_rng(4).random((2, 23))
    forth, back = paired_difference(first, second), paired_difference(second, first)
    assert (back.estimate, back.low, back.high) == pytest.approx((-forth.estimate, -forth.high, -forth.low))
    assert forth.estimate == pytest.approx(first.mean() - second.mean())


def test_interval_prints_as_a_table_cell():
    assert str(Interval(0.4123, 0.38, 0.4471, 0.95, 7)) == "0.412 [0.380, 0.447]"


def test_intervals_refuse_what_has_no_spread():
    with pytest.raises(UsageError, match=r"values: expected two or more values, got \(1,\)"):
        over_seeds([0.5])
    with pytest.raises(UsageError, match=r"values: expected two or more values, got \(\)"):
        bootstrap(0.5)
    with pytest.raises(UsageError, match=r"values: expected finite values, got nan"):
        bootstrap([0.1, math.nan])
    with pytest.raises(UsageError, match=r"second: expected the same 3 samples as first, got 2"):
        paired_difference([1, 2, 3], [1, 2])
    with pytest.raises(UsageError, match=r"level: expected a confidence in \(0, 1\), got 95"):
        over_seeds([1, 2], level=95)
    with pytest.raises(UsageError, match=r"level: .* got 1\.0"):
        bootstrap([1, 2], level=1.0)
    with pytest.raises(UsageError, match=r"resamples: expected 1 or more, got 0"):
        bootstrap([1, 2], resamples=0)
    with pytest.raises(UsageError, match=r"values: expected one number per seed, got \(2, 2\)"):
        over_seeds([[1, 2], [3, 4]])


def test_two_samples_are_drawn_apart_and_keep_their_sizes():
    seen = set()

    def difference(first, second):
        seen.add((len(first), len(second)))
        return float(first.mean() - second.mean())

    random = np.random.default_rng(5)
    first, second = random.normal(1.0, 2.0, 300), random.normal(0.0, 1.0, 200)
    interval = two_samples(first, second, difference, resamples=3000)
    half = 1.959964 * math.sqrt(first.var() / 300 + second.var() / 200)
    assert seen == {(300, 200)}
    assert interval.estimate == pytest.approx(first.mean() - second.mean())
    assert (interval.low, interval.high) == pytest.approx((interval.estimate - half, interval.estimate + half), abs=0.15 * half)
    assert interval.count == 500
    # drawn alike, the two would always have the same mean
    same = two_samples(second, second, difference)
    assert same.estimate == 0 and same.low < -0.1 and same.high > 0.1
    assert interval == two_samples(first, second, difference, resamples=3000)


def test_two_samples_refuse_a_group_of_one():
    with pytest.raises(UsageError, match="second: expected two or more values"):
        two_samples([1.0, 2.0], [1.0], lambda first, second: 0.0)
