"""Curves: points lie where the values are, gaps interrupt, levels cross, and what can't be drawn is refused."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from tpo_lab.errors import UsageError
from tpo_lab.report.marked_curves import curve_chart

SVG = "{http://www.w3.org/2000/svg}"


def points(svg: str) -> list[tuple[float, float]]:
    return [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in ElementTree.fromstring(svg).iter(f"{SVG}circle")]


def test_points_lie_where_the_values_are_and_nothing_is_smoothed() -> None:
    drawn = points(curve_chart({"a": ([0, 5, 20], [0.0, 1.0, 0.5])}, "A"))
    (x0, y0), (x1, y1), (x2, y2) = drawn
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.25, abs=0.01)
    assert (y0 - y2) / (y0 - y1) == pytest.approx(0.5, abs=0.01), "up is up"


def test_a_gap_interrupts_a_line() -> None:
    svg = curve_chart({"a": ([0, 1, 2, 3], [1.0, math.nan, 2.0, 3.0])}, "A")
    (path,) = (each.attrib["d"] for each in ElementTree.fromstring(svg).iter(f"{SVG}path"))
    assert (path.count("M"), path.count("L"), len(points(svg))) == (2, 1, 3)


def test_levels_are_dashed_at_their_height_and_named() -> None:
    svg = curve_chart({"a": ([0, 1], [0.0, 0.25])}, "A <b>", levels={"chance": 0.25}, top=1.0)
    root = ElementTree.fromstring(svg)
    (level,) = (each for each in root.iter(f"{SVG}line") if "stroke-dasharray" in each.attrib)
    assert float(level.attrib["y1"]) == points(svg)[1][1] == float(level.attrib["y2"])
    words = ["".join(each.itertext()) for each in root.iter(f"{SVG}text")]
    assert {"a", "chance", "A <b>", "step", "1"} <= set(words)


def test_curves_have_colours_of_their_own() -> None:
    root = ElementTree.fromstring(curve_chart({"a": ([1], [2.0]), "b": ([1], [3.0])}, "A"))
    assert len({each.attrib["fill"] for each in root.iter(f"{SVG}circle")}) == 2


@pytest.mark.parametrize(
    ("curves", "told"),
    [
        ({}, "curves: expected at least one point"),
        ({"a": ([1], [math.nan])}, "at least one point"),
        ({"a": ([1, 2], [0.5])}, r"curves\['a'\]: expected 2 values, got 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(curves: dict[str, tuple[list[float], list[float]]], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        curve_chart(curves, "A")
