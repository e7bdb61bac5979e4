from __future__ import annotations

from itertools import islice

import numpy as np

from tpo_lab.datasets.world.patches import ATTRIBUTES, patch_batches, patch_labels
from tpo_lab.datasets.world.render import masks, shown_colour
from tpo_lab.datasets.world.scene import sample_scene


def test_patch_labels_name_the_thing_that_fills_most_of_each_patch():
    for index in range(8):
        scene = sample_scene(index, seed=3)
        labels = patch_labels(scene, [2, 11], 8)
        _, visible = masks(scene, [2, 11])
        for place, frame in enumerate((2, 11)):
            for patch in range(64):
                y, x = patch // 8 * 8, patch % 8 * 8
                areas = [int(mask[place, y : y + 8, x : x + 8].sum()) for mask in visible]
                got = {name: ATTRIBUTES[name][labels[name][place, patch]] for name in ATTRIBUTES}
                if max(areas) < 8:
                    assert set(got.values()) == {"nothing"}
                    continue
                owner = scene.things[areas.index(max(areas))]
                assert got == {"colour": shown_colour(owner, frame), "shape": owner.shape, "material": owner.material, "size": owner.size}


def test_patch_batches_are_the_same_for_the_same_seed():
    one, other, third = (list(islice(patch_batches(6, seed=seed, patch=16), 2)) for seed in (1, 1, 2))
    for a, b in zip(one, other, strict=True):
        assert (a.frames == b.frames).all() and all((a.labels[name] == b.labels[name]).all() for name in ATTRIBUTES)
        assert a.frames.shape == (6, 64, 64, 3) and a.labels["shape"].shape == (6, 16)
    assert not np.array_equal(one[0].frames, one[1].frames) and not np.array_equal(one[0].frames, third[0].frames)
