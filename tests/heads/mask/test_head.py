"""The mask head: what it follows, what it learns from, what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tpo_lab.boxes import mask_boxes
from tpo_lab.errors import UsageError
from tpo_lab.heads import MaskHead, PointingMaskHead, Visual, build_head
from tpo_lab.losses import reduce_mean
from tpo_lab.rle import decode_rle

Build = Callable[..., MaskHead]


def total(head: MaskHead, values: dict[str, Tensor]) -> Tensor:
    return sum((head.weights()[term] * reduce_mean(each) for term, each in values.items()), torch.zeros(()))


@pytest.mark.parametrize("loss", ["mask", "sam2", "distill"])
def test_every_trained_parameter_gets_gradient_and_no_other(build: Build, bench: Any, loss: str) -> None:
    head = build(loss=loss).train()
    if isinstance(head, PointingMaskHead):
        torch.nn.init.normal_(head.adapter.tokens[-1].weight, std=0.1)
    embedding = bench.embedding(3).requires_grad_()
    prediction = head.predict(embedding, bench.visual(3))
    total(head, head.losses(prediction, bench.target(head, bench.moving(), bench.moving(), bench.moving()))).backward()
    trained = {name: weight for name, weight in head.named_parameters() if weight.requires_grad}
    assert trained and all(name.startswith("adapter.") for name in trained)
    unused = {"box.0.weight", "box.0.bias", "box.2.weight", "box.2.bias"} if loss != "distill" and type(head) is MaskHead else set()
    silent = {name.removeprefix("adapter.") for name, weight in trained.items() if weight.grad is None or not weight.grad.any()}
    assert silent == unused
    assert all(weight.grad is None for weight in head.sam.parameters())
    assert embedding.grad is not None and (embedding.grad.abs().sum(1) > 0).all() and embedding.grad.isfinite().all()


def test_a_loss_on_the_last_frame_alone_reaches_the_embedding(build: Build, bench: Any) -> None:
    head = build(condition="first").train()
    embedding = bench.embedding(2).requires_grad_()
    prediction = head.predict(embedding, bench.visual(2))
    last = next(step for step in prediction.steps if step.frame.tolist() == [bench.FRAMES - 1] * 2)
    last.masks.logits.sigmoid().sum().backward()
    assert embedding.grad is not None and embedding.grad.isfinite().all() and (embedding.grad.norm(dim=1) > 1e-9).all()


@pytest.mark.parametrize("condition", ["first", "best"])
def test_every_frame_is_followed_once(build: Build, bench: Any, condition: str) -> None:
    head = build(condition=condition, candidates=4).eval()
    with torch.no_grad():
        prediction = head.predict(bench.embedding(5), bench.visual(5))
    pairs = [pair for step in prediction.steps for pair in zip(step.slot.tolist(), step.frame.tolist(), strict=True)]
    assert sorted(pairs) == [(slot, frame) for slot in range(5) for frame in range(bench.FRAMES)]
    assert prediction.steps[0].frame.tolist() == prediction.condition.tolist()
    if condition == "first":
        assert prediction.condition.tolist() == [0] * 5


def test_in_training_few_frames_are_followed(build: Build, bench: Any) -> None:
    head = build(condition="first", train_frames=3)
    frames = set()
    for _ in range(8):
        prediction = head.train().predict(bench.embedding(1), bench.visual(1))
        found = [int(step.frame) for step in prediction.steps]
        assert len(found) == 3 and found == sorted(found) and found[0] == 0
        frames.update(found)
    assert len(frames) > 3, "other frames each time"
    with torch.no_grad():
        assert len(head.eval().predict(bench.embedding(1), bench.visual(1)).steps) == bench.FRAMES


def test_slots_do_not_know_of_each_other_or_of_the_clips_order(build: Build, bench: Any) -> None:
    head = build(condition="best").eval()
    embedding, visual = bench.embedding(4), bench.visual(4, clips=2)
    with torch.no_grad():
        together = head.predict(embedding, visual)
        logits, there, _ = together.dense()
        for slot in range(4):
            rows = torch.tensor([slot])
            alone = head.predict(embedding[rows], visual.rows(rows))
            assert int(alone.condition) == int(together.condition[slot])
            found, present, _ = alone.dense()
            torch.testing.assert_close(found[0], logits[slot], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(present[0], there[slot], atol=1e-4, rtol=1e-4)


def test_clips_are_encoded_once(build: Build, bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    head = build(condition="first").eval()
    seen: list[int] = []
    encode = head.tracker.encode
    monkeypatch.setattr(head.tracker, "encode", lambda frames, **how: seen.append(len(frames)) or encode(frames, **how))
    with torch.no_grad():
        head.predict(bench.embedding(6), bench.visual(6, clips=2))
    assert sum(seen) == 2 * bench.FRAMES


def test_a_frozen_encoder_may_compute_in_half_the_precision(bench: Any) -> None:
    heads = {name: bench.head(encoder_precision=name).eval() for name in ("fp32", "bf16")}
    heads["bf16"].load_state_dict(heads["fp32"].state_dict())
    visual, embedding = bench.visual(2), bench.embedding(2)
    seen = {name: head._seen(visual).seen.coarse for name, head in heads.items()}
    apart = (seen["bf16"] - seen["fp32"]).norm() / seen["fp32"].norm()
    assert seen["bf16"].dtype == torch.float32 and 0 < float(apart) < 0.02
    masks = {name: head.predict(embedding, visual).steps[0].masks.logits > 0 for name, head in heads.items()}
    assert float((masks["bf16"] != masks["fp32"]).float().mean()) < 0.02
    for head in heads.values():
        head.sam.vision_encoder.requires_grad_(True)
    trained = {name: head._seen(visual).seen.coarse for name, head in heads.items()}
    assert torch.equal(trained["bf16"], trained["fp32"]), "one that trains keeps its precision"


def test_frames_that_fill_up_change_nothing(build: Build, bench: Any) -> None:
    head = build(condition="best").eval()
    visual = bench.visual(2)
    short = {
        name: None if (value := getattr(visual, name)) is None else value[:, :4]
        for name in ("times_sec", "frame_valid", "frames", "frame_features", "frame_states")
    }
    padded = replace(visual, frame_valid=torch.tensor([[True] * 4 + [False] * 2] * 2))
    with torch.no_grad():
        first, second = head.predict(bench.embedding(2), replace(visual, **short)), head.predict(bench.embedding(2), padded)
    assert first.condition.tolist() == second.condition.tolist()
    torch.testing.assert_close(first.dense()[0], second.dense()[0][:, :4], atol=1e-5, rtol=1e-5)
    target = bench.target(head, bench.moving(), bench.moving())
    cut = replace(target, **{name: getattr(target, name)[:, :4] for name in ("masks", "boxes_xyxy", "visible", "known")})
    torch.manual_seed(0)
    here = head.losses(first, cut)
    torch.manual_seed(0)
    there = head.losses(second, target)
    for name in {"bce", "dice", "there"}:
        torch.testing.assert_close(here[name].sort().values, there[name].sort().values, atol=1e-4, rtol=1e-4)


def test_hidden_objects_count_for_the_object_score_alone(bench: Any) -> None:
    head = bench.head()
    prediction = head.train().predict(bench.embedding(1), bench.visual(1))
    values = head.losses(prediction, bench.target(head, bench.moving()))
    assert (len(values["bce"]), len(values["dice"]), len(values["there"])) == (5, 5, 6)
    hidden = head.losses(prediction, bench.target(head, bench.annotation(*[None] * 6)))
    assert (len(hidden["bce"]), len(hidden["there"])) == (0, 6)


def test_boxes_without_masks_teach_where_and_whether(bench: Any) -> None:
    head = bench.head(PointingMaskHead, train_frames=None).train()
    track = {"times_sec": list(bench.CLIP.times_sec), "xyxy": [[4, 4, 20, 20], [8, 8, 24, 24], None, None, [9, 9, 30, 30], [9, 9, 30, 30]]}
    prediction = head.predict(bench.embedding(1), pointing_at(head, bench, frame=0, patch=0))
    values = head.losses(prediction, bench.target(head, track))
    assert {name: len(each) for name, each in values.items()} == {"bce": 0, "dice": 0, "there": 6, "patches": 1, "box": 1}
    elsewhere = head.predict(bench.embedding(1), pointing_at(head, bench, frame=0, patch=15))
    values = head.losses(elsewhere, bench.target(head, track))
    assert {name: len(each) for name, each in values.items()} == {"bce": 0, "dice": 0, "there": 0, "patches": 1, "box": 1}


def test_frames_between_annotations_are_not_known(bench: Any) -> None:
    head = bench.head()
    item = head.encode_target({"times_sec": [0.25, 0.75], "xyxy": [[0, 0, 8, 8], None]}, bench.CLIP)
    assert item.known.tolist() == [True, True, False, False, False, False]
    assert item.visible.tolist() == [True] + [False] * 5
    assert item.boxes_xyxy[0].tolist() == [0, 0, 0.125, 0.125]


def pointing_at(head: MaskHead, bench: Any, *, frame: int, patch: int) -> Visual:
    """A clip in which the task embedding of slot 0 points at one patch."""
    visual = bench.visual(1)
    features = torch.zeros_like(visual.frame_features)
    features[:, frame, patch] = 100 * head.adapter.where(bench.embedding(1)).detach()
    return bench.blank(visual, frame_features=features)


def test_pointing_may_lie_on_the_object_in_whichever_frame_it_is_seen(bench: Any) -> None:
    head = bench.head(PointingMaskHead)
    prediction = head.train().predict(bench.embedding(1), bench.visual(1))
    track = {"times_sec": list(bench.CLIP.times_sec), "xyxy": [[0, 0, 16, 16], [16, 16, 32, 24], None, None, None, None]}
    share = prediction.pointing.flatten(1).softmax(-1).reshape(bench.FRAMES, bench.PATCHES)
    on_it = share[0, 0] + 0.5 * share[1, 5]
    torch.testing.assert_close(head.losses(prediction, bench.target(head, track))["patches"], -on_it.log()[None])


def test_it_begins_where_it_points_most_decidedly(bench: Any) -> None:
    head = bench.head(PointingMaskHead, candidates=1).eval()
    with torch.no_grad():
        for frame in (2, 5):
            assert head.predict(bench.embedding(1), pointing_at(head, bench, frame=frame, patch=3)).condition.tolist() == [frame]


def test_a_task_embedding_can_mean_a_place_whatever_lies_there(bench: Any) -> None:
    head = bench.head(PointingMaskHead)
    adapter = head.adapter
    with torch.no_grad():
        for part in (adapter.where, adapter.what, adapter.when):
            part.weight.zero_()
            part.bias.zero_()
    visual = bench.visual(2)
    logits = adapter.point(bench.embedding(2), visual.frame_features, visual)
    torch.testing.assert_close(logits, logits[:, :1].expand_as(logits))
    assert logits.std(-1).min() > 0.01


def test_distillation_is_zero_where_the_tokens_are_those_of_the_true_box(bench: Any) -> None:
    head = bench.head(loss="distill")
    prediction = head.predict(bench.embedding(2), bench.visual(2))
    target = bench.target(head, bench.moving(), bench.annotation(*[None] * 6))
    box = torch.tensor([[4.0, 4.0, 20.0, 20.0]])
    tokens = torch.cat([head.tracker.prompt_boxes(box).sparse, prediction.proposal.tokens[1:]])
    boxes = torch.cat([box / 64, prediction.proposal.boxes_xyxy[1:]])
    exact = replace(prediction, proposal=replace(prediction.proposal, tokens=tokens, boxes_xyxy=boxes))
    values = head.losses(exact, target)
    assert values["token"].tolist() == [0.0] and values["box"].tolist() == pytest.approx([0.0], abs=1e-6)
    assert head.losses(prediction, target)["token"] > 0


@pytest.mark.parametrize(("loss", "left"), [("distill", 0.2), ("mask", 0.995)])
def test_steps_lower_the_loss_and_leave_sam2_alone(bench: Any, loss: str, left: float) -> None:
    # a SAM2 of random weights gives hardly anything that one could call a mask
    head = bench.head(loss=loss).train()
    frozen = {name: value.clone() for name, value in head.sam.state_dict().items()}
    embedding, visual = torch.nn.Parameter(bench.embedding(2)), bench.visual(2)
    target = bench.target(head, bench.moving(), bench.moving())
    optimizer = torch.optim.Adam([embedding, *head.adapter.parameters()], lr=5e-3)
    values = []
    for _ in range(30):
        value = total(head, head.losses(head.predict(embedding, visual), target))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < left * values[0]
    assert all(torch.equal(value, frozen[name]) for name, value in head.sam.state_dict().items()), "frozen parts keep their bits"


def test_an_answer_is_json_with_null_where_the_object_is_gone(build: Build, bench: Any) -> None:
    head = build().eval()
    with torch.no_grad():
        prediction = head.predict(bench.embedding(3), bench.visual(3))
        for step in prediction.steps:
            step.masks.logits[:, :8, :8] = 5.0
            step.masks.object_logit[:] = torch.where(step.frame == 2, -3.0, 3.0)
        decoded = head.decode(prediction, [bench.CLIP, bench.CLIP], torch.tensor([0, 1, 1]))
    json.dumps(decoded)
    assert [len(each["masks"]) for each in decoded] == [1, 2]
    for each in decoded:
        assert each["times_sec"] == list(bench.CLIP.times_sec)
        for masks, boxes, scores in zip(each["masks"], each["track_xyxy"], each["scores"], strict=True):
            assert [mask is None for mask in masks] == [box is None for box in boxes] == [False, False, True, False, False, False]
            assert all((score > 0.5) == (mask is not None) for score, mask in zip(scores, masks, strict=True))
            for mask, box in zip(masks, boxes, strict=True):
                if mask is not None:
                    inside = decode_rle("mask", mask)
                    assert inside.shape == (64, 64) and inside[:14, :14].all()
                    assert mask_boxes(torch.from_numpy(inside)[None])[0].tolist() == box


def test_what_cannot_be_learned_from_is_told(bench: Any) -> None:
    head = bench.head()
    with pytest.raises(UsageError, match="times_sec with rle or xyxy"):
        head.encode_target({"times_sec": [0.0]}, bench.CLIP)
    small = {"times_sec": [0.25], "rle": [{"size": [2, 2], "counts": "04"}]}
    with pytest.raises(UsageError, match="64 x 64 pixels"):
        head.encode_target(small, bench.CLIP)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"loss": "focal"}, "loss of the mask head"),
        ({"condition": "last"}, "condition of the mask head"),
        ({"encoder_precision": "fp16"}, "encoder_precision of the mask head"),
        ({"adapter_layers": 3}, "adapter_layers"),
        ({"candidates": 0}, "candidates"),
        ({"train_frames": 0}, "train_frames"),
    ],
)
def test_settings_that_cannot_be_are_refused(bench: Any, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        bench.head(**settings)


def test_a_head_is_built_again_from_its_spec(bench: Any) -> None:
    head = bench.head(loss="sam2", condition="best", candidates=2)
    again = build_head(head.spec(), bench.DIM, parts={"sam": bench.sam})
    assert again.spec() == head.spec()
    again.load_state_dict(head.state_dict())
    with torch.no_grad():
        first, second = (each.eval().predict(bench.embedding(2), bench.visual(2)).dense()[0] for each in (head, again))
    assert np.array_equal(first.numpy(), second.numpy())


def test_a_box_may_go_straight_to_sam2(build: Build, bench: Any) -> None:
    head = build(condition="best").eval()
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.6], [float("nan")] * 4])
    visual = replace(bench.visual(2), prompt_xyxy=boxes)
    with torch.no_grad():
        token = head.predict(bench.embedding(2), visual)
        with head.prompted("direct"):
            direct = head.predict(bench.embedding(2), visual)
        again = head.predict(bench.embedding(2), visual)
    wanted = head.tracker.prompt_boxes(boxes[:1] * 64).sparse
    torch.testing.assert_close(direct.proposal.tokens[:1], wanted)
    assert int(direct.condition[0]) == 0 and direct.proposal.boxes_xyxy[0].tolist() == boxes[0].tolist()
    assert torch.equal(direct.proposal.tokens[1], token.proposal.tokens[1]) and direct.condition[1] == token.condition[1]
    assert torch.equal(again.dense()[0], token.dense()[0]), "the setting is put back"
    head.train()
    with head.prompted("direct"):
        assert not torch.equal(head.predict(bench.embedding(2), visual).proposal.tokens[0], wanted[0]), "training is by token"


@pytest.mark.parametrize(
    ("loss", "weights"),
    [
        ("mask", {"bce": 2.0, "dice": 0.5, "there": 1.0}),
        ("sam2", {"focal": 20.0, "dice": 1.0, "iou": 1.0, "there": 1.0}),
        ("distill", {"token": 1.0, "box": 1.0}),
    ],
)
def test_terms_weigh_what_they_weigh_in_their_sources(bench: Any, loss: str, weights: dict[str, float]) -> None:
    assert bench.head(loss=loss).weights() == weights
    if "dice" in weights:
        assert bench.head(loss=loss, weight_dice=0.3).weights()["dice"] == 0.3
