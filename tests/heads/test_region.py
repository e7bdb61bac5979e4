"""The region head: its two losses, matching within answers, inverted boxes, and pixels out equal to pixels in."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tpo_lab.errors import TPOError, UsageError
from tpo_lab.heads import ClipInfo, RegionHead, RegionSettings, Visual
from tpo_lab.heads.region import RegionPrediction, RegionTarget
from tpo_lab.losses import reduce_mean

DIM = 8
WIDE = ClipInfo(width=80, height=60, duration_sec=4.0, times_sec=(1.0, 3.0))
TALL = ClipInfo(width=30, height=100, duration_sec=9.0, times_sec=(1.0, 3.0))
INVERTED = [[0.7, 0.8, 0.3, 0.4]]


def visual(answer: list[int]) -> Visual:
    slots = len(answer)
    return Visual(
        times_sec=torch.tensor([1.0, 3.0]).repeat(slots, 1),
        frame_valid=torch.ones(slots, 2, dtype=torch.bool),
        duration_sec=torch.full((slots,), 4.0),
        size_wh=torch.tensor([80.0, 60.0]).repeat(slots, 1),
        answer=torch.tensor(answer, dtype=torch.long),
    )


def head_of(**settings: Any) -> RegionHead:
    torch.manual_seed(0)
    return RegionHead(DIM, RegionSettings(**settings))


def boxes(*corners: list[float]) -> list[dict[str, Any]]:
    return [{"time_sec": 1.0, "xyxy": box} for box in corners]


def target_of(*answers: list[list[float]], slots: list[int]) -> RegionTarget:
    return head_of().collate_targets([torch.tensor(answer).reshape(-1, 4) for answer in answers], slots, "cpu")


def total(head: RegionHead, prediction: RegionPrediction, target: RegionTarget) -> Tensor:
    weights = head.weights()
    return sum((weights[term] * reduce_mean(values) for term, values in head.losses(prediction, target).items()), torch.zeros(()))


def test_the_default_size_is_that_of_the_published_head() -> None:
    with torch.device("meta"):
        published = RegionHead(4096)
    assert sum(parameter.numel() for parameter in published.parameters()) == 8_398_852
    assert RegionHead(DIM, RegionSettings(hidden_dim=3)).mlp[0].out_features == 3


@pytest.mark.parametrize("answer", [[0, 0, 1], [0], []], ids=["three", "one", "none"])
def test_there_is_one_box_per_slot(answer: list[int]) -> None:
    assert head_of().predict(torch.randn(len(answer), DIM), visual(answer)).validate().boxes_xyxy.shape == (len(answer), 4)


def test_official_terms_and_weights_add_up_to_the_published_loss() -> None:
    head, predicted, wanted = head_of(loss="official"), [[0.0, 0.0, 0.5, 0.5]], [[0.0, 0.0, 0.5, 1.0]]
    target = target_of(wanted, slots=[1])
    values = head.losses(RegionPrediction(torch.tensor(predicted)), target)
    assert {term: each.tolist() for term, each in values.items()} == {"l1": [0.125], "giou": [0.5]}
    assert total(head, RegionPrediction(torch.tensor(predicted)), target).item() == pytest.approx(2 * 0.125 + 0.2 * 0.5)


def test_paper_loss_is_the_mean_squared_error_with_its_weight() -> None:
    head = head_of(loss="paper", weight_mse=3.0)
    target = target_of([[0.0, 0.0, 0.5, 1.0]], slots=[1])
    values = head.losses(RegionPrediction(torch.tensor([[0.0, 0.0, 0.5, 0.5]])), target)
    assert {term: each.tolist() for term, each in values.items()} == {"mse": [0.0625]}
    assert head.weights() == {"mse": 3.0}


@pytest.mark.parametrize("loss", ["paper", "official"])
def test_the_annotated_box_is_the_minimum(loss: str) -> None:
    head, box = head_of(loss=loss), torch.tensor([[0.2, 0.3, 0.6, 0.9]])
    target = target_of(box.tolist(), slots=[1])
    perfect = total(head, RegionPrediction(box), target)
    assert perfect.item() == pytest.approx(0, abs=1e-6)
    for corner in range(4):
        moved = box.clone()
        moved[0, corner] += 0.05
        assert total(head, RegionPrediction(moved), target) > perfect


def test_giou_of_an_inverted_box_pulls_on_every_corner() -> None:
    leaf = torch.tensor(INVERTED, requires_grad=True)
    values = head_of(loss="official").losses(RegionPrediction(leaf), target_of([[0.2, 0.3, 0.6, 0.9]], slots=[1]))
    gradient = torch.autograd.grad(values["giou"].sum(), leaf)[0]
    assert (gradient.abs() > 0).all()


def test_the_centre_parametrisation_cannot_invert_a_box() -> None:
    embeddings = 50 * torch.randn(64, DIM, generator=torch.Generator().manual_seed(3))
    corners, centre = head_of(), head_of(parametrisation="centre")
    target = target_of(*[[]] * 64, slots=[1] * 64)
    assert corners.diagnostics(corners.predict(embeddings, visual(list(range(64)))), target)["inverted_rate"] > 0
    assert centre.diagnostics(centre.predict(embeddings, visual(list(range(64)))), target)["inverted_rate"] == 0


def test_slots_of_an_answer_choose_their_boxes_by_the_documented_cost() -> None:
    head, generator = head_of(match_l1=1.5, match_giou=0.7), torch.Generator().manual_seed(5)
    sides = torch.rand(2, 2, 4, generator=generator)
    predicted, wanted = torch.cat([sides[..., :2], sides[..., :2] + sides[..., 2:]], -1).double().numpy()

    def cost(a: np.ndarray, b: np.ndarray) -> float:
        shared = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
        union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
        hull = np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
        return float(1.5 * np.abs(a - b).mean() - 0.7 * (shared / union - (hull - union) / hull))

    straight = cost(predicted[0], wanted[0]) + cost(predicted[1], wanted[1])
    crossed = cost(predicted[0], wanted[1]) + cost(predicted[1], wanted[0])
    match = head.match(RegionPrediction(torch.tensor(predicted).float()), target_of(wanted.tolist(), slots=[2]))
    assert match.box.tolist() == ([0, 1] if straight < crossed else [1, 0])


def test_in_order_assignment_keeps_the_order_of_the_text() -> None:
    left, right = [0.0, 0.0, 0.2, 0.2], [0.8, 0.8, 1.0, 1.0]
    prediction, target = RegionPrediction(torch.tensor([right, left])), target_of([left, right], slots=[2])
    assert total(head_of(assignment="hungarian"), prediction, target).item() == pytest.approx(0, abs=1e-6)
    assert total(head_of(assignment="in-order"), prediction, target).item() > 1


def test_a_near_box_of_another_answer_does_not_help() -> None:
    left, right = [0.0, 0.0, 0.2, 0.2], [0.8, 0.8, 1.0, 1.0]
    prediction = RegionPrediction(torch.tensor([right, left]))
    assert head_of().losses(prediction, target_of([left], [right], slots=[1, 1]))["l1"].tolist() == pytest.approx([0.8, 0.8])


def test_more_or_fewer_slots_than_boxes_are_counted_and_cost_no_box_loss() -> None:
    left, right = [0.0, 0.0, 0.2, 0.2], [0.8, 0.8, 1.0, 1.0]
    prediction = RegionPrediction(torch.tensor([left, right, left]))
    target = target_of([left], [left, right], [right], slots=[2, 1, 0])
    head = head_of()
    assert head.losses(prediction, target)["l1"].tolist() == pytest.approx([0, 0])
    assert head.diagnostics(prediction, target) == {
        "inverted_rate": 0.0,
        "mean_iou": pytest.approx(1.0),
        "count_mismatch": 3.0,
        "extra_slots": 1.0,
        "unmatched_boxes": 2.0,
    }


@pytest.mark.parametrize("loss", ["paper", "official"])
def test_no_boxes_give_a_loss_of_zero_with_a_zero_gradient(loss: str) -> None:
    head = head_of(loss=loss)
    target = head.collate_targets([head.encode_target([], WIDE)], [2], "cpu")
    value = total(head, head.predict(torch.randn(2, DIM), visual([0, 0])), target)
    value.backward()
    assert value.item() == 0
    assert all(parameter.grad is not None and (parameter.grad == 0).all() for parameter in head.parameters())


def test_no_answers_give_empty_values_and_diagnostics_of_zero() -> None:
    head = head_of()
    prediction, target = head.predict(torch.zeros(0, DIM), visual([])), head.collate_targets([], [], "cpu")
    assert {len(values) for values in head.losses(prediction, target).values()} == {0}
    assert set(head.diagnostics(prediction, target).values()) == {0.0}
    assert head.decode(prediction, [], torch.zeros(0, dtype=torch.long)) == []


def test_pixels_come_back_within_one_pixel_in_frames_of_several_sizes() -> None:
    head, annotations = head_of(), [boxes([13, 40, 73, 58]), boxes([1, 2, 3, 99], [0, 0, 30, 100])]
    items = [head.encode_target(annotation, clip) for annotation, clip in zip(annotations, (WIDE, TALL), strict=True)]
    assert items[0].tolist() == [pytest.approx([13 / 80, 40 / 60, 73 / 80, 58 / 60])]
    target = head.collate_targets(items, [1, 2], "cpu")
    decoded = head.decode(RegionPrediction(target.boxes_xyxy), [WIDE, TALL], target.slot_answer)
    for answer, annotation in zip(decoded, annotations, strict=True):
        assert np.abs(np.array(answer["boxes_xyxy"]) - np.array([entry["xyxy"] for entry in annotation])).max() < 1e-3
        assert answer["inverted"] == 0
    json.dumps(decoded)


def test_decoded_boxes_are_ordered_clamped_and_the_inverted_ones_counted() -> None:
    prediction = RegionPrediction(torch.tensor([INVERTED[0], [-0.5, 0.25, 0.5, 1.5]]))
    decoded = head_of().decode(prediction, [WIDE, TALL, WIDE], torch.tensor([0, 2]))
    assert decoded[0] == {"boxes_xyxy": [pytest.approx([24, 24, 56, 48])], "inverted": 1}
    assert decoded[1] == {"boxes_xyxy": [], "inverted": 0}
    assert decoded[2] == {"boxes_xyxy": [[0, 15, 40, 60]], "inverted": 0}


def test_a_diverged_prediction_is_no_json_answer() -> None:
    with pytest.raises(TPOError, match="The region head predicted 2 of 4 values that are not finite"):
        head_of().decode(RegionPrediction(torch.tensor([[0.0, float("nan"), 1.0, float("inf")]])), [WIDE], torch.tensor([0]))


def test_wrong_annotations_name_the_box() -> None:
    with pytest.raises(UsageError, match=r"region\[1\]\.xyxy: expected finite pixels.*got \[9\.0, 2\.0, 3\.0, 4\.0\]"):
        head_of().encode_target(boxes([1, 2, 3, 4], [9, 2, 3, 4]), WIDE)
    with pytest.raises(UsageError, match=r"region\[0\]\.xyxy: .*nan"):
        head_of().encode_target(boxes([1, float("nan"), 3, 4]), WIDE)


@pytest.mark.parametrize(("field", "value"), [("loss", "mse"), ("parametrisation", "center"), ("assignment", "greedy")])
def test_unknown_choices_are_refused(field: str, value: str) -> None:
    with pytest.raises(UsageError, match=rf"{field} of the region head: expected one of .*got '{value}'"):
        RegionSettings(**{field: value})  # type: ignore[arg-type]


def test_a_target_for_other_slots_is_refused() -> None:
    with pytest.raises(UsageError, match=r"target\.slot_answer: expected \[slot=2\], got \(1,\)"):
        head_of().losses(RegionPrediction(torch.zeros(2, 4)), target_of([[0.0, 0.0, 1.0, 1.0]], slots=[1]))


@pytest.mark.parametrize("settings", [{"loss": "paper"}, {"loss": "official"}, {"parametrisation": "centre"}], ids=str)
def test_one_sample_of_two_boxes_is_learnt_from_bf16_embeddings(settings: dict[str, str]) -> None:
    head = head_of(hidden_dim=32, **settings)
    embeddings = torch.randn(2, DIM, generator=torch.Generator().manual_seed(1)).bfloat16()
    annotation = boxes([8, 6, 40, 30], [50, 20, 75, 55])
    target = head.collate_targets([head.encode_target(annotation, WIDE)], [2], "cpu")
    optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)
    for _ in range(150):
        value = total(head, head.predict(embeddings, visual([0, 0])), target)
        assert value.dtype == torch.float32
        assert value.isfinite()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    decoded = head.decode(head.predict(embeddings, visual([0, 0])), [WIDE], torch.tensor([0, 0]))
    got = sorted(decoded[0]["boxes_xyxy"])
    assert np.abs(np.array(got) - np.array([entry["xyxy"] for entry in annotation])).max() < 1
