"""Bars: lengths are the values, colours the series, and what can't be drawn is refused."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from tpo_lab.errors import UsageError
from tpo_lab.report.bars import bar_chart

SVG = "{http://www.w3.org/2000/svg}"
PARTS = {"small": {"a": 1.0, "b": 2.0}, "large": {"b": 4.0, "a": 0.0, "c": 2.0}}


def bars(svg: str) -> list[dict[str, str]]:
    """The bars' rectangles, without those of the legend."""
    return [dict(each.attrib) for each in ElementTree.fromstring(svg).iter(f"{SVG}rect") if each.attrib["width"] != "10"]


def words(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def number(bar: dict[str, str], name: str) -> float:
    return float(bar[name])


class TestSideBySide:
    def test_a_bar_is_as_long_as_its_value(self):
        one, two, three = bars(bar_chart({"a": 1.0, "b": 4.0, "c": 0.0}, "t"))
        assert number(two, "width") == pytest.approx(4 * number(one, "width"), rel=1e-2) and number(three, "width") == 0
        assert number(one, "x") == number(two, "x") and number(one, "y") < number(two, "y")

    def test_a_value_below_zero_ends_where_the_others_begin(self):
        up, down = bars(bar_chart({"a": 2.0, "b": -1.0}, "t"))
        assert number(down, "x") + number(down, "width") == pytest.approx(number(up, "x"), abs=0.2)
        assert number(down, "width") == pytest.approx(number(up, "width") / 2, rel=1e-2)

    def test_series_have_a_colour_and_a_word_each(self):
        chart = bar_chart({"head": {"whole": 3.0, "cut": 0.0}, "token": {"whole": 1.0, "cut": 0.5}}, "Norms", unit="norm")
        colours = [bar["fill"] for bar in bars(chart)]
        assert colours[:2] == colours[2:] and colours[0] != colours[1]
        legend = [each.attrib["fill"] for each in ElementTree.fromstring(chart).iter(f"{SVG}rect") if each.attrib["width"] == "10"]
        assert legend == colours[:2]
        assert {"Norms, norm", "head", "token", "whole", "cut"} <= set(words(chart))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_what_is_not_finite_is_written_and_has_no_bar(self, value: float):
        chart = bar_chart({"a": 2.0, "b": value}, "t")
        assert f"{value:g}" in words(chart) and len(bars(chart)) == 1

    def test_nothing_finite_is_a_chart_all_the_same(self):
        assert "nan" in words(bar_chart({"a": math.nan}, "t"))

    def test_marked_ones_have_their_colour(self):
        colours = [bar["fill"] for bar in bars(bar_chart({"a": 2.0, "b": 0.5, "c": 0.0}, "t", marked=["b"]))]
        assert colours[0] == colours[2] != colours[1]

    def test_names_are_text_and_no_markup(self):
        assert "<b>" in words(bar_chart({"<b>": 1.0}, "t"))

    def test_wrong_calls_are_refused(self):
        for nothing in ({}, {"x": {}}):
            with pytest.raises(UsageError, match="bars: expected at least one"):
                bar_chart(nothing, "t")
        with pytest.raises(UsageError, match=r"marked: expected names among \['a'\], got \['b'\]"):
            bar_chart({"a": 1.0}, "t", marked=["b"])


class TestStacked:
    def test_lengths_are_in_proportion_and_parts_lie_end_to_end(self):
        drawn = bars(bar_chart(PARTS, "Parts", stacked=True))
        widths = [number(each, "width") for each in drawn]
        assert widths == pytest.approx([widths[0], 2 * widths[0], 4 * widths[0], 0, 2 * widths[0]], abs=0.2)
        starts = [number(each, "x") for each in drawn]
        assert starts[1] == pytest.approx(starts[0] + widths[0], abs=0.2)
        assert starts[4] == pytest.approx(starts[2] + widths[2], abs=0.2)
        assert starts[0] == starts[2] and number(drawn[0], "y") == number(drawn[1], "y") < number(drawn[2], "y")

    def test_a_part_has_one_colour_whatever_its_place(self):
        colours = [each["fill"] for each in bars(bar_chart(PARTS, "Parts", stacked=True))]
        assert colours[0] == colours[3] and colours[1] == colours[2] and len(set(colours)) == 3

    def test_names_sums_and_the_unit_are_written(self):
        chart = bar_chart({"<x>": {"a": 1000.0, "b": 500.0}}, "T & U", unit="MiB", stacked=True)
        assert {"T & U, MiB", "<x>", "a", "b", "1,500"} <= set(words(chart))

    def test_empty_bars_are_drawn_without_length(self):
        assert [each["width"] for each in bars(bar_chart({"x": {"a": 0.0}}, "t", stacked=True))] == ["0.0"]

    @pytest.mark.parametrize(
        ("parts", "told"),
        [
            ({"a": -1.0}, r"bars\['x'\]\['a'\]: expected a finite number from 0 up, got -1.0"),
            ({"a": math.nan}, "got nan"),
            ({str(part): 1.0 for part in range(9)}, "at most 8 different parts"),
        ],
    )
    def test_what_cannot_be_stacked_is_refused(self, parts: dict[str, float], told: str):
        with pytest.raises(UsageError, match=told):
            bar_chart({"x": parts}, "Parts", stacked=True)
