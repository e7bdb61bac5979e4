"""Attribute labels per image patch, for the vision tower's own pretraining. No boxes, no masks, no windows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tpo_lab.datasets.world.render import masks, render, shown_colour
from tpo_lab.datasets.world.scene import FRAME_COUNT, FRAME_SIZE, Scene, sample_scene
from tpo_lab.datasets.world.words import COLOURS, MATERIALS, SHAPES, SIZES

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": ("nothing", *COLOURS, "dark"),
    "shape": ("nothing", *SHAPES, "cup"),
    "material": ("nothing", *MATERIALS),
    "size": ("nothing", *SIZES),
}
"""Classes per attribute; class 0 is a patch with (almost) nothing in it."""


@dataclass(frozen=True)
class PatchBatch:
    """Frames and what their patches show.

    Args:
        frames: uint8 [frame, y, x, 3].
        labels: int64 [frame, patch] per attribute, row-major patches.
    """

    frames: NDArray[np.uint8]
    labels: dict[str, NDArray[np.int64]]


def patch_labels(scene: Scene, frames: list[int], patch: int) -> dict[str, NDArray[np.int64]]:
    """The attributes of the thing that fills most of each patch, if it fills at least an eighth of it; int64 [frame, patch]."""
    _, visible = masks(scene, frames)
    side = FRAME_SIZE // patch
    area = visible.reshape(len(scene.things), len(frames), side, patch, side, patch).sum((3, 5)).reshape(len(scene.things), len(frames), -1)
    owner, filled = area.argmax(0), area.max(0) * 8 >= patch * patch
    labels = {}
    for name, classes in ATTRIBUTES.items():
        table = np.array(
            [
                [classes.index(shown_colour(thing, frame) if name == "colour" else getattr(thing, name)) for frame in frames]
                for thing in scene.things
            ]
        )
        labels[name] = np.where(filled, table[owner, np.arange(len(frames))[:, None]], 0).astype(np.int64)
    return labels


def patch_batches(batch_size: int, *, seed: int, patch: int, level: str = "standard", frames_per_scene: int = 2) -> Iterator[PatchBatch]:
    """An endless stream of labelled frames from the training split, the same for the same seed."""
    index = 0
    while True:
        pictures, labels = [], []
        for _ in range(batch_size // frames_per_scene):
            scene = sample_scene(index, seed=seed, level=level)
            frames = sorted(random.Random(index).sample(range(FRAME_COUNT), frames_per_scene))
            pictures.append(render(scene, frames))
            labels.append(patch_labels(scene, frames, patch))
            index += 1
        yield PatchBatch(np.concatenate(pictures), {name: np.concatenate([row[name] for row in labels]) for name in ATTRIBUTES})
