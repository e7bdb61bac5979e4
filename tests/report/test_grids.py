"""Grids: each cell stands in its row and column, and is as dark as its number says."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from tpo_lab.errors import UsageError
from tpo_lab.report.grids import confusion_chart, grid_chart

SVG = "{http://www.w3.org/2000/svg}"


def drawn(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(SVG + tag))


def words(svg: str) -> list[str]:
    return [node.text or "" for node in drawn(svg, "text")]


def number(node: ElementTree.Element, name: str) -> float:
    return float(node.attrib[name])


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

    def test_long_names_without_numbers_stand_upright_and_all_is_inside(self):
        chart = grid_chart(
            [[1.0, 0.0]], "t", rows=["r"], columns=["a very long name", "b"], digits=None, row_title="query", column_title="key"
        )
        upright = [node for node in drawn(chart, "text") if "rotate" in node.attrib.get("transform", "")]
        assert {node.text for node in upright} == {"a very long name", "b"} and {"query", "key"} <= set(words(chart))
        assert number(upright[0], "y") - 6.4 * len("a very long name") > max(
            number(n, "y") for n in drawn(chart, "text") if n.text == "key"
        )

    def test_nothing_is_refused(self):
        with pytest.raises(UsageError, match="at least one of both"):
            grid_chart([], "t", rows=[], columns=[])


class TestConfusion:
    def test_shades_each_cell_by_its_share_of_the_row(self):
        chart = confusion_chart(["none", "region"], [[3, 1], [0, 5]], "Routes")
        assert [word for word in words(chart) if word.isdigit()] == ["3", "1", "0", "5"]
        shades = [number(shade, "fill-opacity") for shade in drawn(chart, "rect")[1::2]]
        assert shades == pytest.approx([0.75 * 0.75, 0.75 * 0.25, 0, 0.75], abs=1e-3)

    def test_another_shape_is_refused(self):
        with pytest.raises(UsageError, match=r"expected \[2, 2\], got \[2, 1\]"):
            confusion_chart(["a", "b"], [[1, 2], [3]], "t")
