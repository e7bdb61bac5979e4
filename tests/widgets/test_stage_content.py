"""What StageView shows: the table of a recipe against the real freeze plan, curves against the lines of a run, files that misbehave."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tpo_lab import freeze, recipes
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.runs import RunFolder
from tpo_lab.schedules import lr_factor
from tpo_lab.stages import CurriculumPart, Lora
from tpo_lab.training.watch.alarms import Limits, alarms
from tpo_widgets import StageView
from tpo_widgets.content import Moment
from tpo_widgets.stages.alarms import judged
from tpo_widgets.stages.content import MOST_ALARMS, MOST_BYTES, StageContent, table_document
from tpo_widgets.stages.files import RunFiles, Tail
from tpo_widgets.stages.history import MOST_POINTS, WINDOW, History, thinned
from tpo_widgets.stages.plan import StagePlan

HEADS = ("region", "temporal")


def line(stage: str, step: int, **values: Any) -> dict[str, Any]:
    terms = {"loss": 4 / step, "mlm": 3 / step, "region/l1": 1 / step}
    return {
        "stage": stage,
        "step": step,
        "seconds": 0.5 * step,
        "lr": 1e-3,
        "rows": 8,
        "memory_mib": 700 + step,
        **terms,
        "gradient/region": 2.0,
        **values,
    }


def written(folder: Path, lines: list[dict[str, Any]], recipe: str = "nano", **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    plain = recipes.recipe(recipe).for_heads(HEADS).to_dict()
    (folder / "config.json").write_text(json.dumps({"recipe": plain, "stage": "all", **config}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return folder


def content_of(view: StageView) -> StageContent:
    assert isinstance(view.content, StageContent), view.problem
    return view.content


# the table


@pytest.mark.parametrize("has_lora", [False, True], ids=["before LoRA", "with LoRA"])
def test_cells_hold_the_numbers_of_the_real_freeze_plan(build_tiny: Callable[..., TPOModel], has_lora: bool):
    recipe = recipes.recipe("nano").for_heads(HEADS)
    trained = build_tiny(HEADS)
    trained.add_lora(recipe.lora)
    plan = StagePlan.of("nano", trained if has_lora else build_tiny(HEADS))
    assert [stage.name for stage in plan.stages] == ["1", "2.temporal", "2.region", "3a", "3b"]
    assert list(plan.rows)[-2:] == ["heads.temporal", "heads.region"]
    for place, stage in enumerate(recipe.stages):
        shape = freeze.shape(freeze.FreezePlan.of(stage), trained.named_parts())
        assert plan.totals[place] == (shape["trained"], shape["total"])
        for row, cells in zip(plan.rows, plan.cells, strict=True):
            parts = [part for name, part in shape["parts"].items() if name == row or name.startswith(row + ".")]
            cell = cells[place]
            assert cell.total == sum(part["parameters"] for part in parts) > 0
            assert cell.trained == sum(part["parameters"] for part in parts if part["trained"])
            assert set(cell.rates) == {part["learning_rate"] for part in parts if part["trained"]}
            assert cell.state == ("frozen" if not cell.trained else "trained" if cell.trained == cell.total else "partly")


def test_making_the_table_changes_no_model(build_tiny: Callable[..., TPOModel]):
    model = build_tiny(HEADS)
    before = {name: (parameter.requires_grad, parameter.data_ptr()) for name, parameter in model.named_parts().items()}
    StagePlan.of("nano", model)
    assert {name: (parameter.requires_grad, parameter.data_ptr()) for name, parameter in model.named_parts().items()} == before
    assert model.lora is None


@pytest.mark.parametrize("name", sorted(recipes.PRESETS))
def test_every_preset_renders_and_says_what_its_patterns_say(name: str):
    recipe = recipes.recipe(name)
    view = StageView(name)
    assert view.problem == "" and [stage["name"] for stage in view.document["stages"]] == [stage.name for stage in recipe.stages]
    plan = content_of(view).plan
    assert plan is not None
    states = {row: [cell.state for cell in cells] for row, cells in zip(plan.rows, plan.cells, strict=True)}
    assert set(states["llm.base"]) == {"frozen"}
    for row in ("vision", "connector", "llm.lora"):
        assert states[row] == ["trained" if f"{row}.*" in stage.learning_rates else "frozen" for stage in recipe.stages]
    for place, stage in enumerate(recipe.stages):
        for head in recipe.heads:
            expected = "trained" if f"heads.{head}.*" in stage.learning_rates else "frozen"
            expected = "partly" if f"heads.{head}.adapter.*" in stage.learning_rates else expected
            assert states[f"heads.{head}"][place] == expected
    # the released recipe trains the output rows alone
    assert set(states["tokens.rows"]) == {"partly" if name == "official" else "trained"}
    assert len(json.dumps(view.document, allow_nan=False)) < 10_000
    assert Image.open(io.BytesIO(view.to_png(width=480))).width == 480


def test_below_the_parts_stand_the_stages_own_numbers():
    recipe = recipes.recipe("nano")
    columns = {column["name"]: column for column in table_document(StagePlan.of(recipe))["stages"]}
    (region,) = recipe.stage("2.region")
    assert columns["2.region"]["steps"] == region.steps and columns["2.region"]["batch"] == region.batch_size
    assert columns["2.region"]["curriculum"] == [[part.until, part.difficulty] for part in region.curriculum]
    shares = dict(columns["3b"]["data"])
    (last,) = recipe.stage("3b")
    assert shares == {task: pytest.approx(share / sum(last.data.values()), rel=1e-3) for task, share in last.data.items()}
    assert dict(columns["3b"]["losses"]) == last.losses
    schedule = columns["2.region"]["schedule"]
    assert region.steps is not None and schedule["steps"][0] == 0 and schedule["steps"][-1] == region.steps - 1
    for step, factor in zip(schedule["steps"], schedule["factors"], strict=True):
        assert factor == pytest.approx(lr_factor(step, region.steps, region.warmup_ratio, region.min_lr_ratio), abs=6e-4)


def test_a_recipe_for_heads_that_the_model_lacks_is_cut_and_says_so(build_tiny: Callable[..., TPOModel]):
    view = StageView("nano", build_tiny(("region",)))
    assert [stage["name"] for stage in view.document["stages"]] == ["1", "2.region", "3a", "3b"]
    (note,) = view.document["notes"]
    assert "no temporal or mask head" in note and "stages 2.temporal, 2.mask" in note
    only_region = recipes.recipe("nano").for_heads(("region",))
    other = StageView(only_region, build_tiny(("temporal", "region")))
    assert other.document["notes"] == ["No stage trains the temporal head of this model."]
    assert [row["label"] for row in other.document["rows"]][-2:] == ["region head", "temporal head"]
    none = StageView(only_region, build_tiny(("temporal",)))
    assert "one with a head that the recipe trains (region), got ['temporal']" in none.problem


def test_lora_of_other_settings_is_told(build_tiny: Callable[..., TPOModel]):
    model = build_tiny(HEADS)
    model.add_lora(Lora(rank=3))
    notes = StageView("nano", model).document["notes"]
    assert any("LoRA with other settings" in note for note in notes)


def test_patterns_for_parts_of_parts_show_as_partly_trained():
    recipe = recipes.recipe("paper").for_heads(("region",))
    plain = recipe.to_dict()
    plain["stages"][0]["learning_rates"] = {"vision.layers.1?.*": 1e-5, "tokens.rows.output": 1e-4, "llm.lora.*": 2e-4}
    plan = StagePlan.of(recipes.Recipe.from_dict({**plain, "switches": {**plain["switches"], "train_rows": "output"}}))
    cells = {row: cells[0] for row, cells in zip(plan.rows, plan.cells, strict=True)}
    assert cells["vision"].state == "partly" and cells["vision"].rates == (1e-5,)
    assert cells["tokens.rows"].state == "partly" and cells["tokens.rows"].names == ("output",)
    assert cells["llm.lora"].state == "trained" and cells["connector"].state == "frozen"


@pytest.mark.parametrize(
    ("arguments", "keywords", "sentence"),
    [
        ((), {}, "recipe: expected a recipe or a run, got None"),
        (("nnao",), {}, "Did you mean 'nano'?"),
        ((42,), {}, "recipe: expected a recipe, the name of a preset, or a .json or .toml file, got 'int'"),
        (("nano", "nano-tpo"), {}, "model: expected a model of tpo_lab"),
        ((), {"run": 7}, "run: expected a run folder, got 'int'"),
        ((), {"run": ""}, "run: expected a run folder, got ''"),
        ((), {"run": "no/such/run"}, "Use follow for a run that is yet to begin"),
        (("no-such-recipe.toml",), {}, "StageView:"),
    ],
)
def test_nonsense_becomes_a_panel_with_one_sentence(arguments: Any, keywords: Any, sentence: str):
    view = StageView(*arguments, **keywords)
    assert sentence in view.problem and "\n" not in view.problem and view.document == {}
    assert view.to_png() and view.problem.replace("'", "&#x27;")[:20] in view.to_html()


def test_keywords_are_strict_and_so_is_the_stage():
    with pytest.raises(UsageError, match="Did you mean 'recipe'"):
        StageView(recipie="nano")  # type: ignore[call-arg]
    view = StageView("nano")
    view.stage = "2.region"
    with pytest.raises(UsageError, match=r"got '2\.regoin'\. Did you mean '2\.region'"):
        view.stage = "2.regoin"
    assert view.stage == "2.region"


def test_a_recipe_with_very_many_heads_is_a_panel_and_not_a_huge_state():
    recipe = recipes.recipe("paper").for_heads(("region",))
    plain = recipe.to_dict()
    heads = [f"head{number}" for number in range(120)]
    joint = {**plain["stages"][-1], "data": dict.fromkeys(heads, 1.0), "losses": {"mlm": 1.0, **dict.fromkeys(heads, 1.0)}}
    stages = [{**plain["stages"][1], "name": f"2.{head}", "data": {head: 1.0}, "losses": {"mlm": 1.0, head: 1.0}} for head in heads]
    view = StageView(recipes.Recipe.from_dict({**plain, "stages": [*stages, joint]}))
    assert "a table of at most 40000 bytes" in view.problem
    some = StageView(
        recipes.Recipe.from_dict(
            {**plain, "stages": [*stages[:20], {**joint, "data": dict.fromkeys(heads[:20], 1.0), "losses": {"mlm": 1.0}}]}
        )
    )
    assert some.problem == "" and len(json.dumps(some.document)) <= MOST_BYTES


# curves


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=700), st.integers(4, 90))
def test_thinning_keeps_the_ends_the_lowest_and_the_highest(values: list[float], most: int):
    array = np.array(values)
    kept = thinned(array, most)
    assert 1 <= len(kept) <= most and list(kept) == sorted(set(kept))
    assert kept[0] == 0 and kept[-1] == len(values) - 1
    assert array[kept].min() == array.min() and array[kept].max() == array.max()
    assert len(kept) == len(values) or len(values) > most


@given(st.integers(500, 3000), st.data())
def test_every_spike_of_a_long_curve_stays(count: int, data: st.DataObject):
    places = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=5))
    values = np.zeros(count)
    for number, place in enumerate(sorted(places)):
        values[place] = 10.0 + number
    kept = set(thinned(values, MOST_POINTS).tolist())
    stride = (count - 2) / ((MOST_POINTS - 2) // 2)
    alone = [place for place in places if all(abs(place - other) > stride + 1 for other in places - {place})]
    assert kept.issuperset(alone)


def test_thinning_to_fewer_than_four_is_refused():
    with pytest.raises(UsageError, match="most: expected at least 4, got 3"):
        thinned(np.zeros(9), 3)


def test_running_medians_are_those_of_the_last_values():
    history = History()
    values = np.random.default_rng(0).lognormal(size=180).tolist()
    history.add({"stage": "1", "step": step, "mlm": value} for step, value in enumerate(values, 1))
    expected = [statistics.median(values[max(0, end - WINDOW) : end]) for end in range(1, 181)]
    assert history.stages["1"].curves["mlm"].medians.tolist() == pytest.approx(expected, abs=0)


def test_steps_that_are_repeated_replace_what_came_after_them():
    history = History()
    values = np.random.default_rng(1).normal(size=160).tolist()
    history.add({"stage": "1", "step": step, "mlm": 100.0} for step in range(1, 61))
    history.add({"stage": "1", "step": step, "mlm": value} for step, value in enumerate(values, 1))
    history.add({"stage": "1", "step": step, "mlm": value} for step, value in enumerate(values[99:], 100))
    curve = history.stages["1"].curves["mlm"]
    assert curve.steps.tolist() == list(range(1, 161)) and curve.values.tolist() == values
    assert curve.medians[-1] == statistics.median(values[-WINDOW:])
    assert len(history.stages["1"].lines) == 160


def test_throughput_and_what_is_left_are_told_from_the_lines(tmp_path: Path):
    lines = [line("1", step, rows=8) for step in range(1, 41)] + [
        line("2.temporal", step, rows=16, seconds=2.0 * step) for step in range(1, 101)
    ]
    view = StageView(run=written(tmp_path / "run", lines))
    now = view.document["run"]["now"]
    recipe = recipes.recipe("nano").for_heads(HEADS)
    totals = {stage.name: stage.steps or 0 for stage in recipe.stages}
    assert (now["stage"], now["step"], now["total"]) == ("2.temporal", 100, totals["2.temporal"])
    assert now["rows_per_sec"] == 8.0 and now["sec_per_step"] == 2.0 and now["memory_mib"] == 800
    assert now["stage_left_sec"] == 2.0 * (totals["2.temporal"] - 100)
    later = [stage for stage in recipe.stages if stage.name in ("2.region", "3a", "3b")]
    expected = now["stage_left_sec"] + sum((stage.steps or 0) * stage.batch_size * 2.0 / 16 for stage in later)
    assert now["run_left_sec"] == pytest.approx(expected, rel=1e-5)
    states = {each["name"]: (each["state"], each["step"], each["total"]) for each in view.document["run"]["stages"]}
    assert states["1"] == ("done", 40, 40) and states["2.temporal"] == ("stopped", 100, totals["2.temporal"])
    assert states["3b"] == ("waiting", 0, totals["3b"])


def test_rows_per_second_survive_a_resume_where_the_seconds_begin_anew(tmp_path: Path):
    lines = [line("1", step, seconds=4.0 * step) for step in range(1, 11)] + [
        line("1", step, seconds=4.0 * (step - 10)) for step in range(11, 21)
    ]
    history = content_of(StageView(run=written(tmp_path / "run", lines))).history
    assert history is not None and history.stages["1"].curves["rows/s"].values.tolist() == [2.0] * 20


def test_stages_that_the_run_was_not_asked_for_are_not_waited_for(tmp_path: Path):
    view = StageView(run=written(tmp_path / "run", [line("2.region", 1)], stage="2.region"))
    states = {each["name"]: each["state"] for each in view.document["run"]["stages"]}
    assert states == {"1": "skipped", "2.temporal": "skipped", "2.region": "stopped", "3a": "skipped", "3b": "skipped"}


def test_stages_that_training_has_passed_over_are_not_waited_for_either(tmp_path: Path):
    folder = written(tmp_path / "run", [line("1", 1), line("2.region", 1)])
    states = {each["name"]: each["state"] for each in StageView(run=folder).document["run"]["stages"]}
    assert states == {"1": "done", "2.temporal": "skipped", "2.region": "stopped", "3a": "waiting", "3b": "waiting"}


def test_the_recipe_of_the_run_wins_over_the_one_that_was_given(tmp_path: Path):
    folder = written(tmp_path / "run", [line("1", 1)])
    same, other = StageView("nano", run=folder), StageView("paper", run=folder)
    assert [stage["name"] for stage in same.document["stages"]] == ["1", "2.temporal", "2.region", "3a", "3b"]
    assert same.document["run"]["notes"] == [] and other.document["recipe"]["name"] == "nano"
    assert other.document["run"]["notes"] == ["The run trains recipe 'nano', not 'paper'; its own is shown."]


def decoded(curve: dict[str, Any]) -> dict[int, tuple[list[int], list[float]]]:
    return {place: (np.cumsum(steps).tolist(), values) for place, steps, values, *_ in curve["parts"]}


def test_a_short_run_is_drawn_as_it_is(tmp_path: Path):
    lines = [line("1", step) for step in range(1, 16)] + [line("2.temporal", step, loss=0.25) for step in range(1, 4)]
    run = StageView(run=written(tmp_path / "run", lines)).document["run"]
    curves = {curve["key"]: curve for curve in run["curves"]}
    assert decoded(curves["loss"])[0] == (list(range(1, 16)), [float(f"{4 / step:.4g}") for step in range(1, 16)])
    assert decoded(curves["loss"])[1] == ([1, 2, 3], [0.25] * 3)
    assert {key: curve["group"] for key, curve in curves.items()} == {
        "rows/s": "pace", "lr": "lr", "memory_mib": "memory", "loss": "loss", "mlm": "loss", "region/l1": "loss",
        "gradient/region": "gradient",
    }  # fmt: skip
    assert {key: curve["owner"] for key, curve in curves.items() if curve["owner"]} == {
        "loss": "loss", "mlm": "mlm", "region/l1": "region", "gradient/region": "region"
    }  # fmt: skip
    steps, values, medians = curves["mlm"]["parts"][0][1:]
    assert len(medians) == 8 and medians[-1] == float(f"{statistics.median(3 / step for step in range(1, 16)):.4g}")
    assert len(steps) == len(values) == 15


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve thousand steps of fourteen terms, with one spike and one trough."""
    rng = np.random.default_rng(3)
    terms = [f"region/term{number}" for number in range(8)] + [f"temporal/term{number}" for number in range(6)]
    lines = [line("3b", step, **dict(zip(terms, (1 + 0.1 * rng.random(14)).tolist(), strict=True))) for step in range(1, 12_001)]
    lines[7_123]["region/term0"], lines[3_210]["region/term0"] = 9.5, 0.125
    return written(tmp_path_factory.mktemp("long") / "run", lines)


