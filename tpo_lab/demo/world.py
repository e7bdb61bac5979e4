"""The demo's data: the synthetic world as real mp4 clips with their samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tpo_lab.datasets.world.synth import synthesise

_SIZES = {"train": 12_000, "val": 400}
_TRAINING: dict[str, Any] = {"level": "growing", "questions": 16}
"""Clips of one thing too, which a curriculum starts with, and many questions about each, which share its video in training."""


def world_data(
    folder: Path | str,
    *,
    seed: int = 0,
    sizes: dict[str, int] | None = None,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """A folder with `<split>.jsonl` of every split in `sizes`: splits that are there already, whoever made them, are left as they are.

    The training split is of the level `growing`, all others are `standard`.

    Args:
        sizes: samples by split; a training and a validation split for a notebook where None.
        processes: how many write clips.
        progress: called with the samples written so far and their number over all splits.

    Returns:
        The folder.
    """
    sizes = sizes or _SIZES
    total, done = sum(sizes.values()), 0
    for split, samples in sizes.items():
        if not (Path(folder) / f"{split}.jsonl").exists():
            tell = None if progress is None else _shifted(progress, done, total)
            more = _TRAINING if split == "train" else {}
            synthesise(folder, samples=samples, seed=seed, split=split, processes=processes, progress=tell, **more)
        done += samples
    return Path(folder)


def _shifted(progress: Callable[[int, int], None], before: int, total: int) -> Callable[[int, int], None]:
    return lambda done, _: progress(before + done, total)
