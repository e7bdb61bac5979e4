"""From a sweep to its jobs: order, sharing, names, paths, and everything that is refused before anything runs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.reruns.plan.job import Job, Limits
from tpo_lab.reruns.plan.planner import Planner, baseline_of, jobs_of
from tpo_lab.reruns.plan.sweep import MAX_RUNS, Sweep

Write = Callable[..., Path]


@pytest.fixture
def planned(write_notebook: Write, write_sweep: Write) -> Callable[[str], list[Job]]:
    """The jobs of a sweep file over the notebooks one, two and narrow."""
    write_notebook("one.ipynb", "1")
    write_notebook("two.ipynb", "2", declared='out: str = ""\nseed: int = 0\ncount: int = 1\nstart: str = ""\nrate: int = 1')
    write_notebook("narrow.ipynb", "3", declared='out: str = ""\nsize: int = 1')
    write_notebook("no_out.ipynb", "4", declared="seed: int = 0")
    write_notebook("untyped.ipynb", "5", declared="out = ''")
    write_notebook("seeded.ipynb", "6", declared='out: str = ""\nseed: str = ""')
    return lambda text: Planner(Sweep.read(write_sweep(text))).jobs()


class TestPoints:
    def test_a_grid_is_every_combination_with_every_seed(self, planned: Callable[[str], list[Job]], tmp_path: Path):
        jobs = planned("notebook: one.ipynb\nparameters: {fast: true}\ngrid: {count: [1, 2], mode: [x, 'y z']}\nseeds: [3, 4]")
        wanted = [(c, m, s) for c, m in itertools.product([1, 2], ["x", "y z"]) for s in (3, 4)]
        assert [(job.values["count"], job.values["mode"], job.values["seed"]) for job in jobs] == wanted
        assert all(job.values["fast"] is True and "out" not in job.values for job in jobs)
        assert jobs[2].name == 'one count=1 mode="y z" seed=3' and jobs[2].point == {"count": 1, "mode": "y z"} and jobs[2].seed == 3
        assert jobs[0].notebook == str(tmp_path / "one.ipynb") and jobs[0].after is None
        assert len({job.key for job in jobs}) == len({job.name for job in jobs}) == 8
        assert all(len(job.key) == 16 and int(job.key, 16) >= 0 for job in jobs)

    def test_nothing_swept_is_one_run(self, planned: Callable[[str], list[Job]]):
        (job,) = planned("notebook: one.ipynb\nlimits: {memory_gb: 2}")
        assert (job.name, job.point, job.seed, job.values, job.limits) == ("one", {}, None, {}, Limits(memory_gb=2.0))

    def test_a_list_is_its_points_and_a_point_may_set_what_is_fixed(self, planned: Callable[[str], list[Job]]):
        jobs = planned("notebook: one.ipynb\nparameters: {count: 8}\nlist: [{rate: 1}, {rate: 2, count: 4}]")
        assert [job.values for job in jobs] == [{"count": 8, "rate": 1.0}, {"count": 4, "rate": 2.0}]
        assert [job.point for job in jobs] == [{"rate": 1.0}, {"rate": 2.0, "count": 4}]

    def test_numbers_that_yaml_takes_for_text_are_understood(self, planned: Callable[[str], list[Job]]):
        jobs = planned("notebook: one.ipynb\nparameters: {rate: 1e-3}\n")
        assert jobs[0].values == {"rate": 0.001} and jobs[0].name == "one"
        assert [job.values["rate"] for job in planned("notebook: one.ipynb\ngrid: {rate: [1e-3, 1, 2.5E2]}")] == [0.001, 1.0, 250.0]

    def test_whole_floats_are_one_value_however_they_are_written(self, planned: Callable[[str], list[Job]]):
        assert planned("notebook: one.ipynb\ngrid: {rate: [1]}")[0].key == planned("notebook: one.ipynb\ngrid: {rate: [1.0]}")[0].key

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        axes=st.fixed_dictionaries(
            {
                "count": st.lists(st.integers(-5, 5), min_size=1, max_size=3, unique=True),
                "rate": st.lists(st.floats(-2, 2), min_size=1, max_size=3, unique=True),
                "fast": st.lists(st.booleans(), min_size=1, max_size=2, unique=True),
            }
        ),
        seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    )
    def test_a_grid_is_the_product_whatever_its_values(self, planned: Callable[[str], list[Job]], axes: dict, seeds: list[int]):
        jobs = planned(json.dumps({"notebook": "one.ipynb", "grid": axes, "seeds": seeds}))
        made = {(job.values["count"], job.values["rate"], job.values["fast"], job.seed) for job in jobs}
        assert made == set(itertools.product(axes["count"], axes["rate"], axes["fast"], seeds)) and len({job.key for job in jobs}) == len(
            made
        ) == len(jobs)


class TestChain:
    def test_each_job_stands_after_the_one_it_takes_from_at_its_own_point_and_seed(self, planned: Callable[[str], list[Job]]):
        jobs = planned(
            "chain: [{notebook: one.ipynb}, {notebook: two.ipynb, takes: {start: best.path}}]\ngrid: {count: [1, 2]}\nseeds: [0, 1]"
        )
        by_key = {job.key: job for job in jobs}
        assert len(jobs) == 8
        for place, job in enumerate(jobs):
            if job.link == "two":
                before = by_key[str(job.after)]
                assert jobs.index(before) < place and job.takes == {"start": "best.path"} and "start" not in job.values
                assert (before.link, before.point, before.seed) == ("one", job.point, job.seed)
                assert before.values["count"] == job.values["count"]

    def test_a_first_link_that_the_sweep_does_not_reach_runs_once(self, planned: Callable[[str], list[Job]]):
        jobs = planned("chain: [{notebook: narrow.ipynb}, {notebook: two.ipynb}]\ngrid: {count: [1, 2, 3]}\nseeds: [5, 6]")
        assert [job.link for job in jobs].count("narrow") == 1 and len(jobs) == 7
        assert (jobs[0].name, jobs[0].point, jobs[0].seed, jobs[0].values) == ("narrow", {}, None, {})
        assert {job.after for job in jobs[1:]} == {jobs[0].key}

    def test_what_reached_an_earlier_link_counts_for_the_later_one(self, planned: Callable[[str], list[Job]]):
        jobs = planned("chain: [{notebook: two.ipynb}, {notebook: narrow.ipynb}]\ngrid: {count: [1, 2]}\nseeds: [5]")
        last = [job for job in jobs if job.link == "narrow"]
        assert [(job.point, job.seed, job.values) for job in last] == [({"count": 1}, 5, {}), ({"count": 2}, 5, {})]
        assert len({job.key for job in last}) == 2

    def test_a_qualified_name_goes_to_one_link_and_an_unqualified_one_to_the_others(self, planned: Callable[[str], list[Job]]):
        jobs = planned("chain: [{notebook: one.ipynb}, {notebook: two.ipynb}]\ngrid: {count: [1], two.count: [7]}")
        assert [(job.link, job.values, job.point) for job in jobs] == [
            ("one", {"count": 1}, {"count": 1}),
            ("two", {"count": 7}, {"count": 1, "two.count": 7}),
        ]

    def test_what_a_link_sets_itself_wins_over_what_goes_to_all(self, planned: Callable[[str], list[Job]]):
        text = "chain: [{notebook: one.ipynb, parameters: {count: 9, seed: 7}}, {notebook: two.ipynb}]\nparameters: {count: 2}\nseeds: [0]"
        assert [job.values for job in planned(text)] == [{"count": 9, "seed": 7}, {"count": 2, "seed": 0}]

    def test_a_float_and_an_int_of_one_name_get_their_own_type(self, planned: Callable[[str], list[Job]]):
        first, second = planned("chain: [{notebook: one.ipynb}, {notebook: two.ipynb}]\ngrid: {rate: [3]}")
        assert (type(first.values["rate"]), type(second.values["rate"])) == (float, int)
        with pytest.raises(UsageError, match=r"grid\.rate\[0\]: expected int for the parameter 'rate', got 0\.5"):
            planned("chain: [{notebook: one.ipynb}, {notebook: two.ipynb}]\ngrid: {rate: [0.5]}")

    def test_after_names_another_link_even_a_later_one(self, planned: Callable[[str], list[Job]]):
        text = "chain: [{notebook: one.ipynb}, {notebook: narrow.ipynb}, {notebook: two.ipynb, after: one, takes: {start: path}}]"
        first, narrow, two = planned(text)
        assert (first.link, narrow.after, two.after) == ("one", first.key, first.key)
        later = planned("chain: [{notebook: one.ipynb}, {notebook: narrow.ipynb, after: two}, {notebook: two.ipynb, after: one}]")
        assert [(job.link, job.after) for job in later] == [("one", None), ("two", later[0].key), ("narrow", later[1].key)]

    def test_a_change_before_changes_the_key_behind(self, planned: Callable[[str], list[Job]]):
        text = "chain: [{{notebook: one.ipynb, parameters: {{count: {}}}}}, {{notebook: two.ipynb, takes: {{start: {}}}}}]"
        first, second = planned(text.format(1, "a"))
        changed, behind = planned(text.format(2, "a"))
        assert first.key != changed.key and second.key != behind.key and second.values == behind.values
        same, other = planned(text.format(1, "b"))
        assert same.key == first.key and other.key != second.key


class TestPaths:
    def test_paths_start_from_the_sweep_and_their_content_is_part_of_the_key(self, planned: Callable[[str], list[Job]], tmp_path: Path):
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "train.jsonl").write_text("1")
        text = "notebook: one.ipynb\nparameters: {data: set, mode: extra.txt}\ninputs: [extra.txt]"
        (tmp_path / "extra.txt").write_text("x")
        (before,) = planned(text)
        assert before.values == {"data": str(tmp_path / "set"), "mode": str(tmp_path / "extra.txt")}
        assert set(before.inputs) == {str(tmp_path / "set"), str(tmp_path / "extra.txt")}
        keys = {before.key}
        (tmp_path / "set" / "train.jsonl").write_text("2")
        keys.add(planned(text)[0].key)
        (tmp_path / "extra.txt").write_text("y")
        keys.add(planned(text)[0].key)
        assert len(keys) == 3

    def test_a_moved_sweep_keeps_its_keys(self, write_notebook: Write, tmp_path: Path):
        keys = set()
        for folder in ("here", "there/below"):
            write_notebook(f"{folder}/one.ipynb", "1")
            (tmp_path / folder / "set").mkdir()
            (tmp_path / folder / "set" / "a").write_text("same")
            (tmp_path / folder / "s.yaml").write_text("notebook: one.ipynb\nparameters: {data: set}\ninputs: [set]")
            (job,) = Planner(Sweep.read(tmp_path / folder / "s.yaml")).jobs()
            assert job.values["data"] == str(tmp_path / folder / "set")
            keys.add(job.key)
        assert len(keys) == 1

    def test_a_preset_is_no_path_whatever_lies_beside_the_sweep(self, write_notebook: Write, write_sweep: Write, tmp_path: Path):
        write_notebook("r.ipynb", declared='out: str = ""\nrecipe_name: str = "nano"')
        (tmp_path / "nano").mkdir()
        (job,) = Planner(Sweep.read(write_sweep("notebook: r.ipynb\nparameters: {recipe_name: nano}"))).jobs()
        assert job.values == {"recipe_name": "nano"} and job.inputs == ()
        (tmp_path / "mine.toml").write_text("")
        (job,) = Planner(Sweep.read(write_sweep("notebook: r.ipynb\nparameters: {recipe_name: mine.toml}"))).jobs()
        assert job.values == {"recipe_name": str(tmp_path / "mine.toml")} and job.inputs == (str(tmp_path / "mine.toml"),)
        with pytest.raises(UsageError, match=r"recipe_name: expected an existing file or folder, got 'other.toml'. Paths start from"):
            Planner(Sweep.read(write_sweep("notebook: r.ipynb\nparameters: {recipe_name: other.toml}"))).jobs()

    def test_a_shipped_notebook_is_found_by_its_name(self, write_sweep: Write):
        text = "notebook: 20_region_head\ngrid: {eval_samples: [10, 20], recipe_name: [nano]}\nseeds: [0, 1]"
        jobs = Planner(Sweep.read(write_sweep(text))).jobs()
        assert len(jobs) == 4 and Path(jobs[0].notebook).name == "20_region_head.ipynb" and Path(jobs[0].notebook).is_absolute()
        assert jobs[0].name == "20_region_head eval_samples=10 recipe_name=nano seed=0"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("grid: {count: [1, 2], mode: [x]}\nbaseline: {count: 2}", {"count": 2}),
        ("grid: {count: [1, 2], mode: [x, y]}\nbaseline: {mode: y, count: 1}", {"mode": "y", "count": 1}),
        ("grid: {rate: [1e-3, 1]}\nbaseline: {rate: 1e-3}", {"rate": 0.001}),
        ("list: [{}, {count: 3, rate: 1}]\nbaseline: {rate: 1}", {"rate": 1.0}),
        ("grid: {count: [1, 2]}", None),
    ],
)
def test_a_baseline_has_the_types_of_the_notebook(planned: Callable, write_sweep: Write, text: str, values: dict | None):
    assert baseline_of(Sweep.read(write_sweep(f"notebook: one.ipynb\n{text}"))) == values


def test_the_jobs_of_one_point_are_those_of_a_plan(planned: Callable[[str], list[Job]], write_sweep: Write):
    jobs = planned("notebook: one.ipynb\ngrid: {count: [1, 2]}\nseeds: [0, 1]")
    assert jobs_of(Sweep.read(write_sweep("notebook: one.ipynb\nseeds: [0, 1]")), {"count": 2}) == jobs[2:]


ONE = "notebook: one.ipynb\n"
SEVEN_AXES = f"grid: {json.dumps({f'p{axis}': list(range(10)) for axis in range(7)})}"
TWO = "chain: [{notebook: one.ipynb}, {notebook: two.ipynb}]\n"
BAD = {
    "unknown parameter": (f"{ONE}grid: {{cuont: [1]}}", r"grid\.cuont: expected one of count, .* got 'cuont'. Did you mean 'count'"),
    "unknown fixed parameter": (f"{ONE}parameters: {{modes: x}}", r"parameters\.modes: .* got 'modes'. Did you mean 'mode'"),
    "unknown in a list": (f"{ONE}list: [{{count: 1}}, {{fats: true}}]", r"list\[1\]\.fats: .*Did you mean 'fast'"),
    "unknown in a chain": (f"{TWO}grid: {{strat: [x]}}", r"grid\.strat: expected one of .*start.* got 'strat'. Did you mean 'start'"),
    "unknown link": (f"{TWO}grid: {{tow.count: [1]}}", r"link: expected one of one, two, got 'tow'. Did you mean 'two'"),
    "unknown parameter of a link": (f"{TWO}grid: {{two.fast: [true]}}", r"expected one of two\.count, .* got 'two\.fast'"),
    "unknown parameter taken": (
        "chain: [{notebook: one.ipynb}, {notebook: two.ipynb, takes: {strat: x}}]",
        r"chain\[1\]\.takes: expected one of count, rate, seed, start, got 'strat'. Did you mean 'start'",
    ),
    "unknown of a link itself": (
        "chain: [{notebook: one.ipynb, parameters: {cout: 1}}]",
        r"chain\[0\]\.parameters: .*Did you mean 'count'",
    ),
    "text for int": (f"{ONE}grid: {{count: [1, two]}}", r"grid\.count\[1\]: expected int for the parameter 'count', got 'two'"),
    "float for int": (f"{ONE}grid: {{count: [1.5]}}", r"expected int for the parameter 'count', got 1\.5"),
    "whole float for int": (f"{ONE}grid: {{count: [10.0]}}", r"got 10\.0\. Write 10\."),
    "exponent for int": (f"{ONE}grid: {{count: [1e3]}}", r"got '1e3'\. Write 1000\."),
    "truth value for int": (f"{ONE}grid: {{count: [yes]}}", r"expected int for the parameter 'count', got True"),
    "truth value for float": (f"{ONE}grid: {{rate: [true]}}", r"expected float for the parameter 'rate', got True"),
    "text for float": (
        f"{ONE}grid: {{rate: [1e-x]}}",
        r"expected float for the parameter 'rate', got '1e-x'. Write a number such as 1\.0e-3",
    ),
    "no number for float": (f"{ONE}grid: {{rate: [.nan]}}", r"expected float for the parameter 'rate', got nan"),
    "too large for float": (f"{ONE}grid: {{rate: [1{'0' * 400}]}}", r"expected float for the parameter 'rate', got '1000"),
    "on for text": (f"{ONE}parameters: {{mode: on}}", r"parameters\.mode: expected str .*, got True. YAML reads yes, no, on and off"),
    "number for text": (f"{ONE}parameters: {{mode: 10}}", r"expected str for the parameter 'mode', got 10. Write it in quotes: '10'"),
    "date for text": (
        f"{ONE}parameters: {{mode: 2024-01-02}}",
        r"expected str .*, got datetime.date\(2024, 1, 2\). Write it in quotes: '2024-01",
    ),
    "nothing for text": (f"{ONE}parameters: {{mode: }}", r"expected str for the parameter 'mode', got None\."),
    "word for bool": (f"{ONE}parameters: {{fast: 'yes'}}", r"expected bool, true or false for the parameter 'fast', got 'yes'"),
    "number for bool": (f"{ONE}parameters: {{fast: 1}}", r"expected bool, true or false for the parameter 'fast', got 1"),
    "a list in an axis": (f"{ONE}grid: {{count: [[1, 2], 3]}}", r"grid\.count\[0\]: expected int for the parameter 'count', got \[1, 2\]"),
    "a mapping in an axis": (f"{ONE}grid: {{mode: [{{a: 1}}]}}", r"grid\.mode\[0\]: expected str for the parameter 'mode', got {'a': 1}"),
    "missing shipped notebook": (
        "notebook: 20_region_haed",
        r"notebook: expected one of .* got '20_region_haed'. Did you mean '20_region_head'",
    ),
    "missing notebook": (
        "notebook: on.ipynb",
        r"sweep.yaml: notebook: expected a notebook in .*, got 'on.ipynb'. Did you mean .*'one.ipynb'",
    ),
    "missing notebook of a chain": (
        "chain: [{notebook: one.ipynb}, {notebook: a/b.ipynb}]",
        r"chain\[1\]\.notebook: .*got 'a/b.ipynb'. Shipped",
    ),
    "a notebook that is none": (
        "notebook: broken.ipynb",
        r"notebook: expected a notebook \(.ipynb\) with a cell of parameters, got 'broken",
    ),
    "a notebook with other JSON": (
        "notebook: list.ipynb",
        r"notebook: expected a notebook \(.ipynb\) with a cell of parameters, got 'list",
    ),
    "untyped parameters": (
        "notebook: untyped.ipynb",
        r"sweep.yaml: notebook: .*parameters: expected name: type = value, .* got \"out = ''\"",
    ),
    "no parameter out": ("notebook: no_out.ipynb", r"notebook: expected a notebook with the parameter `out: str`, got 'no_out.ipynb'"),
    "cyclic chain": (
        "chain: [{notebook: one.ipynb, after: two}, {notebook: two.ipynb}]",
        r"chain: expected links without a cycle, got 'one after two after one'",
    ),
    "a link after itself": ("chain: [{notebook: one.ipynb, after: one}]", r"without a cycle, got 'one after one'"),
    "a cycle behind": (
        "chain: [{notebook: one.ipynb}, {notebook: two.ipynb, after: narrow}, {notebook: narrow.ipynb}]",
        r"without a cycle, got 'two after narrow after two'",
    ),
    "unknown link in after": (
        "chain: [{notebook: one.ipynb}, {notebook: two.ipynb, after: oen}]",
        r"chain\[1\]\.after: .*Did you mean 'one'",
    ),
    "link names clash": (
        "chain: [{notebook: one.ipynb}, {notebook: one.ipynb}]",
        r"chain\[1\]: expected a name of its own, got 'one'. Give the link a `name:`",
    ),
    "the first takes": (
        "chain: [{notebook: one.ipynb, takes: {mode: x}}]",
        r"chain\[0\]\.takes: expected nothing, since no link stands before",
    ),
    "taken and fixed": (
        "chain: [{notebook: one.ipynb}, {notebook: two.ipynb, takes: {start: x}, parameters: {start: y}}]",
        r"chain\[1\]\.takes: expected a parameter that is not fixed, got 'start'",
    ),
    "taken and swept": (
        "chain: [{notebook: one.ipynb}, {notebook: two.ipynb, takes: {start: x}}]\ngrid: {start: [a]}",
        r"grid\.start: expected a parameter that is not fixed, got 'start'. The link two sets it itself",
    ),
    "taken and swept by its link": (
        "chain: [{notebook: one.ipynb}, {notebook: two.ipynb, takes: {start: x}}]\ngrid: {two.start: [a]}",
        r"expected a parameter that is not fixed, got 'two.start'. The link two sets it itself",
    ),
    "fixed and swept": (
        f"{ONE}parameters: {{count: 1}}\ngrid: {{count: [2]}}",
        r"parameters\.count: expected a parameter that is not in grid too",
    ),
    "fixed and in each point": (f"{ONE}parameters: {{count: 1}}\nlist: [{{count: 2}}]", r"parameters\.count: .* not in list too, got 1"),
    "fixed and drawn": (
        f"{ONE}parameters: {{count: 1}}\nrandom: {{points: 1, over: {{count: [2]}}}}",
        r"parameters\.count: .* not in random too, got 1",
    ),
    "fixed for one link by name": (
        f"{TWO}parameters: {{two.count: 1}}",
        r"parameters: expected a parameter's name, got 'two.count'. What is",
    ),
    "out fixed": (
        f"{ONE}parameters: {{out: here}}",
        r"parameters\.out: expected any parameter but `out`, got 'out'. Each run gets a folder",
    ),
    "out swept": (f"{ONE}grid: {{out: [a, b]}}", r"grid\.out: expected any parameter but `out`"),
    "out of a link": ("chain: [{notebook: one.ipynb, parameters: {out: x}}]", r"chain\[0\]\.parameters: expected any parameter but `out`"),
    "out taken": (
        "chain: [{notebook: one.ipynb}, {notebook: two.ipynb, takes: {out: x}}]",
        r"chain\[1\]\.takes: expected any parameter but",
    ),
    "out of one link swept": (f"{TWO}grid: {{two.out: [a]}}", r"expected any parameter but `out`"),
    "a value twice": (f"{ONE}grid: {{count: [1, 2, 1]}}", r"grid\.count\[2\]: expected each value once, got 1"),
    "a value twice in two spellings": (f"{ONE}grid: {{rate: [1, 1.0]}}", r"grid\.rate\[1\]: expected each value once, got 1\.0"),
    "a point twice": (
        f"{ONE}list: [{{count: 1, rate: 2}}, {{count: 3}}, {{rate: 2.0, count: 1}}]",
        r"list\[2\]: expected each point once, and list\[0\] is the same, got",
    ),
    "two points that come to the same": (
        f"{ONE}parameters: {{count: 4}}\nlist: [{{}}, {{count: 4}}]",
        r"expected each run once, got \"'one' and 'one count=4', which are the same run\"",
    ),
    "two links that come to the same": (
        "chain: [{notebook: one.ipynb}, {notebook: one.ipynb, name: a, after: one}, {notebook: one.ipynb, name: b, after: one}]",
        r"expected each run once, got \"'a' and 'b', which are the same run\"",
    ),
    "seeds that no notebook takes": ("notebook: narrow.ipynb\nseeds: [1]", r"seeds: expected one of size, got 'seed'"),
    "seeds of another type": ("notebook: seeded.ipynb\nseeds: [1]", r"seeds: expected a parameter `seed` of type int, got 'str'"),
    "seeds and a fixed seed": (
        f"{ONE}seeds: [1]\nparameters: {{seed: 3}}",
        r"seeds: expected seeds in one place, got 'seeds and a parameter",
    ),
    "seeds and a swept seed": (f"{ONE}seeds: [1]\ngrid: {{seed: [3]}}", r"seeds: expected seeds in one place"),
    "missing input": (
        f"{ONE}inputs: [one.ipynb, data/x.jsonl]",
        r"inputs\[1\]: expected an existing file or folder, got 'data/x.jsonl'. Paths",
    ),
    "missing data": (f"{ONE}parameters: {{data: ./none}}", r"data: expected an existing file or folder, got './none'"),
    "a baseline that is no point": (
        f"{ONE}grid: {{count: [1, 2]}}\nbaseline: {{count: 3}}",
        r"baseline: expected values of one of the 2 points, got {'count': 3}",
    ),
    "a baseline across the points": (
        f"{ONE}list: [{{count: 1}}, {{mode: x}}]\nbaseline: {{count: 1, mode: x}}",
        r"baseline: expected values of one of the 2 points, got {'count': 1, 'mode': 'x'}",
    ),
    "an empty baseline": (f"{ONE}grid: {{count: [1]}}\nbaseline: {{}}", r"baseline: expected at least one entry, got {}"),
    "a baseline of another name": (f"{ONE}grid: {{count: [1]}}\nbaseline: {{cuont: 1}}", r"baseline: .*Did you mean 'count'"),
    "a baseline of another type": (f"{ONE}grid: {{count: [1]}}\nbaseline: {{count: x}}", r"baseline\.count: expected int"),
    "a baseline of nothing": (f"{ONE}baseline: {{count: 1}}", r"baseline: expected one of no name, since nothing is swept, got 'count'"),
    "a range for text": (
        f"{ONE}random: {{points: 1, over: {{mode: {{low: 1, high: 2}}}}}}",
        r"random\.over\.mode: expected a list of choices for the parameter 'mode' of type str, got 'a range'",
    ),
    "a fraction as bound of int": (
        f"{ONE}random: {{points: 1, over: {{count: {{low: 1, high: 2.5}}}}}}",
        r"random\.over\.count\.high: expected a whole number for a parameter of type int, got 2\.5",
    ),
    "a choice of another type": (f"{ONE}random: {{points: 1, over: {{count: [1, x]}}}}", r"random\.over\.count\[1\]: expected int"),
    "unknown in a random search": (f"{ONE}random: {{points: 1, over: {{cuont: [1]}}}}", r"random\.over\.cuont.*Did you mean 'count'"),
    "more random points than there are": (
        f"{ONE}random: {{points: 7, over: {{count: {{low: 1, high: 3}}, mode: [x, y]}}}}",
        r"random\.points: expected at most 6, the number of different points, got 7",
    ),
    "too many grid points": (
        ONE + SEVEN_AXES,
        r"sweep.yaml: grid: expected at most 10,000 runs of a notebook, got '10,000,000 points'",
    ),
    "too many points with seeds": (
        f"{ONE}grid: {{count: {list(range(101))}}}\nseeds: {list(range(100))}",
        r"grid: expected at most 10,000 runs of a notebook, got '101 points with 100 seeds'",
    ),
    "too many random points": (
        f"{ONE}random: {{points: 1000000000000, over: {{rate: {{low: 0, high: 1}}}}}}",
        r"random: .*'1,000,000,000,000 po",
    ),
    "too many trials": (
        f"{ONE}optuna: {{trials: 20000, metric: a, direction: minimize, over: {{rate: {{low: 0, high: 1}}}}}}",
        r"optuna: expected at most 10,000 runs",
    ),
    "unknown in a search by Optuna": (
        f"{ONE}optuna: {{trials: 2, metric: a, direction: minimize, over: {{raet: {{low: 0, high: 1}}}}}}",
        r"optuna\.over\.raet.*Did you mean 'rate'",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_one_sentence_before_anything_runs(planned: Callable, tmp_path: Path, text: str, sentence: str):
    (tmp_path / "broken.ipynb").write_text("{")
    (tmp_path / "list.ipynb").write_text("[]")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=sentence) as caught:
        planned(text)
    message = str(caught.value)
    assert "sweep.yaml" in message and "\n" not in message and len(message) < 700
    assert {path.name for path in set(tmp_path.rglob("*")) - set(before)} <= {"sweep.yaml"}


WORDS = st.sampled_from(
    ["count", "rate", "mode", "fast", "seed", "out", "start", "one.count", "two.start", "one", "two", "low", "high", "x"]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.floats(-2, 2), WORDS, st.sampled_from(["1e-3", "", "one.ipynb"]))
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)), max_leaves=6
)
LINK = st.fixed_dictionaries(
    {"notebook": st.sampled_from(["one.ipynb", "two.ipynb"])},
    optional={
        "name": st.sampled_from(["a", "b"]),
        "after": st.sampled_from(["a", "b", "one", "two"]),
        "takes": st.dictionaries(WORDS, WORDS, max_size=2),
        "parameters": st.dictionaries(WORDS, SCALARS, max_size=2),
    },
)
AXES = st.dictionaries(WORDS, st.lists(SCALARS, max_size=3), max_size=3)
RANDOM = st.fixed_dictionaries({"points": st.integers(0, 4), "over": AXES | ANYTHING}, optional={"seed": SCALARS})
FIELDS = {
    "notebook": st.just("one.ipynb") | SCALARS,
    "chain": st.lists(LINK, max_size=3) | ANYTHING,
    "parameters": st.dictionaries(WORDS, SCALARS, max_size=2) | ANYTHING,
    "grid": AXES | ANYTHING,
    "list": st.lists(st.dictionaries(WORDS, SCALARS, max_size=2), max_size=3) | ANYTHING,
    "random": RANDOM | ANYTHING,
    "seeds": st.lists(st.integers(0, 3), max_size=3) | ANYTHING,
    "baseline": st.dictionaries(WORDS, SCALARS, max_size=2) | ANYTHING,
    "inputs": ANYTHING,
    "limits": ANYTHING,
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(record=st.fixed_dictionaries({}, optional=FIELDS) | st.fixed_dictionaries({"chain": st.lists(LINK, min_size=1, max_size=3)}))
def test_whatever_the_file_says_there_are_jobs_or_one_sentence(planned: Callable[[str], list[Job]], record: dict):
    try:
        jobs = planned(json.dumps(record))
    except UsageError as error:
        assert "sweep.yaml" in str(error) and "\n" not in str(error)
    else:
        keys = [job.key for job in jobs]
        assert len(set(keys)) == len({job.name for job in jobs}) == len(keys) > 0
        assert all(job.after is None or keys.index(job.after) < place for place, job in enumerate(jobs))


def test_as_many_runs_as_allowed_are_planned(planned: Callable[[str], list[Job]]):
    assert len(planned(f"{ONE}grid: {{count: {list(range(100))}}}\nseeds: {list(range(100))}")) == MAX_RUNS


def test_a_search_by_optuna_has_no_jobs_beforehand(planned: Callable[[str], list[Job]]):
    pytest.importorskip("optuna", reason="optuna is not installed")
    assert planned(f"{ONE}optuna: {{trials: 2, metric: a, direction: minimize, over: {{rate: {{low: 0, high: 1}}}}}}") == []
