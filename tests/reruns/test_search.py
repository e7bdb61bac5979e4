"""Random and Optuna searches: the same points for the same seed, inside their bounds, and a study that goes on where it stopped."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_lab.errors import MissingExtraError, TPOError, UsageError
from tpo_lab.reruns.plan import points
from tpo_lab.reruns.plan.planner import Planner
from tpo_lab.reruns.plan.space import Axis, draws
from tpo_lab.reruns.plan.sweep import Range, Sweep
from tpo_lab.reruns.running.study import Study, value_of

Write = Callable[..., Path]


def drawn(space: dict[str, Axis], count: int, seed: int = 0) -> list[dict]:
    return list(islice(draws(space, seed), count))


class TestAxis:
    def test_shares_by_hand(self):
        assert [Axis(["a", "b", "c"]).at(share) for share in (0.0, 0.34, 0.99)] == ["a", "b", "c"]
        assert [Axis(None, Range(low=2, high=4)).at(share) for share in (0.0, 0.25, 0.5)] == [2.0, 2.5, 3.0]
        assert Axis(None, Range(low=1e-4, high=1, log=True)).at(0.5) == 0.01
        whole = Axis(None, Range(low=1, high=3), whole=True)
        assert [whole.at(share) for share in (0.0, 0.32, 0.34, 0.66, 0.68, 0.9999)] == [1, 1, 2, 2, 3, 3]

    def test_whole_numbers_are_even_and_reach_both_ends(self):
        axis = Axis(None, Range(low=-2, high=3), whole=True)
        found = Counter(point["a"] for point in drawn({"a": axis}, 6000))
        assert sorted(found) == [-2, -1, 0, 1, 2, 3] and axis.size == 6
        assert all(abs(count - 1000) < 150 for count in found.values())  # five standard deviations

    def test_a_logarithmic_range_has_as_many_in_each_decade(self):
        space = {"a": Axis(None, Range(low=1e-4, high=1, log=True)), "n": Axis(None, Range(low=1, high=999, log=True), whole=True)}
        points = drawn(space, 4000)
        decades = Counter(math.floor(math.log10(point["a"])) for point in points)
        assert {decade for decade in decades if decades[decade] > 3} == {-4, -3, -2, -1}
        assert all(abs(decades[decade] - 1000) < 150 for decade in (-4, -3, -2, -1))
        assert {type(point["n"]) for point in points} == {int} and min(point["n"] for point in points) == 1
        # log10(99.5 / 9.5) of log10(999.5 / 0.5)
        share = math.log(99.5 / 9.5) / math.log(999.5 / 0.5)
        assert abs(sum(10 <= point["n"] <= 99 for point in points) / 4000 - share) < 0.04

    @given(
        low=st.floats(-1e6, 1e6), span=st.floats(1e-6, 1e6), share=st.floats(0, 1, exclude_max=True), log=st.booleans(), whole=st.booleans()
    )
    def test_no_value_leaves_its_bounds(self, low: float, span: float, share: float, log: bool, whole: bool):
        low = abs(low) + 1.0 if log else low
        bounds = (math.floor(low), math.floor(low) + math.ceil(span)) if whole else (low, low + span)
        value = Axis(None, Range(low=bounds[0], high=bounds[1], log=log), whole=whole).at(share)
        assert bounds[0] <= value <= bounds[1] and isinstance(value, int if whole else float)

    def test_a_narrow_range_keeps_all_its_digits(self):
        found = {point["a"] for point in drawn({"a": Axis(None, Range(low=1, high=1.000001))}, 100)}
        assert len(found) == 100


PINNED = [
    {"steps": 44, "rate": 0.107332, "mode": "a"},
    {"steps": 7, "rate": 0.102788, "mode": "a"},
    {"steps": 11, "rate": 0.434011, "mode": "b"},
]
"""Computed by another program."""


class TestRandom:
    SPACE = ("steps: {low: 4, high: 64, log: true}", "rate: {low: 0.1, high: 1.0}", "mode: [a, b]")

    @pytest.fixture
    def points(self, write_notebook: Write, write_sweep: Write) -> Callable[..., list[dict]]:
        write_notebook("n.ipynb", declared='out: str = ""\nsteps: int = 1\nrate: float = 1.0\nmode: str = "a"\nlevel: int = 1')

        def made(*over: str, points: int = 12, seed: int = 3) -> list[dict]:
            text = f"notebook: n.ipynb\nrandom: {{points: {points}, seed: {seed}, over: {{{', '.join(over)}}}}}"
            return [job.point for job in Planner(Sweep.read(write_sweep(text))).jobs()]

        return made

    def test_points_are_the_same_today_and_in_a_year(self, points: Callable[..., list[dict]]):
        assert points(*self.SPACE, points=3) == PINNED

    def test_neither_the_order_of_names_nor_another_name_changes_a_value(self, points: Callable[..., list[dict]]):
        found = points(*self.SPACE)
        assert points(*reversed(self.SPACE)) == found
        wider = points(*self.SPACE, "level: {low: 1, high: 9}")
        assert [{name: point[name] for name in found[0]} for point in wider] == found

    def test_more_points_begin_with_the_fewer(self, points: Callable[..., list[dict]]):
        assert points(*self.SPACE, points=20)[:12] == points(*self.SPACE)

    def test_another_seed_gives_other_points(self, points: Callable[..., list[dict]]):
        assert points(*self.SPACE, seed=4) != points(*self.SPACE)

    def test_points_are_different_even_where_all_of_them_are_asked(self, points: Callable[..., list[dict]]):
        found = points("steps: {low: 1, high: 5}", "mode: [a, b]", points=10)
        assert {(point["steps"], point["mode"]) for point in found} == {(n, m) for n in range(1, 6) for m in "ab"}


RECORD = {"headline": {"region_acc": 0.5, "wrong": "x", "yes": True, "none": float("nan")}}


class TestValue:
    def test_a_dotted_field_is_read(self):
        assert value_of(RECORD, "headline.region_acc") == 0.5

    def test_names_may_have_dots_of_their_own(self):
        record = {"headline": {"REC Acc@0.5": 0.25, "REC Acc@0": {"5": 1.0, "7": 0.5}}}
        assert value_of(record, "headline.REC Acc@0.5") == 0.25
        assert value_of(record, "headline.REC Acc@0.7") == 0.5
        with pytest.raises(TPOError, match=r"headline: expected one of REC Acc@0, REC Acc@0\.5, got 'REC Acc@1\.5'"):
            value_of(record, "headline.REC Acc@1.5")

    @pytest.mark.parametrize(
        ("field", "sentence"),
        [
            ("headline.region_ac", "Did you mean 'region_acc'"),
            ("headlin.region_acc", "Did you mean 'headline'"),
            ("headline.region_acc.deeper", "got 'deeper'"),
            ("headline", "expected a finite number"),
            ("headline.wrong", "expected a finite number, got 'x'"),
            ("headline.yes", "expected a finite number, got True"),
            ("headline.none", "expected a finite number, got nan"),
        ],
    )
    def test_what_is_no_number_there_is_said(self, field: str, sentence: str):
        with pytest.raises(TPOError, match=sentence):
            value_of(RECORD, field)


@pytest.fixture
def sweep(write_notebook: Write, write_sweep: Write) -> Callable[..., Sweep]:
    pytest.importorskip("optuna", reason="optuna is not installed")
    write_notebook("n.ipynb", declared='out: str = ""\nsteps: int = 1\nrate: float = 1.0\nmode: str = "a"')

    def made(over: str = "rate: {low: 1e-3, high: 1, log: true}, steps: {low: 2, high: 9}, mode: [a, b]", trials: int = 16) -> Sweep:
        how = f"{{trials: {trials}, seed: 5, metric: headline.x, direction: maximize, over: {{{over}}}}}"
        return Sweep.read(write_sweep(f"notebook: n.ipynb\noptuna: {how}"))

    return made


def score(point: dict) -> float:
    return -abs(math.log10(point["rate"]) + 2) + (point.get("mode") == "b") - 0.1 * abs(point.get("steps", 4) - 4)


def searched(study: Study, count: int = 10_000) -> list[dict]:
    """Asks and tells so many points, or all."""
    found = []
    while len(found) < count and (point := study.ask()) is not None:
        found.append(point)
        study.tell(point, score(point))
    return found


class TestStudy:
    def test_every_point_fits_the_space_and_the_best_is_found_again(self, sweep: Callable[..., Sweep]):
        study = Study(sweep())
        found = searched(study)
        assert 14 <= len(found) <= 16 and study.ask() is None
        for point in found:
            assert 1e-3 <= point["rate"] <= 1 and point["steps"] in range(2, 10) and point["mode"] in ("a", "b")
        best = max(found, key=score)
        assert study.best() == (best, score(best))

    def test_it_learns_from_what_it_was_told(self, sweep: Callable[..., Sweep]):
        found = searched(Study(sweep(trials=40)))
        late, early = found[-10:], found[:10]
        assert sum(map(score, late)) > sum(map(score, early))

    def test_the_same_seed_gives_the_same_points(self, sweep: Callable[..., Sweep]):
        assert searched(Study(sweep())) == searched(Study(sweep()))

    @pytest.mark.parametrize("stopped", [1, 7, 12, 15])
    def test_a_stopped_search_goes_on_as_if_it_had_not_been(self, sweep: Callable[..., Sweep], tmp_path: Path, stopped: int):
        whole = searched(Study(sweep()))
        journal = tmp_path / "new" / "study.jsonl"
        assert searched(Study(sweep(), journal), stopped) == whole[:stopped]
        # the same points come again first: the caller tells from the finished runs what they gave
        assert searched(Study(sweep(), journal)) == whole

    def test_a_point_that_was_running_at_the_stop_comes_again(self, sweep: Callable[..., Sweep], tmp_path: Path):
        journal = tmp_path / "study.jsonl"
        study = Study(sweep(), journal)
        told, running = study.ask(), study.ask()
        assert told is not None
        study.tell(told, 1.0)
        again = Study(sweep(), journal)
        assert [again.ask(), again.ask()] == [told, running]
        assert again.ask() not in (told, running, None)

    def test_a_line_that_was_cut_off_costs_that_point_only(self, sweep: Callable[..., Sweep], tmp_path: Path):
        journal = tmp_path / "study.jsonl"
        found = searched(Study(sweep(), journal), 3)
        journal.write_text(journal.read_text()[:-10])
        study = Study(sweep(), journal)
        assert searched(study, 3) == found
        assert len([json.loads(line) for line in journal.read_text().splitlines()]) == 4

    def test_another_space_begins_anew_and_more_trials_go_on(self, sweep: Callable[..., Sweep], tmp_path: Path):
        journal = tmp_path / "study.jsonl"
        found = searched(Study(sweep(), journal))
        assert searched(Study(sweep(trials=20), journal))[: len(found)] == found
        narrow = searched(Study(sweep("rate: {low: 0.5, high: 1}"), journal))
        assert all(set(point) == {"rate"} and point["rate"] >= 0.5 for point in narrow) and len(narrow) == 16

    def test_a_small_space_ends_without_giving_a_point_twice(self, sweep: Callable[..., Sweep]):
        study = Study(sweep("mode: [a, b], steps: {low: 1, high: 2}"))
        found = []
        while (point := study.ask()) is not None:
            found.append((point["mode"], point["steps"]))
            study.tell(point, 1.0)
        assert len(found) == len(set(found)) <= 4

    def test_points_that_run_at_once_are_different(self, sweep: Callable[..., Sweep]):
        study = Study(sweep("mode: [a, b]", trials=6))
        first = study.ask()
        second = study.ask()
        assert {str(first), str(second)} == {"{'mode': 'a'}", "{'mode': 'b'}"} and study.ask() is None
        study.tell({"mode": "a"}, 1.0)
        study.tell({"mode": "b"}, None)
        assert study.best() == ({"mode": "a"}, 1.0)

    def test_failed_points_do_not_count(self, sweep: Callable[..., Sweep]):
        study = Study(sweep())
        for _ in range(5):
            point = study.ask()
            assert point is not None
            study.tell(point, float("nan"))
        assert study.best() is None and study.ask() is not None

    def test_a_point_that_was_not_asked_is_refused(self, sweep: Callable[..., Sweep]):
        with pytest.raises(UsageError, match=r"point: expected one that `ask` gave, got {'rate': 0.5}"):
            Study(sweep()).tell({"rate": 0.5}, 1.0)

    def test_told_twice_the_first_counts(self, sweep: Callable[..., Sweep]):
        study = Study(sweep())
        point = study.ask()
        assert point is not None
        study.tell(point, 1.0)
        study.tell(point, 2.0)
        assert study.best() == (point, 1.0)


def test_without_optuna_the_extra_is_named(sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch):
    made = sweep()
    monkeypatch.setattr(points, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'optuna'.*pip install 'tpo-lab\[optuna\]'"):
        Study(made)
    with pytest.raises(MissingExtraError, match="A search with Optuna"):
        Planner(made).jobs()
