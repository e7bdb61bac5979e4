"""Points: questions made of boxes, the pointing game by hand, the pictures and curves that go with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import ImageColor

from tpo_lab.datasets.points import asked_to_point
from tpo_lab.drawing import GROUND_TRUTH
from tpo_lab.errors import UsageError
from tpo_lab.metrics.pointing import pointing_game
from tpo_lab.report import term_panel
from tpo_lab.report.points import COLOURS, point_picture


def test_one_box_becomes_its_middle_and_other_samples_are_left_out(say: Callable[..., Any]) -> None:
    one = say(0, "Hello.", "Hi.", "Where is it?", "<region>", region=[{"time_sec": 3.75, "xyxy": [10, 20, 13, 40]}]).at("clips")
    several = say(1, "Where are they?", "<region> <region>", region=[{"xyxy": [0, 0, 2, 2]}, {"xyxy": [4, 4, 8, 8]}])
    (made,) = asked_to_point([one, several, say(2, "Who?", "me")])
    assert made.targets.point == [11.5, 30.0] and made.targets.region is None
    assert [turn.text for turn in made.conversation] == ["Hello.", "Hi.", "Where is it? Point at it.", "<point>"]
    assert made.meta == {**one.meta, "task": "point", "box_xyxy": [10, 20, 13, 40]}
    assert (made.id, made.media, made.media_path) == (f"{one.id}-point", one.media, one.media_path)


def test_another_marker_may_be_asked_for(say: Callable[..., Any]) -> None:
    (made,) = asked_to_point([say(0, "Where?", "<region>", region=[{"xyxy": [0, 0, 2, 4]}])], head="spot")
    assert made.conversation[1].text == "<spot>" and made.targets.spot == [1.0, 2.0]


def test_hits_and_distance_by_hand() -> None:
    boxes = [(0, 0, 4, 2), (0, 0, 4, 2), (10, 10, 20, 30), (0, 0, 1, 1)]
    found = pointing_game([(4, 2), (2, 5), (15, 20), None], boxes)
    assert found["hits"] == 2 / 4
    assert found["distance"] == pytest.approx((math.sqrt(5) + 4 + 0) / 3)
    nothing = pointing_game([None], [(0, 0, 1, 1)])
    assert nothing["hits"] == 0 and math.isnan(nothing["distance"])


def test_x_and_y_are_not_taken_for_each_other() -> None:
    assert pointing_game([(8, 1)], [(6, 0, 10, 2)])["hits"] == 1
    assert pointing_game([(1, 8)], [(6, 0, 10, 2)])["hits"] == 0


@pytest.mark.parametrize(("points", "boxes"), [([], []), ([(0, 0)], [(0, 0, 1, 1)] * 2)])
def test_unequal_counts_are_refused(points: Any, boxes: Any) -> None:
    with pytest.raises(UsageError, match="points_xy: expected one for each of"):
        pointing_game(points, boxes)


def test_each_point_has_a_picture_with_a_dot_of_its_own_colour_at_its_place(say: Callable[..., Any]) -> None:
    sample = say(0, "Where?", "<region>", region=[{"xyxy": [8, 8, 24, 40]}])
    points = {"a": (40.0, 20.0), "b": None, "c": (12.0, 50.0)}
    pixels = np.asarray(point_picture(sample, points, [8, 8, 24, 40])).astype(int)
    empty = np.asarray(point_picture(sample, dict.fromkeys(points), [8, 8, 24, 40])).astype(int)
    assert pixels.shape == empty.shape
    left, width = 4, 3 * 64 + 4
    top = pixels.shape[0] - 3 * 64 - 4
    for place, (name, point) in enumerate(points.items()):
        tile = slice(left + width * place, left + width * place + 3 * 64)
        differs = np.abs(pixels[:, tile] - empty[:, tile]).sum()
        assert (differs > 0) == (point is not None), name
        if point is not None:
            x, y = left + width * place + 3 * point[0], top + 3 * point[1]
            assert (
                np.abs(pixels[round(y) - 6 : round(y) + 7, round(x) - 6 : round(x) + 7] - ImageColor.getrgb(COLOURS[place])).sum(-1).min()
                == 0
            )
    green = np.abs(pixels - ImageColor.getrgb(GROUND_TRUTH)).sum(-1) == 0
    assert green[:, : left + width].any() and green[:, left + 2 * width :].any()
    assert not (np.abs(np.asarray(point_picture(sample, points)).astype(int) - ImageColor.getrgb(GROUND_TRUTH)).sum(-1) == 0).any()


def test_a_panel_has_a_line_for_each_run_over_the_steps_that_hold_the_term() -> None:
    first = [{"step": 1, "point/l1": 0.5}, {"step": 2, "mlm": 1.0}, {"step": 3, "point/l1": 0.25}]
    panel = term_panel({"whole": first, "cut": [{"step": 1, "point/l1": 0.4}]}, "point/l1", "points")
    assert panel.title == "points"
    assert panel.lines == {"whole": ([1.0, 3.0], [0.5, 0.25]), "cut": ([1.0], [0.4])}
    with pytest.raises(UsageError, match=r"term of run whole: .*Did you mean 'point/l1'"):
        term_panel({"whole": first}, "point/l2")
