"""The tracker equals the library's inference session, keeps objects apart, and lets losses on late frames reach the prompt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Sam2VideoInferenceSession, Sam2VideoModel

from tpo_lab.errors import UsageError
from tpo_lab.sam2 import Masks, Tracker, nano_config, sam2_config, untrained

FRAMES = 10
BOX, POINT = torch.tensor([[10.0, 12.0, 40.0, 44.0]]), torch.tensor([[[22.0, 30.0]]])


def random_model(config: Any, seed: int = 0) -> Sam2VideoModel:
    """A model whose zero parameters are random too, so that no part is hidden by them."""
    torch.manual_seed(seed)
    model = untrained(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model.eval()


def with_score(model: Sam2VideoModel, score: float) -> Sam2VideoModel:
    """The model with the object score shifted, so that it says "there" (above 0) or "gone" throughout."""
    with torch.no_grad():
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(score)
    return model


@pytest.fixture(scope="module")
def nano() -> Sam2VideoModel:
    model = random_model(nano_config())
    process = model._process_object_pointers
    # the session keeps an axis of pointers that is in its way where they are as wide as memories
    model._process_object_pointers = lambda ages, pointers, *rest: process(ages, [each.flatten(0, 1) for each in pointers], *rest)
    return model


def footage(size: int, frames: int = FRAMES) -> Tensor:
    return torch.randint(0, 256, (frames, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def session_of(tracker: Tracker, video: Tensor, frame: int, points: Tensor, labels: Tensor) -> Sam2VideoInferenceSession:
    session = Sam2VideoInferenceSession(tracker.prepare(video), video.shape[-2], video.shape[-1], dtype=torch.float32)
    for row in range(len(points)):
        index = session.obj_id_to_idx(row + 1)
        session.add_point_inputs(index, frame, {"point_coords": points[row][None, None], "point_labels": labels[row][None, None]})
    session.obj_with_new_inputs = [row + 1 for row in range(len(points))]
    return session


def published(
    tracker: Tracker, video: Tensor, points: Tensor, labels: Tensor, frame: int = 0, *, both_ways: bool = False
) -> dict[int, Tensor]:
    """Masks by frame number of one object, as the library's session tracks it."""
    session = session_of(tracker, video, frame, points, labels)
    found = {frame: tracker.sam(session, frame_idx=frame).pred_masks[0]}
    for output in tracker.sam.propagate_in_video_iterator(session):
        found[output.frame_idx] = output.pred_masks[0]
    if both_ways:
        for output in tracker.sam.propagate_in_video_iterator(session, start_frame_idx=frame, reverse=True):
            found[output.frame_idx] = output.pred_masks[0]
    return {number: mask[0] for number, mask in found.items()}


def ours(tracker: Tracker, video: Tensor, prompt: Any, frame: int = 0, *, both_ways: bool = False) -> dict[int, Masks]:
    features = tracker.encode(video)
    rows = {number: features.rows(slice(number, number + 1)) for number in range(len(video))}
    bank = tracker.bank(len(video))
    found = {frame: tracker.start(frame, rows[frame], prompt, bank)}
    found |= dict(tracker.track(((n, rows[n]) for n in range(frame + 1, len(video))), bank))
    if both_ways:
        found |= dict(tracker.track(((n, rows[n]) for n in range(frame - 1, -1, -1)), bank, backward=True))
    return found


@pytest.mark.parametrize("score", [5.0, -5.0, 0.0])
@pytest.mark.parametrize("kind", ["box", "point", "points"])
def test_it_equals_the_session(nano: Sam2VideoModel, kind: str, score: float) -> None:
    tracker, video = Tracker(with_score(nano, score)), footage(64)
    points, labels = {
        "box": (BOX.reshape(1, 2, 2), torch.tensor([[2, 3]])),
        "point": (POINT, torch.tensor([[1]])),
        "points": (torch.cat([POINT, POINT + 20], 1), torch.tensor([[1, 0]])),
    }[kind]
    with torch.no_grad():
        wanted = published(tracker, video, points, labels)
        found = ours(tracker, video, tracker.prompt_boxes(BOX) if kind == "box" else tracker.prompt_points(points, labels))
    assert sorted(found) == sorted(wanted) == list(range(FRAMES))
    for number, mask in wanted.items():
        torch.testing.assert_close(found[number].shown[0], mask, atol=1e-5, rtol=0)
        assert torch.equal(found[number].shown[0] > 0, mask > 0)


def test_it_equals_the_session_from_the_middle_both_ways(nano: Sam2VideoModel) -> None:
    tracker, video = Tracker(with_score(nano, 5.0)), footage(64, 24)
    with torch.no_grad():
        wanted = published(tracker, video, BOX.reshape(1, 2, 2), torch.tensor([[2, 3]]), 9, both_ways=True)
        found = ours(tracker, video, tracker.prompt_boxes(BOX), 9, both_ways=True)
    assert sorted(found) == sorted(wanted) == list(range(24))
    for number, mask in wanted.items():
        torch.testing.assert_close(found[number].shown[0], mask, atol=1e-5, rtol=0)


