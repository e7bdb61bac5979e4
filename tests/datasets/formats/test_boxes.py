"""Boxes: every convention by hand and there and back, cutting, what is refused, and the boxes of COCO's own results."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_lab.datasets.formats import Source
from tpo_lab.datasets.formats.boxes import (
    AS_V2_SQUARE_XYXY,
    AS_V2_XYXY,
    CUT,
    PIXELS_XYWH,
    PIXELS_XYXY,
    UNIT_SQUARE_XYXY,
    UNIT_XYWH,
    UNIT_XYXY,
    Convention,
    box_in,
    boxes_in,
    frame_size,
)
from tpo_lab.errors import UsageError
from tpo_lab.files import BadRecord, Record

ALL = (PIXELS_XYXY, PIXELS_XYWH, UNIT_XYXY, UNIT_XYWH, UNIT_SQUARE_XYXY, AS_V2_XYXY, AS_V2_SQUARE_XYXY)
SIDE = st.integers(1, 5000)
RECORD = Record("f.json, [3]", {})


@pytest.mark.parametrize(
    ("convention", "box", "size", "xyxy"),
    [
        (PIXELS_XYXY, [1, 2, 5, 7.5], (20, 12), [1, 2, 5, 7.5]),
        (PIXELS_XYWH, [1, 2, 5, 7.5], (20, 12), [1, 2, 6, 9.5]),
        (UNIT_XYXY, [0.1, 0.25, 0.5, 1], (20, 12), [2, 3, 10, 12]),
        (UNIT_XYWH, [0.1, 0.25, 0.5, 0.5], (20, 12), [2, 3, 12, 9]),
        # the square is 20 x 20, with 4 rows above the image
        (UNIT_SQUARE_XYXY, [0.1, 0.25, 0.5, 0.5], (20, 12), [2, 1, 10, 6]),
        (AS_V2_XYXY, [0, 333, 666, 999], (30, 12), [0, 4, 20, 12]),
        # 9 rows above a wide image, 9 columns left of a tall one; of an odd padding the smaller half
        (AS_V2_SQUARE_XYXY, [0, 333, 666, 666], (30, 12), [0, 1, 20, 11]),
        (AS_V2_SQUARE_XYXY, [333, 0, 666, 999], (12, 30), [1, 0, 11, 30]),
        (AS_V2_SQUARE_XYXY, [333, 333, 666, 666], (30, 13), [10, 2, 20, 12]),
    ],
)
def test_a_box_by_hand(convention, box, size, xyxy):
    assert convention.to_pixels(box, size).tolist() == pytest.approx(xyxy)
    assert convention.from_pixels(xyxy, size).tolist() == pytest.approx(box)


@pytest.mark.parametrize("convention", ALL, ids=repr)
@given(data=st.data(), width=SIDE, height=SIDE)
def test_there_and_back_is_the_same_box(convention: Convention, data, width, height):
    if width == height:
        height += 1
    corner = [data.draw(st.floats(0, side)) for side in (width, height, width, height)]
    back = convention.to_pixels(convention.from_pixels(corner, (width, height)), (width, height))
    assert np.allclose(back, corner, rtol=0, atol=1e-8)


@given(size=st.tuples(SIDE, SIDE), box=st.lists(st.integers(0, 999), min_size=4, max_size=4))
def test_whole_numbers_of_as_v2_come_back_whole(size, box):
    for convention in (AS_V2_XYXY, AS_V2_SQUARE_XYXY):
        assert convention.from_pixels(convention.to_pixels(box, size), size).round().astype(int).tolist() == box


@given(box=st.lists(st.floats(-50, 50), min_size=4, max_size=4))
def test_what_is_read_lies_in_the_frame_and_keeps_what_is_inside(box):
    source = Source(Path())
    try:
        x0, y0, x1, y1 = box_in(RECORD, "bbox", box, PIXELS_XYXY, (20, 12), source)
    except BadRecord as bad:
        inside = max(box[0], 0) < min(box[2], 20) and max(box[1], 0) < min(box[3], 12)
        assert not inside and bad.rule in ("box_area", "box_in_frame")
        return
    assert 0 <= x0 < x1 <= 20 and 0 <= y0 < y1 <= 12
    assert [x0, y0, x1, y1] == [max(box[0], 0), max(box[1], 0), min(box[2], 20), min(box[3], 12)]


def test_cutting_is_counted_and_rounding_is_not():
    source = Source(Path())
    found = boxes_in(RECORD, "boxes", [[1, 1, 3, 3], [-2, 0, 5, 4], [18, 10, 20.0000000001, 12]], PIXELS_XYXY, (20, 12), source)
    assert found == [(1, 1, 3, 3), (0, 0, 5, 4), (18, 10, 20, 12)]
    assert source.adjusted == Counter({CUT: 1})


def test_without_a_size_only_what_is_left_or_above_is_cut():
    source = Source(Path())
    assert box_in(RECORD, "bbox", [-2, 3, 900, 4], PIXELS_XYWH, None, source) == (0, 3, 898, 7)
    with pytest.raises(UsageError, match="size: expected the frame's width and height, of which the boxes give parts, got None"):
        box_in(RECORD, "bbox", [0, 0, 1, 1], UNIT_XYXY, None, source)


@pytest.mark.parametrize(
    ("box", "rule"),
    [
        ([1, 2, 3], "numbers"),
        ([1, 2, 3, "4"], "numbers"),
        ([1, 2, 3, float("nan")], "numbers"),
        (None, "numbers"),
        ([1, 2, 0, 5], "box_area"),
        ([1, 2, -1, 5], "box_area"),
        ([1e308, 2, 1e308, 5], "box_area"),
        ([20, 2, 3, 5], "box_in_frame"),
        ([-3, 2, 3, 5], "box_in_frame"),
    ],
)
def test_what_is_no_box_is_named(box, rule):
    with pytest.raises(BadRecord) as caught:
        box_in(RECORD, "bbox", box, PIXELS_XYWH, (20, 12), Source(Path()))
    assert (caught.value.where, caught.value.field, caught.value.rule) == ("f.json, [3]", "bbox", rule)


def test_of_several_boxes_the_wrong_one_is_named():
    with pytest.raises(
        BadRecord, match=r"f\.json, \[3\], boxes\[1\]: expected a box with a width and a height above 0, got \[1\.0, 1\.0, 1\.0, 2\.0\]"
    ):
        boxes_in(RECORD, "boxes", [[0, 0, 1, 1], [1, 1, 1, 2]], PIXELS_XYXY, (20, 12), Source(Path()))


@pytest.mark.parametrize(
    ("fields", "field", "rule"),
    [
        ({"width": 0, "height": 5}, "width", "frame_size"),
        ({"width": 5, "height": 65_536}, "height", "frame_size"),
        ({"width": 65_535, "height": 65_535}, "width", "frame_size"),
        ({"width": 5.5, "height": 5}, "width", "integer"),
        ({"width": 5}, "", "missing"),
    ],
)
def test_what_is_no_size_is_named(fields, field, rule):
    with pytest.raises(BadRecord) as caught:
        frame_size(Record("f", fields))
    assert (caught.value.field, caught.value.rule) == (field, rule)
    assert frame_size(Record("f", {"width": 20, "height": 12.0})) == (20, 12)


def test_boxes_of_coco_results_fit_their_images(real):
    def rows(kind: str) -> list[dict]:
        return json.loads((real / "coco_results" / f"instances_val2014_fake{kind}100_results.json").read_text())

    sizes = {row["image_id"]: row["segmentation"]["size"][::-1] for row in rows("segm")}
    source, boxes = Source(Path()), rows("bbox")
    for row in boxes:
        x, y, width, height = row["bbox"]
        found = box_in(RECORD, "bbox", row["bbox"], PIXELS_XYWH, tuple(sizes[row["image_id"]]), source)
        assert found == pytest.approx((x, y, x + width, y + height))
    assert len(boxes) == 734 and not source.adjusted
