"""Routing metrics on a table worked out by hand, and the identities between the rates."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.metrics.routing import route_correct, routing_scores

EXPECTED = [(), (), (), ("region",), ("region",), ("region",), ("region",), ("mask", "temporal"), ("mask", "temporal"), ("temporal",)]
EMITTED = [
    (),
    ("region",),
    ("mask", "mask"),
    ("region",),
    (),
    ("mask",),
    ("region", "mask"),
    ("temporal", "mask"),
    ("mask",),
    ("temporal",),
]

routes = st.lists(st.sampled_from(["region", "mask", "temporal"]), max_size=3).map(tuple)
rows = st.lists(st.tuples(routes, routes), min_size=1, max_size=12)


def test_routing_scores_by_hand():
    scores = routing_scores(EXPECTED, EMITTED)
    assert route_correct(EXPECTED, EMITTED).tolist() == [True, False, False, True, False, False, False, True, False, True]
    assert scores.accuracy == pytest.approx(4 / 10)
    assert scores.task_accuracy == pytest.approx({"mask": 1 / 2, "region": 1 / 4, "temporal": 2 / 3})
    assert scores.task_count == {"mask": 2, "region": 4, "temporal": 3}
    assert scores.false_route_rate == pytest.approx(2 / 3)
    assert scores.missed_route_rate == pytest.approx(1 / 7)
    assert scores.wrong_route_rate == pytest.approx(3 / 7)
    assert scores.multi_emit_rate == pytest.approx(2 / 10)
    assert scores.count == 10


def test_routing_confusion_by_hand():
    scores = routing_scores(EXPECTED, EMITTED)
    assert scores.labels == ("none", "mask", "region", "temporal", "mask+mask", "mask+region", "mask+temporal")
    none, mask, region, temporal, mask_mask, mask_region, both = range(7)
    expected = np.zeros((7, 7), dtype=int)
    for row, column in [(none, none), (none, region), (none, mask_mask), (temporal, temporal)]:
        expected[row, column] = 1
    expected[region, [region, none, mask, mask_region]] = 1
    expected[both, [both, mask]] = 1
    np.testing.assert_array_equal(scores.confusion, expected)


def test_routing_scores_show_named_tasks_that_no_sample_has():
    scores = routing_scores([()], [("region",)], tasks=("track", "region"))
    assert scores.labels == ("none", "region", "track")
    assert scores.confusion.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_routing_rates_without_a_sample_are_none_and_left_out_of_the_dict():
    plain, task = routing_scores([()], [()]), routing_scores([("mask",)], [("mask",)])
    assert (plain.false_route_rate, plain.missed_route_rate, plain.wrong_route_rate) == (0.0, None, None)
    assert task.false_route_rate is None
    assert "missed_route_rate" not in plain.as_dict()
    assert "false_route_rate" not in task.as_dict()


def test_routing_as_dict_is_json_with_every_number():
    record = json.loads(json.dumps(routing_scores(EXPECTED, EMITTED).as_dict()))
    assert record["accuracy/region"] == 0.25
    assert record["count/region"] == 4.0
    assert record["count"] == 10.0
    assert record["labels"][0] == "none"
    assert sum(map(sum, record["confusion"])) == 10


@given(rows=rows, random=st.randoms())
@settings(max_examples=50, deadline=None)
def test_routing_identities(rows, random):
    scores, again = (routing_scores(*map(list, zip(*order, strict=True))) for order in (rows, random.sample(rows, len(rows))))
    assert scores.as_dict() == again.as_dict()
    assert scores.confusion.trace() == pytest.approx(scores.accuracy * scores.count)
    task_rows = [(wanted, given) for wanted, given in rows if wanted]
    if task_rows:
        right = routing_scores(*map(list, zip(*task_rows, strict=True))).accuracy
        assert right + scores.missed_route_rate + scores.wrong_route_rate == pytest.approx(1.0)


@given(rows=st.lists(routes, min_size=1, max_size=8))
def test_routing_of_the_expected_routes_in_another_order_is_perfect(rows):
    scores = routing_scores(rows, [tuple(reversed(row)) for row in rows])
    assert scores.accuracy == 1.0
    assert not scores.false_route_rate and not scores.missed_route_rate and not scores.wrong_route_rate
    assert scores.multi_emit_rate == 0.0


def test_routing_refuses_what_cannot_be_scored():
    with pytest.raises(UsageError, match=r"emitted: .*\(expected: 2\), got 1"):
        routing_scores([(), ()], [()])
    with pytest.raises(UsageError, match=r"\(expected: 0\), got 0"):
        route_correct([], [])
    with pytest.raises(UsageError, match=r"\(\) for plain conversation, got 'none'"):
        routing_scores([("none",)], [()])
    with pytest.raises(UsageError, match=r"without '\+'.* got 'mask\+track'"):
        routing_scores([()], [()], tasks=("mask+track",))
    with pytest.raises(UsageError, match=r"a tuple of tasks per sample, got 'region'"):
        routing_scores(["region"], [("region",)])
