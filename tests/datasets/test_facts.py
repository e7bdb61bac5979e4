from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tpo_lab.datasets.world.facts import ASKED_FRAME, SALIENCY_STEP_FRAMES, Event, Facts
from tpo_lab.datasets.world.render import masks, render
from tpo_lab.datasets.world.scene import FRAME_COUNT, Scene, Thing, sample_scene
from tpo_lab.datasets.world.words import COLOURS, EVENTS


def thing(*, at=(20.0, 30.0), to=None, radius=8.0, shape="square", colour="red", motion="still", **more) -> Thing:
    share = np.linspace(0, 1, FRAME_COUNT, dtype=np.float32)[:, None]
    path = (1 - share) * np.array(at, np.float32) + share * np.array(to or at, np.float32)
    return Thing(shape, colour, "plain", "large", radius, motion, path, **more)


def facts_of(*things: Thing, panel_x=None) -> Facts:
    still = np.zeros((FRAME_COUNT, 2), np.float32)
    return Facts(Scene("standard", "train", 0, 0, (2, 5), things, still, np.ones(FRAME_COUNT, np.float32), panel_x, None, 1))


@pytest.fixture(scope="module")
def many():
    return [Facts(sample_scene(i, seed=9, split="test")) for i in range(150)]


def happening(facts: list[Facts], kind: str) -> list[tuple[Facts, Event]]:
    return [(found, event) for found in facts for event in found.events if event.kind == kind]


def test_box_is_the_tightest_around_the_visible_mask(many):
    for facts in many[:30]:
        _, visible = masks(facts.scene)
        for index in range(len(facts.scene.things)):
            for frame in (0, 6, 15):
                pixels = (
                    [(x, y) for y in range(64) for x in range(64) if visible[index, frame, y, x]] if visible[index, frame].any() else []
                )
                if not pixels:
                    assert facts.box(index, frame) is None
                    continue
                xs, ys = [x for x, _ in pixels], [y for _, y in pixels]
                assert facts.box(index, frame) == (min(xs), min(ys), max(xs) + 1, max(ys) + 1)


def test_box_amodal_covers_what_is_hidden():
    facts = facts_of(thing(at=(20, 30)), thing(at=(28, 30), colour="blue"))
    assert facts.box(0, 3, amodal=True) == (13, 23, 27, 37)
    assert facts.box(0, 3) == (13, 23, 21, 37)


def test_visibility_is_the_share_of_the_whole_thing_that_can_be_seen():
    facts = facts_of(thing(at=(20, 30), radius=10), thing(at=(29, 30), radius=10, colour="blue"))
    # squares of 18 pixels, 9 apart
    assert facts.visibility[0] == pytest.approx(0.5)
    assert facts.visibility[1] == pytest.approx(1.0)
    assert facts.is_seen(0) and facts.is_ever_covered(0) is False
    assert facts_of(thing(at=(20, 30)), thing(at=(21, 30))).is_ever_covered(0)


def test_visibility_falls_where_a_thing_leaves_the_frame():
    facts = facts_of(thing(at=(30, 30), to=(75, 30), motion="leave"))
    assert facts.visibility[0, 0] == 1 and facts.visibility[0, -1] == 0
    assert facts.box(0, ASKED_FRAME) is None and not facts.is_seen(0) and facts.is_seen(0, 0)


def test_occluded_means_a_third_of_something_inside_the_frame():
    assert not facts_of(thing(at=(20, 30)), thing(at=(40, 30))).occluded
    assert not facts_of(thing(at=(20, 30)), thing(at=(32, 30))).occluded
    assert facts_of(thing(at=(20, 30)), thing(at=(27, 30))).occluded
    assert facts_of(thing(at=(20, 30)), panel_x=(20.0, 32.0)).occluded
    assert not facts_of(thing(at=(30, 30), to=(75, 30), motion="leave")).occluded


@pytest.mark.parametrize(
    ("at", "word"),
    [
        ((5, 5), "top left"),
        ((32, 5), "top"),
        ((60, 21), "top right"),
        ((21, 32), "left"),
        ((22, 42), "middle"),
        ((5, 43), "bottom left"),
        ((70, 70), "bottom right"),
    ],
)
def test_place_is_the_ninth_of_the_frame(at, word):
    assert facts_of(thing(at=at)).place(0) == word


def test_place_is_asked_at_the_end_if_nothing_is_said():
    facts = facts_of(thing(at=(10, 32), to=(54, 32)))
    assert (facts.place(0, 0), facts.place(0)) == ("left", "right")


@pytest.mark.parametrize(
    ("window", "word"),
    [((0, 4), "early"), ((3, 8), "early"), ((4, 8), "midway"), ((6, 11), "midway"), ((7, 11), "late"), ((12, 14), "late")],
)
def test_when_is_the_part_of_the_clip_with_the_middle_of_the_window(window, word):
    assert facts_of(thing()).when(Event(0, "blinks", (window,))) == word


def test_windows_and_saliency_of_an_event():
    facts, event = facts_of(thing()), Event(0, "blinks", ((1, 4), (8, 12)))
    assert facts.windows_sec(event) == [[0.25, 1.0], [2.0, 3.0]]
    assert facts.saliency(event) == [2, 4, 0, 0, 4, 4, 0, 0]


def test_saliency_is_high_exactly_where_windows_are(many):
    for facts in many:
        for event in facts.events:
            scores = facts.saliency(event)
            assert len(scores) == FRAME_COUNT // SALIENCY_STEP_FRAMES
            covered = [
                sum(any(start <= frame < end for start, end in event.windows) for frame in (2 * step, 2 * step + 1)) for step in range(8)
            ]
            assert scores == [2 * frames for frames in covered]


