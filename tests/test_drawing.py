"""Drawing puts the given numbers at the right pixels, and refuses what cannot be drawn."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from tpo_lab.drawing import (
    GROUND_TRUTH,
    PALETTE,
    PREDICTION,
    _Axis,
    contact_sheet,
    draw_boxes,
    draw_masks,
    draw_strokes,
    timeline,
    to_data_uri,
)
from tpo_lab.errors import UsageError

GREEN, ORANGE = ImageColor.getrgb(GROUND_TRUTH), ImageColor.getrgb(PREDICTION)


def frame(height: int = 12, width: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, (height, width, 3), dtype=np.uint8)


def where(image: Image.Image, colour: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that have exactly `colour`."""
    return np.nonzero((np.asarray(image) == np.array(colour)).all(axis=-1))


def bars(image: Image.Image, colour: tuple[int, ...]) -> list[tuple[int, int]]:
    """First and last column of each run of columns in which `colour` occurs."""
    columns = np.unique(where(image, colour)[1])
    return [(int(run[0]), int(run[-1])) for run in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1) if len(run)]


def test_palette_leads_with_truth_and_prediction_and_has_no_repeats() -> None:
    assert PALETTE[:2] == (GROUND_TRUTH, PREDICTION) == ("#009E73", "#D55E00")
    assert len(set(PALETTE)) == len(PALETTE)


def test_draw_boxes_enlarges_by_nearest_neighbour() -> None:
    pixels = frame()
    image = draw_boxes(pixels, [], scale=3)
    assert image.size == (60, 36)
    assert np.array_equal(np.asarray(image), pixels.repeat(3, axis=0).repeat(3, axis=1))


def test_draw_boxes_outlines_exactly_the_scaled_pixels() -> None:
    rows, columns = where(draw_boxes(frame(), [((2, 5, 9, 11), "", GROUND_TRUTH)], scale=4), GREEN)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (8, 35, 20, 43)
    inside = (rows > 22) & (rows < 41) & (columns > 10) & (columns < 33)
    assert not inside.any()


def test_draw_boxes_does_not_change_the_frame() -> None:
    pixels = frame()
    before = pixels.copy()
    draw_boxes(pixels, [((0, 0, 9, 9), "a", PREDICTION)])
    assert np.array_equal(pixels, before)


def test_draw_boxes_later_boxes_lie_on_top() -> None:
    box = (2, 2, 10, 10)
    assert len(where(draw_boxes(frame(), [(box, "", GROUND_TRUTH), (box, "", PREDICTION)]), GREEN)[0]) == 0


def test_draw_boxes_cuts_what_is_outside_and_keeps_a_point_visible() -> None:
    image = draw_boxes(frame(), [((-50, 4, 90, 100), "", GROUND_TRUTH), ((15, 8, 15, 8), "", PREDICTION)], scale=2)
    assert image.size == (40, 24)
    assert np.unique(where(image, GREEN)[0]).tolist() == [8, 9]
    ((first, last),) = bars(image, ORANGE)
    assert 28 <= first <= 30 <= last <= 32


def test_draw_boxes_tag_stands_above_the_box_or_inside_the_picture() -> None:
    tall = np.zeros((80, 90, 3), dtype=np.uint8)
    above, _ = where(draw_boxes(tall, [((10, 40, 60, 70), "cup", GROUND_TRUTH)]), GREEN)
    assert above.min() == 24
    corner = np.asarray(draw_boxes(tall, [((80, 0, 90, 10), "cup", GROUND_TRUTH)]))
    assert tuple(corner[0, 70]) == GREEN and corner.shape == (80, 90, 3)


@pytest.mark.parametrize(("colour", "ink"), [("#F0E442", (0, 0, 0)), ("#0072B2", (255, 255, 255))])
def test_draw_boxes_label_contrasts_with_its_patch(colour: str, ink: tuple[int, int, int]) -> None:
    grey = np.full((60, 90, 3), 120, dtype=np.uint8)
    pixels = np.asarray(draw_boxes(grey, [((10, 30, 50, 50), "HHH", colour)])).astype(int)
    assert (np.abs(pixels - ink).max(axis=-1) < 60).sum() > 5


@pytest.mark.parametrize("xyxy", [(5, 0, 2, 8), (0, 9, 3, 4), (0, 0, float("nan"), 4), (1, 2, 3)])
def test_draw_boxes_refuses_a_box_that_is_none(xyxy: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match=re.escape(str([float(edge) for edge in xyxy]))):
        draw_boxes(frame(), [(xyxy, "", PREDICTION)])


