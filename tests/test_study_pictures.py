"""Charts of losses, small curves, and pictures of prompts: what is drawn is where the numbers say."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL.Image import Image

from tpo_lab.errors import UsageError
from tpo_lab.report.loss_charts import norm_chart, value_bars
from tpo_lab.report.prompt_pictures import drawn_picture, moved_picture, prompt_sheet
from tpo_lab.report.small_curves import Curves, small_curves
from tpo_lab.sample import Sample

SVG = "{http://www.w3.org/2000/svg}"


def nodes(svg: str, kind: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(SVG + kind))


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in nodes(svg, "text")]


class TestBars:
    def test_lengths_are_in_proportion_and_marked_ones_have_their_colour(self):
        bars = nodes(value_bars({"a": 2.0, "b": 0.5, "c": 0.0}, "t", marked=["b"]), "rect")
        widths = [float(bar.attrib["width"]) for bar in bars]
        assert widths[1] == pytest.approx(widths[0] / 4) and widths[2] == 0
        assert bars[0].attrib["fill"] == bars[2].attrib["fill"] != bars[1].attrib["fill"]

    def test_what_is_not_finite_has_a_name_and_no_bar(self):
        chart = value_bars({"a": math.nan, "b": 1.0}, "title")
        assert len(nodes(chart, "rect")) == 1 and {"a", "nan", "title"} <= set(texts(chart))

    def test_names_are_text_and_no_markup(self):
        assert "<b>" in texts(value_bars({"<b>": 1.0}, "t"))

    @pytest.mark.parametrize(("values", "marked"), [({}, []), ({"a": -1.0}, []), ({"a": 1.0}, ["b"])])
    def test_wrong_input_is_refused(self, values: dict[str, float], marked: list[str]):
        with pytest.raises(UsageError):
            value_bars(values, "t", marked=marked)


class TestNorms:
    def shades(self, chart: str) -> list[float]:
        return [float(node.attrib["fill-opacity"]) for node in nodes(chart, "rect") if "fill-opacity" in node.attrib]

    def test_the_shade_is_by_the_logarithm_and_zero_has_none(self):
        # columns one after the other: 1, 0, then 100, 10
        shades = self.shades(norm_chart({"a": {"x": 1.0, "y": 0.0}, "b": {"x": 100.0, "y": 10.0}}, "t"))
        assert shades == pytest.approx([0.1, 0.0, 0.7, 0.4])

    def test_cells_stand_in_their_column_and_row(self):
        chart = norm_chart({"a": {"x": 1.0, "y": 2.0, "z": 3.0}, "b": {"x": 4.0, "y": 5.0, "z": 6.0}}, "t")
        at = {node.text: (float(node.attrib["x"]), float(node.attrib["y"])) for node in nodes(chart, "text")}
        assert at["1"][0] == at["3"][0] == at["a"][0] < at["4"][0] == at["b"][0]
        assert at["1"][1] == at["4"][1] == at["x"][1] < at["2"][1] == at["y"][1]

    def test_small_norms_are_not_lost_beside_large_ones(self):
        shades = self.shades(norm_chart({"a": {"x": 1e-9, "y": 1.0}}, "t"))
        assert shades == pytest.approx([0.1, 0.7])

    def test_one_norm_and_what_is_not_finite(self):
        assert self.shades(norm_chart({"a": {"x": 3.0}}, "t")) == pytest.approx([0.7])
        assert self.shades(norm_chart({"a": {"x": math.inf, "y": 2.0}}, "t"))[0] == 0.0

    @pytest.mark.parametrize("norms", [{}, {"a": {}}, {"a": {"x": 1.0}, "b": {"y": 1.0}}])
    def test_parts_must_be_the_same(self, norms: dict[str, dict[str, float]]):
        with pytest.raises(UsageError, match="the same parts"):
            norm_chart(norms, "t")


class TestCurves:
    def points(self, path: str) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]

    def test_values_are_drawn_as_they_are(self):
        (path,) = nodes(small_curves([Curves("t", {"a": ([0, 1, 4], [0.0, 10.0, 5.0])})]), "path")
        (x0, y0), (x1, y1), (x2, y2) = self.points(path.attrib["d"])
        assert y0 > y2 > y1 and y2 == pytest.approx((y0 + y1) / 2, abs=0.11)
        assert x1 - x0 == pytest.approx((x2 - x0) / 4, abs=0.11)

    def test_a_gap_interrupts_the_line(self):
        chart = small_curves([Curves("t", {"a": ([0, 1, 2, 3], [1.0, math.nan, 2.0, 3.0])})])
        (path,) = nodes(chart, "path")
        assert re.sub(r"[\d. ]", "", path.attrib["d"]) == "MML" and len(nodes(chart, "circle")) == 3

    def test_the_axis_begins_at_zero_unless_told_otherwise(self):
        bottom = {}
        for from_zero in (True, False):
            chart = small_curves([Curves("t", {"a": ([0, 1], [10.0, 11.0])}, from_zero=from_zero)])
            bottom[from_zero] = max(y for _, y in self.points(nodes(chart, "path")[0].attrib["d"]))
        assert bottom[False] > bottom[True]
        below = small_curves([Curves("t", {"a": ([0, 1], [-2.0, -1.0])})])
        assert {"-2", "0"} <= set(texts(below))

    def test_charts_stand_in_columns(self):
        chart = small_curves([Curves(name, {"a": ([0, 1], [1.0, 2.0])}) for name in ("p", "q", "r")], columns=2)
        at = {node.text: (float(node.attrib["x"]), float(node.attrib["y"])) for node in nodes(chart, "text")}
        assert at["p"][1] == at["q"][1] < at["r"][1] and at["p"][0] == at["r"][0] < at["q"][0]

    def test_a_single_value_is_a_dot(self):
        assert len(nodes(small_curves([Curves("t", {"a": ([3.0], [7.0])})]), "circle")) == 1

    def test_wrong_input_is_refused(self):
        with pytest.raises(UsageError, match=r"lines\['a'\]: expected finite x, and as many y"):
            Curves("t", {"a": ([0, 1], [1.0])})
        with pytest.raises(UsageError, match="finite x"):
            Curves("t", {"a": ([math.inf], [1.0])})
        with pytest.raises(UsageError, match="at least one, with a value"):
            Curves("t", {"a": ([], [])})
        with pytest.raises(UsageError, match="charts"):
            small_curves([])


def white(picture: Image) -> int:
    return int((np.asarray(picture) == 255).all(-1).sum())


class TestPictures:
    @pytest.fixture
    def pointed(self, say: Callable[..., Sample]) -> Sample:
        return say(0, "Where is <prompt:0>?", "<region>", boxes=[[8, 16, 40, 48]], region=[{"time_sec": 3.5, "xyxy": [10, 10, 30, 30]}])

    def test_a_sheet_shows_each_sample_with_what_is_pointed_at(self, pointed: Sample, say: Callable[..., Sample]):
        stroke = say(0, "Where is <prompt:0>?", "<region>", strokes=[[[8, 16], [40, 48]]], region=[{"xyxy": [1, 1, 9, 9]}])
        one, two = prompt_sheet([pointed]), prompt_sheet([pointed, stroke])
        assert two.width > 2 * one.width - 1 and two.height == one.height
        # enlarged by two, the box's left edge is a white line of 64 pixels, 16 pixels into the tile
        columns = (np.asarray(one)[-140:, 14:28] == 255).all(-1).sum(0)
        assert 60 <= columns.max() < 100

    def test_a_sheet_needs_prompts(self, pointed: Sample, world: Callable[..., list[Sample]]):
        with pytest.raises(UsageError, match="each with a prompt"):
            prompt_sheet([pointed, *world(0, "conversation")[:1]])
        with pytest.raises(UsageError, match="none"):
            prompt_sheet([])

    def test_light_falls_where_it_is_drawn(self, pointed: Sample):
        left, right = np.zeros((16, 16)), np.zeros((16, 16))
        left[:, :8], right[:, 8:] = 1 / 128, 1 / 128
        lit = {name: np.asarray(drawn_picture(pointed, {name: drawn}), dtype=float) for name, drawn in (("left", left), ("right", right))}
        inside = {name: picture[-150:-10, 10:150] for name, picture in lit.items()}
        assert inside["left"][:, :60].mean() > 2 * inside["right"][:, :60].mean()
        assert inside["right"][:, 80:].mean() > 2 * inside["left"][:, 80:].mean()

    @pytest.mark.parametrize("drawing", [np.zeros((3, 4)), np.full((4, 4), -1.0), np.full((4, 4), np.nan), np.zeros(16)])
    def test_a_drawing_is_a_square_of_shares(self, pointed: Sample, drawing: np.ndarray):
        with pytest.raises(UsageError, match=r"drawings\['a'\]"):
            drawn_picture(pointed, {"a": drawing})
        with pytest.raises(UsageError, match="drawings"):
            drawn_picture(pointed, {})

    def test_so_many_places_of_a_moved_box(self, pointed: Sample):
        boxes = [[0.1 * k, 0.1, 0.1 * k + 0.3, 0.4] for k in range(6)]
        three, six = (moved_picture(pointed, boxes, boxes, count=count) for count in (3, 6))
        assert six.width > 1.5 * three.width and six.height == pytest.approx(three.height, abs=40)

    def test_an_inverted_answer_is_drawn_all_the_same(self, pointed: Sample):
        upright, inverted = (moved_picture(pointed, [[0.1, 0.1, 0.5, 0.5]], [box]) for box in ([0.2, 0.3, 0.6, 0.7], [0.6, 0.7, 0.2, 0.3]))
        assert np.array_equal(np.asarray(upright), np.asarray(inverted))

    def test_an_answer_to_each_place(self, pointed: Sample):
        with pytest.raises(UsageError, match="expected 2, one for each prompt"):
            moved_picture(pointed, [[0, 0, 1, 1]] * 2, [[0, 0, 1, 1]])
        with pytest.raises(UsageError):
            moved_picture(pointed, [], [])
