"""Scores of records by hand, and a model whose routes and boxes are known in advance."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tpo_lab.api import build
from tpo_lab.datasets.world.samples import samples_of
from tpo_lab.datasets.world.scene import sample_scene
from tpo_lab.errors import UsageError
from tpo_lab.evaluation import Evaluation, evaluate
from tpo_lab.media import Frames
from tpo_lab.record_scores import score
from tpo_lab.records import Record
from tpo_lab.sample import Sample


def record(number: int, **changes: Any) -> Record:
    plain: dict[str, Any] = {
        "id": str(number),
        "kind": "colour",
        "question": "What colour is it?",
        "expected_text": "red",
        "text": "red",
        "expected": (),
        "emitted": (),
        "routed": {},
        "forced": {},
        "target": {},
        "media": "a.mp4",
    }
    return Record(**{**plain, **changes})


def grounding(number: int, predicted: list[float] | None, *, forced: list[float], kind: str = "attribute") -> Record:
    routed = {} if predicted is None else {"region": {"boxes_xyxy": [predicted]}}
    return record(
        number,
        kind=kind,
        expected_text="<region>",
        text="<region>" if predicted is not None else "red",
        expected=("region",),
        emitted=("region",) if predicted is not None else (),
        routed=routed,
        forced={"region": {"boxes_xyxy": [forced]}},
        target={"region": [{"time_sec": 0.0, "xyxy": [0.0, 0.0, 10.0, 20.0]}]},
    )


def test_score_region_counts_a_missing_route_as_a_miss_and_reports_both_ways() -> None:
    exact, half, miss = [0.0, 0.0, 10.0, 20.0], [0.0, 0.0, 10.0, 10.0], [30.0, 30.0, 40.0, 50.0]
    records = [grounding(0, exact, forced=exact), grounding(1, half, forced=half, kind="motion"), grounding(2, None, forced=exact)]
    scores = score([*records, grounding(3, miss, forced=miss)], ("region",))
    assert scores["region"]["routed"]["acc@0.5"] == pytest.approx(2 / 4)
    assert scores["region"]["teacher_forced"]["acc@0.5"] == pytest.approx(3 / 4)
    assert scores["region"]["routed"]["miou"] == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert scores["region"]["routed"]["missing_rate"] == pytest.approx(1 / 4)
    assert scores["region"]["routed"]["acc@0.5/motion"] == 1.0
    low, high = scores["region"]["routed"]["acc@0.5/interval"]
    assert 0 <= low <= 0.5 <= high <= 1
    assert scores["routing"]["missed_route_rate"] == pytest.approx(1 / 4)


def test_score_region_with_several_boxes_is_a_set_score_and_not_in_acc() -> None:
    one, other = [0.0, 0.0, 10.0, 20.0], [30.0, 0.0, 40.0, 20.0]
    several = record(
        0,
        kind="plural",
        expected=("region", "region"),
        emitted=("region",),
        routed={"region": {"boxes_xyxy": [other]}},
        forced={"region": {"boxes_xyxy": [other, one]}},
        target={"region": [{"time_sec": 0.0, "xyxy": one}, {"time_sec": 0.0, "xyxy": other}]},
    )
    found = score([several], ("region",))["region"]
    assert "acc@0.5" not in found["routed"]
    assert found["routed"]["several"]["recall@0.5"] == pytest.approx(0.5)
    assert found["teacher_forced"]["several"]["f1@0.5"] == pytest.approx(1.0)


def test_score_temporal_takes_the_best_true_window_and_routing_mistakes_count() -> None:
    target = {"temporal": {"windows_sec": [[0.0, 1.0], [2.0, 4.0]]}}
    right = record(
        0, kind="blinks", expected=("temporal",), emitted=("temporal",), routed={"temporal": {"windows_sec": [[2.0, 3.0]]}}, target=target
    )
    wrong = record(
        1, kind="stops", expected=("temporal",), emitted=("region",), routed={"region": {"boxes_xyxy": [[0, 0, 1, 1]]}}, target=target
    )
    scores = score([right, wrong], ("region", "temporal"))
    assert scores["temporal"]["routed"]["r1@0.5"] == pytest.approx(0.5)
    assert scores["temporal"]["routed"]["r1@0.7"] == 0.0
    assert scores["temporal"]["routed"]["r1@0.5/blinks"] == 1.0
    assert scores["routing"]["wrong_route_rate"] == pytest.approx(0.5)


WINDOWS = [[0.0, 1.0], [2.0, 4.0]]
GRADES = {"step_sec": 1.0, "scores": [4.0, 0.0, 3.0, 4.0]}


def happening(number: int, routed: dict[str, Any], *, forced: dict[str, Any] | None = None, **target: Any) -> Record:
    """A temporal question; the model's answer, and what the head reads where it is given the route."""
    return record(
        number,
        kind="blinks",
        expected_text="<temporal>",
        expected=("temporal",),
        emitted=tuple(routed),
        routed=routed,
        forced={"temporal": routed.get("temporal", {}) if forced is None else forced},
        target={"temporal": target},
    )


