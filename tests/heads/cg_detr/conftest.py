"""Small clips and heads for the tests of CG-DETR; no two axes alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tpo_lab.heads import CGDETRHead, CGDETRSettings, ClipInfo, Visual
from tpo_lab.heads.cg_detr import CGDETRTarget
from tpo_lab.losses import reduce_mean


class Bench:
    """Makes the parts of a test: a very narrow head with all the published layers, clips of 2 seconds a frame, targets about them."""

    DIM, VISION, PATCHES, FRAMES, TOKENS = 24, 12, 3, 7, 5
    TINY = {"dim": 16, "heads": 2, "feedforward_dim": 20, "dummies": 6, "queries": 4, "prototypes": 3}  # noqa: RUF012
    CLIP = ClipInfo(width=80, height=60, duration_sec=14.0, times_sec=(1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0))

    def head(self, **settings: Any) -> CGDETRHead:
        torch.manual_seed(0)
        return CGDETRHead(self.DIM, CGDETRSettings(**{"vision_dim": self.VISION, **self.TINY, **settings})).eval()

    def visual(self, slots: int, *, frames: int = FRAMES, tokens: int = TOKENS, seed: int = 0) -> Visual:
        random = torch.Generator().manual_seed(seed)
        return Visual(
            times_sec=torch.tensor([2.0 * frame + 1 for frame in range(frames)]).repeat(slots, 1),
            frame_valid=torch.ones(slots, frames, dtype=torch.bool),
            duration_sec=torch.full((slots,), 2.0 * frames),
            size_wh=torch.tensor([[80.0, 60.0]]).repeat(slots, 1),
            answer=torch.arange(slots),
            frame_features=torch.randn(slots, frames, self.PATCHES, self.VISION, generator=random),
            query_features=torch.randn(slots, tokens, self.DIM, generator=random),
            query_valid=torch.ones(slots, tokens, dtype=torch.bool),
        )

    def embedding(self, slots: int, seed: int = 1) -> Tensor:
        return torch.randn(slots, self.DIM, generator=torch.Generator().manual_seed(seed))

    def target(self, head: CGDETRHead, *annotations: Any) -> CGDETRTarget:
        """From lists of windows, or whole annotations, about `CLIP`."""
        items = [head.encode_target({"windows_sec": each} if isinstance(each, list) else each, self.CLIP) for each in annotations]
        return head.collate_targets(items, [1] * len(items), "cpu")

    def total(self, head: CGDETRHead, values: dict[str, Tensor]) -> Tensor:
        weights = head.weights()
        return sum((weights[term] * reduce_mean(each) for term, each in values.items()), torch.zeros(()))


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench()
