"""Equation 1 by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tpo_lab.objective import LossReport, combine, word_losses


def test_word_losses_split_routes_from_words_and_match_a_hand_computed_softmax() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0], [0.0, 0.0]])
    found = word_losses(logits, torch.tensor([1, 1, 0]), torch.tensor([False, True, False]))
    assert found["mlm"].tolist() == pytest.approx([math.log(4 / 3), math.log(2)])
    assert found["assign"].tolist() == pytest.approx([math.log(5)])


def test_word_losses_together_put_the_routes_among_the_words() -> None:
    logits, target, route = torch.randn(5, 7), torch.tensor([0, 6, 3, 3, 1]), torch.tensor([True, False, False, True, False])
    apart = word_losses(logits, target, route)
    together = word_losses(logits, target, route, separate=False)
    assert set(together) == {"mlm"}
    assert torch.equal(together["mlm"].sort().values, torch.cat([apart["mlm"], apart["assign"]]).sort().values)


def test_word_losses_are_fp32_for_bf16_logits_and_finite_beside_ids_nobody_owns() -> None:
    logits = torch.zeros(1, 3, dtype=torch.bfloat16)
    logits[0, 2] = float("-inf")
    (value,) = word_losses(logits, torch.tensor([0]), torch.tensor([False]))["mlm"]
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(math.log(2))


@pytest.fixture
def report() -> LossReport:
    terms = {"mlm": {"mlm": torch.tensor([1.0, 3.0])}, "region": {"l1": torch.tensor([0.5]), "giou": torch.tensor([1.0, 0.0, 0.5])}}
    return combine(terms, {"region": {"l1": 2.0, "giou": 0.2}}, {"mlm": 0.5, "region": 10.0})


def test_combine_takes_means_and_sums_them_with_both_weights(report: LossReport) -> None:
    assert {name: float(value) for name, value in report.terms.items()} == pytest.approx({"mlm": 2.0, "region/l1": 0.5, "region/giou": 0.5})
    assert report.weights == pytest.approx({"mlm": 0.5, "region/l1": 20.0, "region/giou": 2.0})
    assert float(report.total) == pytest.approx(0.5 * 2 + 20 * 0.5 + 2 * 0.5)
    assert float(report.total) == pytest.approx(sum(report.weights[name] * float(value) for name, value in report.terms.items()))


def test_per_head_sums_the_weighted_terms_of_each_owner(report: LossReport) -> None:
    assert {name: float(value) for name, value in report.per_head().items()} == pytest.approx({"mlm": 1.0, "region": 11.0})


def test_floats_are_plain_numbers_without_weights(report: LossReport) -> None:
    assert report.floats() == pytest.approx({"loss": 12.0, "mlm": 2.0, "region/l1": 0.5, "region/giou": 0.5})
    assert all(type(value) is float for value in report.floats().values())


def test_an_owner_without_a_weight_weighs_one_and_an_empty_term_nothing() -> None:
    empty = torch.zeros(3, requires_grad=True)[:0]
    found = combine({"mlm": {"mlm": torch.tensor([4.0])}, "assign": {"assign": empty}}, {}, {})
    assert float(found.total.detach()) == 4.0
    assert float(found.terms["assign"].detach()) == 0.0


def test_per_head_carries_the_gradient_that_the_total_carries() -> None:
    value: Tensor = torch.tensor([1.0, 2.0], requires_grad=True)
    found = combine({"region": {"l1": value}}, {"region": {"l1": 3.0}}, {"region": 0.5})
    (total,) = torch.autograd.grad(found.total, value, retain_graph=True)
    (own,) = torch.autograd.grad(found.per_head()["region"], value)
    assert total.tolist() == own.tolist() == [0.75, 0.75]


def test_combine_of_nothing_is_zero() -> None:
    assert float(combine({}, {}, {}).total) == 0.0
