from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tpo_lab.datasets.world.scene import LEVELS
from tpo_lab.errors import UsageError
from tpo_lab.recipes import PRESETS, Recipe, recipe
from tpo_lab.stages import Lora, Stage, Switches

# Table 16 of the paper, typed from it: stage 1, stage 2, stage 3 without conversation, stage 3. None: "-" or "Frozen".
TABLE_16: list[tuple[str, tuple[float | None, ...]]] = [
    ("vision.*", (None, None, 2e-5, 2e-5)),
    ("connector.*", (None, None, 2e-5, 2e-5)),
    ("heads.temporal.*", (None, 1e-4, 2e-5, 2e-5)),
    ("heads.region.*", (None, 1e-4, 2e-5, 2e-5)),
    ("heads.mask.sam2.*", (None, None, None, None)),
    ("heads.mask.adapter.*", (None, 1e-4, 2e-5, 2e-5)),
    ("tokens.task.temporal", (None, 2e-4, 2e-5, 2e-5)),
    ("tokens.task.region", (None, 1e-4, 2e-5, 2e-5)),
    ("tokens.task.mask", (None, 1e-4, 2e-5, 2e-5)),
    ("llm.lora.*", (2e-5, 2e-5, 2e-5, 2e-5)),
]
COLUMNS = ("1", "2", "3a", "3b")
BATCH = {"1": 128, "2.temporal": 64, "2.mask": 128, "2.region": 128, "3a": 256, "3b": 256}
EPOCHS = {"1": 1, "2.temporal": 25, "2.mask": 3, "2.region": 1, "3a": 1, "3b": 3}


def by_name(chosen: Recipe) -> dict[str, Stage]:
    return {stage.name: stage for stage in chosen.stages}


def differences(first: object, second: object, path: str = "") -> dict[str, tuple[object, object]]:
    if isinstance(first, dict) and isinstance(second, dict):
        found = {}
        for key in first.keys() | second.keys():
            found.update(differences(first.get(key), second.get(key), f"{path}/{key}"))
        return found
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return {name: pair for index, (a, b) in pairs for name, pair in differences(a, b, f"{path}/{index}").items()}
    return {} if first == second else {path: (first, second)}


@pytest.mark.parametrize(("pattern", "rates"), TABLE_16)
def test_paper_learning_rates_are_those_of_table_16(pattern: str, rates: tuple[float | None, ...]) -> None:
    chosen = recipe("paper")
    for word, rate in zip(COLUMNS, rates, strict=True):
        head = next((head for head in ("temporal", "mask", "region") if head in pattern), None)
        # In stage 2 a head's column is the sub-stage that trains it; the others leave it alone.
        for stage in chosen.stage(word):
            other = word == "2" and head is not None and stage.name != f"2.{head}"
            assert stage.learning_rates.get(pattern) == (None if other else rate), (stage.name, pattern)


def test_paper_trains_nothing_that_table_16_does_not_list_but_rows_and_box_encoder() -> None:
    listed = {pattern for pattern, rates in TABLE_16 if any(rates)}
    trained = {pattern for stage in recipe("paper").stages for pattern in stage.learning_rates}
    assert trained - listed == {"tokens.rows.*", "prompts.*"}


def test_paper_numbers_are_those_of_table_16() -> None:
    chosen = recipe("paper")
    assert {name: stage.batch_size for name, stage in by_name(chosen).items()} == BATCH
    assert {name: stage.epochs for name, stage in by_name(chosen).items()} == EPOCHS
    for stage in chosen.stages:
        assert (stage.schedule, stage.weight_decay, stage.warmup_ratio, stage.precision, stage.steps) == ("cosine", 0.02, 0.2, "bf16", None)
    assert (chosen.lora.rank, chosen.lora.alpha, chosen.frames, chosen.resolution) == (16, 32, 16, 224)


def test_paper_text_differs_in_what_the_text_contradicts_only() -> None:
    found = differences(recipe("paper").to_dict(), recipe("paper-text").to_dict())
    assert found.pop("/name") == ("paper", "paper-text")
    assert set(found) - {"/source"} == {
        "/stages/2/learning_rates/heads.mask.adapter.*",
        "/stages/2/learning_rates/tokens.task.mask",
        "/stages/2/learning_rates/prompts.*",
        "/stages/3/learning_rates/heads.region.*",
        "/stages/3/learning_rates/tokens.task.region",
        "/stages/4/batch_size",
        "/stages/5/batch_size",
    }
    assert {new for path, (_, new) in found.items() if "learning_rates" in path} == {2e-5}
    assert {new for path, (_, new) in found.items() if "batch_size" in path} == {128}


