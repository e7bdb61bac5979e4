"""Runs as rows, failed ones too; points over their seeds, against a baseline; wrong names."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from tests.reruns.written import FAILURE, Wrote, scored, sweep_folder
from tpo_lab.errors import MissingExtraError, UsageError
from tpo_lab.reruns.display import formats
from tpo_lab.reruns.display.cells import rows_of
from tpo_lab.reruns.display.formats import write_parquet
from tpo_lab.reruns.results import table
from tpo_lab.reruns.results.collected import find_run, runs_in
from tpo_lab.reruns.results.grouped import grouped_table
from tpo_lab.reruns.results.groups import has_seeds
from tpo_lab.reruns.results.statistics import BOOTSTRAP, STUDENT_T
from tpo_lab.reruns.results.table import chosen_metrics, run_table

SMALL, LARGE = {"steps": 4, "mode": "a"}, {"steps": 8, "mode": "a"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two points over three seeds: one run failed, one waits, one was done without the figure."""
    runs = [
        *(scored(SMALL, seed, accuracy) for seed, accuracy in enumerate([0.5, 0.75, 0.25])),
        scored(LARGE, 0, 0.75),
        Wrote(LARGE, 1, error=FAILURE),
        scored(LARGE, 2, 0.75),
        Wrote({"steps": 16, "mode": "a"}, 0),
        scored({"steps": 16, "mode": "a"}, 1, None),
        scored({"steps": 16, "mode": "a"}, 2, math.nan),
    ]
    return sweep_folder(tmp_path / "sweep", runs, baseline={"steps": 4})


def rows(frame: pd.DataFrame, **values: object) -> list[dict[str, object]]:
    return [row for row in rows_of(frame) if values.items() <= row.items()]


def test_every_run_is_a_row_with_what_was_asked_and_what_came(folder: Path):
    runs = runs_in(folder)
    frame = run_table(runs, chosen_metrics(runs))
    assert len(frame) == 9
    assert list(frame.columns[:6]) == ["key", "run", "link", "steps", "mode", "seed"]
    first = next(rows_of(frame))
    assert Path(str(first.pop("executed"))).samefile(folder / "jobs" / runs[0].job.key / "executed.ipynb")
    assert first == {
        "key": runs[0].job.key,
        "run": "head steps=4 mode=a seed=0",
        "link": "head",
        "steps": 4,
        "mode": "a",
        "seed": 0,
        "state": "done",
        "acc": 0.5,
        "seconds": 12.5,
        "peak_memory_mb": 321.0,
        "attempts": 1,
        "error_cell": None,
        "error_type": None,
        "error_message": None,
    }


def test_a_failure_is_a_row_and_leaves_the_others_alone(folder: Path):
    frame = run_table(runs_in(folder), ["headline.acc"])
    (failed,) = rows(frame, state="failed")
    assert (failed["steps"], failed["seed"], failed["acc"]) == (8, 1, None)
    assert (failed["error_cell"], failed["error_type"], failed["error_message"]) == (7, "ValueError", FAILURE["message"])
    assert failed["seconds"] == 12.5, "of its last attempt"
    (waiting,) = rows(frame, state="waiting")
    assert (waiting["attempts"], waiting["executed"], waiting["seconds"]) == (0, None, None)
    assert [row["acc"] for row in rows(frame, state="done")] == [0.5, 0.75, 0.25, 0.75, 0.75, None, None]


def test_whole_numbers_stay_whole_beside_missing_ones(folder: Path):
    frame = run_table(runs_in(folder), ["headline.acc"])
    assert str(frame["seed"].dtype) == str(frame["error_cell"].dtype) == "Int64"


