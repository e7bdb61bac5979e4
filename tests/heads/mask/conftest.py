"""A SAM2 of random weights that every test of the mask head shares, and a bench of slots, clips and annotations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tpo_lab.heads import MaskHead, PointingMaskHead, Visual
from tpo_lab.heads.base import ClipInfo
from tpo_lab.heads.mask import MaskSettings, PointingMaskSettings
from tpo_lab.rle import encode_rle
from tpo_lab.sam2 import nano_config, untrained

DIM, VISION, FRAMES, SIDE, PATCHES, CELLS = 16, 12, 6, 64, 16, 4
CLIP = ClipInfo(width=SIDE, height=SIDE, duration_sec=3.0, times_sec=tuple(0.25 + 0.5 * place for place in range(FRAMES)))


class Bench:
    """What tests ask for; see the fixture."""

    DIM, VISION, FRAMES, SIDE, PATCHES, CLIP = DIM, VISION, FRAMES, SIDE, PATCHES, CLIP

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.sam = untrained(nano_config()).eval()

    def head(self, cls: type[MaskHead] = MaskHead, **settings: Any) -> MaskHead:
        """A head with random weights; SAM2 is shared."""
        torch.manual_seed(1)
        chosen = PointingMaskSettings(vision_dim=VISION, **settings) if issubclass(cls, PointingMaskHead) else MaskSettings(**settings)
        return cls(DIM, chosen, sam=self.sam)

    def embedding(self, slots: int) -> Tensor:
        return torch.randn(slots, DIM, generator=torch.Generator().manual_seed(2))

    def visual(self, slots: int, clips: int | None = None) -> Visual:
        """Slots of `clips` clips, one each where None."""
        chance = torch.Generator().manual_seed(3)
        clip = torch.arange(slots) % (clips or slots)
        frames = torch.randint(0, 256, (clips or slots, FRAMES, 3, SIDE, SIDE), dtype=torch.uint8, generator=chance)
        features = torch.randn(clips or slots, FRAMES, PATCHES, VISION, generator=chance)
        states = torch.randn(clips or slots, FRAMES, CELLS, DIM, generator=chance)
        return Visual(
            times_sec=torch.tensor(CLIP.times_sec).repeat(slots, 1),
            frame_valid=torch.ones(slots, FRAMES, dtype=torch.bool),
            duration_sec=torch.full((slots,), CLIP.duration_sec),
            size_wh=torch.tensor([[float(SIDE), float(SIDE)]]).repeat(slots, 1),
            answer=torch.arange(slots),
            frames=frames[clip],
            frame_features=features[clip],
            frame_states=states[clip],
            clip=clip,
        )

    def annotation(self, *corners: tuple[int, int] | None) -> dict[str, Any]:
        """Squares of 16 pixels with these upper left corners, one per frame, None where hidden."""
        masks = []
        for corner in corners:
            mask = np.zeros((SIDE, SIDE), bool)
            if corner is not None:
                mask[corner[1] : corner[1] + 16, corner[0] : corner[0] + 16] = True
            masks.append(None if corner is None else encode_rle(mask))
        return {"times_sec": list(CLIP.times_sec), "rle": masks}

    def target(self, head: MaskHead, *annotations: dict[str, Any]) -> Any:
        items = [head.encode_target(each, CLIP) for each in annotations]
        return head.collate_targets(items, [1] * len(items), "cpu")

    def moving(self) -> dict[str, Any]:
        return self.annotation((4, 4), (10, 8), (16, 12), None, (28, 20), (34, 24))

    def blank(self, visual: Visual, **changed: Any) -> Visual:
        return replace(visual, **changed)


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench()


@pytest.fixture(params=[MaskHead, PointingMaskHead], ids=["mlp", "pointing"])
def build(request: pytest.FixtureRequest, bench: Bench) -> Callable[..., MaskHead]:
    return lambda **settings: bench.head(request.param, **settings)