def curve(*scores: float) -> list[list[float]]:
    """A frame in the middle of every second."""
    return [[place + 0.5, score] for place, score in enumerate(scores)]


def test_score_temporal_ranks_windows_by_their_scores() -> None:
    answer = {"windows_sec": [[2.0, 4.0], [1.0, 2.0], [0.0, 1.0]], "scores": [0.9, 0.2, 0.5]}
    found = score([happening(0, {"temporal": answer}, windows_sec=WINDOWS)], ("temporal",))["temporal"]
    assert found["routed"]["map"] == found["routed"]["map@0.75"] == 1.0
    assert found["routed"]["several"] == {"map": 1.0, "map@0.5": 1.0, "map@0.75": 1.0, "count": 1.0}
    unscored = {"temporal": {"windows_sec": answer["windows_sec"]}}
    in_order = score([happening(0, unscored, windows_sec=WINDOWS)], ("temporal",))["temporal"]
    assert in_order["routed"]["map"] == pytest.approx((1 + 2 / 3) / 2), "found, not found, found"


def test_score_temporal_reports_several_windows_apart_and_both_ways() -> None:
    whole = {"windows_sec": [[2.0, 4.0], [0.0, 1.0]], "scores": [0.9, 0.8]}
    records = [
        happening(0, {"region": {"boxes_xyxy": [[0, 0, 1, 1]]}}, forced=whole, windows_sec=WINDOWS),
        happening(1, {"temporal": whole}, windows_sec=[[2.0, 4.0]]),
    ]
    found = score(records, ("region", "temporal"))["temporal"]
    assert (found["routed"]["map"], found["routed"]["several"]["map"]) == (0.5, 0.0)
    assert (found["teacher_forced"]["map"], found["teacher_forced"]["several"]["map"]) == (1.0, 1.0)
    low, high = found["routed"]["map/interval"]
    assert 0 <= low <= 0.5 <= high <= 1
    assert "several" not in score(records[1:], ("temporal",))["temporal"]["routed"]


def test_score_highlights_count_only_clips_that_lie_inside_as_a_whole() -> None:
    graded = {"windows_sec": WINDOWS, "saliency": GRADES}
    best, second = curve(0.9, 0.1, 0.2, 0.8), curve(0.1, 0.2, 0.9, 0.3)
    records = [happening(place, {"temporal": {"windows_sec": [], "saliency": each}}, **graded) for place, each in enumerate((best, second))]
    found = score(records, ("temporal",))["temporal"]["routed"]
    assert found["hl_hit@1"] == 0.5
    # the second ranks the clips wrong (grade 3), right, wrong, right: precision 1/2 at both levels
    assert found["hl_map"] == pytest.approx((1 + 1 / 2) / 2)
    assert (found["hl_count"], found["hl_missing_rate"], found["hl_no_positive_rate"]) == (2.0, 0.0, 0.0)
    assert len(found["hl_hit@1/interval"]) == len(found["hl_map/interval"]) == 2


def test_score_highlights_without_the_right_route_are_misses() -> None:
    good = {"windows_sec": WINDOWS, "saliency": curve(1.0, 0.0, 0.0, 1.0)}
    wrong = happening(0, {"region": {"boxes_xyxy": [[0, 0, 1, 1]]}}, forced=good, windows_sec=WINDOWS, saliency=GRADES)
    silent = happening(1, {}, forced=good, windows_sec=WINDOWS, saliency=GRADES)
    evaluation = Evaluation(score([wrong, silent, happening(2, {"temporal": good}, saliency=GRADES)], ("region", "temporal")))
    found = evaluation.scores["temporal"]
    assert (found["routed"]["hl_hit@1"], found["routed"]["hl_map"]) == pytest.approx((1 / 3, 1 / 3))
    assert found["routed"]["hl_missing_rate"] == pytest.approx(2 / 3)
    assert (found["teacher_forced"]["hl_hit@1"], found["teacher_forced"]["hl_map"]) == (1.0, 1.0)
    headline = evaluation.headline()
    assert (headline["HL HIT@1"], headline["HL mAP"], headline["MR mAP"]) == pytest.approx((1 / 3, 1 / 3, 0.0))


