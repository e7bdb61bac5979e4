"""Which annotation speaks of a moment: the nearest, unless the moment lies in a gap."""

from __future__ import annotations

import pytest

from tpo_lab.sample.times import nearest_annotation


def test_the_nearest_within_half_a_usual_step_counts() -> None:
    nearest, counts = nearest_annotation([0.0, 0.4, 0.6, 2.5, 4.4, 9.0], [0.0, 1.0, 2.0, 5.0])
    assert nearest.tolist() == [0, 0, 1, 2, 3, 3]
    assert counts.tolist() == [True, True, True, True, False, False], "3.0 to 4.5 is a gap, and nothing is annotated behind 5.5"


@pytest.mark.parametrize(("reach", "counts"), [(float("inf"), [True, True]), (0.25, [True, False])])
def test_a_lone_annotation_reaches_as_far_as_one_says(reach: float, counts: list[bool]) -> None:
    nearest, found = nearest_annotation([1.2, 3.0], [1.0], lone_reach_sec=reach)
    assert nearest.tolist() == [0, 0] and found.tolist() == counts


def test_a_given_reach_takes_the_place_of_the_usual_step() -> None:
    nearest, found = nearest_annotation([0.0, 0.2, 1.0, 4.0], [0.0, 2.0, 4.1], reach_sec=0.25)
    assert nearest.tolist() == [0, 0, 0, 2], "1.0 is as far from 0.0 as from 2.0: the earlier one"
    assert found.tolist() == [True, True, False, True]
