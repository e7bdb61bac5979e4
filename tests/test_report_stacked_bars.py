"""Stacked bars: lengths are the values, colours the parts, and what can't be drawn is refused."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tpo_lab.errors import UsageError
from tpo_lab.report.stacked_bars import bar_chart

SVG = "{http://www.w3.org/2000/svg}"
BARS = {"small": {"a": 1.0, "b": 2.0}, "large": {"b": 4.0, "a": 0.0, "c": 2.0}}


def rectangles(bars: dict[str, dict[str, float]]) -> list[dict[str, str]]:
    """The bars' rectangles, without those of the legend."""
    root = ElementTree.fromstring(bar_chart(bars, "Parts", unit="GiB"))
    return [dict(each.attrib) for each in root.iter(f"{SVG}rect") if each.attrib["width"] != "10"]


def test_lengths_are_in_proportion_and_parts_lie_end_to_end() -> None:
    drawn = rectangles(BARS)
    widths = [float(each["width"]) for each in drawn]
    assert widths == pytest.approx([widths[0], 2 * widths[0], 4 * widths[0], 0, 2 * widths[0]], abs=0.2)
    starts = [float(each["x"]) for each in drawn]
    assert starts[1] == pytest.approx(starts[0] + widths[0], abs=0.2)
    assert starts[4] == pytest.approx(starts[2] + widths[2], abs=0.2)
    assert starts[0] == starts[2] and float(drawn[0]["y"]) < float(drawn[2]["y"])


def test_a_part_has_one_colour_whatever_its_place() -> None:
    colours = [each["fill"] for each in rectangles(BARS)]
    assert colours[0] == colours[3] and colours[1] == colours[2] and len(set(colours)) == 3


def test_names_sums_and_the_unit_are_written() -> None:
    words = [
        "".join(each.itertext())
        for each in ElementTree.fromstring(bar_chart({"<x>": {"a": 1500.0}}, "T & U", unit="MiB")).iter(f"{SVG}text")
    ]
    assert {"T & U", "<x>", "a", "1,500", "MiB"} <= set(words)


@pytest.mark.parametrize(
    ("bars", "told"),
    [
        ({}, "at least one bar with a part"),
        ({"x": {}}, "at least one bar with a part"),
        ({"x": {"a": -1.0}}, r"bars\['x'\]\['a'\]: expected a finite number from 0 up, got -1.0"),
        ({"x": {"a": float("nan")}}, "got nan"),
        ({"x": {str(number): 1.0 for number in range(9)}}, "at most 8 different parts"),
    ],
)
def test_what_cannot_be_drawn_is_refused(bars: dict[str, dict[str, float]], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        bar_chart(bars, "Parts")


def test_empty_bars_are_drawn_without_length() -> None:
    assert [each["width"] for each in rectangles({"x": {"a": 0.0}})] == ["0.0"]