def test_draw_boxes_refuses_other_frames_and_scales() -> None:
    with pytest.raises(UsageError, match=r"uint8 \[h, w, 3\], got 'float64 \[4, 5, 3\]'"):
        draw_boxes(np.zeros((4, 5, 3)), [])
    with pytest.raises(UsageError, match=r"got 'uint8 \[3, 4, 5\]'"):
        draw_boxes(np.zeros((3, 4, 5), dtype=np.uint8), [])
    with pytest.raises(UsageError, match=r"scale: .* got 1\.5"):
        draw_boxes(frame(), [], scale=1.5)


def test_draw_masks_lines_the_edge_inside_and_veils_the_rest() -> None:
    mask = np.zeros((12, 20), bool)
    mask[2:8, 3:10] = True
    image = np.asarray(draw_masks(np.zeros((12, 20, 3), np.uint8), [(mask, GROUND_TRUTH, 0.5)], scale=2))
    rows, columns = np.nonzero((image == np.array(GREEN)).all(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 15, 6, 19)
    edge = np.zeros((24, 40), bool)
    edge[4:16, 6:20] = True
    edge[5:15, 7:19] = False
    assert ((image == np.array(GREEN)).all(-1) == edge).all()
    assert (image[5:15, 7:19] == np.round(np.array(GREEN) / 2)).all()
    assert not image[~mask.repeat(2, 0).repeat(2, 1)].any()


def test_draw_masks_has_no_line_along_the_frames_border() -> None:
    image = np.asarray(draw_masks(frame(), [(np.ones((12, 20), bool), PREDICTION, 0.0)]))
    assert (image == frame()).all()


def test_draw_masks_refuses_other_sizes() -> None:
    with pytest.raises(UsageError, match=r"masks.*\[12, 20\]"):
        draw_masks(frame(), [(np.ones((12, 19), bool), PREDICTION, 0.0)])


def test_draw_strokes_goes_through_its_points_and_leaves_the_rest() -> None:
    pixels = frame(60, 80)
    image = draw_strokes(pixels, [([(10, 20), (50, 20)], "", GROUND_TRUTH), ([(60, 50)], "", PREDICTION)])
    rows, columns = where(image, GREEN)
    assert set(range(15, 46)) <= set(columns.tolist()) and columns.min() >= 7 and columns.max() <= 53 and set(rows) <= set(range(16, 25))
    rows, columns = where(image, ORANGE)
    assert (rows.mean(), columns.mean()) == pytest.approx((50, 60), abs=0.5) and len(rows) < 81
    changed = (np.asarray(image) != pixels).any(-1)
    assert not changed[:15].any() and not changed[26:45].any()
    tagged = draw_strokes(pixels, [([(10, 40)], "prompt 0", PREDICTION)])
    assert len(where(tagged, ORANGE)[0]) > 300


@pytest.mark.parametrize("points", [[], [(1.0, float("nan"))]])
def test_draw_strokes_refuses_what_is_no_stroke(points: list[tuple[float, float]]) -> None:
    with pytest.raises(UsageError, match="strokes: expected finite points"):
        draw_strokes(frame(), [(points, "", GREEN)])


def test_contact_sheet_holds_every_picture_unchanged_and_in_order() -> None:
    colours = [["#010203", "#040506", "#070809"], ["#101112"]]
    rows = [[Image.new("RGB", (50, 30), colour) for colour in row] for row in colours]
    sheet = contact_sheet(rows, ["first", "second"])
    corners = []
    for colour in (c for row in colours for c in row):
        found = where(sheet, ImageColor.getrgb(colour))
        assert len(found[0]) == 50 * 30
        corners.append((int(found[0].min()), int(found[1].min())))
    assert corners[0][0] == corners[1][0] == corners[2][0] < corners[3][0]
    assert corners[0][1] < corners[1][1] < corners[2][1] and corners[3][1] == corners[0][1]


def test_contact_sheet_wraps_captions_inside_the_sheet() -> None:
    row = [Image.new("RGB", (100, 10), "#010203")]
    one, words, letters = (contact_sheet([row], [text]) for text in ("short", "several words " * 6, "x" * 60))
    assert one.width == words.width == letters.width == 108
    assert words.height > one.height and letters.height > one.height
    for sheet in (words, letters):
        dark = np.asarray(sheet.convert("L"))[: sheet.height - 20] < 128
        assert dark[:, :3].sum() == dark[:, -3:].sum() == 0 and dark.sum() > 100


def test_contact_sheet_keeps_line_breaks_and_empty_captions() -> None:
    row = [Image.new("RGB", (100, 10))]
    heights = [contact_sheet([row], [text]).height for text in ("", "a", "a\nb")]
    assert heights[1] - heights[0] == heights[2] - heights[1] > 10


def test_contact_sheet_refuses_missing_captions_and_pictures() -> None:
    row = [Image.new("RGB", (5, 5))]
    with pytest.raises(UsageError, match="one for each of the 2 rows, got 1"):
        contact_sheet([row, row], ["a"])
    with pytest.raises(UsageError, match=r"got \[1, 0\]"):
        contact_sheet([row, []], ["a", "b"])
    with pytest.raises(UsageError, match=r"rows: .*got \[\]"):
        contact_sheet([], [])


def test_timeline_bars_lie_at_the_share_of_the_axis_that_their_seconds_have() -> None:
    image = timeline(400, 20.0, [("a", [[0, 20]], GROUND_TRUTH), ("b", [[5, 10], [15, 15]], PREDICTION)])
    ((left, right),) = bars(image, GREEN)
    (first, point) = bars(image, ORANGE)
    length = right - left
    assert right < 400 and length > 300
    assert first == pytest.approx((left + length / 4, left + length / 2), abs=1)
    assert point == pytest.approx((left + length * 3 / 4, left + length * 3 / 4), abs=1)
    assert where(image, GREEN)[0].max() < where(image, ORANGE)[0].min()


def test_timeline_cuts_windows_at_the_ends_of_the_axis() -> None:
    reference = bars(timeline(300, 10.0, [("a", [[0, 10]], GROUND_TRUTH)]), GREEN)
    assert bars(timeline(300, 10.0, [("a", [[-5, 99]], GROUND_TRUTH)]), GREEN) == reference
    assert bars(timeline(300, 10.0, [("a", [[11, 12], [-3, -1]], GROUND_TRUTH)]), GREEN) == []


def test_timeline_curve_rises_with_its_values_and_stops_where_they_are_missing() -> None:
    times = [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    image = timeline(300, 10.0, [], [("s", times, [0, 1, float("nan"), float("nan"), 3, 4], PREDICTION)])
    rows, columns = where(image, ORANGE)
    assert rows[columns == columns.max()].mean() < rows[columns == columns.min()].mean() - 30
    axis = bars(timeline(300, 10.0, [("s", [[0, 10]], GROUND_TRUTH)]), GREEN)[0]
    gap = [axis[0] + (axis[1] - axis[0]) * share for share in (0.25, 0.75)]
    assert not ((columns > gap[0]) & (columns < gap[1])).any()


def test_timeline_curves_lie_below_the_windows_and_share_the_axis() -> None:
    image = timeline(300, 10.0, [("w", [[4, 6]], GROUND_TRUTH)], [("s", [4.0, 6.0], [1.0, 1.0], PREDICTION)])
    assert where(image, GREEN)[0].max() < where(image, ORANGE)[0].min()
    assert bars(image, ORANGE)[0] == pytest.approx(bars(image, GREEN)[0], abs=1)


def test_timeline_without_rows_or_values_is_still_an_axis() -> None:
    image = timeline(300, 10.0, [("none", [], GROUND_TRUTH)], [("empty", [], [], PREDICTION)])
    assert image.width == 300 and len(where(image, GREEN)[0]) == len(where(image, ORANGE)[0]) == 0
    assert (np.asarray(image.convert("L")) < 128).sum() > 200


def test_timeline_shortens_names_that_would_fill_the_picture() -> None:
    ((left, _),) = bars(timeline(300, 10.0, [("n" * 80, [[0, 10]], GROUND_TRUTH)]), GREEN)
    assert left == 100


@given(duration_sec=st.floats(1e-2, 1e5), width=st.integers(120, 2000))
def test_axis_ticks_are_round_few_and_inside(duration_sec: float, width: int) -> None:
    ticks = _Axis(40, width - 9, duration_sec).ticks()
    assert ticks[0] == 0 and ticks[-1] <= duration_sec * (1 + 1e-6)
    assert len(ticks) <= max((width - 49) // 60, 1) + 1
    if len(ticks) > 1:
        assert f"{ticks[1]:.6e}"[0] in "125" and f"{ticks[1]:.6e}"[2:8] == "000000"


def test_timeline_refuses_what_has_no_place() -> None:
    with pytest.raises(UsageError, match="width: expected at least 120 pixels, got 80"):
        timeline(80, 1.0, [])
    with pytest.raises(UsageError, match=r"duration_sec: .* got 0\.0"):
        timeline(300, 0.0, [])
    with pytest.raises(UsageError, match=r"windows of mine .* got \[6.0, 2.0\]"):
        timeline(300, 9.0, [("mine", [[6, 2]], PREDICTION)])
    with pytest.raises(UsageError, match=r"values as times in mine \(3\), got 2"):
        timeline(300, 9.0, [], [("mine", [1, 2, 3], [1, 2], PREDICTION)])


def test_data_uri_holds_the_same_picture() -> None:
    image = Image.fromarray(frame())
    head, _, body = to_data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(body)))), frame())
