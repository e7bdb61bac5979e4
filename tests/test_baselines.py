"""Answers without looking: what they say, and that a test sample can change none of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tpo_lab.baselines import constant_records
from tpo_lab.errors import UsageError
from tpo_lab.record_scores import score
from tpo_lab.records import Record
from tpo_lab.sample import Sample


def sample(number: int, kind: str, text: str, end_sec: float | None = 8.0, **targets: Any) -> Sample:
    return Sample.model_validate(
        {
            "id": f"{kind}-{number}",
            "media": {"path": "a.mp4", "end_sec": end_sec},
            "conversation": [{"role": "user", "text": "?"}, {"role": "assistant", "text": text}],
            "targets": targets,
            "meta": {"kind": kind},
        }
    )


def moment(number: int, start: float, end: float, kind: str = "stops", **more: Any) -> Sample:
    return sample(number, kind, "<temporal>", temporal={"windows_sec": [[start, end]], **more})


def record(of: Sample) -> Record:
    text = of.conversation[-1].text
    heads = tuple(name for name in ("region", "temporal") if f"<{name}>" in text)
    target = of.targets.model_dump(mode="json", exclude_none=True)
    return Record(of.id, str(of.meta["kind"]), "?", text, "nothing", heads, (), {}, {}, target, "a.mp4")


def test_the_window_that_is_right_most_often_is_given_to_all_as_a_share_of_their_clip() -> None:
    training = [moment(0, 2.0, 4.0), moment(1, 2.0, 4.5), moment(2, 6.0, 8.0)]
    long = moment(9, 0.0, 1.0).model_copy(update={"media": training[0].media.model_copy(update={"end_sec": 16.0})})
    (found,) = constant_records([record(long)], [long], training)
    (window,) = found.routed["temporal"]["windows_sec"]
    assert window[0] == pytest.approx(4.0, abs=0.6) and window[1] == pytest.approx(8.5, abs=0.6)
    assert found.emitted == ("temporal",) and found.forced == found.routed


def test_kinds_have_constants_of_their_own_and_new_kinds_those_of_all() -> None:
    training = [moment(n, 0.0, 2.0, "early") for n in range(3)] + [moment(n, 6.0, 8.0, "late") for n in range(2)]
    tested = [moment(9, 1.0, 2.0, kind) for kind in ("early", "late", "new")]
    found = [r.routed["temporal"]["windows_sec"][0] for r in constant_records([record(s) for s in tested], tested, training)]
    assert found == [[0.0, 2.0], [6.0, 8.0], [0.0, 2.0]]


def test_saliency_boxes_and_texts() -> None:
    graded = {"saliency": {"step_sec": 4.0, "scores": [0.0, 4.0]}}
    training = [
        *(moment(n, 4.0, 8.0, **graded) for n in range(2)),
        *(sample(n, "look", "<region>", region=[{"xyxy": [x, 0.0, x + 10.0, 10.0]}]) for n, x in enumerate((0.0, 2.0, 40.0))),
        *(sample(n, "colour", text) for n, text in enumerate(("red", "blue", "red"))),
    ]
    tested = [
        moment(9, 4.0, 8.0, **graded),
        sample(9, "look", "<region>", region=[{"xyxy": [2.0, 0.0, 12.0, 10.0]}]),
        sample(9, "colour", "blue"),
    ]
    found = constant_records([record(s) for s in tested], tested, training)
    assert found[1].routed["region"]["boxes_xyxy"] == [[2.0, 0.0, 12.0, 10.0]] and found[2].text == "red"
    scores = score(found, ("region", "temporal"))
    assert scores["temporal"]["routed"]["hl_hit@1"] == 1.0 and scores["temporal"]["routed"]["r1@0.5"] == 1.0
    assert scores["region"]["routed"]["acc@0.5"] == 1.0 and scores["qa"]["accuracy"] == 0.0


def test_what_is_tested_changes_no_answer(world: Callable[..., list[Sample]]) -> None:
    training = [s for n in range(6) for s in world(n)]
    tested = [s for n in range(6, 9) for s in world(n)]
    together = constant_records([record(s) for s in tested], tested, training)
    alone = [constant_records([record(s)], [s], training)[0] for s in tested]
    assert together == alone


def test_what_is_missing_is_named() -> None:
    training = [moment(0, 0.0, 2.0)]
    with pytest.raises(UsageError, match=r"tested: expected the sample stops-9 of a record"):
        constant_records([record(moment(9, 0.0, 1.0))], training, training)
    with pytest.raises(UsageError, match=r"sample stops-1: media.end_sec: expected the clip's end"):
        constant_records([], [], [sample(1, "stops", "<temporal>", None, temporal={"windows_sec": [[0.0, 2.0]]})])