def test_metrics_are_the_headline_or_what_is_asked_for(folder: Path):
    runs = runs_in(folder)
    assert chosen_metrics(runs) == ["headline.acc"]
    assert chosen_metrics(runs, ["acc"]) == ["headline.acc"]
    assert chosen_metrics(runs, ["after"]) == ["after.region.iou", "after.kind"]
    assert chosen_metrics(runs, ["after.region.iou", "headline"]) == ["after.region.iou", "headline.acc"]
    with pytest.raises(UsageError, match=r"--metric: expected a field of a result record, got 'after.region.iuo'. .*after.region.iou"):
        chosen_metrics(runs, ["after.region.iuo"])


def test_metrics_are_taken_as_they_are_while_no_run_is_done(tmp_path: Path):
    runs = runs_in(sweep_folder(tmp_path / "s", [Wrote(SMALL, 0)]))
    assert chosen_metrics(runs) == [] and chosen_metrics(runs, ["later.on"]) == ["later.on"]
    assert next(rows_of(run_table(runs, ["later.on"])))["later.on"] is None


def test_columns_of_one_name_do_not_meet(tmp_path: Path):
    run = Wrote({"state": "on", "acc": 3}, 0, {"headline": {"acc": 0.5, "seconds": 7.0}})
    runs = runs_in(sweep_folder(tmp_path / "s", [run]))
    frame = run_table(runs, chosen_metrics(runs))
    assert frame.columns.is_unique
    (row,) = rows_of(frame)
    assert (row["parameter.state"], row["state"]) == ("on", "done")
    assert (row["acc"], row["result.headline.acc"]) == (3, 0.5)
    assert (row["headline.seconds"], row["seconds"]) == (7.0, 12.5)


def test_groups_count_what_is_missing_and_why(folder: Path):
    found = grouped_table(runs_in(folder), ["headline.acc"])
    counted = [(row["steps"], row["n"], row["of"], row["missing"]) for row in rows_of(found.frame)]
    assert counted == [(4, 3, 3, ""), (8, 2, 3, "1 failed"), (16, 0, 3, "1 waiting, 2 no value")]
    assert "difference" not in found.frame.columns


def test_groups_have_mean_error_and_interval(folder: Path):
    found = grouped_table(runs_in(folder), ["headline.acc"])
    small, large, none = rows_of(found.frame)
    assert found.method == STUDENT_T
    # deviations 0, 1/4, -1/4: variance 1/16, standard error 1/4 over the root of 3; t(0.975, 2) = 4.302653
    assert (small["mean"], small["standard_error"]) == pytest.approx((0.5, 0.25 / math.sqrt(3)))
    assert (small["low"], small["high"]) == pytest.approx((0.5 - 4.302653 * 0.25 / math.sqrt(3), 0.5 + 4.302653 * 0.25 / math.sqrt(3)))
    assert (large["mean"], large["standard_error"], large["low"], large["high"]) == (0.75, 0.0, 0.75, 0.75)
    assert (none["mean"], none["standard_error"], none["low"]) == (None, None, None)


def test_difference_is_over_the_seeds_that_both_have(folder: Path):
    found = grouped_table(runs_in(folder), ["headline.acc"], {"steps": 4})
    own, large, none = rows_of(found.frame)
    assert (own["difference"], own["pairs"]) == (None, 0)
    # seeds 0 and 2: 0.75 - 0.5 and 0.75 - 0.25; t(0.975, 1) = 12.7062, standard error 0.125
    assert (large["pairs"], large["difference"]) == (2, pytest.approx(0.375))
    assert large["difference_low"] == pytest.approx(0.375 - 12.7062 * 0.125, abs=1e-4)
    assert large["difference_high"] == pytest.approx(0.375 + 12.7062 * 0.125, abs=1e-4)
    assert (none["difference"], none["pairs"]) == (None, 0)


def test_five_seeds_are_resampled(tmp_path: Path):
    runs = [scored({"steps": steps}, seed, 0.1 * steps * seed) for steps in (1, 2) for seed in range(5)]
    found = grouped_table(runs_in(sweep_folder(tmp_path / "s", runs)), ["headline.acc"], {"steps": 1})
    one, two = rows_of(found.frame)
    assert found.method == BOOTSTRAP
    # 0.1 x seed against 0.2 x seed: the difference of every seed is the value at one step
    assert (two["difference"], two["difference_low"], two["difference_high"]) == pytest.approx((one["mean"], one["low"], one["high"]))