def test_score_saliency_alone_has_no_window_scores_and_the_reverse() -> None:
    alone = happening(0, {"temporal": {"windows_sec": WINDOWS, "saliency": curve(1, 0, 0, 1)}}, saliency=GRADES)
    assert not {"r1@0.5", "map"} & score([alone], ("temporal",))["temporal"]["routed"].keys()
    windows = replace(alone, target={"temporal": {"windows_sec": WINDOWS}})
    assert not {"hl_hit@1", "hl_map"} & score([windows], ("temporal",))["temporal"]["routed"].keys()


def test_score_highlights_where_all_grades_are_alike_do_not_depend_on_the_answer() -> None:
    for grade, expected in ((0.0, 0.0), (3.0, 0.0), (4.0, 1.0)):
        target = {"saliency": {"step_sec": 1.0, "scores": [grade] * 3}}
        for answer in (curve(0, 1, 0), curve(1, 1, 1)):
            found = score([happening(0, {"temporal": {"saliency": answer}}, **target)], ("temporal",))["temporal"]["routed"]
            assert (found["hl_hit@1"], found["hl_map"], found["hl_no_positive_rate"]) == (expected, expected, 1 - expected)


def test_score_qa_counts_only_answers_without_a_route() -> None:
    records = [record(0), record(1, text="Blue."), record(2, text="RED", kind="shape"), record(3, text="<region>", emitted=("region",))]
    scores = score(records, ("region",))
    assert scores["qa"]["accuracy"] == pytest.approx(2 / 4)
    assert scores["qa"]["accuracy/shape"] == 1.0
    assert scores["routing"]["false_route_rate"] == pytest.approx(1 / 4)


def test_score_keeps_conversation_and_questions_about_what_is_not_there_apart() -> None:
    absent = record(4, kind="absent", expected_text="It is not there.", text="It is not there.")
    lured = replace(absent, id="5", text="<region>", emitted=("region",))
    records = [record(0), record(1), record(2, text="blue"), record(3, text="<region>", emitted=("region",))]
    found = Evaluation(score([*records, absent, lured], ("region",))).headline()
    assert (found["QA accuracy"], found["absent accuracy"]) == (pytest.approx(2 / 4), pytest.approx(1 / 2))
    assert found["false-route rate (conversation)"] == pytest.approx(1 / 4)
    assert found["false-route rate (absent)"] == pytest.approx(1 / 2)
    assert found["false-route rate"] == pytest.approx(2 / 6)
    assert "absent accuracy" not in Evaluation(score(records, ("region",))).headline()


def asked_for(number: int, probability: float, *, there: bool, task: str = "temporal") -> Record:
    target = {"temporal": {"windows_sec": [[0.0, 1.0]]}} if there else {}
    kind = "blinks" if there else "absent"
    chances = {"region": 0.5, task: probability}
    return record(
        number, kind=kind, task=task, route_probability=chances, expected=("temporal",) if there else (), target=target, text="", emitted=()
    )


def test_score_absent_tells_what_happens_from_what_does_not_by_the_probability_of_the_route() -> None:
    there = [asked_for(place, chance, there=True) for place, chance in enumerate((0.9, 0.4, 0.8))]
    absent = [asked_for(place + 3, chance, there=False) for place, chance in enumerate((0.1, 0.4))]
    found = Evaluation(score([*there, *absent, record(9), asked_for(8, 0.99, there=False, task="region")], ("region", "temporal")))
    # six pairs, one of them equal; conversation and what the region head is asked for take no part
    assert found.scores["absent"]["auroc"] == found.headline()["absent AUROC"] == pytest.approx(5.5 / 6)
    assert (found.scores["absent"]["auroc_there_count"], found.scores["absent"]["auroc_absent_count"]) == (3.0, 2.0)
    low, high = found.scores["absent"]["auroc/interval"]
    assert 0.5 <= low <= 5.5 / 6 <= high <= 1
    assert found.scores["absent"]["count"] == 3.0


def test_score_absent_without_both_groups_or_without_probabilities_has_no_auroc() -> None:
    there, absent = asked_for(0, 0.9, there=True), asked_for(1, 0.1, there=False)
    assert "auroc" not in score([absent], ("temporal",))["absent"]
    assert "absent" not in score([there], ("temporal",))
    assert "auroc" not in score([there, replace(absent, route_probability={})], ("temporal",))["absent"]
    alone = score([there, absent], ("temporal",))["absent"]
    assert alone["auroc"] == 1.0 and "auroc/interval" not in alone


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [
        sample for index in range(2) for sample in samples_of(sample_scene(index, split="test"), ("conversation", "region", "temporal"))
    ]