@pytest.fixture(scope="module")
def long_view(long_run: Path) -> StageView:
    return StageView(run=long_run)


def test_the_document_of_a_long_run_is_small_and_its_spikes_stay(long_view: StageView):
    assert len(json.dumps(long_view.document, allow_nan=False)) <= MOST_BYTES
    assert len(str(long_view.get_state())) <= 100_000
    curves = {curve["key"]: curve for curve in long_view.document["run"]["curves"]}
    assert len(curves) == 14 + 7
    ((steps, values),) = decoded(curves["region/term0"]).values()
    assert (max(values), min(values)) == (9.5, 0.125)
    assert steps[values.index(9.5)] == 7_124 and steps[values.index(0.125)] == 3_211
    assert all(len(part[1]) <= MOST_POINTS for curve in curves.values() for part in curve["parts"])


def test_a_watched_long_run_stays_within_its_bytes_too(long_run: Path):
    view = StageView().follow(long_run, every_sec=60)
    try:
        assert 20_000 < len(json.dumps(view.document, allow_nan=False)) <= MOST_BYTES and len(str(view.get_state())) <= 100_000
    finally:
        view.stop()


def test_fine_curves_have_four_hundred_points_and_true_values(long_view: StageView, long_run: Path):
    name = next(each for each in content_of(long_view).names() if each.endswith("/3b"))
    resource = content_of(long_view).resource(name)
    numbers = np.frombuffer(resource.data, "<f4")
    records = {each["step"]: each for each in map(json.loads, (long_run / "metrics.jsonl").read_text().splitlines())}
    place = 0
    for key, stage, count, has_medians in resource.about["parts"]:
        assert count <= MOST_POINTS and long_view.document["run"]["stages"][stage]["name"] == "3b"
        steps, values = numbers[place : place + count], numbers[place + count : place + 2 * count]
        place += count * (3 if has_medians else 2)
        if "term" in key:
            assert count > MOST_POINTS * 0.95
        if key != "rows/s":
            assert values.tolist() == pytest.approx([records[int(step)][key] for step in steps], rel=1e-6)
    assert place == len(numbers)
    with pytest.raises(UsageError, match="got 'curves'"):
        content_of(long_view).resource("curves")
    with pytest.raises(UsageError, match="one of 3b, got '9'"):
        content_of(long_view).resource("curves/1/9")


