"""SAM2 with parts of its memory forgotten."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tpo_lab.heads.base import ClipInfo
from tpo_lab.lessons.memory import (
    NO_POINTERS,
    NO_RECENT,
    NOTHING,
    WHOLE,
    as_answer,
    finite_means,
    follow_box,
    hidden_for_a_while,
    looked_at,
    mask_ious,
    shown_masks,
)
from tpo_lab.rle import decode_rle, encode_rle
from tpo_lab.sam2 import Tracker, nano_config, untrained
from tpo_lab.sample import Sample

BOX = torch.tensor([0.1, 0.2, 0.6, 0.7])


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    torch.manual_seed(0)
    model = untrained(nano_config())
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return Tracker(model.eval())


@pytest.fixture(scope="module")
def video() -> Tensor:
    return torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def logits(tracker: Tracker, video: Tensor, kept: Any) -> Tensor:
    return torch.cat([masks.logits for masks in follow_box(tracker, video, BOX, kept)])


class TestFollowing:
    def test_the_whole_memory_is_that_of_the_tracker(self, tracker: Tracker, video: Tensor):
        with torch.no_grad():
            seen, bank = tracker.encode(video), tracker.bank(len(video))
            first = tracker.start(0, seen.rows(slice(0, 1)), tracker.prompt_boxes(BOX[None] * 64), bank)
            rest = tracker.track([(n, seen.rows(slice(n, n + 1))) for n in range(1, 5)], bank)
            expected = torch.cat([first.logits, *(masks.logits for _, masks in rest)])
        assert torch.allclose(logits(tracker, video, WHOLE), expected, atol=1e-4)

    def test_each_part_that_is_forgotten_changes_what_follows_and_nothing_before(self, tracker: Tracker, video: Tensor):
        whole = logits(tracker, video, WHOLE)
        for kept in (NO_RECENT, NO_POINTERS, NOTHING):
            found = logits(tracker, video, kept)
            assert torch.allclose(found[0], whole[0], atol=1e-4)
            assert not torch.allclose(found[3:], whole[3:], atol=1e-4), kept

    def test_without_recent_frames_the_second_is_followed_as_before(self, tracker: Tracker, video: Tensor):
        # all that is remembered in frame 1 is the prompted frame
        assert torch.allclose(logits(tracker, video, NO_RECENT)[1], logits(tracker, video, WHOLE)[1], atol=1e-4)

    def test_without_memory_every_frame_is_prompted_alone(self, tracker: Tracker, video: Tensor):
        assert torch.allclose(logits(tracker, video, NOTHING)[3:4], logits(tracker, video[3:4], WHOLE), atol=1e-4)

    def test_it_looks_at_the_prompted_frame_and_the_six_before(self, tracker: Tracker):
        assert looked_at(tracker, 12, prompted=2) == [2, 6, 7, 8, 9, 10, 11]
        assert looked_at(tracker, 3, prompted=0) == [0, 1, 2]
        assert looked_at(tracker, 5, prompted=4) == [4]

    def test_masks_are_shown_at_any_size_and_not_where_nothing_is(self, tracker: Tracker, video: Tensor):
        masks = follow_box(tracker, video, BOX)
        shown = shown_masks(masks, (24, 40))
        assert shown.shape == (5, 24, 40) and shown.dtype == torch.bool
        gone = [n for n, each in enumerate(masks) if each.object_logit <= 0]
        assert not shown[gone].any()


class TestNumbers:
    def test_iou_of_each_frame_and_nan_where_nothing_is_to_be_seen(self):
        predicted, truth = torch.zeros(3, 2, 4).bool(), torch.zeros(3, 2, 4).bool()
        predicted[0, 0, :3], truth[0, 0, 1:] = True, True
        truth[1, 1, 1] = True
        predicted[2] = True
        first, second, third = mask_ious(predicted, truth)
        assert (first, second) == (0.5, 0.0) and math.isnan(third)

    def test_means_leave_out_what_is_not_known(self):
        found = finite_means([[1.0, math.nan, math.nan], [0.0, 0.5, math.nan]])
        assert found[:2] == [0.5, 0.5] and math.isnan(found[2])

    def test_an_answer_is_one_that_pictures_take(self):
        masks = torch.zeros(2, 3, 4).bool()
        masks[1, 2, 3] = True
        answer = as_answer(masks, ClipInfo(4, 3, 2.0, (0.5, 1.5)))
        assert answer["times_sec"] == [0.5, 1.5] and answer["masks"][0][0] is None
        assert np.array_equal(decode_rle("mask", answer["masks"][0][1]), masks[1].numpy())


def sample(name: str, areas: list[int], thing: int = 0) -> Sample:
    rle = []
    for area in areas:
        mask = np.zeros((4, 5), bool)
        mask.flat[:area] = True
        rle.append(encode_rle(mask) if area else None)
    mask_target = {"times_sec": [float(n) for n in range(len(areas))], "rle": rle}
    record = {
        "id": name,
        "media": {"path": f"{name}.mp4", "start_sec": 0.0, "end_sec": float(len(areas))},
        "conversation": [{"role": "user", "text": "Follow it."}, {"role": "assistant", "text": "<mask>"}],
        "targets": {"mask": mask_target},
        "meta": {"things": [thing]},
    }
    return Sample.model_validate(record)


class TestHiding:
    def test_what_hides_the_most_and_comes_back_is_first(self):
        half, gone, leaves = sample("half", [10, 5, 10]), sample("gone", [10, 0, 9]), sample("leaves", [10, 5, 0])
        assert [found.id for found in hidden_for_a_while([half, gone, leaves], 5)] == ["gone", "half"]
        assert [found.id for found in hidden_for_a_while([half, gone, leaves], 1)] == ["gone"]

    def test_each_thing_is_there_once(self):
        twice = [sample("a", [10, 5, 10]), sample("a", [10, 5, 10]), sample("a", [10, 6, 10], thing=1)]
        assert len(hidden_for_a_while(twice, 5)) == 2