def test_official_has_the_arguments_of_the_released_run() -> None:
    chosen = recipe("official")
    for stage in chosen.stages:
        assert set(stage.learning_rates.values()) == {2e-5}
        assert (stage.epochs, stage.warmup_ratio, stage.min_lr_ratio, stage.batch_size) == (1, 0.0, 0.05, 128)
        assert (stage.eps, stage.betas, stage.grad_clip, stage.weight_decay) == (1e-5, (0.9, 0.999), 1.0, 0.02)
        assert stage.losses.get("temporal", 0.05) == 0.05
        assert "assign" not in stage.losses
    assert by_name(chosen)["3b"].losses["temporal"] == 0.05
    assert chosen.lora == Lora(rank=16, alpha=32, dropout=0.1, lm_head=True)
    assert (chosen.switches.region_loss, chosen.switches.saliency_weight) == ("official", 4.0)


@pytest.mark.parametrize("name", PRESETS)
def test_stage_1_trains_lora_and_the_new_rows_only(name: str) -> None:
    (stage,) = recipe(name).stage("1")
    rows = "tokens.rows.output" if name == "official" else "tokens.rows.*"
    assert set(stage.learning_rates) == {"llm.lora.*", rows}
    assert stage.learning_rates[rows] == stage.learning_rates["llm.lora.*"]


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_json_and_a_file(name: str, tmp_path: Path) -> None:
    chosen = recipe(name)
    assert chosen.name == name
    assert Recipe.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen
    chosen.save(tmp_path / "r.json")
    assert recipe(tmp_path / "r.json") == recipe(str(tmp_path / "r.json")) == Recipe.load(tmp_path / "r.json") == chosen


@pytest.mark.parametrize("name", PRESETS)
def test_preset_trains_each_head_alone_with_its_own_token_and_loss(name: str) -> None:
    for stage in recipe(name).stage("2"):
        (head,) = stage.heads
        others = {"temporal", "mask", "region"} - {head}
        assert f"tokens.task.{head}" in stage.learning_rates
        assert not [pattern for pattern in stage.learning_rates for other in others if other in pattern.split(".")]
        assert set(stage.losses) - {"mlm", "assign"} == {head}


def test_nano_counts_steps_in_fp32() -> None:
    stages = by_name(recipe("nano"))
    assert all(stage.epochs is None and stage.steps and stage.precision == "fp32" for stage in stages.values())


def test_nano_long_is_nano_with_more_steps() -> None:
    short, long = recipe("nano"), recipe("nano-long")
    for one, other in zip(short.stages, long.stages, strict=True):
        assert other.steps > one.steps and dataclasses.replace(other, steps=one.steps) == one
    assert (short.lora, short.switches) == (long.lora, long.switches)


def test_nano_begins_the_boxes_with_one_thing_and_ends_with_all() -> None:
    curricula = {name: [part.difficulty for part in stage.curriculum] for name, stage in by_name(recipe("nano")).items()}
    assert curricula.pop("2.region") == [1, 2, 3]
    assert not any(curricula.values())


def test_nano_joins_the_tasks_on_clips_as_crowded_as_those_it_is_evaluated_on() -> None:
    fewest = {name: stage.easiest for name, stage in by_name(recipe("nano")).items()}
    assert {name for name, things in fewest.items() if things} == {"3a", "3b"}
    assert fewest["3a"] == fewest["3b"] == LEVELS["standard"].things[0]


def test_toml_is_read(tmp_path: Path) -> None:
    pytest.importorskip("tomllib", reason="TOML is in the standard library from Python 3.11")
    (tmp_path / "r.toml").write_text(
        'name = "mine"\nframes = 4\nresolution = 32\n[switches]\ntrain_rows = "none"\n[[stages]]\nname = "2.region"\ntitle = "t"\n'
        'steps = 9\nbatch_size = 2\nlearning_rates = {"heads.region.*" = 1}\ndata = {region = 1}\nlosses = {region = 2}\n'
    )
    chosen = recipe(tmp_path / "r.toml")
    assert (chosen.stages[0].steps, chosen.stages[0].learning_rates, chosen.lora) == (9, {"heads.region.*": 1.0}, Lora())


