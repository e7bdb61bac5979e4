from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.datasets.world.scene import LEVELS, SPLITS, sample_scene, scene_at
from tpo_lab.datasets.world.words import COLOURS, DIRECTIONS, HELD_OUT_EVENTS, HELD_OUT_LOOKS, MATERIALS, MOTIONS, SHAPES, SIZES
from tpo_lab.errors import UsageError

SCENES_OF_A_SPLIT = 150


@pytest.fixture(scope="module")
def scenes():
    return {split: [sample_scene(i, split=split, seed=2) for i in range(SCENES_OF_A_SPLIT)] for split in SPLITS}


def words_of(scene) -> str:
    """Everything drawn for a scene but its floating-point numbers."""
    names = ("shape", "colour", "material", "size", "motion", "heading", "blinks", "turns", "stop", "partner")
    things = [[getattr(thing, name) for name in names] for thing in scene.things]
    return repr((things, scene.candy, scene.background, scene.drawn_from, scene.panel_x is None))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(-5, 10**6), st.sampled_from(SPLITS), st.sampled_from(sorted(LEVELS)))
def test_sample_scene_draws_the_same_scene_twice_whatever_the_global_generators_do(index, seed, split, level):
    random.seed(index)
    one = sample_scene(index, seed=seed, split=split, level=level)
    random.seed(index + 1)
    np.random.seed(7)
    other = sample_scene(index, seed=seed, split=split, level=level)
    assert words_of(one) == words_of(other)
    for a, b in zip(one.things, other.things, strict=True):
        np.testing.assert_array_equal(a.path_xy, b.path_xy)
    np.testing.assert_array_equal(one.light, other.light)


@pytest.mark.parametrize(("levels", "digest"), [(("easy", "standard", "hard"), "5027fd8efccc0076"), (("growing",), "a105de9e2ebfdf4c")])
def test_sample_scene_is_frozen(levels, digest):
    """Trained towers and published figures refer to these scenes: a change of sampling must be seen, and meant."""
    text = "\n".join(words_of(sample_scene(i, split=split, level=level)) for split in SPLITS for level in levels for i in range(20))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("split", "index", "thing", "first_xy", "last_xy"),
    [
        ("train", 0, 0, (34.2629, 42.2336), (34.2629, 42.2336)),
        ("val", 3, 1, (28.5723, 49.1470), (28.5723, 49.1470)),
        ("test", 5, 0, (47.0252, 28.3083), (47.0252, 28.3083)),
        ("compositions", 9, 1, (37.4891, 36.4316), (37.4891, 36.4316)),
    ],
)
def test_sample_scene_paths_are_frozen(split, index, thing, first_xy, last_xy):
    path = sample_scene(index, split=split).things[thing].path_xy
    np.testing.assert_allclose(path[[0, -1]], [first_xy, last_xy], atol=2e-3)


@pytest.mark.parametrize("change", [{"seed": 1}, {"split": "val"}, {"level": "hard"}, {"things": (2, 4)}, {"index": 8}])
def test_sample_scene_depends_on_every_argument(change):
    arguments = {"index": 7, "seed": 0, "split": "train", "level": "standard", "things": None}
    assert words_of(sample_scene(**arguments)) != words_of(sample_scene(**{**arguments, **change}))


def test_things_are_within_the_vocabulary_and_the_level(scenes):
    for split in SPLITS:
        for scene in scenes[split]:
            assert 2 <= len(scene.things) <= 5
            for thing in scene.things:
                assert thing.colour in COLOURS and thing.material in MATERIALS and thing.shape in (*SHAPES, "cup")
                assert thing.motion in (*MOTIONS, "shuffle")
                assert thing.look == (thing.size, thing.material, thing.colour, thing.shape)
                if scene.candy is None:
                    assert SIZES[thing.size][0] <= thing.radius <= SIZES[thing.size][1]


def test_the_world_is_as_varied_as_promised(scenes):
    things = [thing for scene in scenes["test"] for thing in scene.things]
    assert len({thing.colour for thing in things}) >= 6 and len({thing.shape for thing in things} - {"cup"}) >= 4
    assert {thing.motion for thing in things} == {*MOTIONS, "shuffle"}
    assert set(Counter(len(scene.things) for scene in scenes["test"])) == {2, 3, 4, 5}


def test_levels_differ_as_they_say():
    easy = [sample_scene(i, level="easy") for i in range(60)]
    hard = [sample_scene(i, level="hard") for i in range(60)]
    assert {len(scene.things) for scene in easy} == {1, 2}
    assert {thing.motion for scene in easy for thing in scene.things} == {"still", "straight"}
    assert all(scene.panel_x is None and scene.candy is None and not scene.pan_xy.any() for scene in easy)
    assert {len(scene.things) for scene in hard if scene.candy is None} == {4, 5, 6, 7}
    assert sum(scene.panel_x is not None for scene in hard) > 15
    growing = [sample_scene(i, level="growing") for i in range(60)]
    assert {len(scene.things) for scene in growing if scene.candy is None} == {1, 2, 3, 4, 5}