def test_events_of_every_kind_occur_in_order(many):
    assert set(Counter(event.kind for facts in many for event in facts.events)) == set(EVENTS)
    for facts in many:
        starts = [event.start for event in facts.events]
        assert starts == sorted(starts)
        assert set(facts.events) <= set(facts.happenings)
        assert all(0 <= start < end <= FRAME_COUNT for event in facts.events for start, end in event.windows)


def core(facts: Facts, index: int, frame: int) -> np.ndarray:
    """Visible pixels that have only visible neighbours: no edge, no background mixed in."""
    mask = facts.visible[index, frame]
    inner = mask.copy()
    for axis in (0, 1):
        for shift in (-1, 1):
            inner &= np.roll(mask, shift, axis)
    return inner


def brightness(facts: Facts, index: int) -> np.ndarray:
    """Mean brightness of a thing per frame; NaN where too little can be seen."""
    pixels = render(facts.scene).astype(float)
    inner = [core(facts, index, frame) for frame in range(FRAME_COUNT)]
    return np.array(
        [pixels[frame][mask].mean() / facts.scene.light[frame] if mask.sum() >= 12 else np.nan for frame, mask in enumerate(inner)]
    )


def test_blinking_is_dark_in_the_window_and_nowhere_else(many):
    checked = 0
    for facts, event in happening(many, "blinks"):
        light = brightness(facts, event.thing)
        inside = np.zeros(FRAME_COUNT, bool)
        for start, end in event.windows:
            inside[start:end] = True
            assert np.isnan(light[start]) or light[start] < 0.3 * np.nanmax(light)
            checked += 1
        if facts.scene.things[event.thing].turns is None:
            assert (light[~inside & ~np.isnan(light)] > 0.4 * np.nanmax(light)).all()
    assert checked > 40


def shown(facts: Facts, index: int, frame: int, pixels: np.ndarray) -> str | None:
    """The colour word nearest in hue to what is drawn."""
    inner = core(facts, index, frame)
    if inner.sum() < 12:
        return None
    mean = pixels[frame][inner].mean(0)
    cosine = {word: mean @ np.array(rgb) / np.linalg.norm(mean) / np.linalg.norm(rgb) for word, rgb in COLOURS.items()}
    return max(cosine, key=cosine.__getitem__)


def test_a_change_of_colour_shows_the_other_colour_in_the_window_and_its_own_outside(many):
    checked = 0
    for facts, event in happening(many, "changes colour"):
        pixels, item = render(facts.scene).astype(float), facts.scene.things[event.thing]
        ((start, end),) = event.windows
        for frame in range(FRAME_COUNT):
            word = shown(facts, event.thing, frame, pixels)
            if word is not None:
                assert word == (event.detail if start <= frame < end else item.colour), (facts.scene.reference, frame)
                checked += 1
    assert checked > 500


def test_a_stop_is_a_spell_without_displacement_between_two_with(many):
    found = happening(many, "stops")
    for facts, event in found:
        path = facts.scene.things[event.thing].path_xy - facts.scene.pan_xy
        steps = np.abs(np.diff(path, axis=0)).sum(1)
        ((start, end),) = event.windows
        assert steps[start:end].max() < 1e-3 < 0.5 < min(steps[start - 1], steps[end])
        if not facts.scene.pan_xy.any():
            boxes = {facts.box(event.thing, frame, amodal=True) for frame in range(start, end + 1)}
            assert len(boxes) == 1
    assert len(found) > 20


def test_a_meeting_is_when_the_two_nearly_touch(many):
    found = happening(many, "meets")
    for facts, event in found:
        one, other = (facts.scene.things[index] for index in (event.thing, event.partner))
        gap = np.abs(one.path_xy - other.path_xy).max(1) - one.radius - other.radius
        inside = np.zeros(FRAME_COUNT, bool)
        for start, end in event.windows:
            inside[start:end] = True
            assert end - start >= 3 and gap[start:end].max() < 2.7
        assert gap[~inside].max() > 2
        assert other.motion == "still" and one.motion == "approach"
    assert len(found) > 5


def test_hidden_means_almost_nothing_to_be_seen_for_three_frames(many):
    found = happening(many, "is hidden")
    for facts, event in found:
        for start, end in event.windows:
            amodal, visible = facts.amodal[event.thing, start:end].sum((1, 2)), facts.visible[event.thing, start:end].sum((1, 2))
            assert end - start >= 3 and (visible < 0.15 * facts.amodal[event.thing].sum((1, 2)).max()).all()
            assert (amodal > 0).all()
    assert len(found) > 5


def test_what_happens_out_of_sight_is_known_but_not_asked_about():
    blinking = thing(at=(26, 30), blinks=((4, 8),))
    assert [event.kind for event in facts_of(blinking).events] == ["blinks"]
    hidden = facts_of(blinking, panel_x=(10.0, 40.0))
    assert [event.kind for event in hidden.happenings] == ["blinks"]
    assert hidden.events == ()


def test_contact_needs_three_frames():
    resting = thing(at=(30, 30))
    assert facts_of(resting, thing(at=(30, 46))).contact(0, 1) == ((0, FRAME_COUNT),)
    assert facts_of(resting, thing(at=(30, 50))).contact(0, 1) == ()
    passing = np.full((FRAME_COUNT, 2), 90.0, np.float32)
    passing[5:7] = 30.0
    assert facts_of(resting, Thing("ball", "blue", "plain", "large", 8.0, "straight", passing)).contact(0, 1) == ()
