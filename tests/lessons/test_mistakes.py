"""The planted mistakes: one in each of four records, each found by the rule it is meant for, and nothing else changed."""

from __future__ import annotations

from pathlib import Path

import pytest

import tpo_lab as tpo
from tpo_lab.datasets import yard
from tpo_lab.datasets.against_media import against_media
from tpo_lab.errors import UsageError
from tpo_lab.lessons.mistakes import halve_boxes, plant_mistakes, records_of, write_records
from tpo_lab.sample import Sample


@pytest.fixture
def own(tmp_path: Path) -> list[Sample]:
    for number in range(3):
        yard.film(tmp_path, number)
    return [sample for number in range(3) for sample in yard.written(tmp_path, number)]


def test_each_mistake_is_found_by_its_rule(own: list[Sample], tmp_path: Path) -> None:
    path = write_records(tmp_path / "broken.jsonl", plant_mistakes(own))
    listed = {(problem.line, problem.rule) for problem in tpo.validate(path, check_media=True)}
    assert listed == {(2, "window_order"), (3, "marker_has_target"), (4, "media_exists")}
    assert {(problem.line, problem.rule) for problem in against_media(path)} == {(1, "box_in_frame"), (4, "media_opens")}


def test_other_records_and_the_samples_stay_as_they_were(own: list[Sample]) -> None:
    kept = records_of(own)
    planted = plant_mistakes(own)
    assert [place for place, (is_now, was) in enumerate(zip(planted, kept, strict=True)) if is_now != was] == [0, 1, 2, 3]
    assert records_of(own) == kept


def test_it_needs_enough_samples_to_plant_in(own: list[Sample]) -> None:
    with pytest.raises(UsageError, match="expected two with a box and two with a window, got '1 and 1'"):
        plant_mistakes(own[:2])


def test_records_come_back_as_the_samples_they_were(own: list[Sample], tmp_path: Path) -> None:
    assert tpo.read(write_records(tmp_path / "own.jsonl", records_of(own))) == own


def test_halved_boxes_break_no_rule_and_touch_nothing_but_boxes(own: list[Sample], tmp_path: Path) -> None:
    path = write_records(tmp_path / "halved.jsonl", records_of(halve_boxes(own)))
    assert tpo.validate(path, check_media=True) == against_media(path) == []
    where, when = tpo.read(path)[:2]
    assert where.targets.region is not None and own[0].targets.region is not None
    assert [2 * edge for edge in where.targets.region[0].xyxy] == list(own[0].targets.region[0].xyxy)
    assert when == own[1]
