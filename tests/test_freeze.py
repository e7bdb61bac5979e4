from __future__ import annotations

import io
import json

import pytest
import torch
from rich.console import Console
from torch import nn

from tpo_lab import freeze
from tpo_lab.errors import UsageError
from tpo_lab.freeze import FreezePlan
from tpo_lab.recipes import recipe

SHAPES = {
    "vision.patch.weight": (3, 2),
    "vision.patch.bias": (3,),
    "connector.linear.weight": (4, 3),
    "llm.base.embed.weight": (11, 4),
    "llm.base.norm.weight": (4,),
    "llm.lora.q_proj.a": (2, 4),
    "llm.lora.q_proj.b": (4, 2),
    "tokens.task.region": (1, 1, 4),
    "tokens.task.temporal": (1, 1, 4),
    "tokens.task.mask": (1, 1, 4),
    "tokens.rows.input": (7, 4),
    "tokens.rows.output": (7, 4),
    "prompts.box.0.weight": (5, 4),
    "prompts.box.0.bias": (5,),
    "heads.region.0.weight": (6, 4),
    "heads.region.0.bias": (6,),
    "heads.region.0.scale": (),
    "heads.temporal.0.weight": (2, 4),
    "heads.mask.sam2.decoder.weight": (8, 2),
    "heads.mask.adapter.weight": (9, 4),
}


def model() -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.zeros(shape)) for name, shape in SHAPES.items()}


def trained(parameters: dict[str, nn.Parameter]) -> set[str]:
    return {name for name, parameter in parameters.items() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("1", {"llm.lora.q_proj.a", "llm.lora.q_proj.b", "tokens.rows.input", "tokens.rows.output"}),
        (
            "2.region",
            {"llm.lora.q_proj.a", "llm.lora.q_proj.b", "tokens.rows.input", "tokens.rows.output", "tokens.task.region"}
            | {"heads.region.0.weight", "heads.region.0.bias", "heads.region.0.scale"},
        ),
        ("3a", SHAPES.keys() - {"llm.base.embed.weight", "llm.base.norm.weight", "heads.mask.sam2.decoder.weight"}),
    ],
)
def test_apply_trains_exactly_what_the_papers_stage_names(stage: str, expected: set[str]) -> None:
    parameters = model()
    (chosen,) = recipe("paper").stage(stage)
    groups = freeze.apply(FreezePlan.of(chosen), parameters)
    assert trained(parameters) == expected
    assert sorted(name for group in groups for name in group.names) == sorted(expected)
    assert all(parameter is parameters[name] for group in groups for name, parameter in zip(group.names, group.parameters, strict=True))


@pytest.mark.parametrize("name", ["paper", "official", "nano"])
def test_every_pattern_of_every_preset_matches_a_model_with_all_parts(name: str) -> None:
    for stage in recipe(name).stages:
        groups = freeze.apply(FreezePlan.of(stage), model())
        assert {group.pattern: group.learning_rate for group in groups} == stage.learning_rates


def test_apply_undoes_the_stage_before() -> None:
    parameters = model()
    freeze.apply(FreezePlan({"heads.region.*": 1.0}), parameters)
    parameters["heads.region.0.bias"].grad = torch.ones(6)
    parameters["llm.lora.q_proj.a"].grad = kept = torch.ones(2, 4)
    freeze.apply(FreezePlan({"llm.lora.*": 1.0}), parameters)
    assert trained(parameters) == {"llm.lora.q_proj.a", "llm.lora.q_proj.b"}
    assert parameters["heads.region.0.bias"].grad is None
    assert parameters["llm.lora.q_proj.a"].grad is kept


def test_apply_splits_a_pattern_by_weight_decay() -> None:
    plan = FreezePlan({"heads.region.*": 1e-3, "tokens.*": 2e-3})
    groups = freeze.apply(plan, model())
    assert [(group.pattern, group.learning_rate, group.decayed, group.names) for group in groups] == [
        ("heads.region.*", 1e-3, True, ("heads.region.0.weight",)),
        ("heads.region.*", 1e-3, False, ("heads.region.0.bias", "heads.region.0.scale")),
        ("tokens.*", 2e-3, False, tuple(name for name in SHAPES if name.startswith("tokens."))),
    ]


