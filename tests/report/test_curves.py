"""Curves: points lie where the values are, gaps interrupt, levels cross, and what can't be drawn is refused."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from tpo_lab.errors import UsageError
from tpo_lab.report.curves import Curves, curve_chart, curve_charts
from tpo_lab.report.spans import Span

SVG = "{http://www.w3.org/2000/svg}"


def nodes(svg: str, kind: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(SVG + kind))


def words(svg: str) -> list[str]:
    return [node.text or "" for node in nodes(svg, "text")]


def dots(svg: str) -> list[tuple[float, float]]:
    return [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in nodes(svg, "circle")]


def places(svg: str) -> dict[str | None, tuple[float, float]]:
    return {node.text: (float(node.attrib["x"]), float(node.attrib["y"])) for node in nodes(svg, "text")}


class TestOne:
    def test_points_lie_where_the_values_are_and_nothing_is_smoothed(self):
        (x0, y0), (x1, y1), (x2, y2) = dots(curve_chart({"a": ([0, 5, 20], [0.0, 1.0, 0.5])}, "A"))
        assert (x1 - x0) / (x2 - x0) == pytest.approx(0.25, abs=0.01)
        assert (y0 - y2) / (y0 - y1) == pytest.approx(0.5, abs=0.01), "up is up"

    def test_the_line_joins_the_points(self):
        svg = curve_chart({"a": ([0, 5, 20], [0.0, 1.0, 0.5])}, "A")
        (path,) = nodes(svg, "path")
        assert [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path.attrib["d"])] == dots(svg)

    def test_a_gap_interrupts_a_line(self):
        svg = curve_chart({"a": ([0, 1, 2, 3], [1.0, math.nan, 2.0, 3.0])}, "A")
        (path,) = nodes(svg, "path")
        assert re.sub(r"[\d. ]", "", path.attrib["d"]) == "MML" and len(dots(svg)) == 3

    def test_a_single_value_is_a_dot(self):
        assert len(dots(curve_chart({"a": ([3.0], [7.0])}, "A"))) == 1

    def test_levels_are_dashed_at_their_height_and_named(self):
        svg = curve_chart({"a": ([0, 1], [0.0, 0.25])}, "A <b>", levels={"chance": 0.25}, high=1.0)
        (level,) = (each for each in nodes(svg, "line") if "stroke-dasharray" in each.attrib)
        assert float(level.attrib["y1"]) == dots(svg)[1][1] == float(level.attrib["y2"])
        assert {"a", "chance", "A <b>", "step", "1"} <= set(words(svg))

    def test_a_level_above_all_values_is_on_the_chart(self):
        svg = curve_chart({"a": ([0, 1], [0.0, 0.25])}, "A", levels={"best": 2.0})
        assert "2" in words(svg) and dots(svg)[0][1] > dots(svg)[1][1]

    def test_curves_have_colours_of_their_own_and_the_legend_shows_them(self):
        svg = curve_chart({"a": ([1], [2.0]), "b": ([1], [3.0])}, "A")
        colours = [each.attrib["fill"] for each in nodes(svg, "circle")]
        assert len(set(colours)) == 2 and [each.attrib["fill"] for each in nodes(svg, "rect")] == colours

    def test_a_curve_without_a_name_has_no_legend(self):
        assert not nodes(curve_chart({"": ([1, 2], [2.0, 3.0])}, "A"), "rect")

    def test_a_legend_too_long_for_one_line_takes_more_and_the_plot_makes_room(self):
        names = [f"a long name of line {number}" for number in range(6)]
        svg = curve_chart({name: ([0, 1], [0.0, 1.0]) for name in names}, "A")
        at = places(svg)
        assert len({at[name][1] for name in names}) > 1
        assert max(at[name][1] for name in names) < min(y for _, y in dots(svg))
        edges = [float(each.attrib["x"]) for each in nodes(svg, "rect")]
        assert max(edges) < float(ElementTree.fromstring(svg).attrib["width"]) - 100

    def test_the_shaded_part_lies_on_the_same_axis(self):
        svg = curve_chart({"": ([0.0, 4.0], [0.0, 1.0])}, "t", spans=[Span(1.0, 3.0)])
        (shade,), ((first, _), (last, _)) = nodes(svg, "rect"), dots(svg)
        assert float(shade.attrib["x"]) == pytest.approx(first + (last - first) / 4, abs=0.2)
        assert float(shade.attrib["width"]) == pytest.approx((last - first) / 2, abs=0.2)

    def test_the_axis_begins_at_zero_unless_told_otherwise(self):
        lowest = {low: max(y for _, y in dots(curve_chart({"a": ([0, 1], [10.0, 11.0])}, "t", low=low))) for low in (0.0, None)}
        assert lowest[None] > lowest[0.0]
        assert {"-2", "0"} <= set(words(curve_chart({"a": ([0, 1], [-2.0, -1.0])}, "t")))

    @pytest.mark.parametrize(
        ("curves", "told"),
        [
            ({}, "curves: expected at least one point"),
            ({"a": ([], [])}, "at least one point"),
            ({"a": ([1], [math.nan])}, "at least one point"),
            ({"a": ([1, 2], [0.5])}, r"curves\['a'\]: expected 2 values, got 1"),
            ({"a": ([math.inf], [1.0])}, "finite x"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, curves: dict[str, tuple[list[float], list[float]]], told: str):
        with pytest.raises(UsageError, match=told):
            curve_chart(curves, "A")


class TestSeveral:
    def test_charts_stand_in_columns(self):
        at = places(curve_charts([Curves(name, {"a": ([0, 1], [1.0, 2.0])}) for name in ("p", "q", "r")], columns=2))
        assert at["p"][1] == at["q"][1] < at["r"][1] and at["p"][0] == at["r"][0] < at["q"][0]

    def test_plots_of_one_row_are_level_whatever_their_legends(self):
        short, long = ({name: ([0, 1], [0.0, 1.0]) for name in names} for names in ("a", ["many letters " * 2 + c for c in "bcd"]))
        points = dots(curve_charts([Curves("short", short), Curves("long", long)]))
        assert len({y for _, y in points}) == 2

    def test_none_is_refused(self):
        with pytest.raises(UsageError, match="charts: expected at least one"):
            curve_charts([])