def test_plotly_figure_has_the_loss_curves(tmp_path: Path):
    lines = [line("1", step) for step in range(1, 1501)] + [line("2.temporal", step) for step in range(1, 11)]
    figure = StageView(run=written(tmp_path / "run", lines)).to_plotly()
    assert [trace.name for trace in figure.data] == ["loss", "mlm", "region/l1"]
    drawn = figure.data[0]
    assert len(drawn.x) <= MOST_POINTS and drawn.x[-1] == 1510 and drawn.y[-1] == 0.4 and None in drawn.y
    assert max(value for value in drawn.y if value is not None) == 4.0
    with pytest.raises(UsageError, match="a run with at least one step"):
        StageView("nano").to_plotly()


def test_pictures_of_a_run_in_both_themes_differ_and_have_the_width(tmp_path: Path):
    content = content_of(StageView(run=written(tmp_path / "run", [line("1", step) for step in range(1, 31)])))
    light, dark = (content.picture(Moment(), dark=dark, width=720) for dark in (False, True))
    assert light.width == dark.width == 720 and light.height == dark.height > 500
    assert light.getpixel((1, 1)) == (255, 255, 255) and max(dark.getpixel((1, 1))) < 60
    without = content_of(StageView(content.plan.recipe)).picture(Moment(), dark=False, width=720)  # type: ignore[union-attr]
    assert light.height - without.height > 200