def test_apply_makes_one_group_per_pattern_where_everything_decays() -> None:
    (stage,) = recipe("paper").replace(**{"2.region.decay_on": "everything"}).stage("2.region")
    groups = freeze.apply(FreezePlan.of(stage), model())
    assert [group.pattern for group in groups] == list(stage.learning_rates)
    assert all(group.decayed for group in groups)


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("heads.regoin.*", r"Did you mean 'heads\.region\.\*'"),
        ("tokens.task.regon", r"Did you mean 'tokens\.task\.region'"),
        ("llm.lora", r"Did you mean .*'llm\.lora\.\*'"),
        ("zzzz", r"The model has connector, heads, llm, prompts, tokens, vision\."),
        ("VISION.*", "got 'VISION"),
    ],
)
def test_apply_refuses_a_pattern_that_matches_nothing_with_the_closest(pattern: str, hint: str) -> None:
    parameters = model()
    with pytest.raises(UsageError, match=rf"freeze pattern: .*{hint}"):
        freeze.apply(FreezePlan({"llm.lora.*": 1.0, pattern: 1.0}), parameters)
    assert trained(parameters) == set(SHAPES), "no flag may change when the plan is refused"


def test_apply_refuses_overlapping_patterns_by_name() -> None:
    hint = r"got 'heads\.region\.0\.bias'.*'heads\.\*' and '\*\.bias' both match"
    with pytest.raises(UsageError, match=hint):
        freeze.apply(FreezePlan({"heads.*": 1.0, "*.bias": 2.0}), {name: p for name, p in model().items() if "prompts" not in name})


def test_apply_refuses_a_parameter_with_two_names() -> None:
    parameters = model()
    parameters["tokens.rows.output"] = parameters["tokens.rows.input"]
    with pytest.raises(UsageError, match=r"got 'tokens\.rows\.output'. It is also called 'tokens\.rows\.input'"):
        freeze.apply(FreezePlan({"tokens.rows.input": 1.0}), parameters)


def test_apply_refuses_to_train_quantised_weights_and_freezes_them_gladly() -> None:
    parameters = model()
    parameters["llm.base.embed.weight"] = nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
    freeze.apply(FreezePlan({"llm.lora.*": 1.0}), parameters)
    with pytest.raises(
        UsageError, match=r"llm\.base\.embed\.weight: expected floating-point numbers, got 'torch\.int8'\. The pattern 'llm\.base"
    ):
        freeze.apply(FreezePlan({"llm.base.*": 1.0}), parameters)
    assert trained(parameters) == {"llm.lora.q_proj.a", "llm.lora.q_proj.b"}


def test_parts_split_a_subtree_only_where_its_fate_differs() -> None:
    (stage,) = recipe("paper").stage("2.mask")
    rows = [(part.name, part.learning_rate, part.parameters) for part in freeze.parts(FreezePlan.of(stage), model())]
    assert rows == [
        ("vision", None, 9),
        ("connector", None, 12),
        ("llm.base", None, 48),
        ("llm.lora", 2e-5, 16),
        ("tokens.task.region", None, 4),
        ("tokens.task.temporal", None, 4),
        ("tokens.task.mask", 1e-4, 4),
        ("tokens.rows", 2e-5, 56),
        ("prompts.box", 1e-4, 25),
        ("heads.region", None, 31),
        ("heads.temporal", None, 8),
        ("heads.mask.sam2", None, 16),
        ("heads.mask.adapter", 1e-4, 36),
    ]


def test_shape_counts_every_parameter_once_whatever_the_order() -> None:
    plan = FreezePlan({"heads.mask.adapter.*": 0.5, "tokens.rows.output": 0.25})
    shuffled = dict(sorted(model().items(), key=lambda item: item[0][::-1]))
    found = json.loads(json.dumps(freeze.shape(plan, shuffled)))
    total = sum(parameter.numel() for parameter in shuffled.values())
    assert (found["trained"], found["total"]) == (36 + 28, total)
    assert sum(part["parameters"] for part in found["parts"].values()) == total
    assert found["parts"]["tokens.rows.output"] == {"trained": True, "parameters": 28, "learning_rate": 0.25}
    assert found["parts"]["heads.mask.sam2"] == {"trained": False, "parameters": 16, "learning_rate": None}


def test_table_shows_the_state_of_each_part_and_changes_nothing() -> None:
    parameters = model()
    drawn = io.StringIO()
    Console(file=drawn, width=100).print(freeze.table(FreezePlan({"heads.region.*": 3e-4}), parameters))
    cells = [line.strip("│").split("│") for line in drawn.getvalue().splitlines()]
    lines = [[cell.strip() for cell in row] for row in cells]
    assert ["heads.region", "trained", "31", "0.0003"] in lines
    assert ["heads.temporal", "frozen", "8", "-"] in lines
    assert any("31 of 269 parameters train" in row[0] for row in lines)
    assert trained(parameters) == set(SHAPES)
