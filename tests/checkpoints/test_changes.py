"""What changed between two runs is named by its path, with the values before and now; samples are counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields

import numpy as np
import pytest

from tests.checkpoints.small_runs import two_stages
from tpo_lab.errors import UsageError
from tpo_lab.sample import Sample
from tpo_lab.training import TrainingOptions
from tpo_lab.training.resume.changes import FREE_OPTIONS, Change, changes_of, option_changes, recipe_changes, refuse
from tpo_lab.training.resume.data_prints import DataPrint, DataPrints
from tpo_lab.training.rows.data import by_task


def test_trees_are_compared_leaf_by_leaf() -> None:
    before = {"a": 1, "b": {"c": [1, 2], "d": None}, "stages": [{"name": "1", "x": 1}, {"name": "2", "x": 2}], "gone": {}}
    now = {"a": 1, "b": {"c": [1, 3], "d": None}, "stages": [{"name": "1", "x": 5}, {"name": "3", "x": 2}], "new": "n"}
    assert set(map(str, changes_of("recipe", before, now))) == {
        "recipe b.c: [1, 2] before, [1, 3] now",
        "recipe 1.x: 1 before, 5 now",
        "recipe 2.name: 2 before, nothing now",
        "recipe 2.x: 2 before, nothing now",
        "recipe 3.name: nothing before, 3 now",
        "recipe 3.x: nothing before, 2 now",
        "recipe new: nothing before, n now",
    }
    assert list(changes_of("recipe", before, before)) == []


def test_words_and_stages_that_are_done_do_not_count() -> None:
    before = two_stages().to_dict()
    now = {**two_stages().replace(**{"1.steps": 7, "2.region.steps": 8}).to_dict(), "description": "other words"}
    assert list(recipe_changes(before, now, ["1"])) == [Change("recipe 2.region.steps", 4, 8)]
    assert [change.name for change in recipe_changes(before, now)] == ["recipe 1.steps", "recipe 2.region.steps"]


def test_every_free_option_is_one_and_those_that_are_new_are_not_asked_about() -> None:
    assert {field.name for field in fields(TrainingOptions)} >= FREE_OPTIONS
    before, now = asdict(TrainingOptions()), asdict(TrainingOptions(seed=3, workers=2, keep=9, micro_batch=2))
    assert [change.name for change in option_changes(before, now)] == ["option seed", "option micro_batch"]
    del before["micro_batch"]
    assert [change.name for change in option_changes(before, now)] == ["option seed"]


def test_nothing_that_changed_is_nothing_to_refuse() -> None:
    refuse("1", [])
    with pytest.raises(UsageError, match=r"got 'option seed: 0 before, 1 now; a: 2 before, 3 now'\. Add --resume-anyway"):
        refuse("1", [Change("option seed", 0, 1), Change("a", 2, 3)])


def printed(ids: list[int], contents: list[int]) -> DataPrint:
    return DataPrint(np.array(ids, dtype=np.int64), np.array(contents, dtype=np.int64))


@pytest.mark.parametrize(
    ("ids", "contents", "words"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], "1 added"),
        ([1, 2], [10, 20], "1 removed"),
        ([1, 2, 3], [10, 21, 30], "1 changed"),
        ([1, 2, 5, 6], [11, 20, 50, 60], "2 added, 1 removed, 1 changed"),
        ([1, 2, 3, 3], [10, 20, 30, 30], "1 added"),
        ([3, 1, 2], [30, 10, 20], "the same samples in another order"),
    ],
)
def test_samples_are_counted(ids: list[int], contents: list[int], words: str) -> None:
    assert printed(ids, contents).since(printed([1, 2, 3], [10, 20, 30])) == words
    assert printed(ids, contents).digest != printed([1, 2, 3], [10, 20, 30]).digest


def test_a_print_knows_what_is_said_of_a_sample_its_place_and_its_stage(world: Callable[..., list[Sample]]) -> None:
    samples = [sample for index in range(3) for sample in world(index)]
    stages = two_stages().stages

    def prints(found: list[Sample]) -> DataPrints:
        return DataPrints({entry.name: by_task(found) for entry in stages}, stages)

    mine = prints(samples)
    counts = {task: len(group) for task, group in by_task(samples).items()}
    assert mine.summary()["2.region"]["samples"] == counts["region"]
    assert mine.summary()["1"]["samples"] == counts["region"] + counts["temporal"]
    assert prints([sample.model_copy() for sample in samples]).summary() == mine.summary()
    talk = [s.model_copy(update={"source": "x"}) if s.meta["task"] == "conversation" else s for s in samples]
    assert prints(talk).summary() == mine.summary(), "no stage trains on it"
    harder = [s.model_copy(update={"meta": {**s.meta, "difficulty": 9}}) if s.meta["task"] == "temporal" else s for s in samples]
    assert prints(harder).of("2.region").digest == mine.of("2.region").digest
    assert prints(harder).of("1").since(mine.of("1")) == f"{counts['temporal']} changed"
    stored = {name: tensor.clone() for name, tensor in mine.of("1").to_tensors().items()}
    assert DataPrint.from_tensors(stored).digest == mine.of("1").digest