# alarms


def test_alarms_are_those_of_the_library_and_the_last_ones_are_listed(tmp_path: Path):
    def gradient(step: int) -> float:
        return 0.0 if step % 60 else 1.0

    lines = [line("2.region", step, **{"gradient/region": gradient(step)}) for step in range(1, 901)]
    lines[-1].update(not_finite=["loss"])
    del lines[-1]["loss"]
    view = StageView(run=written(tmp_path / "run", lines))
    expected = alarms(lines)
    assert view.alarms == expected and len(expected) > MOST_ALARMS and expected[-1].kind == "not finite"
    run = view.document["run"]
    assert run["alarms"] == [alarm.to_dict() for alarm in expected[-MOST_ALARMS:]] and run["alarms_in_all"] == len(expected)
    assert len(json.dumps(view.document, allow_nan=False)) <= MOST_BYTES


@given(st.integers(0, 10_000), st.lists(st.integers(1, 130), min_size=1, max_size=8))
@settings(max_examples=40)
def test_looking_now_and_then_finds_what_looking_at_everything_does(seed: int, chunks: list[int]):
    chance = random.Random(seed)
    quiet = {head: 0 for head in HEADS}
    high = dict.fromkeys(("mlm", "region/giou", "temporal/start"), 0)
    history = History()
    lines: list[dict[str, Any]] = []
    for chunk in chunks:
        for _ in range(chunk):
            each = line("3b", len(lines) + 1, mlm=chance.choice([0.1, 0.12, 0.1, 0.3, 9.0]) if chance.random() < 0.2 else 0.1)
            each["region/giou"] = chance.choice([1.0, 30.0]) if chance.random() < 0.1 else 1.0
            if chance.random() < 0.12:  # a term of few batches
                each["temporal/start"] = chance.choice([0.5, 0.5, 0.5, 60.0])
            for name in high:  # spikes, and explosions that last
                high[name] = chance.choice([1, 4, 5, 6, 40, 80]) if high[name] == 0 and chance.random() < 0.02 else max(0, high[name] - 1)
                if high[name] and name in each:
                    each[name] = chance.choice([20.0, 50.0, 90.0, 900.0]) * 1.1 ** high[name]
            for head in HEADS:
                quiet[head] = chance.choice([0, 0, 20, 90]) if quiet[head] == 0 and chance.random() < 0.05 else max(0, quiet[head] - 1)
                each[f"gradient/{head}"] = 0.0 if quiet[head] else 1.0
            if chance.random() < 0.01:
                each["not_finite"] = [chance.choice(["mlm", "assign", "loss"])]
            lines.append(each)
        history.add(lines[-chunk:])
        history._cost = 0.0
        found = history.alarms(whole=False)
        assert sorted(map(repr, found)) == sorted(map(repr, alarms(lines)))
    assert history.alarms() == alarms(lines)