def test_recipe_refuses_an_unknown_name_with_the_list() -> None:
    with pytest.raises(UsageError, match=r"one of .*nano, nano-long, official, paper, paper-text, got 'papier'\. Did you mean 'paper'"):
        recipe("papier")
    with pytest.raises(UsageError, match=r"got 'none\.json'"):
        recipe("none.json")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("stags",), r"recipe: expected one of .*got 'stags'\. Did you mean 'stages'"),
        (("lora", "rnk"), r"recipe: lora: .*got 'rnk'\. Did you mean 'rank'"),
        (("switches", "region"), r"recipe: switches: .*got 'region'\. Did you mean 'region_loss'"),
        (("stages", 3, "lr"), r"recipe: stages\[3\]: expected one of .*got 'lr'"),
    ],
)
def test_from_dict_refuses_unknown_keys(path: tuple[str | int, ...], message: str) -> None:
    plain = recipe("paper").to_dict()
    holder = plain
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = 1
    with pytest.raises(UsageError, match=message):
        Recipe.from_dict(plain)


def test_stage_words_select_and_unknown_ones_are_refused_with_the_list() -> None:
    chosen = recipe("paper")
    assert [[s.name for s in chosen.stage(word)] for word in ("1", "2", "2.region", "3b")] == [
        ["1"],
        ["2.temporal", "2.mask", "2.region"],
        ["2.region"],
        ["3b"],
    ]
    assert chosen.stage("all") == chosen.stages
    with pytest.raises(UsageError, match=r"stage: expected one of 1, 2, 2\.mask, 2\.region, 2\.temporal, 3a, 3b, all, got '3'"):
        chosen.stage("3")


def test_stages_are_refused_out_of_order_twice_or_not_at_all() -> None:
    chosen = recipe("paper")
    first, *_, last = chosen.stages
    for stages in ((last, first), (first, first), ()):
        with pytest.raises(UsageError, match=r"stages: expected at least one, each once, in the order 1, 2\.\*, 3a, 3b, got \["):
            dataclasses.replace(chosen, stages=stages)


def test_for_heads_leaves_no_trace_of_the_others() -> None:
    full = recipe("paper")
    chosen = full.for_heads(("region", "temporal"))
    assert [stage.name for stage in chosen.stages] == ["1", "2.temporal", "2.region", "3a", "3b"]
    assert chosen.heads == ("temporal", "region")
    assert "mask" not in json.dumps(chosen.to_dict()["stages"])
    assert chosen.stage("3b")[0].data == {"temporal": 7.5, "region": 400, "conversation": 3040}
    assert chosen.stage("2.region") == full.stage("2.region")
    assert full.for_heads(full.heads) == full


def test_for_heads_refuses_a_head_that_no_stage_trains() -> None:
    with pytest.raises(UsageError, match=r"recipe 'nano': heads: expected one of mask, region, temporal, got 'depth'"):
        recipe("nano").for_heads(("region", "depth"))


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("2.region.batch_size", 64, ("stages", 3, "batch_size")),
        ("3a.losses.temporal", 0.5, ("stages", 4, "losses", "temporal")),
        ("1.learning_rates.llm.lora.*", 1e-3, ("stages", 0, "learning_rates", "llm.lora.*")),
        ("lora.rank", 4, ("lora", "rank")),
        ("switches.region_loss", "official", ("switches", "region_loss")),
        ("frames", 5, ("frames",)),
        ("2.mask.betas", (0.8, 0.9), ("stages", 2, "betas")),
    ],
)
def test_replace_changes_one_knob_only(path: str, value: object, where: tuple[str | int, ...]) -> None:
    before = recipe("paper")
    after = before.replace(**{path: value})
    found: object = after.to_dict()
    for key in where:
        found = found[key]  # type: ignore[index]
    assert found == (list(value) if isinstance(value, tuple) else value)
    place = "/" + "/".join(map(str, where))
    assert {name for name in differences(before.to_dict(), after.to_dict()) if not name.startswith(place)} == set()
    assert before == recipe("paper") != after