def test_things_overrides_the_level():
    assert {len(sample_scene(i, things=(1, 1)).things) for i in range(30) if sample_scene(i, things=(1, 1)).candy is None} == {1}


def test_held_out_looks_belong_to_no_thing_outside_their_split(scenes):
    for split in ("train", "val", "test"):
        assert not {(thing.colour, thing.shape) for scene in scenes[split] for thing in scene.things} & HELD_OUT_LOOKS
    every = {(thing.colour, thing.shape) for scene in scenes["compositions"] for thing in scene.things}
    assert every >= HELD_OUT_LOOKS


def test_held_out_looks_are_in_every_composition(scenes):
    for scene in scenes["compositions"]:
        if scene.candy is None:
            assert any((thing.colour, thing.shape) in HELD_OUT_LOOKS for thing in scene.things), scene.name


def test_held_out_events_happen_only_in_compositions(scenes):
    def happening(split):
        for scene in scenes[split]:
            for thing in scene.things:
                yield from (
                    (kind, thing.shape)
                    for kind, what in (("blinks", thing.blinks), ("changes colour", thing.turns), ("stops", thing.stop))
                    if what
                )

    for split in ("train", "val", "test"):
        assert not set(happening(split)) & HELD_OUT_EVENTS
    assert set(happening("compositions")) >= HELD_OUT_EVENTS


def test_colours_and_shapes_of_held_out_looks_are_seen_apart(scenes):
    """Zero-shot means new pairs, not new words."""
    train = [thing for scene in scenes["train"] for thing in scene.things]
    assert {colour for colour, _ in HELD_OUT_LOOKS} <= {thing.colour for thing in train}
    assert {shape for _, shape in HELD_OUT_LOOKS} <= {thing.shape for thing in train}


def test_headings_say_where_things_go(scenes):
    for scene in scenes["train"]:
        for thing in scene.things:
            if thing.heading is not None:
                moved = thing.path_xy[-1] - scene.pan_xy[-1] - thing.path_xy[0] + scene.pan_xy[0]
                direction = np.array(DIRECTIONS[thing.heading])
                assert moved @ direction >= 18 and abs(moved @ direction[::-1]) < 1e-3
            else:
                assert thing.motion in ("still", "bounce", "orbit", "approach", "shuffle")


def test_events_lie_inside_the_clip(scenes):
    for scene in scenes["train"]:
        for thing in scene.things:
            spells = [*thing.blinks, *([thing.turns[1:]] if thing.turns else []), *([thing.stop] if thing.stop else [])]
            assert all(0 <= start < end <= 15 for start, end in spells)
            assert all(before[1] + 3 <= after[0] for before, after in zip(thing.blinks, thing.blinks[1:], strict=False))
            assert thing.turns is None or thing.turns[0] != thing.colour
            assert thing.partner is None or scene.things[thing.partner].motion == "still"


def test_camera_pans_carry_everything_along(scenes):
    panned = [scene for scene in scenes["train"] if scene.pan_xy.any()]
    assert len(panned) > 10
    for scene in panned:
        assert np.abs(scene.pan_xy).max() <= 2.5 + 1e-6
        for thing in scene.things:
            if thing.motion == "still":
                np.testing.assert_allclose(
                    thing.path_xy - scene.pan_xy, np.broadcast_to((thing.path_xy - scene.pan_xy)[0], (16, 2)), atol=1e-4
                )


def test_references_lead_back_to_the_scene():
    scene = sample_scene(12, seed=3, split="test", level="hard", things=(3, 4))
    assert scene.reference == "world://test/hard/3/12/3-4"
    assert scene.name == "test-hard-3-000012"
    again = scene_at(scene.reference)
    assert repr(astuple(again)) == repr(astuple(scene))


@pytest.mark.parametrize(
    "reference",
    ["world://test/hard/3/12", "clips/a.mp4", "world://test/hard/3/12/3", "world://test/hard/x/1/2-3", "world://test/hard/0/-1/2-3"],
)
def test_scene_at_refuses_other_forms(reference):
    with pytest.raises(UsageError, match=f"expected world://split/level/seed/index/lowest-highest, got '{reference}'"):
        scene_at(reference)


def test_unknown_names_are_refused_with_the_valid_ones():
    with pytest.raises(UsageError, match=r"split: expected one of compositions, test, train, val, got 'dev'"):
        sample_scene(0, split="dev")
    with pytest.raises(UsageError, match=r"level: expected one of easy, growing, hard, standard, got 'standart'. Did you mean 'standard'"):
        sample_scene(0, level="standart")
    with pytest.raises(UsageError, match=r"level: .* got 'mid'"):
        scene_at("world://train/mid/0/0/2-5")


@pytest.mark.parametrize("things", [(0, 2), (3, 2), (2, 9)])
def test_impossible_numbers_of_things_are_refused(things):
    with pytest.raises(UsageError, match=rf"things: expected 1 <= lowest <= highest <= 8, got \({things[0]}, {things[1]}\)"):
        sample_scene(0, things=things)
