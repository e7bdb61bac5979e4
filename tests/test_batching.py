from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.batching import BatchPlan, Visit, pack_by_media
from tpo_lab.errors import UsageError
from tpo_lab.recipes import recipe


@dataclass(frozen=True)
class Clip:
    path: str
    start_sec: float = 0.0


@dataclass(frozen=True)
class Question:
    media: Clip
    root: str = "a"

    @property
    def media_path(self) -> Path:
        return Path(self.root) / self.media.path


def questions(names: str) -> list[Question]:
    return [Question(Clip(name)) for name in names]


NAMES = st.text("abcd", min_size=1, max_size=40)
SIZES = st.dictionaries(st.sampled_from(["region", "temporal", "mask", "conversation"]), st.integers(1, 9), min_size=1)


@st.composite
def plans(draw: st.DrawFn) -> BatchPlan:
    rows = draw(SIZES)
    weights = {task: draw(st.sampled_from([0.1, 0.3, 1, 2.5, 7, 40])) for task in rows}
    mode = draw(st.sampled_from(["homogeneous", "mixed"]))
    return BatchPlan(rows, weights, draw(st.integers(1, 12)), mode, draw(st.integers(0, 99)))


@given(NAMES, st.integers(1, 5), st.integers(0, 9), st.integers(0, 9))
def test_pack_puts_every_sample_in_one_row_of_its_clip(names: str, most: int, seed: int, epoch: int) -> None:
    rows = pack_by_media(questions(names), most, seed=seed, epoch=epoch)
    assert sorted(index for row in rows for index in row) == list(range(len(names)))
    for row in rows:
        assert 1 <= len(row) <= most
        assert len({names[index] for index in row}) == 1
    assert len(rows) == sum(-(-n // most) for n in Counter(names).values())
    for name in set(names):
        lengths = [len(row) for row in rows if names[row[0]] == name]
        assert max(lengths) - min(lengths) <= 1


@given(NAMES, st.integers(1, 5), st.integers(0, 9))
def test_pack_is_a_function_of_seed_and_epoch_and_keeps_each_rows_clip(names: str, most: int, seed: int) -> None:
    first, again, later = (pack_by_media(questions(names), most, seed=seed, epoch=epoch) for epoch in (0, 0, 1))
    assert first == again
    assert [names[row[0]] for row in first] == [names[row[0]] for row in later]


def test_pack_is_drawn_anew_each_epoch_and_for_each_seed() -> None:
    draws = [pack_by_media(questions("a" * 12), 4, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(rows) for rows in draws}) == 3


def test_pack_keeps_clips_apart_that_differ_in_time_or_folder() -> None:
    samples = [Question(Clip("a")), Question(Clip("a", 2.0)), Question(Clip("a"), root="b"), Question(Clip("a"))]
    assert [set(row) for row in pack_by_media(samples, 9)] == [{0, 3}, {1}, {2}]


def test_pack_of_nothing_is_nothing_and_refuses_rows_of_nothing() -> None:
    assert pack_by_media([], 2) == []
    with pytest.raises(UsageError, match="max_questions: expected at least 1, got 0"):
        pack_by_media(questions("a"), 0)


@settings(max_examples=60)
@given(plans(), st.lists(st.integers(0, 200), min_size=1, max_size=5))
def test_batch_is_the_same_for_a_fresh_plan_asked_in_any_order(plan: BatchPlan, steps: list[int]) -> None:
    run = [plan.batch(step) for step in range(max(steps) + 1)]
    fresh = BatchPlan(dict(reversed(plan.rows.items())), dict(reversed(plan.weights.items())), plan.batch_size, plan.mode, plan.seed)
    assert [fresh.batch(step) for step in steps] == [run[step] for step in steps]
    assert all(len(batch) == plan.batch_size for batch in run)


@settings(max_examples=60)
@given(plans(), st.integers(1, 60))
def test_every_row_of_a_task_comes_once_in_each_of_its_epochs(plan: BatchPlan, steps: int) -> None:
    seen = [visit for step in range(steps) for visit in plan.batch(step)]
    assert len(set(seen)) == len(seen)
    for task, size in plan.rows.items():
        visits = [visit for visit in seen if visit.task == task]
        assert [visit.epoch for visit in visits] == [number // size for number in range(len(visits))]
        for epoch in range(len(visits) // size):
            assert sorted(visit.row for visit in visits if visit.epoch == epoch) == list(range(size))


@settings(max_examples=60)
@given(plans(), st.integers(0, 120), st.integers(1, 120))
def test_every_task_has_its_share_of_every_window(plan: BatchPlan, start: int, length: int) -> None:
    if plan.mode == "homogeneous":
        drawn = [plan.batch(step)[0].task for step in range(start + length)]
        assert all(len({visit.task for visit in plan.batch(step)}) == 1 for step in range(start, start + length))
    else:
        drawn = [visit.task for step in range((start + length) // plan.batch_size + 1) for visit in plan.batch(step)][: start + length]
    exact = {task: Fraction(str(weight)) for task, weight in plan.weights.items()}
    counted, window = Counter(drawn), Counter(drawn[start:])
    for task, weight in exact.items():
        share = weight / sum(exact.values())
        assert abs(counted[task] - share * (start + length)) < 1
        assert abs(window[task] - share * length) < 2


def test_mixed_batch_holds_all_tasks_in_proportion() -> None:
    plan = BatchPlan({"region": 50, "temporal": 40, "mask": 30}, {"region": 4, "temporal": 3, "mask": 1}, 8, "mixed", seed=3)
    for step in range(20):
        assert Counter(visit.task for visit in plan.batch(step)) == {"region": 4, "temporal": 3, "mask": 1}


def test_one_batch_by_hand() -> None:
    plan = BatchPlan({"region": 3}, {"region": 9.0}, 4)
    first, second = plan.batch(0), plan.batch(1)
    assert sorted(visit.row for visit in first[:3]) == [0, 1, 2]
    assert [visit.epoch for visit in first + second] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert first[0] == Visit("region", first[0].row, 0)


def test_seed_changes_the_order_and_epochs_differ() -> None:
    plans = [BatchPlan({"region": 20}, {"region": 1}, 20, seed=seed) for seed in (0, 1)]
    orders = [[visit.row for visit in plan.batch(step)] for plan in plans for step in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_tasks_with_equally_many_rows_are_visited_in_orders_of_their_own() -> None:
    plan = BatchPlan({"region": 20, "mask": 20}, {"region": 1, "mask": 1}, 20)
    first, second = plan.batch(0), plan.batch(1)
    assert first[0].task != second[0].task
    assert [visit.row for visit in first] != [visit.row for visit in second]


@given(plans(), st.integers(0, 30))
def test_ranks_share_the_batch_as_equally_as_it_can_be_cut(plan: BatchPlan, step: int) -> None:
    for world in range(1, plan.batch_size + 3):
        slices = [plan.rank_slice(step, rank, world) for rank in range(world)]
        assert {len(part) for part in slices} <= {plan.batch_size // world, -(-plan.batch_size // world)}
        assert [visit for part in slices for visit in part] == plan.batch(step)


def test_steps_per_epoch_visits_each_row_once_where_weights_follow_sizes() -> None:
    plan = BatchPlan({"region": 12, "temporal": 6, "mask": 99}, {"region": 2, "temporal": 1}, 3, "mixed")
    assert plan.steps_per_epoch == 6
    seen = [visit for step in range(6) for visit in plan.batch(step)]
    assert sorted(seen) == [Visit("region", row, 0) for row in range(12)] + [Visit("temporal", row, 0) for row in range(6)]
    assert BatchPlan({"region": 7}, {"region": 1}, 3).steps_per_epoch == 3


def test_plan_of_a_stage_takes_its_data_batch_and_mode() -> None:
    (stage,) = recipe("paper").replace(**{"3b.batching": "mixed", "3b.batch_size": 36}).stage("3b")
    plan = BatchPlan.of(stage, {"region": 400, "temporal": 8, "mask": 117, "conversation": 3040}, seed=5)
    assert (plan.mode, plan.batch_size, plan.seed) == ("mixed", 36, 5)
    tasks = Counter(visit.task for step in range(198) for visit in plan.batch(step))
    assert tasks == {"temporal": 15, "mask": 233, "region": 800, "conversation": 6080}


def test_far_steps_need_no_walk_through_the_run() -> None:
    plan = BatchPlan({"region": 5, "temporal": 7}, {"region": 2, "temporal": 3}, 4, "mixed", seed=1)
    visits = plan.batch(10**12)
    assert {visit.epoch for visit in visits if visit.task == "region"} <= {10**12 * 4 * 2 // 5 // 5 + extra for extra in (0, 1)}


def test_plan_survives_pickling_after_use() -> None:
    plan = BatchPlan({"region": 5, "temporal": 7}, {"region": 2, "temporal": 3}, 4, "mixed", seed=1)
    plan.batch(9)
    copy = pickle.loads(pickle.dumps(plan))
    assert copy == plan
    assert copy.batch(30) == plan.batch(30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"region": 1, "mask": 1}}, r"rows\['mask'\]: .*got 0\. The data has region, temporal"),
        ({"weights": {"region": 0}}, r"weights\['region'\]: expected a positive number, got 0"),
        ({"weights": {"region": float("nan")}}, "got nan"),
        ({"weights": {}}, "weights: expected at least one task"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"mode": "random"}, "mode: expected one of homogeneous, mixed, got 'random'"),
    ],
)
def test_plan_refuses_what_cannot_make_batches(changes: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"rows": {"region": 3, "temporal": 2}, "weights": {"region": 1}, "batch_size": 6}
    with pytest.raises(UsageError, match=message):
        BatchPlan(**{**good, **changes})  # type: ignore[arg-type]


def test_plan_refuses_no_processes_unknown_ranks_and_negative_steps() -> None:
    plan = BatchPlan({"region": 3}, {"region": 1}, 6)
    with pytest.raises(UsageError, match=r"world: expected at least 1 process, got 0"):
        plan.rank_slice(0, 0, 0)
    with pytest.raises(UsageError, match="rank: expected 0 to 1, got 2"):
        plan.rank_slice(0, 2, 2)
    with pytest.raises(UsageError, match="step: expected 0 or more, got -1"):
        plan.batch(-1)