@pytest.mark.parametrize(
    ("baseline", "differences"),
    [
        # the same mode is compared where only the steps are named
        ({"steps": 1}, {(1, "a"): None, (1, "b"): None, (2, "a"): 1.0, (2, "b"): 1.0}),
        ({"steps": 1, "mode": "b"}, {(1, "a"): -10.0, (1, "b"): None, (2, "a"): -9.0, (2, "b"): 1.0}),
    ],
)
def test_baseline_of_part_of_a_grid(tmp_path: Path, baseline: dict[str, object], differences: dict[tuple[int, str], float | None]):
    runs = [
        scored({"steps": steps, "mode": mode}, seed, steps + 10 * (mode == "b"))
        for steps in (1, 2)
        for mode in ("a", "b")
        for seed in (0, 1)
    ]
    found = grouped_table(runs_in(sweep_folder(tmp_path / "s", runs)), ["headline.acc"], baseline)
    assert {(row["steps"], row["mode"]): row["difference"] for row in rows_of(found.frame)} == differences


def test_baseline_in_a_list_of_unlike_points(tmp_path: Path):
    runs = [scored({"steps": 1}, 0, 1.0), scored({"steps": 1, "mode": "a"}, 0, 3.0), scored({"steps": 2, "rate": 0.5}, 0, 7.0)]
    found = grouped_table(runs_in(sweep_folder(tmp_path / "s", runs)), ["headline.acc"], {"steps": 1})
    assert [row["difference"] for row in rows_of(found.frame)] == [None, 2.0, 6.0]


def test_baseline_written_as_yaml_leaves_it(tmp_path: Path):
    runs = [scored({"rate": rate}, 0, rate) for rate in (0.001, 0.5)]
    found = grouped_table(runs_in(sweep_folder(tmp_path / "s", runs)), ["headline.acc"], {"rate": "1e-3"})
    assert [row["difference"] for row in rows_of(found.frame)] == [None, pytest.approx(0.499)]


@pytest.mark.parametrize("baseline", [{"steps": 5}, {"step": 4}])
def test_baseline_that_is_no_point_is_refused(folder: Path, baseline: dict[str, object]):
    with pytest.raises(UsageError, match=r"--baseline: expected values of a point: steps=4 mode=a; steps=8 mode=a; .*, got 'steps?=\d'"):
        grouped_table(runs_in(folder), ["headline.acc"], baseline)


def test_links_of_a_chain_are_apart_and_only_have_what_they_give(tmp_path: Path):
    first = [Wrote({}, seed, {"headline": {"loss": 1.0 + seed}}, link="one") for seed in (0, 1)]
    second = [Wrote({"steps": 3}, seed, {"headline": {"acc": 0.5}}, link="two", after=first[seed].key) for seed in (0, 1)]
    third = [Wrote({"steps": 3}, seed, link="three", error=FAILURE) for seed in (0, 1)]
    runs = runs_in(sweep_folder(tmp_path / "s", [*first, *second, *third]))
    found = [(row["link"], row["metric"], row["n"], row["missing"]) for row in rows_of(grouped_table(runs, chosen_metrics(runs)).frame)]
    assert found == [("one", "loss", 2, ""), ("two", "acc", 2, ""), ("three", "loss", 0, "2 failed"), ("three", "acc", 0, "2 failed")]


def test_a_run_behind_a_failed_one_is_skipped_and_counted(tmp_path: Path):
    first = Wrote({}, 0, error=FAILURE, link="one")
    runs = runs_in(sweep_folder(tmp_path / "s", [first, Wrote({}, 0, link="two", after=first.key)]))
    assert [run.state for run in runs] == ["failed", "skipped"]
    assert grouped_table(runs, ["headline.acc"]).frame["missing"].tolist() == ["1 failed", "1 skipped"]


