"""Boxes: hand-computed values, a NumPy oracle, and gradients where boxes do not touch or have no area."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.boxes import (
    box_area,
    box_giou,
    box_iou,
    clamp_xyxy,
    cxcywh_to_xyxy,
    denormalise_xyxy,
    is_inverted,
    normalise_xyxy,
    order_corners,
    pairwise_box_giou,
    pairwise_box_iou,
    xyxy_to_cxcywh,
)
from tpo_lab.errors import UsageError

quick = settings(deadline=None, max_examples=30)
coordinate = st.floats(-1, 2, width=32)
box = st.lists(coordinate, min_size=4, max_size=4).map(lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])])


def oracle(a: list[float], b: list[float]) -> tuple[float, float]:
    """IoU and GIoU of two ordered boxes, one scalar at a time in float64."""

    def length(low: float, high: float) -> float:
        return max(0.0, high - low)

    p, q = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    shared = length(max(p[0], q[0]), min(p[2], q[2])) * length(max(p[1], q[1]), min(p[3], q[3]))
    union = length(p[0], p[2]) * length(p[1], p[3]) + length(q[0], q[2]) * length(q[1], q[3]) - shared
    hull = length(min(p[0], q[0]), max(p[2], q[2])) * length(min(p[1], q[1]), max(p[3], q[3]))
    iou = shared / union if union > 0 else 0.0
    return float(iou), float(iou - ((hull - union) / hull if hull > 0 else 0.0))


def test_conversion_to_centre_is_the_hand_computed_one() -> None:
    assert xyxy_to_cxcywh(torch.tensor([2.0, 10.0, 6.0, 40.0])).tolist() == [4, 25, 4, 30]
    assert cxcywh_to_xyxy(torch.tensor([4.0, 25.0, 4.0, 30.0])).tolist() == [2, 10, 6, 40]


@quick
@given(st.lists(box, min_size=1, max_size=3))
def test_centre_conversion_round_trips(boxes: list[list[float]]) -> None:
    given_xyxy = torch.tensor(boxes, dtype=torch.float64)
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(given_xyxy)), given_xyxy)


def test_normalising_divides_x_by_width_and_y_by_height() -> None:
    pixels, size_wh = torch.tensor([[[13.0, 403.0, 173.0, 586.0]]]), torch.tensor([200, 600])
    normalised = normalise_xyxy(pixels, size_wh)
    assert normalised.flatten().tolist() == pytest.approx([13 / 200, 403 / 600, 173 / 200, 586 / 600])
    torch.testing.assert_close(denormalise_xyxy(normalised, size_wh), pixels)


def test_normalising_takes_one_size_per_box() -> None:
    boxes = torch.tensor([[10.0, 10.0, 20.0, 20.0], [10.0, 10.0, 20.0, 20.0]])
    assert normalise_xyxy(boxes, torch.tensor([[20, 40], [100, 50]])).tolist() == [
        pytest.approx([0.5, 0.25, 1, 0.5]),
        pytest.approx([0.1, 0.2, 0.2, 0.4]),
    ]


def test_order_corners_swaps_each_axis_by_itself() -> None:
    boxes = torch.tensor([[5.0, 2.0, 1.0, 8.0], [1.0, 8.0, 5.0, 2.0], [1.0, 2.0, 5.0, 8.0]])
    assert order_corners(boxes).tolist() == [[1, 2, 5, 8]] * 3
    assert is_inverted(boxes).tolist() == [True, True, False]


def test_a_box_without_size_is_not_inverted_and_has_no_area() -> None:
    point = torch.tensor([3.0, 4.0, 3.0, 4.0])
    assert not is_inverted(point)
    assert box_area(point) == 0


def test_area_of_a_box_inverted_on_both_axes_is_zero() -> None:
    assert box_area(torch.tensor([[0.0, 0.0, 2.0, 3.0], [2.0, 3.0, 0.0, 0.0], [2.0, 0.0, 0.0, 3.0]])).tolist() == [6, 0, 0]


def test_clamp_keeps_corners_in_a_frame_that_is_wider_than_high() -> None:
    clamped = clamp_xyxy(torch.tensor([[-5.0, -1.0, 90.0, 70.0], [10.0, 20.0, 30.0, 40.0]]), torch.tensor([80, 60]))
    assert clamped.tolist() == [[0, 0, 80, 60], [10, 20, 30, 40]]


def test_iou_and_giou_of_a_worked_example() -> None:
    a, b = torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([1.0, 1.0, 3.0, 4.0])
    # shared 1, union 4 + 6 - 1 = 9, hull 3 x 4 = 12
    assert box_iou(a, b).item() == pytest.approx(1 / 9)
    assert box_giou(a, b).item() == pytest.approx(1 / 9 - 3 / 12)


@quick
@given(box, box)
def test_iou_and_giou_equal_the_numpy_oracle(a: list[float], b: list[float]) -> None:
    iou, giou = oracle(a, b)
    first, second = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    assert box_iou(first, second).item() == pytest.approx(iou, abs=1e-9)
    assert box_giou(first, second).item() == pytest.approx(giou, abs=1e-9)
    assert box_giou(second, first).item() == pytest.approx(giou, abs=1e-9)


def test_pairwise_tables_have_rows_of_the_first_and_columns_of_the_second() -> None:
    a = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.5, 1.0]])
    b = torch.tensor([[0.0, 0.0, 1.0, 1.0], [4.0, 4.0, 5.0, 5.0], [0.0, 0.0, 2.0, 2.0]])
    for pairwise, index in ((pairwise_box_iou, 0), (pairwise_box_giou, 1)):
        expected = [[oracle(p, q)[index] for q in b.tolist()] for p in a.tolist()]
        assert pairwise(a, b).shape == (2, 3)
        torch.testing.assert_close(pairwise(a, b), torch.tensor(expected))


def test_giou_has_a_gradient_where_iou_has_none() -> None:
    far = torch.tensor([0.0, 0.0, 0.1, 0.1], requires_grad=True)
    target = torch.tensor([0.8, 0.8, 0.9, 0.9])
    assert torch.autograd.grad(box_iou(far, target), far)[0].abs().sum() == 0
    assert torch.autograd.grad(box_giou(far, target), far)[0].abs().sum() > 0


@pytest.mark.parametrize("predicted", [[0.3, 0.3, 0.3, 0.3], [0.3, 0.1, 0.3, 0.9]], ids=["point", "line"])
def test_boxes_without_area_have_a_finite_value_and_gradient(predicted: list[float]) -> None:
    leaf = torch.tensor(predicted, requires_grad=True)
    giou = box_giou(leaf, torch.tensor(predicted))
    giou.backward()
    assert giou.item() == 0
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_no_boxes_give_empty_tables() -> None:
    assert pairwise_box_giou(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
    assert order_corners(torch.zeros(0, 4)).shape == (0, 4)


def test_a_wrong_last_axis_is_named_with_its_shape() -> None:
    with pytest.raises(UsageError, match=r"b_xyxy: expected a last axis of 4 coordinates, got \(2, 3\)"):
        box_iou(torch.zeros(2, 4), torch.zeros(2, 3))
    with pytest.raises(UsageError, match=r"size_wh: .*got \(3,\)"):
        normalise_xyxy(torch.zeros(2, 4), torch.zeros(3))
