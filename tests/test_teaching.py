"""Charts of the course: what is drawn lies where the numbers say."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from tpo_lab.errors import UsageError
from tpo_lab.report.teaching import Span, bar_chart, curve_chart, grid_chart, span_chart

SVG = "{http://www.w3.org/2000/svg}"


def drawn(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(SVG + tag))


def words(svg: str) -> list[str]:
    return [node.text or "" for node in drawn(svg, "text")]


def number(node: ElementTree.Element, name: str) -> float:
    return float(node.attrib[name])


class TestBars:
    def test_a_bar_is_as_long_as_its_value(self):
        one, two, three = drawn(bar_chart({"a": 1.0, "b": 4.0, "c": 0.0}, "t"), "rect")
        assert number(two, "width") == pytest.approx(4 * number(one, "width"), rel=1e-2) and number(three, "width") == 0
        assert number(one, "x") == number(two, "x")

    def test_a_value_below_zero_ends_where_the_others_begin(self):
        up, down = drawn(bar_chart({"a": 2.0, "b": -1.0}, "t"), "rect")
        assert number(down, "x") + number(down, "width") == pytest.approx(number(up, "x"))
        assert number(down, "width") == pytest.approx(number(up, "width") / 2, rel=1e-2)

    def test_series_have_a_colour_and_a_word_each(self):
        chart = bar_chart({"head": {"whole": 3.0, "cut": 0.0}, "token": {"whole": 1.0, "cut": 0.5}}, "Norms", unit="norm")
        bars = drawn(chart, "rect")
        assert [bar.attrib["fill"] for bar in bars[:2]] == [bar.attrib["fill"] for bar in bars[2:4]] == [b.attrib["fill"] for b in bars[4:]]
        assert bars[0].attrib["fill"] != bars[1].attrib["fill"]
        assert {"Norms, norm", "head", "token", "whole", "cut"} <= set(words(chart))

    def test_what_is_not_finite_is_written_and_has_no_length(self):
        chart = bar_chart({"a": 2.0, "b": math.nan}, "t")
        assert "nan" in words(chart) and number(drawn(chart, "rect")[1], "width") == 0

    def test_no_bar_is_refused(self):
        with pytest.raises(UsageError, match="bars: expected at least one"):
            bar_chart({}, "t")


class TestGrid:
    def test_the_furthest_from_zero_is_the_darkest_and_its_sign_is_its_colour(self):
        shades = drawn(grid_chart([[1.0, -2.0, 0.0]], "t", rows=["r"], columns=["a", "b", "c"]), "rect")[1::2]
        assert [number(shade, "fill-opacity") for shade in shades] == pytest.approx([0.375, 0.75, 0.0])
        assert shades[0].attrib["fill"] == shades[2].attrib["fill"] != shades[1].attrib["fill"]

    def test_cells_stand_in_rows_and_columns(self):
        chart = grid_chart([[True, False, True], [False, True, False]], "t", rows=["q", "r"], columns=["a", "b", "c"], digits=None)
        boxes = drawn(chart, "rect")[::2]
        xs, ys = {number(box, "x") for box in boxes}, {number(box, "y") for box in boxes}
        assert (len(xs), len(ys)) == (3, 2)
        assert [number(shade, "fill-opacity") for shade in drawn(chart, "rect")[1::2]] == [0.75, 0, 0.75, 0, 0.75, 0]
        assert "1.00" not in words(chart)

    def test_numbers_are_written_and_nan_is_left_white(self):
        chart = grid_chart([[0.5, math.nan]], "t", rows=["r"], columns=["a", "b"])
        assert "0.50" in words(chart) and drawn(chart, "rect")[2].attrib["fill"] == "#ffffff"

    def test_markup_in_a_token_is_a_word(self):
        assert "<region:slot>" in words(grid_chart([[1.0]], "t", rows=["<region:slot>"], columns=["<eos>"]))

    def test_other_axes_are_refused(self):
        with pytest.raises(UsageError, match=r"values: expected \[1, 2\], got \[1\]"):
            grid_chart([[1.0]], "t", rows=["r"], columns=["a", "b"])


class TestCurves:
    def test_points_are_where_the_values_say_and_not_smoothed(self):
        a, b, c = drawn(curve_chart({"a": ([0, 1, 2], [0.0, 1.0, 0.5])}, "t"), "circle")
        assert number(a, "cy") > number(c, "cy") > number(b, "cy")
        assert number(c, "cy") == pytest.approx((number(a, "cy") + number(b, "cy")) / 2, abs=0.1)
        assert number(b, "cx") == pytest.approx((number(a, "cx") + number(c, "cx")) / 2, abs=0.1)

    def test_the_shaded_part_lies_on_the_same_axis(self):
        chart = curve_chart({"a": ([0.0, 4.0], [0.0, 1.0])}, "t", spans=[Span(1.0, 3.0)])
        shade, (first, last) = drawn(chart, "rect")[0], drawn(chart, "circle")
        length = number(last, "cx") - number(first, "cx")
        assert number(shade, "x") == pytest.approx(number(first, "cx") + length / 4, abs=0.2)
        assert number(shade, "width") == pytest.approx(length / 2, abs=0.2)

    def test_what_is_not_finite_is_left_out(self):
        assert len(drawn(curve_chart({"a": ([0, 1, 2], [0.0, math.nan, 0.5])}, "t"), "circle")) == 2

    def test_wrong_calls_are_refused(self):
        with pytest.raises(UsageError, match="curves: expected at least one"):
            curve_chart({}, "t")
        with pytest.raises(UsageError, match=r"curves\['a'\]: expected 2 values, got 1"):
            curve_chart({"a": ([0, 1], [0.0])}, "t")


class TestSpans:
    def test_bars_lie_over_their_seconds_and_are_cut_at_the_clip(self):
        chart = span_chart({"a": [Span(1.0, 2.0), Span(3.0, 9.0)]}, "t", duration_sec=4.0)
        frame, one, late = drawn(chart, "rect")
        whole = number(frame, "width")
        assert number(one, "x") - number(frame, "x") == pytest.approx(whole / 4, abs=0.2)
        assert number(one, "width") == pytest.approx(whole / 4, abs=0.2) == pytest.approx(number(late, "width"), abs=0.2)

    def test_the_likelier_is_the_darker(self):
        _, pale, dark = drawn(span_chart({"a": [Span(0, 1, 0.0), Span(0, 1, 1.0)]}, "t", duration_sec=4.0), "rect")
        assert number(pale, "fill-opacity") < number(dark, "fill-opacity") == 1.0

    def test_the_truth_is_behind_all_rows(self):
        _, truth, *bars = drawn(span_chart({"a": [Span(0, 1)], "b": [Span(2, 3)]}, "t", duration_sec=4.0, truth=[Span(1, 3)]), "rect")
        assert number(truth, "y") + number(truth, "height") > max(number(bar, "y") + number(bar, "height") for bar in bars)

    def test_no_row_is_refused(self):
        with pytest.raises(UsageError, match="rows: expected at least one"):
            span_chart({}, "t", duration_sec=4.0)
