"""Things to follow: exact masks in the order of the frames, and nothing that cannot be seen at first."""

from __future__ import annotations

import numpy as np

from tpo_lab.datasets.world.render import masks, render
from tpo_lab.datasets.world.scene import FRAME_COUNT, sample_scene
from tpo_lab.datasets.world.tracks import LEAST_PIXELS, _followed, _order, track_batches


def test_batches_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    first, again, other = (next(track_batches(3, frames=4, things=2, seed=seed)) for seed in (5, 5, 6))
    assert (first.frames == again.frames).all() and (first.masks == again.masks).all() and (first.clip == again.clip).all()
    assert first.frames.shape == (3, 4, 3, 64, 64) and not (first.frames == other.frames).all()


def test_things_can_be_seen_in_the_first_frame_and_belong_to_their_clip() -> None:
    for batch in (next(track_batches(4, frames=frames, things=2, seed=1)) for frames in (1, 8, 16)):
        assert (batch.masks[:, 0].sum((1, 2)) >= LEAST_PIXELS).all()
        assert len(batch.masks) == len(batch.clip) and set(batch.clip.tolist()) == set(range(4))
        assert np.bincount(batch.clip).max() <= 2


def test_masks_are_those_of_the_frames_shown() -> None:
    scene = sample_scene(3, level="hard")
    order = [9, 7, 5]
    _, visible = masks(scene)
    whole = masks(scene)[0].sum((2, 3)).max(1)
    seen = [thing for thing in range(len(whole)) if visible[thing, 9].sum() >= max(LEAST_PIXELS, 0.5 * whole[thing])]
    assert _followed(masks(scene)[0], visible[:, order[0]]) == seen != []
    assert (render(scene, order) == render(scene)[order]).all() and (masks(scene, order)[1] == visible[:, order]).all()


def test_clips_run_both_ways_and_at_two_speeds() -> None:
    import random

    steps = {tuple(np.diff(_order(random.Random(seed), 8))) for seed in range(40)}
    assert steps == {(step,) * 7 for step in (1, -1, 2, -2)}
    assert all(0 <= frame < FRAME_COUNT for seed in range(40) for frame in _order(random.Random(seed), 16))


def test_clips_in_which_nothing_hides_are_passed_over() -> None:
    all_stay = [bool(batch.masks.any((2, 3)).all()) for batch in (next(track_batches(1, frames=8, things=8, seed=s)) for s in range(40))]
    passed = [next(track_batches(1, frames=8, things=8, seed=seed, passed_over=1.0)) for seed in range(10)]
    assert sum(all_stay) > 20
    assert not any(batch.masks.any((2, 3)).all() for batch in passed)
    single = next(track_batches(2, frames=1, things=8, seed=0, passed_over=1.0))
    assert len(single.frames) == 2, "a single frame hides nothing"
