"""Pictures of prompts: what is drawn is where the numbers say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tpo_lab.errors import UsageError
from tpo_lab.report.prompt_pictures import drawn_picture, moved_picture, prompt_sheet
from tpo_lab.sample import Sample


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