def test_replace_takes_words_for_several_stages_and_whole_settings() -> None:
    chosen = recipe("paper").replace(
        **{"2.batch_size": 7, "all.precision": "fp32", "lora": Lora(rank=2), "3a.data": {"region": 1}, "3a.losses": {}}
    )
    assert [stage.batch_size for stage in chosen.stages] == [128, 7, 7, 7, 256, 256]
    assert {stage.precision for stage in chosen.stages} == {"fp32"}
    assert (chosen.lora.rank, chosen.stage("3a")[0].data) == (2, {"region": 1.0})


def test_replace_with_one_length_clears_the_other() -> None:
    chosen = recipe("paper").replace(**{"1.steps": 60})
    assert (chosen.stages[0].steps, chosen.stages[0].epochs) == (60, None)
    back = chosen.replace(**{"1.epochs": 1})
    assert back == recipe("paper")
    with pytest.raises(UsageError, match="exactly one of epochs and steps"):
        chosen.replace(**{"1.steps": 5, "1.epochs": 5})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("2.region.batch_sise", 1, r"2\.region\.batch_sise: .*Did you mean 'batch_size'"),
        ("2.region.losses.mask", 1.0, r"got 'losses\.mask'"),
        ("batch_size", 1, r"expected one of 1\.<knob>.*got 'batch_size'"),
        ("3.batch_size", 1, r"got '3\.batch_size'"),
        ("lora.rnk", 1, r"got 'lora\.rnk'\. Did you mean 'lora\.rank'"),
        ("3a.batch_size", "64", r"stage '3a': batch_size: expected a whole number, got '64'"),
        ("switches.region_loss", "mse", r"switches: region_loss: expected one of official, paper, got 'mse'"),
    ],
)
def test_replace_refuses_unknown_paths_and_unfit_values(path: str, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipe("paper").replace(**{path: value})


def test_train_rows_is_written_into_every_stage() -> None:
    both = recipe("nano")
    output, none = (both.replace(**{"switches.train_rows": rows}) for rows in ("output", "none"))
    for stage in both.stages:
        assert stage.learning_rates["tokens.rows.*"] == stage.learning_rates["llm.lora.*"]
    assert all("tokens.rows.output" in s.learning_rates and "tokens.rows.*" not in s.learning_rates for s in output.stages)
    assert not [pattern for stage in none.stages for pattern in stage.learning_rates if "rows" in pattern]
    assert none.replace(**{"switches.train_rows": "both"}).stages[0].learning_rates == both.stages[0].learning_rates


def test_train_rows_keeps_a_rate_of_their_own_and_adds_none_where_lora_is_frozen() -> None:
    stage = Stage(name="2.region", title="", learning_rates={"heads.region.*": 1.0}, data={"region": 1}, losses={}, steps=1, batch_size=1)
    assert set(Recipe(name="r", stages=(stage,), frames=1, resolution=8).stages[0].learning_rates) == {"heads.region.*"}
    own = recipe("nano").replace(**{"1.learning_rates.tokens.rows.*": 0.5})
    assert own.stages[0].learning_rates["tokens.rows.*"] == 0.5 != own.stages[0].learning_rates["llm.lora.*"]


def test_assign_loss_is_written_into_every_stage() -> None:
    inside = recipe("paper").replace(**{"switches.assign_loss": "inside_mlm"})
    assert not [stage.name for stage in inside.stages if "assign" in stage.losses]
    assert inside.replace(**{"switches.assign_loss": "separate"}) == recipe("paper")


def test_describe_shows_each_rate_beside_its_stage() -> None:
    drawn = io.StringIO()
    Console(width=200, file=drawn).print(recipe("paper").describe())
    rows = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in drawn.getvalue().splitlines()]
    assert ["knob", "1", "2.temporal", "2.mask", "2.region", "3a", "3b"] in rows
    assert ["learning_rates: tokens.task.temporal", "frozen", "0.0002", "frozen", "frozen", "2e-05", "2e-05"] in rows
    assert ["epochs", "1", "25", "3", "1", "1", "3"] in rows
    assert any("region_loss paper" in row[0] for row in rows)


def test_repr_is_one_line_with_the_order() -> None:
    assert repr(recipe("nano")).startswith(
        "Recipe('nano': 1 -> 2.temporal -> 2.mask -> 2.region -> 3a -> 3b; LoRA 16/32; 8 frames of 64 px"
    )
    assert "\n" not in repr(recipe("paper"))


def test_switch_defaults_are_the_paper() -> None:
    assert recipe("paper").switches == Switches()