@pytest.mark.parametrize("looked", [60, 61, 62, 63, 64])
def test_an_explosion_is_told_though_it_began_before_the_last_look(looked: int):
    # the median before step 61 hangs on the oldest of its fifty values
    values = [1.0] * 10 + [0.1] * 26 + [1.0] * 24 + [2.0, 6.0, 11.0, 12.0, 13.0]
    lines = [line("3b", step, mlm=value) for step, value in enumerate(values, 1)]
    history = History()
    for part in (lines[:looked], lines[looked:]):
        history.add(part)
        history._cost = 0.0
        found = history.alarms(whole=False)
    assert found == alarms(lines) and [(alarm.began, alarm.step, alarm.subject) for alarm in found] == [(61, 65, "mlm")]


def test_a_look_at_what_is_new_judges_few_lines(long_view: StageView):
    history = content_of(long_view).history
    assert history is not None
    stage = history.stages["3b"]
    new = judged(stage, stage.step - 20)
    assert 20 + WINDOW <= len(new) <= 20 + WINDOW + Limits().lasting + 1 + 10 and judged(stage, 0) is stage.lines
    rare = {"mlm", "region/l1"}
    assert all(rare <= set(each) for each in new)


# files


def test_a_tail_gives_each_whole_line_once_and_waits_for_the_rest(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.read() == ([], False)
    path.write_bytes(b'{"a": 1}\n{"a": 2')
    assert tail.read() == ([{"a": 1}], False)
    assert tail.read() == ([], False)
    with path.open("ab") as file:
        file.write(b'2}\n\nnonsense\n\xff\xfe\n[3]\n{"a": "\xc3')
    assert tail.read() == ([{"a": 22}, [3]], False) and tail.broken == 2
    with path.open("ab") as file:
        file.write(b'\xa9"}\n')
    assert tail.read() == ([{"a": "é"}], False)


@pytest.mark.parametrize(
    "after", [b'{"a": 1}\n', b"", b'{"a": 1}\n{"a": 7}\n{"a": 8}\n{"a": 9}\n{"a": 10}\n', b'{"a": 1}\n{"a": 2}\n{"a": 4}\n']
)
def test_a_file_that_was_cut_or_rewritten_is_read_anew(tmp_path: Path, after: bytes):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a": 3}\n')
    tail = Tail(path)
    tail.read()
    path.write_bytes(after)
    assert tail.read() == ([json.loads(each) for each in after.splitlines()], True)
    assert tail.read() == ([], False)


def test_a_file_that_is_gone_takes_nothing_away(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    tail = Tail(path)
    tail.read()
    path.unlink()
    assert tail.read() == ([], False)


@pytest.mark.parametrize("text", ["{", "[]", '{"recipe": 3}', '{"recipe": {"name": "x"}}', "{}"])
def test_a_config_that_is_no_recipe_is_told_and_the_curves_are_shown(tmp_path: Path, text: str):
    folder = written(tmp_path / "run", [line("1", 1)])
    (folder / "config.json").write_text(text)
    view = StageView(run=folder)
    assert view.problem == "" and view.document["stages"] == [] and "config.json holds no recipe" in view.document["run"]["notes"][0]
    assert view.document["run"]["curves"] and view.to_png()


def test_lines_that_are_no_steps_are_counted_and_left_out(tmp_path: Path):
    folder = written(tmp_path / "run", [line("1", 1)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            '[]\n"x"\n{"stage": 3, "step": 1}\n{"stage": "1", "step": "2"}\n{"stage": "1", "step": 0}\n{"stage": "1"}\nnull\nbroken\n'
        )
        file.write(json.dumps(line("1", 2, mlm=math.nan, note="x", flag=True, more=[1], **{"region/l1": None})) + "\n")
    view = StageView(run=folder)
    history = content_of(view).history
    assert history is not None and history.last == ("1", 2)
    assert view.document["run"]["notes"] == ["8 lines of the run's files are no records of steps and were left out."]
    curves = {curve["key"]: decoded(curve)[0] for curve in view.document["run"]["curves"]}
    assert curves["mlm"][0] == [1] and curves["region/l1"][0] == [1] and curves["loss"][0] == [1, 2]
    assert not {"note", "flag", "more"} & set(curves)
    json.dumps(view.document, allow_nan=False)


def test_only_a_model_that_was_written_after_the_last_step_ends_a_run(tmp_path: Path):
    folder = written(tmp_path / "run", [line("1", 1)])
    files = RunFiles(folder)
    assert not files.is_finished
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "model.safetensors").write_bytes(b"x")
    now = (folder / "metrics.jsonl").stat().st_mtime
    os.utime(folder / "checkpoint" / "model.safetensors", (now + 5, now + 5))
    assert files.is_finished
    os.utime(folder / "checkpoint" / "model.safetensors", (now - 5, now - 5))
    assert not files.is_finished


def test_a_run_folder_and_its_path_are_the_same(tmp_path: Path):
    folder = written(tmp_path / "run", [line("1", 1)])
    by_path, by_object = StageView(run=folder), StageView(run=RunFolder(folder, {}))
    assert by_path.document == by_object.document and by_path.document["run"]["name"].endswith("/run")


def test_probes_add_the_alarms_that_only_they_can_tell(tmp_path: Path):
    def probe(step: int) -> dict[str, Any]:
        routes = {head: {"due": 4, "probability": {}, "most_probable": {"region": 1.0}} for head in HEADS}
        return {"stage": "3b", "step": step, "losses": {}, "routes": routes}

    folder = written(tmp_path / "run", [line("3b", step) for step in range(1, 41)])
    (folder / "probes.jsonl").write_text("".join(json.dumps(probe(step)) + "\n" for step in (1, 20, 40)))
    assert "route collapse" in {alarm.kind for alarm in StageView(run=folder).alarms}
    (folder / "probes.jsonl").write_text('{"stage": "3b", "step": 1, "routes": 7}\n')
    assert StageView(run=folder).problem == ""


def test_curriculum_and_epochs_are_told_as_they_are():
    recipe = recipes.recipe("paper").for_heads(("region",))
    part = CurriculumPart(until=0.25, difficulty=3)
    changed = dataclasses.replace(recipe, stages=tuple(dataclasses.replace(stage, curriculum=(part,)) for stage in recipe.stages))
    column = table_document(StagePlan.of(changed))["stages"][0]
    assert column["curriculum"] == [[0.25, 3]] and column["steps"] is None and column["epochs"] == 1
