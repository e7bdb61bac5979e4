"""The area under the ROC curve against all pairs, against scipy, and against the curve itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.metrics.auroc import auroc

some = st.lists(st.integers(-4, 4), min_size=1, max_size=12)


@given(positive=some, negative=some)
@settings(deadline=None)
def test_auroc_counts_the_pairs_that_are_in_order(positive, negative):
    pairs = [(one > other) + (one == other) / 2 for one in positive for other in negative]
    assert auroc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))


@given(positive=some, negative=some)
@settings(deadline=None)
def test_auroc_is_turned_round_with_the_groups_and_with_the_score_and_knows_only_the_order(positive, negative):
    found = auroc(positive, negative)
    assert auroc(negative, positive) == pytest.approx(1 - found)
    assert auroc(np.negative(positive), np.negative(negative)) == pytest.approx(1 - found)
    assert auroc(np.exp(positive), np.exp(negative)) == found


def test_auroc_is_the_statistic_of_mann_and_whitney():
    from scipy.stats import mannwhitneyu

    random = np.random.default_rng(0)
    positive, negative = random.normal(0.7, 1, 83).round(1), random.normal(0, 1, 41).round(1)
    expected = mannwhitneyu(positive, negative).statistic / (83 * 41)
    assert auroc(positive, negative) == pytest.approx(expected, abs=1e-12)


def test_auroc_is_the_area_under_the_curve():
    random = np.random.default_rng(1)
    positive, negative = random.normal(0.5, 1, 30).round(1), random.normal(0, 1, 20).round(1)
    thresholds = np.sort(np.concatenate([positive, negative, [math.inf]]))[::-1]
    true = [(positive >= threshold).mean() for threshold in thresholds]
    false = [(negative >= threshold).mean() for threshold in thresholds]
    area = sum((x1 - x0) * (y0 + y1) / 2 for x0, x1, y0, y1 in zip(false, false[1:], true, true[1:], strict=False))
    assert auroc(positive, negative) == pytest.approx(area, abs=1e-12)


def test_auroc_by_hand():
    assert auroc([0.9, 0.8], [0.1]) == 1.0
    assert auroc([0.1], [0.9, 0.8]) == 0.0
    assert auroc([0.5, 0.5], [0.5]) == 0.5
    assert auroc([-math.inf, 1.0], [0.0]) == 0.5


@pytest.mark.parametrize(("positive", "negative", "name"), [([], [1], "positive"), ([1], [], "negative"), ([1], [math.nan], "negative")])
def test_auroc_refuses_what_has_no_order(positive, negative, name):
    with pytest.raises(UsageError, match=f"{name}: expected one or more scores, none of them NaN"):
        auroc(positive, negative)
