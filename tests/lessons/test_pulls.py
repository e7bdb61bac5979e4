"""Gradients of several losses in the same weights, against worked examples."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tpo_lab.errors import UsageError
from tpo_lab.lessons.losses import samples_of_each
from tpo_lab.lessons.prompts import batch_of
from tpo_lab.lessons.pulls import along, cosines, joined, pulls
from tpo_lab.model import TPOModel
from tpo_lab.probes.trace import Gradients
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora


@pytest.fixture
def named() -> dict[str, nn.Parameter]:
    values = {"llm.lora.a.layers.0.x": [1.0, 2.0], "llm.lora.a.layers.1.x": [3.0], "heads.region.x": [4.0]}
    return {name: nn.Parameter(torch.tensor(value)) for name, value in values.items()}


def test_a_part_is_all_parameters_that_begin_so(named: dict[str, nn.Parameter]):
    first, second, head = named.values()
    losses = {"one": 3 * first[0] + 4 * second[0] + head[0], "other": first[1] * 2}
    found = pulls(losses, named, ["llm.lora", "heads.region"])
    assert found.norm("one", "llm.lora") == pytest.approx(5.0) and found.norm("other", "llm.lora") == pytest.approx(2.0)
    assert found.norm("one", "heads.region") == pytest.approx(1.0) and found.norm("other", "heads.region") == 0.0
    assert found.parameters == {"llm.lora": 3, "heads.region": 1}


def test_a_part_that_no_parameter_has_is_refused(named: dict[str, nn.Parameter]):
    with pytest.raises(UsageError, match="parts: expected beginnings of names of parameters"):
        pulls({"one": named["heads.region.x"].sum()}, named, ["llm.lore"])


def test_cosines_are_those_of_the_vectors_and_nan_where_one_is_missing(named: dict[str, nn.Parameter]):
    first = named["llm.lora.a.layers.0.x"]
    losses = {"east": first[0] * 5, "diagonal": first.sum(), "west": -first[0], "none": named["heads.region.x"].sum()}
    found = cosines(pulls(losses, named, ["llm.lora"]), "llm.lora")
    assert found[0][:3] == pytest.approx([1.0, 0.5**0.5, -1.0])
    assert all(math.isnan(value) for value in found[3])


def of(products: list[list[float]]) -> Gradients:
    return Gradients(("a", "b"), {"m": torch.tensor(products, dtype=torch.float64)}, {"m": 2})


def test_batches_are_added():
    assert joined([of([[1, 2], [2, 5]]), of([[3, 0], [0, 1]])]).products["m"].tolist() == [[4, 2], [2, 6]]


def test_the_step_goes_the_way_of_the_louder():
    # a = (1, 0), b = (0, 2): their sum is (1, 2); with a a hundred times as loud, (100, 2)
    gradients = of([[1, 0], [0, 4]])
    assert along(gradients, "m", {}) == pytest.approx({"a": 1 / 5**0.5, "b": 2 / 5**0.5})
    assert along(gradients, "m", {"a": 100}) == pytest.approx({"a": 100 / 10004**0.5, "b": 2 / 10004**0.5})
    assert all(math.isnan(value) for value in along(of([[0, 0], [0, 0]]), "m", {}).values())


def test_a_head_hears_its_own_loss_and_lora_hears_all(tiny: TPOModel, world: Callable[..., list[Sample]]):
    tiny.add_lora(Lora(rank=3, alpha=6.0, dropout=0.0))
    batch = batch_of(
        tiny, samples_of_each([sample for scene in range(8) for sample in world(scene)], ("conversation", "region", "temporal"))
    )
    parts = ["llm.lora", "tokens.rows", "tokens.task.region", "tokens.task.temporal", "heads.region", "heads.temporal"]
    found = pulls(tiny.losses(batch, tiny(batch)).per_head(), tiny.named_parts(), parts)
    assert found.owners == ("mlm", "assign", "region", "temporal")
    assert all(found.norm(owner, "llm.lora") > 0 for owner in found.owners) and found.norm("assign", "tokens.rows") > 0
    for head, other in (("region", "temporal"), ("temporal", "region")):
        assert found.norm(head, f"heads.{head}") > 0 and found.norm(head, f"tokens.task.{head}") > 0
        assert found.norm(head, f"heads.{other}") == found.norm(head, f"tokens.task.{other}") == 0
    assert found.norm("mlm", "heads.region") == found.norm("assign", "tokens.task.temporal") == 0


def test_parts_of_the_sum_come_with_their_weights(tiny: TPOModel, world: Callable[..., list[Sample]]):
    batch = batch_of(tiny, samples_of_each([sample for scene in range(8) for sample in world(scene)], ("region",)))
    report = tiny.losses(batch, tiny(batch), {"mlm": 1.0, "region": 3.0})
    found = pulls(report.per_head(), tiny.named_parts(), ["heads.region"])
    assert all(parameter.grad is None for parameter in tiny.parameters())
    (3.0 * (2 * report.terms["region/l1"] + 0.2 * report.terms["region/giou"])).backward()
    squares = sum(float(parameter.grad.pow(2).sum()) for parameter in tiny.head("region").parameters() if parameter.grad is not None)
    assert found.norm("region", "heads.region") == pytest.approx(squares**0.5, rel=1e-4)
