"""Parts that begin a stage with the values of others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tpo_lab.errors import UsageError
from tpo_lab.recipes import recipe
from tpo_lab.training.starts import start_from


def parameters() -> dict[str, nn.Parameter]:
    shapes = {
        "tokens.task.region": (4,),
        "tokens.task.temporal": (4,),
        "heads.region.where.weight": (3, 2),
        "heads.region.where.bias": (3,),
        "heads.temporal.where.weight": (3, 2),
        "heads.temporal.where.bias": (3,),
        "heads.temporal.whereabouts": (3,),
        "heads.temporal.wide.weight": (5, 2),
    }
    return {name: nn.Parameter(torch.full(shape, float(number))) for number, (name, shape) in enumerate(shapes.items())}


def test_values_are_copied_part_by_part_and_stay_apart() -> None:
    named = parameters()
    left = start_from(named, {"tokens.task.temporal": "tokens.task.region", "heads.temporal.where.*": "heads.region.where.*"})
    assert left == []
    assert named["tokens.task.temporal"].unique().item() == 0
    assert named["heads.temporal.where.weight"].unique().item() == 2 and named["heads.temporal.where.bias"].unique().item() == 3
    assert named["heads.temporal.whereabouts"].unique().item() == 6, "a name that only begins alike is another part"
    with torch.no_grad():
        named["tokens.task.region"].add_(1)
    assert named["tokens.task.temporal"].unique().item() == 0, "a copy, not the same memory"


@pytest.mark.parametrize(
    ("target", "source"),
    [
        ("heads.temporal.wide.*", "heads.region.where.*"),
        ("heads.temporal.none.*", "heads.region.where.*"),
        ("heads.temporal.where.*", "heads.region.none.*"),
        ("tokens.task.none", "tokens.task.region"),
        ("heads.temporal.whereabouts", "tokens.task.region"),
    ],
)
def test_what_does_not_go_together_is_named_and_left_alone(target: str, source: str) -> None:
    named = parameters()
    before = {name: value.detach().clone() for name, value in named.items()}
    assert start_from(named, {target: source}) == [target]
    assert all(torch.equal(named[name], value) for name, value in before.items())


def test_a_part_starts_from_a_part() -> None:
    with pytest.raises(UsageError, match="two parameters, or two parts"):
        replace(recipe("nano").stage("2.temporal")[0], starts_from={"a.*": "b"})


def test_a_model_without_the_earlier_head_does_not_start_from_it() -> None:
    whole = recipe("nano")
    assert whole.stage("2.temporal")[0].starts_from["tokens.task.temporal"] == "tokens.task.region"
    assert whole.for_heads(["temporal"]).stage("2.temporal")[0].starts_from == {}
