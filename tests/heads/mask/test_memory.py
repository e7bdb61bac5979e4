"""What the mask head keeps in training: less with checkpointing and the same gradient, never many large frames at once, as counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tpo_lab.heads import MaskHead
from tpo_lab.heads.mask import head as mask_head
from tpo_lab.heads.mask.head import frames_at_once
from tpo_lab.heads.mask.kept import FollowedFrame, followed_bytes
from tpo_lab.training.cost.memory import LiveBytes

Build = Callable[..., MaskHead]


def kept(head: MaskHead, bench: Any, slots: int) -> int:
    """Bytes that are alive behind the forward pass, without features of frames."""
    embedding, visual = bench.embedding(slots).requires_grad_(), bench.visual(slots)
    with LiveBytes() as alive:
        prediction = head.train().predict(embedding, visual)
        found = alive.now
    assert prediction.condition.shape == (slots,)
    return found


@pytest.mark.parametrize("condition", ["first", "best"])
def test_checkpointing_changes_no_loss_and_no_gradient(build: Build, bench: Any, condition: str) -> None:
    found: dict[bool, tuple[float, Tensor]] = {}
    for checkpointing in (False, True):
        head = build(condition=condition, candidates=4, train_frames=None).train()
        head.checkpointing = checkpointing
        embedding = bench.embedding(3).requires_grad_()
        prediction = head.predict(embedding, bench.visual(3))
        losses = head.losses(prediction, bench.target(head, *[bench.moving()] * 3))
        total = torch.stack([values.sum() for values in losses.values()]).sum()
        total.backward()
        assert embedding.grad is not None and embedding.grad.any()
        found[checkpointing] = (float(total.detach()), embedding.grad)
    assert found[True][0] == found[False][0]
    torch.testing.assert_close(found[True][1], found[False][1], rtol=1e-5, atol=1e-8)


def test_checkpointing_keeps_less(bench: Any) -> None:
    head = bench.head(train_frames=None)
    plain = kept(head, bench, 2)
    head.checkpointing = True
    assert kept(head, bench, 2) < 0.5 * plain


@pytest.mark.parametrize("slots", [1, 4])
def test_what_is_counted_is_near_what_is_kept(bench: Any, slots: int) -> None:
    """Of hiera-large, see below: the same products hold at both sizes."""
    head = bench.head(train_frames=None)
    frame = FollowedFrame(head.sam.config, head.tracker.grid**2)
    counted = slots * followed_bytes(frame, bench.FRAMES, checkpointing=False)
    assert counted == pytest.approx(kept(head, bench, slots), rel=0.15)
    assert head.kept_bytes(slots, bench.FRAMES) == counted + slots * bench.FRAMES * frame.features


@pytest.mark.parametrize("slots", [1, 4])
def test_what_is_counted_is_near_the_most_of_a_step(bench: Any, slots: int) -> None:
    """At this size that is encoding frames; see the test of hiera-large, in which it is following them."""
    head = bench.head(train_frames=None).train()
    head.checkpointing = True
    with LiveBytes() as alive:
        prediction = head.predict(bench.embedding(slots).requires_grad_(), bench.visual(slots))
        torch.stack([step.masks.logits.mean() for step in prediction.steps]).sum().backward()
    assert head.kept_bytes(slots, bench.FRAMES, checkpointing=True) == pytest.approx(alive.peak, rel=0.15)


def test_hiera_large_by_what_was_measured() -> None:
    from tpo_lab.sam2 import sam2_config

    frame, mib = FollowedFrame(sam2_config("hiera-large", version="2.0"), 64**2), 2**20
    assert frame.decoded / mib == pytest.approx(62.0, rel=0.05)
    assert frame.remembered / mib == pytest.approx(112.7, rel=0.05)
    for memories, measured in ((1, 358.4), (2, 450.5), (3, 514.5), (4, 578.5)):
        assert (frame.decoded + frame.attended(memories)) / mib == pytest.approx(measured, rel=0.05)
    assert frame.encoding / mib == pytest.approx(606.1, rel=0.05)
    whole, again = (followed_bytes(frame, 16, checkpointing=checkpointing) / 1024**3 for checkpointing in (False, True))
    assert whole > 11 and again < 1.3


def test_frames_that_are_not_followed_keep_nothing_but_features(bench: Any) -> None:
    few, all_frames = bench.head(train_frames=2), bench.head(train_frames=None)
    frame = FollowedFrame(few.sam.config, few.tracker.grid**2)
    followed = followed_bytes(frame, 6, checkpointing=False) - followed_bytes(frame, 2, checkpointing=False)
    assert all_frames.kept_bytes(1, 6) - few.kept_bytes(1, 6) == followed - max(
        0, 6 * frame.encoding - followed_bytes(frame, 2, checkpointing=False)
    )


def test_large_frames_are_encoded_a_few_at_once(build: Build, bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (frames_at_once(64), frames_at_once(512), frames_at_once(1024), frames_at_once(4096)) == (64, 8, 2, 1)
    head = build(condition="first").eval()
    encode, seen = head.tracker.encode, []
    monkeypatch.setattr(head.tracker, "encode", lambda frames, **how: seen.append(len(frames)) or encode(frames, **how))
    with torch.no_grad():
        whole = head.predict(bench.embedding(2), bench.visual(2))
        monkeypatch.setattr(mask_head, "PIXELS_AT_ONCE", 5 * 64**2)
        parts = head.predict(bench.embedding(2), bench.visual(2))
    assert seen == [12, 5, 5, 2]
    for one, other in zip(whole.steps, parts.steps, strict=True):
        torch.testing.assert_close(one.masks.logits, other.masks.logits, rtol=1e-3, atol=1e-3)