def test_a_swept_seed_counts_as_seed(tmp_path: Path):
    runs = runs_in(sweep_folder(tmp_path / "s", [Wrote({"steps": 1, "seed": seed}, None, {"headline": {"acc": seed}}) for seed in (3, 5)]))
    assert has_seeds(runs)
    (row,) = rows_of(grouped_table(runs, ["headline.acc"]).frame)
    assert (row["n"], row["mean"], "seed" in row) == (2, 4.0, False)


def test_texts_have_no_mean(tmp_path: Path):
    runs = runs_in(sweep_folder(tmp_path / "s", [scored({}, seed, 0.5) for seed in (0, 1)]))
    assert grouped_table(runs, ["after.kind", "headline.acc"]).frame["metric"].tolist() == ["acc"]


def test_runs_of_an_older_sweep_file_are_left_out(tmp_path: Path):
    out = sweep_folder(tmp_path / "s", [scored({"steps": 1}, 0, 0.5)])
    sweep_folder(out, [scored({"steps": 2}, 0, 0.75)])
    assert [run.job.point for run in runs_in(out)] == [{"steps": 2}]


def test_run_is_found_by_key_start_and_name(folder: Path):
    wanted = runs_in(folder)[4].job
    for name in (wanted.key, wanted.key[:6], wanted.name):
        assert find_run(folder, name).job == wanted


def test_run_that_is_not_there_gets_the_closest(folder: Path):
    with pytest.raises(UsageError, match=r"got 'head steps=8 mode=a seed=7'. Did you mean 'head steps=8 mode=a seed="):
        find_run(folder, "head steps=8 mode=a seed=7")
    with pytest.raises(UsageError, match="KEY: expected a key, a unique start of one, or a run's name, got ''"):
        find_run(folder, "")


def test_start_of_several_keys_is_refused(tmp_path: Path):
    runs = [scored({"steps": steps}, 0, 0.5) for steps in range(20)]  # more runs than there are hex digits
    starts = [run.key[0] for run in runs]
    start = next(digit for digit in starts if starts.count(digit) > 1)
    with pytest.raises(UsageError, match=rf"KEY: expected one run; {starts.count(start)} begin so: {start}.*, got '{start}'"):
        find_run(sweep_folder(tmp_path / "s", runs), start)


def test_folder_without_a_sweep_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=r"DIR: expected the folder of a sweep, with sweep.json in it"):
        runs_in(tmp_path)


def test_parquet_comes_back(folder: Path, tmp_path: Path):
    frame = run_table(runs_in(folder), ["headline.acc", "after.kind"])
    write_parquet(frame, tmp_path / "made" / "t.parquet")
    read = pd.read_parquet(tmp_path / "made" / "t.parquet")
    assert list(rows_of(read)) == list(rows_of(frame))


def test_parquet_of_numbers_beside_texts(tmp_path: Path):
    runs = runs_in(sweep_folder(tmp_path / "s", [scored({"x": 1}, 0, 0.5), scored({"x": "one"}, 0, 0.5), scored({"x": [1, 2]}, 0, 0.5)]))
    write_parquet(run_table(runs, ["headline.acc"]), tmp_path / "t.parquet")
    assert pd.read_parquet(tmp_path / "t.parquet")["x"].tolist() == ["1", "one", "[1, 2]"]


def test_parquet_without_pyarrow_says_how_to_get_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"Writing Parquet needs the module 'pyarrow'.*tpo-lab\[parquet\]"):
        write_parquet(pd.DataFrame({"x": [1]}), tmp_path / "t.parquet")


def test_label_keeps_headline_apart_from_columns_of_the_table():
    assert (table.label("headline.acc"), table.label("headline.n"), table.label("after.acc")) == ("acc", "headline.n", "after.acc")
