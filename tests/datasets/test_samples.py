from __future__ import annotations

import functools
import random
import re
from collections import Counter
from itertools import pairwise

import pytest

from tpo_lab.datasets import templates
from tpo_lab.datasets.world.facts import Facts
from tpo_lab.datasets.world.samples import DURATION_SEC, NOT_HAPPENING, NOT_THERE, TASKS, samples_of
from tpo_lab.datasets.world.scene import sample_scene, scene_at
from tpo_lab.datasets.world.words import HELD_OUT_EVENTS, HELD_OUT_LOOKS
from tpo_lab.errors import UsageError
from tpo_lab.sample import Sample

KINDS_OF_EXPRESSIONS = ("attribute", "relation", "motion", "order")


@pytest.fixture(scope="module")
def made() -> list[Sample]:
    return [sample for index in range(120) for sample in samples_of(sample_scene(index, seed=4, split="test"))]


@pytest.fixture(scope="module")
def compositions() -> list[Sample]:
    return [sample for index in range(100) for sample in samples_of(sample_scene(index, seed=4, split="compositions"))]


@pytest.fixture(scope="module")
def facts_at():
    """Ground truth by reference, each scene once."""
    return functools.cache(lambda reference: Facts(scene_at(reference)))


def of(samples: list[Sample], task: str, *kinds: str) -> list[Sample]:
    return [sample for sample in samples if sample.meta["task"] == task and (not kinds or sample.meta["kind"] in kinds)]


def query_in(sample: Sample, worded: tuple[str, ...]) -> str:
    """What stands in the place of the template's {query}."""
    text = sample.conversation[0].text
    found = set()
    for template in worded:
        before, after = template.split("{query}")
        if text.startswith(before) and text.endswith(after) and len(text) > len(before) + len(after):
            found.add(text[len(before) : len(text) - len(after)])
    return min(found, key=len)


def test_samples_of_gives_the_same_twice_and_follows_its_generator():
    scene = sample_scene(3)
    assert samples_of(scene) == samples_of(sample_scene(3))
    assert samples_of(scene, rng=random.Random(1)) == samples_of(scene, rng=random.Random(1)) != samples_of(scene, rng=random.Random(2))


def test_samples_name_their_scene_and_their_clip(made):
    for sample in made:
        assert sample.meta["scene"] == sample.media.path
        assert (sample.media.start_sec, sample.media.end_sec) == (0.0, DURATION_SEC) == (0.0, 4.0)
        assert (sample.split, sample.source) == ("test", "world")
    assert len({sample.id for sample in made}) == len(made)
    assert all(scene_at(reference).reference == reference for reference in {sample.media.path for sample in made})


def test_samples_of_a_file_still_name_their_scene():
    scene = sample_scene(5)
    for sample in samples_of(scene, media="clips/a.mp4"):
        assert (sample.media.path, sample.meta["scene"]) == ("clips/a.mp4", scene.reference)


def test_samples_are_at_most_as_many_per_task_as_asked_for(made):
    def asked(sample) -> str:
        return "track" if sample.targets.track else sample.meta["task"]

    per_clip = Counter((sample.media.path, asked(sample)) for sample in made)
    assert max(per_clip.values()) == 4
    assert {asked(sample) for sample in made} == set(TASKS)
    for count in (1, 2):
        found = Counter(asked(sample) for sample in samples_of(sample_scene(0), questions=count))
        assert max(found.values()) == found["conversation"] == count


def test_conversations_start_with_the_caption_and_then_change_the_kind(made):
    for path in {sample.media.path for sample in made}:
        kinds = [sample.meta["kind"] for sample in made if sample.media.path == path and sample.meta["task"] == "conversation"]
        assert kinds[0] == "caption" and len(set(kinds)) == len(kinds)
    assert {sample.conversation[0].text for sample in of(made, "conversation", "caption")} == set(templates.CAPTION)


def test_tasks_are_only_those_asked_for():
    scene = sample_scene(7)
    assert {sample.meta["task"] for sample in samples_of(scene, ("temporal",))} <= {"temporal"}
    assert {sample.meta["task"] for sample in samples_of(scene, ("region", "conversation"))} == {"region", "conversation"}


