"""The region head that points at patches and reads its box there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tpo_lab.boxes import box_iou, is_inverted
from tpo_lab.errors import UsageError
from tpo_lab.heads import ClipInfo, DenseRegionHead, DenseRegionSettings, Visual, build_head
from tpo_lab.heads.patches import cell_of_patch, patch_coverage

CLIP = ClipInfo(80, 40, 3.0, (0.5, 1.5, 2.5))


def visual(slots: int, *, seed: int = 0, width: int = 6) -> Visual:
    torch.manual_seed(seed)
    return Visual(
        times_sec=torch.tensor(CLIP.times_sec).expand(slots, 3),
        frame_valid=torch.ones(slots, 3, dtype=torch.bool),
        duration_sec=torch.full((slots,), 3.0),
        size_wh=torch.tensor([[80.0, 40.0]]).expand(slots, 2),
        answer=torch.arange(slots),
        frame_features=torch.randn(slots, 3, 16, width),
        frame_states=torch.randn(slots, 3, 4, 8),
    )


def target(head: DenseRegionHead, *annotations: list[dict[str, object]]):
    items = [head.encode_target(annotation, CLIP) for annotation in annotations]
    return head.collate_targets(items, [len(item) for item in items], "cpu")


def test_patch_coverage_is_the_share_of_each_patch() -> None:
    covered = patch_coverage(torch.tensor([[0.25, 0.0, 0.625, 0.5]]), 4).reshape(4, 4)
    expected = torch.zeros(4, 4)
    expected[0:2, 1], expected[0:2, 2] = 1.0, 0.5
    torch.testing.assert_close(covered, expected)


def test_patch_coverage_sums_to_the_area() -> None:
    corners = torch.rand(50, 2, 2).sort(1).values
    boxes = torch.cat([corners[:, 0], corners[:, 1]], 1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    torch.testing.assert_close(patch_coverage(boxes, 7).sum(1) / 49, area, atol=1e-5, rtol=1e-4)


def test_patches_term_is_cross_entropy_over_the_patches_of_all_frames() -> None:
    head = DenseRegionHead(8, DenseRegionSettings(vision_dim=6))
    prediction = head.predict(torch.randn(1, 8), visual(1))
    value = head.losses(prediction, target(head, [{"time_sec": 1.4, "xyxy": [0, 0, 20, 10]}]))["patches"]
    # the box fills exactly the first patch of the second frame
    expected = -prediction.patch_logits.flatten().log_softmax(-1)[16]
    torch.testing.assert_close(value, expected[None])


def test_patches_term_reaches_the_task_embedding_and_the_features() -> None:
    head = DenseRegionHead(8, DenseRegionSettings(vision_dim=6))
    seen = visual(2)
    assert seen.frame_features is not None
    seen.frame_features.requires_grad_()
    embedding = torch.randn(2, 8, requires_grad=True)
    wanted = target(head, [{"time_sec": 0.5, "xyxy": [0, 0, 30, 20]}], [{"time_sec": 2.5, "xyxy": [40, 10, 70, 35]}])
    head.losses(head.predict(embedding, seen), wanted)["patches"].sum().backward()
    assert embedding.grad is not None and (embedding.grad.abs().sum(1) > 0).all()
    assert (seen.frame_features.grad.abs().sum((2, 3)) > 0).all()


def test_every_parameter_of_the_dense_head_learns() -> None:
    torch.manual_seed(0)
    head = DenseRegionHead(8, DenseRegionSettings(vision_dim=6))
    wanted = target(head, [{"time_sec": 0.5, "xyxy": [0, 0, 30, 20]}])
    losses = head.losses(head.predict(torch.randn(1, 8), visual(1)), wanted)
    sum(value.sum() for value in losses.values()).backward()
    assert not [name for name, parameter in head.named_parameters() if parameter.grad is None or not parameter.grad.any()]


@pytest.mark.parametrize("time_sec", [0.5, 0.0])
def test_frames_that_do_not_exist_change_nothing(time_sec: float) -> None:
    head = DenseRegionHead(8, DenseRegionSettings(vision_dim=6))
    embedding, seen = torch.randn(1, 8), visual(1)
    assert seen.frame_features is not None and seen.frame_states is not None
    longer = replace(
        seen,
        times_sec=torch.cat([seen.times_sec, torch.zeros(1, 2)], 1),
        frame_valid=torch.cat([seen.frame_valid, torch.zeros(1, 2, dtype=torch.bool)], 1),
        frame_features=torch.cat([seen.frame_features, torch.randn(1, 2, 16, 6)], 1),
        frame_states=torch.cat([seen.frame_states, torch.randn(1, 2, 4, 8)], 1),
    )
    annotation = target(head, [{"time_sec": time_sec, "xyxy": [0, 0, 30, 20]}])
    short, padded = head.predict(embedding, seen), head.predict(embedding, longer)
    torch.testing.assert_close(padded.boxes_xyxy, short.boxes_xyxy)
    torch.testing.assert_close(head.losses(padded, annotation), head.losses(short, annotation))


def test_the_box_lies_around_the_patch_that_the_head_points_at() -> None:
    head = DenseRegionHead(8, DenseRegionSettings(vision_dim=16))
    nn.init.zeros_(head.mlp[2].weight)
    head.mlp[2].bias.data = torch.tensor([-0.2, -0.1, 0.1, 0.2])
    # patches that can be told apart, and a pointer that asks for the one in row 1, column 2
    seen = replace(visual(1, width=16), frame_features=torch.eye(16).expand(1, 3, 16, 16), frame_states=torch.zeros(1, 3, 4, 8))
    nn.init.zeros_(head.where.weight)
    head.where.bias.data = torch.eye(16)[6]
    box = head.predict(torch.randn(1, 8), seen).boxes_xyxy
    torch.testing.assert_close(box, torch.tensor([[0.425, 0.275, 0.725, 0.575]]))


def test_boxes_are_learnt_only_at_the_patches_that_the_true_box_covers() -> None:
    head = DenseRegionHead(8, DenseRegionSettings(vision_dim=6))
    seen = visual(1)
    assert seen.frame_features is not None
    seen.frame_features.requires_grad_()
    losses = head.losses(head.predict(torch.randn(1, 8), seen), target(head, [{"time_sec": 1.4, "xyxy": [0, 0, 30, 10]}]))
    (losses["l1"].sum() + losses["giou"].sum()).backward()
    assert seen.frame_features.grad is not None
    touched = seen.frame_features.grad.abs().sum(-1)[0].nonzero()
    # of the second frame, the first patch as a whole and half of the next
    assert touched.tolist() == [[1, 0], [1, 1]]


def test_every_patch_lies_in_its_cell() -> None:
    assert cell_of_patch(4, 16, torch.device("cpu")).reshape(4, 4).tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    # 27 patches a side are pooled into 14 cells, of which the last holds one
    coarse = cell_of_patch(14 * 14, 27 * 27, torch.device("cpu")).reshape(27, 27)
    assert coarse[0, [0, 1, 2, 25, 26]].tolist() == [0, 0, 1, 12, 13] and coarse[26, 26] == 14 * 14 - 1


def test_the_state_of_a_cell_decides_for_all_its_patches() -> None:
    head = DenseRegionHead(8, DenseRegionSettings(vision_dim=6))
    nn.init.zeros_(head.where.weight)
    nn.init.zeros_(head.where.bias)
    embedding, seen = torch.randn(1, 8), visual(1)
    assert seen.frame_states is not None
    logits = head.predict(embedding, seen).patch_logits.reshape(3, 4, 4)
    torch.testing.assert_close(logits[:, ::2, ::2], logits[:, 1::2, 1::2])
    assert (logits[:, 0, 0] != logits[:, 0, 2]).all()


def test_centre_parametrisation_never_inverts() -> None:
    head = DenseRegionHead(8, DenseRegionSettings(vision_dim=6, parametrisation="centre"))
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=3.0)
    assert not is_inverted(head.predict(torch.randn(50, 8), visual(50)).boxes_xyxy).any()


def test_dense_head_overfits_one_sample() -> None:
    torch.manual_seed(1)
    head = DenseRegionHead(8, DenseRegionSettings(vision_dim=32))
    embedding, seen = torch.randn(1, 8), visual(1, width=32)
    wanted = target(head, [{"time_sec": 0.5, "xyxy": [10, 5, 50, 30]}])
    optimizer = torch.optim.Adam(head.parameters(), 0.02)
    for _ in range(300):
        losses = head.losses(head.predict(embedding, seen), wanted)
        optimizer.zero_grad()
        sum(head.weights()[name] * value.mean() for name, value in losses.items()).backward()
        optimizer.step()
    prediction = head.predict(embedding, seen)
    assert float(box_iou(prediction.boxes_xyxy.detach(), wanted.boxes_xyxy)) > 0.9
    covered = patch_coverage(wanted.boxes_xyxy, 4)
    share = covered / covered.sum()
    entropy = -(share * share.clamp_min(1e-9).log()).sum()
    assert float(losses["patches"].detach()) == pytest.approx(float(entropy), abs=0.2)


def test_dense_head_says_what_it_misses() -> None:
    with pytest.raises(UsageError, match="vision_dim: expected the width of the vision tower's features, got 0"):
        build_head("region", 8, head="dense")


def test_settings_survive_a_round_trip() -> None:
    head = build_head("region", 8, head="dense", vision_dim=6, weight_patches=0.5)
    again = build_head(head.spec(), 8)
    assert again.settings == head.settings and type(again) is DenseRegionHead