def test_evaluate_scores_a_head_that_always_answers_the_whole_frame(samples: list[Sample]) -> None:
    model = build(heads=("region", "temporal"))
    head = model.head("region")
    with torch.no_grad():
        # a head that answers the whole frame, whatever it is asked
        for parameter in head.parameters():
            parameter.zero_()
        list(head.parameters())[-1].copy_(torch.tensor([0.0, 0.0, 1.0, 1.0]))
    found = evaluate(model, samples, max_tokens=3)
    region = found.scores["region"]["teacher_forced"]
    truth = [entry.target["region"] for entry in found.records if entry.target.get("region") and len(entry.target["region"]) == 1]
    areas = [(b[2] - b[0]) * (b[3] - b[1]) / 64**2 for b in (boxes[0]["xyxy"] for boxes in truth)]
    assert region["miou"] == pytest.approx(sum(areas) / len(areas), abs=1e-4)
    assert {entry.kind for entry in found.records}.isdisjoint({"caption"})
    assert {entry.task for entry in found.records} == {"conversation", "region", "temporal"}
    assert all(entry.route_probability.keys() == {"region", "temporal"} for entry in found.records)
    assert all(0 <= sum(entry.route_probability.values()) <= 1 for entry in found.records)
    assert all(not math.isnan(value) for value in found.headline().values())


SMALL = {"dim": 16, "heads": 2, "feedforward_dim": 20, "dummies": 6, "queries": 4, "prototypes": 3}


@pytest.mark.parametrize("spec", [{"head": "simple"}, {"head": "cg-detr", **SMALL}], ids=["simple", "cg-detr"])
def test_evaluate_scores_the_highlights_of_both_temporal_heads(samples: list[Sample], spec: dict[str, Any]) -> None:
    model = build(heads=[{"name": "temporal", **spec}])
    asked = [sample for sample in samples if sample.meta["task"] == "temporal"]
    found = evaluate(model, asked, max_tokens=1)
    graded = [entry for entry in found.records if entry.target]
    assert found.scores["temporal"]["teacher_forced"]["hl_count"] == len(graded) > 0
    assert found.scores["temporal"]["teacher_forced"]["hl_missing_rate"] == 0
    for entry in graded:
        times, scores = zip(*entry.forced["temporal"]["saliency"], strict=True)
        assert times == Frames(model.backbone).row([next(each for each in asked if each.id == entry.id)]).clip.times_sec
        assert all(0 < value < 1 for value in scores)
    # one frame in each of the world's clips of half a second: the curve is the scores per clip
    step = graded[0].target["temporal"]["saliency"]["step_sec"]
    assert [int(time / step) for time in times] == list(range(len(graded[0].target["temporal"]["saliency"]["scores"])))


def test_evaluate_blind_hides_the_video(samples: list[Sample]) -> None:
    model = build(heads=("region",))
    plain = [sample for sample in samples if sample.meta["task"] != "temporal"]
    first, second = (evaluate(model, plain, blind=True, max_tokens=2) for _ in range(2))
    assert [entry.text for entry in first.records] == [entry.text for entry in second.records]
    forced = [entry.forced for entry in first.records if entry.forced]
    seen = [entry.forced for entry in evaluate(model, plain, max_tokens=2).records if entry.forced]
    assert forced != seen


def test_evaluate_reports_progress_and_leaves_the_mode_as_it_was(samples: list[Sample]) -> None:
    model, calls = build(heads=("region", "temporal")).train(), []
    evaluate(model, samples, batch_size=7, max_tokens=1, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1] == len([s for s in samples if s.meta["kind"] != "caption"])
    assert len(calls) > 1
    assert model.training


def test_score_of_a_single_sample_has_no_interval() -> None:
    scores = score([grounding(0, [0.0, 0.0, 10.0, 20.0], forced=[0.0, 0.0, 10.0, 20.0])], ("region",))
    assert scores["region"]["routed"]["acc@0.5"] == 1.0
    assert "acc@0.5/interval" not in scores["region"]["routed"]


def test_evaluate_refuses_nothing_to_score(samples: list[Sample]) -> None:
    with pytest.raises(UsageError, match="samples: expected at least one, got 0"):
        evaluate(build(heads=()), [])
    captions = [sample for sample in samples if sample.meta["kind"] == "caption"]
    with pytest.raises(UsageError, match=f"no caption, got {len(captions)}"):
        evaluate(build(heads=()), captions)