def test_region_boxes_are_those_of_the_one_thing_that_is_meant(made, facts_at, witness):
    found = of(made, "region", *KINDS_OF_EXPRESSIONS)
    for sample in found:
        facts = facts_at(sample.meta["scene"])
        (thing,) = witness(facts.scene).fits(query_in(sample, templates.REGION))
        assert sample.meta["things"] == [thing]
        (target,) = sample.targets.region
        assert (target.time_sec, target.xyxy) == (15 / 4, facts.box(thing, 15))
        assert sample.conversation[1].text == "<region>"
    assert len(found) > 200


def test_with_room_things_are_asked_for_again_in_other_words():
    found = [of(samples_of(sample_scene(index, seed=4), ("region",), questions=8), "region", *KINDS_OF_EXPRESSIONS) for index in range(40)]
    for samples in found:
        texts = [sample.conversation[0].text for sample in samples]
        assert len(set(texts)) == len(texts)
        times = Counter(sample.meta["things"][0] for sample in samples)
        assert not times or max(times.values()) <= 2
    again = [sum(count == 2 for count in Counter(s.meta["things"][0] for s in samples).values()) for samples in found]
    assert sum(again) > len(found)


@pytest.mark.parametrize("index", range(8))
def test_the_difficulty_is_the_number_of_things(index):
    scene = sample_scene(index, seed=4, level="growing")
    assert {sample.meta["difficulty"] for sample in samples_of(scene)} == {len(scene.things)}


def test_region_boxes_of_several_things_are_all_of_theirs(made, facts_at):
    found = of(made, "region", "plural")
    for sample in found:
        facts = facts_at(sample.meta["scene"])
        assert [target.xyxy for target in sample.targets.region] == [facts.box(thing, 15) for thing in sample.meta["things"]]
        assert len(sample.meta["things"]) >= 2
        assert sample.conversation[1].text.split() == ["<region>"] * len(sample.meta["things"])
    assert len(found) > 15


def test_pointed_at_things_are_the_same_at_both_ends(made, facts_at):
    found = of(made, "region", "pointed")
    for sample in found:
        facts, (thing,) = facts_at(sample.meta["scene"]), sample.meta["things"]
        assert (sample.prompts[0].time_sec, sample.prompts[0].xyxy) == (0.0, facts.box(thing, 0))
        assert sample.targets.region[0].xyxy == facts.box(thing, 15)
        assert "<prompt:0>" in sample.conversation[0].text
    assert len(found) > 25


def test_absent_things_are_not_there(made, facts_at, witness):
    found = of(made, "region", "absent")
    for sample in found:
        assert witness(facts_at(sample.meta["scene"]).scene).fits(query_in(sample, templates.REGION)) == set()
        assert sample.conversation[1].text == NOT_THERE and not sample.targets.names
    assert len(found) > 10


def test_temporal_windows_and_saliency_are_those_of_the_event(made, facts_at, witness):
    found = [sample for sample in of(made, "temporal") if sample.meta["kind"] != "absent"]
    for sample in found:
        thing, windows = witness(facts_at(sample.meta["scene"]).scene).clause(query_in(sample, templates.TEMPORAL))
        assert sample.meta["things"] == [thing]
        target = sample.targets.temporal
        assert target.windows_sec == tuple((start / 4, end / 4) for start, end in windows)
        assert target.saliency.step_sec == 0.5
        for step, score in enumerate(target.saliency.scores):
            filled = sum(max(0.0, min(end, step / 2 + 0.5) - max(start, step / 2)) for start, end in target.windows_sec)
            assert score == 4 * filled / 0.5
        assert sample.conversation[1].text == "<temporal>"
    assert len(found) > 150
    assert any(len(sample.targets.temporal.windows_sec) == 2 for sample in found)


