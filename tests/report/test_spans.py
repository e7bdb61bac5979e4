"""Spans: bars lie over their seconds."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tpo_lab.errors import UsageError
from tpo_lab.report.spans import Span, span_chart

SVG = "{http://www.w3.org/2000/svg}"


def drawn(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(SVG + tag))


def number(node: ElementTree.Element, name: str) -> float:
    return float(node.attrib[name])


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