@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_it_equals_the_session_at_a_published_size(version: Any) -> None:
    tracker, video = Tracker(with_score(random_model(sam2_config("hiera-tiny", version=version, image_size=128)), 5.0)), footage(128, 4)
    box = 2 * BOX
    with torch.no_grad():
        wanted = published(tracker, video, box.reshape(1, 2, 2), torch.tensor([[2, 3]]))
        found = ours(tracker, video, tracker.prompt_boxes(box))
    for number, mask in wanted.items():
        torch.testing.assert_close(found[number].shown[0], mask, atol=1e-5, rtol=0)


def test_objects_do_not_know_of_each_other(nano: Sam2VideoModel) -> None:
    tracker, video = Tracker(with_score(nano, 0.0)), footage(64)
    boxes = BOX + torch.tensor([[0.0], [5.0], [9.0], [-4.0]])
    with torch.no_grad():
        together = ours(tracker, video, tracker.prompt_boxes(boxes))
        for row in range(4):
            alone = ours(tracker, video, tracker.prompt_boxes(boxes[row : row + 1]))
            for number, masks in alone.items():
                torch.testing.assert_close(together[number].shown[row], masks.shown[0], atol=1e-5, rtol=0)


def test_tokens_stand_for_the_prompt_encoder(nano: Sam2VideoModel) -> None:
    tracker, video = Tracker(with_score(nano, 5.0)), footage(64, 3)
    prompt = tracker.prompt_boxes(BOX)
    with torch.no_grad():
        boxes, tokens = ours(tracker, video, prompt), ours(tracker, video, tracker.prompt_tokens(prompt.sparse))
    for number in range(3):
        torch.testing.assert_close(boxes[number].logits, tokens[number].logits, atol=0, rtol=0)


@pytest.mark.parametrize("score", [5.0, -5.0])
def test_a_loss_on_the_last_frame_reaches_the_prompt(nano: Sam2VideoModel, score: float) -> None:
    tracker, video = Tracker(with_score(nano, score), soft=True), footage(64, 8)
    tokens = tracker.prompt_boxes(BOX).sparse.detach().requires_grad_()
    found = ours(tracker, video, tracker.prompt_tokens(tokens))
    found[7].logits.sigmoid().mean().backward()
    assert tokens.grad is not None and tokens.grad.isfinite().all() and tokens.grad.norm() > 1e-6


def test_memory_does_not_grow_with_the_video(nano: Sam2VideoModel) -> None:
    tracker, video = Tracker(nano), footage(64, 2)
    features = tracker.encode(video)
    bank = tracker.bank()
    with torch.no_grad():
        tracker.start(30, features.rows(slice(0, 1)), tracker.prompt_boxes(BOX), bank)
        sizes = [len(bank.followed) for _ in tracker.track(((n, features.rows(slice(1, 2))) for n in range(31, 131)), bank)]
    assert max(sizes) == sizes[-1] <= 2 * 17 and len(bank.prompted) == 1


def test_known_presence_decides_what_is_remembered(nano: Sam2VideoModel) -> None:
    tracker, video = Tracker(with_score(nano, 5.0)), footage(64, 1)
    frame = tracker.encode(video).for_objects(2)
    with torch.no_grad():
        masks = tracker.segment(frame, tracker.prompt_boxes(BOX.repeat(2, 1)))
        memory = tracker.remember(frame, masks, prompted=True, present=torch.tensor([True, False]))
    assert torch.equal(memory.pointer[0], masks.pointer[0]) and torch.equal(memory.pointer[1], nano.no_object_pointer[0])
    assert not torch.allclose(memory.features[0], memory.features[1])


def test_what_does_not_fit_is_told(nano: Sam2VideoModel) -> None:
    tracker = Tracker(nano)
    frame = tracker.encode(footage(64, 1))
    with pytest.raises(UsageError, match=r"frames.*rgb=3"):
        tracker.encode(torch.zeros(1, 1, 64, 64, dtype=torch.uint8))
    with pytest.raises(UsageError, match=r"boxes.*xyxy=4"):
        tracker.prompt_boxes(torch.zeros(1, 3))
    with pytest.raises(UsageError, match=r"tokens.*c=64"):
        tracker.prompt_tokens(torch.zeros(1, 3, 32))
    with pytest.raises(UsageError, match=r"prompted frame"):
        tracker.follow(frame, tracker.bank(), 0)
    with pytest.raises(UsageError, match=r"one point for each object"):
        mixed = tracker.prompt_points(torch.zeros(2, 2, 2), torch.ones(2, 2, dtype=torch.long))
        tracker.segment(frame.for_objects(2), type(mixed)(mixed.sparse, mixed.dense, torch.tensor([1, 2])))


@pytest.mark.parametrize("image_size", [0, 48, 33])
def test_sizes_that_cannot_be_are_refused(image_size: int) -> None:
    with pytest.raises(UsageError, match="image_size"):
        nano_config(image_size)


def test_the_nano_model_is_small() -> None:
    assert sum(parameter.numel() for parameter in Sam2VideoModel(nano_config()).parameters()) <= 1_500_000
