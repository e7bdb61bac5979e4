"""Things to follow through clips, with exact masks: what the nano SAM2 is pretrained on. No words here."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tpo_lab.datasets.world.render import Mask, masks, render
from tpo_lab.datasets.world.scene import FRAME_COUNT, sample_scene

LEAST_PIXELS = 16
"""A thing with fewer pixels in the first frame is not asked for."""
LEAST_SEEN = 0.5
"""Nor is one less of which can be seen there, as a share of the whole thing."""


@dataclass(frozen=True)
class TrackBatch:
    """Clips and things in them, each of which can be seen in its clip's first frame.

    Attributes:
        frames: uint8 [clip, frame, 3, y, x], in the order in which they are followed.
        clip: of each thing, int64 [thing].
        masks: what can be seen of it, bool [thing, frame, y, x].
    """

    frames: NDArray[np.uint8]
    clip: NDArray[np.int64]
    masks: Mask


def track_batches(
    clips: int, *, frames: int, things: int, seed: int, split: str = "train", level: str = "hard", passed_over: float = 0.0
) -> Iterator[TrackBatch]:
    """An endless stream of batches, the same for the same seed: clips forward and backward in time, at full and at half speed.

    Args:
        clips: per batch.
        frames: per clip, from 1 to 16.
        things: most of them per clip.
        seed: of the scenes and of what is chosen.
        split: that the scenes are drawn from.
        level: of the scenes.
        passed_over: share left out of the clips, of several frames, in which all that is followed stays in sight; few things ever hide.
    """
    index = 0
    while True:
        footage: list[NDArray[np.uint8]] = []
        owners: list[int] = []
        truth: list[Mask] = []
        while len(footage) < clips:
            scene = sample_scene(index, seed=seed, split=split, level=level)
            rng = random.Random(f"{seed}/{split}/{index}")
            index += 1
            order = _order(rng, frames)
            amodal, visible = masks(scene)
            followed = _followed(amodal, visible[:, order[0]])
            if not followed:
                continue
            stays = visible[followed][:, order].any((2, 3)).all()
            if frames > 1 and stays and rng.random() < passed_over:
                continue
            for thing in rng.sample(followed, min(things, len(followed))):
                owners.append(len(footage))
                truth.append(visible[thing, order])
            footage.append(render(scene, order).transpose(0, 3, 1, 2))
        yield TrackBatch(np.stack(footage), np.array(owners, np.int64), np.stack(truth))


def _order(rng: random.Random, frames: int) -> list[int]:
    step = rng.choice([step for step in (1, 2) if (frames - 1) * step < FRAME_COUNT])
    start = rng.randrange(FRAME_COUNT - (frames - 1) * step)
    order = [start + step * place for place in range(frames)]
    return order[::-1] if rng.random() < 0.5 else order


def _followed(amodal: Mask, visible: Mask) -> list[int]:
    """Things that can be seen well enough.

    Args:
        amodal: the whole things in all frames, bool [thing, frame, y, x].
        visible: what can be seen of them in the first frame shown, bool [thing, y, x].
    """
    whole = np.maximum(amodal.sum((2, 3)).max(1), 1)
    seen = visible.sum((1, 2))
    return np.flatnonzero((seen >= LEAST_PIXELS) & (seen >= LEAST_SEEN * whole)).tolist()