def test_absent_events_do_not_happen(made, facts_at, witness):
    found = of(made, "temporal", "absent")
    for sample in found:
        assert witness(facts_at(sample.meta["scene"]).scene).clause(query_in(sample, templates.TEMPORAL))[1] == []
        assert sample.conversation[1].text == NOT_HAPPENING and not sample.targets.names
    assert len(found) > 8


def test_windows_are_in_order_and_inside_the_clip(made):
    for sample in of(made, "temporal"):
        windows = sample.targets.temporal.windows_sec if sample.targets.temporal else ()
        assert all(0 <= start < end <= DURATION_SEC for start, end in windows)
        assert all(one[1] < other[0] for one, other in pairwise(windows))


def test_compositions_ask_for_held_out_pairs_only(compositions):
    regions, moments = of(compositions, "region"), of(compositions, "temporal")
    for sample in regions:
        for thing in (scene_at(sample.meta["scene"]).things[index] for index in sample.meta["things"]):
            assert (thing.colour, thing.shape) in HELD_OUT_LOOKS
    for sample in moments:
        for thing in (scene_at(sample.meta["scene"]).things[index] for index in sample.meta["things"]):
            assert (sample.meta["kind"], thing.shape) in HELD_OUT_EVENTS
    assert len(regions) > 80 and len(moments) > 15
    assert {(sample.meta["kind"]) for sample in moments} == {kind for kind, _ in HELD_OUT_EVENTS}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_held_out_pairs_are_targets_nowhere_else_and_named_nowhere(split):
    pairs = {" ".join(pair) for pair in HELD_OUT_LOOKS}
    for index in range(60):
        scene = sample_scene(index, seed=8, split=split)
        for sample in samples_of(scene):
            for thing in (scene.things[i] for i in sample.meta.get("things", ())):
                assert (thing.colour, thing.shape) not in HELD_OUT_LOOKS
                assert (sample.meta["kind"], thing.shape) not in HELD_OUT_EVENTS
            assert not any(pair in turn.text for pair in pairs for turn in sample.conversation), sample.id


def test_unknown_tasks_and_no_questions_are_refused():
    with pytest.raises(
        UsageError, match=r"tasks: expected one of conversation, mask, region, temporal, track, got 'regions'. Did you mean 'region'"
    ):
        samples_of(sample_scene(0), ("regions",))
    with pytest.raises(UsageError, match="questions: expected at least 1, got 0"):
        samples_of(sample_scene(0), questions=0)


def test_relations_ask_about_every_pair_that_lies_plainly_apart_and_are_true(facts_at):
    asked = 0
    for index in range(40):
        scene = sample_scene(index, seed=4)
        for sample in samples_of(scene, ("relations",), questions=10):
            text, answer = sample.conversation[0].text, sample.conversation[1].text
            facts = facts_at(sample.media.path)
            ((one, side, other),) = re.findall(r"^Is the (\w+ \w+) (left of|right of|above|below) the (\w+ \w+) at the end\?$", text)
            ends = {f"{t.colour} {t.shape}": t.path_xy[-1] for t in facts.scene.things}
            axis, sign = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}[side]
            gap = sign * (ends[other][axis] - ends[one][axis])
            assert abs(gap) >= 6 and answer == ("yes" if gap > 0 else "no") and not sample.targets.names
            asked += 1
    assert asked >= 60


def test_things_to_follow_are_pointed_at_by_boxes_points_and_scribbles_that_lie_on_them():
    told = Counter()
    for index in range(40):
        facts = Facts(sample_scene(index))
        for sample in samples_of(facts.scene, ("track",)):
            (prompt,) = sample.prompts
            mask = facts.visible[sample.meta["things"][0], 0]
            told[sample.meta["kind"]] += 1
            assert sample.meta["kind"] == prompt.type
            assert prompt.time_sec == 0
            if prompt.type == "box":
                assert prompt.xyxy == facts.box(sample.meta["things"][0], 0)
            else:
                points = (prompt.xy,) if prompt.type == "point" else prompt.xys
                assert all(mask[int(y), int(x)] for x, y in points)
    assert told["box"] > told["point"] + told["scribble"] > min(told["point"], told["scribble"]) > 5
