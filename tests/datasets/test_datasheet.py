from __future__ import annotations

from collections import Counter

import pytest
from rich.console import Console

from tpo_lab import sample as schema
from tpo_lab.datasets.world.datasheet import datasheet
from tpo_lab.datasets.world.samples import samples_of
from tpo_lab.datasets.world.scene import sample_scene
from tpo_lab.datasets.world.words import HELD_OUT_LOOKS
from tpo_lab.errors import UsageError

CLIPS = 200


@pytest.fixture(scope="module")
def scenes():
    return [sample_scene(index, split="test") for index in range(CLIPS)]


@pytest.fixture(scope="module")
def samples(scenes):
    return [sample for scene in scenes for sample in samples_of(scene)]


@pytest.fixture(scope="module")
def sheet(samples):
    return datasheet(samples)


def test_the_test_split_is_as_hard_as_promised(sheet):
    """The bars that every reported figure refers to."""
    assert set(sheet.levels) == {"standard"} and set(sheet.splits) == {"test"}
    assert set(sheet.things) <= {2, 3, 4, 5}
    assert len(sheet.colours) >= 6 and len(set(sheet.shapes) - {"cup"}) >= 4
    assert sheet.distractors >= 0.5
    assert sheet.only_over_time >= 0.2
    assert sheet.occluded >= 0.3
    assert sheet.held_out_looks == sheet.held_out_events == 0


def test_motion_and_order_are_needed_however_one_counts(sheet):
    """Also when things that are pointed at count as expressions, a fifth needs the whole clip."""
    needed = sheet.expressions["motion"] + sheet.expressions["order"]
    assert needed >= 0.2 * (sum(sheet.expressions.values()) + sheet.regions["pointed"])
    assert sheet.without_unique_look >= 0.1


def test_counts_agree_with_the_samples_and_scenes(sheet, samples, scenes):
    assert (sheet.samples, sheet.clips) == (len(samples), CLIPS)
    assert sheet.tasks == Counter(sample.meta["task"] for sample in samples)
    assert sheet.things == Counter(len(scene.things) for scene in scenes)
    for name in ("colour", "shape", "material", "motion"):
        assert getattr(sheet, f"{name}s") == Counter(getattr(thing, name) for scene in scenes for thing in scene.things)
    assert sheet.sizes == Counter(thing.size for scene in scenes for thing in scene.things)
    for task, counts in (("conversation", sheet.questions), ("region", sheet.regions), ("temporal", sheet.moments)):
        assert counts == Counter(sample.meta["kind"] for sample in samples if sample.meta["task"] == task)
    assert sheet.expressions == {kind: sheet.regions[kind] for kind in sheet.expressions}
    assert set(sheet.expressions) == {"attribute", "relation", "motion", "order"}
    assert list(sheet.colours.values()) == sorted(sheet.colours.values(), reverse=True)


def test_shares_agree_with_a_slow_count(sheet, samples, scenes, witness):
    distractors = plain = occluded = 0
    for scene in scenes:
        hard = clear = False
        for one in scene.things:
            others = [thing for thing in scene.things if thing is not one]
            for second in others:
                for third in others:
                    if second is not third and second.colour == one.colour and third.shape == one.shape and one.shape != "cup":
                        hard = True
                        clear = clear or (second.shape != one.shape and third.colour != one.colour)
        distractors, plain = distractors + hard, plain + clear
        seen = witness(scene)
        whole = seen.area.max(1, keepdims=True)
        occluded += bool(((seen.area > 0.8 * whole) & (seen.visible.sum((2, 3)) < 0.67 * seen.area)).any())
    assert sheet.distractors == distractors / CLIPS and sheet.plain_distractors == plain / CLIPS
    assert sheet.occluded == occluded / CLIPS
    assert sheet.shell_games == sum(scene.candy is not None for scene in scenes) / CLIPS
    lengths = sorted(end - start for sample in samples if sample.targets.temporal for start, end in sample.targets.temporal.windows_sec)
    assert sheet.windows_sec == (lengths[0], lengths[len(lengths) // 2], lengths[-1])
    absent = sum(sample.meta["kind"] == "absent" for sample in samples)
    assert sheet.absent == absent / (sheet.tasks["region"] + sheet.tasks["temporal"])


def test_majority_is_how_often_one_answer_would_be_right(sheet, samples):
    answers = [sample.conversation[1].text for sample in samples if sample.meta["kind"] == "size" and sample.meta["task"] == "conversation"]
    assert sheet.majority["size"] == max(answers.count("small"), answers.count("large")) / len(answers)
    assert "caption" not in sheet.majority
    assert all(sheet.majority[kind] < 0.65 for kind in ("size", "existence", "relation", "colour", "shape", "material", "count"))


def test_scenes_give_the_same_sheet_as_their_samples(scenes):
    few = scenes[:15]
    assert datasheet(few) == datasheet(sample for scene in few for sample in samples_of(scene))


def test_the_sheet_of_a_file_equals_that_in_memory(tmp_path):
    made = [sample for index in range(12) for sample in samples_of(sample_scene(index), media=f"clips/{index}.mp4")]
    schema.write(tmp_path / "some.jsonl", made)
    on_disk = datasheet(schema.read(tmp_path / "some.jsonl"))
    assert on_disk == datasheet(sample_scene(index) for index in range(12))


def test_held_out_pairs_show_in_the_sheet():
    scenes = [sample_scene(index, split="compositions") for index in range(40)]
    sheet = datasheet(scenes)
    assert sheet.held_out_looks == sum((thing.colour, thing.shape) in HELD_OUT_LOOKS for scene in scenes for thing in scene.things) >= 35
    assert sheet.held_out_events > 0 and sheet.absent == 0
    turns = [thing for scene in scenes for thing in scene.things if thing.turns and (thing.turns[0], thing.shape) in HELD_OUT_LOOKS]
    assert sheet.held_out_turns == len(turns)


def test_one_task_alone_leaves_the_rest_empty():
    sheet = datasheet(samples_of(sample_scene(0), ("conversation",)))
    assert not sheet.regions and not sheet.moments and sheet.windows_sec is None
    assert sheet.only_over_time == sheet.absent == 0.0


def test_render_shows_every_line(sheet):
    console = Console(width=100, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(sheet.render())
    shown = captured.get()
    assert f"{sheet.samples} samples about {CLIPS} clips" in shown
    for name in ("only over time", "occluded", "distractors", "held out looks", "windows sec", "majority"):
        assert name in shown
    assert f"{sheet.occluded:.1%}" in shown and f"{sheet.only_over_time:.1%}" in shown
    assert f"longest {sheet.windows_sec[2]:g} s" in shown


def test_nothing_and_foreign_samples_are_refused():
    with pytest.raises(UsageError, match="samples: expected at least one sample, got 0"):
        datasheet([])
    foreign = samples_of(sample_scene(0))[0].model_copy(update={"meta": {}})
    with pytest.raises(UsageError, match=rf"sample {foreign.id}: meta.scene: expected what `samples_of` writes there, got None"):
        datasheet([foreign])
