"""Losses: hand-computed values, NumPy oracles, the perfect prediction as the minimum, masks, and no NaN from nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.losses import BinaryCrossEntropy, BoxGIoU, BoxL1, BoxMSE, SoftCrossEntropy, masked_log_softmax, reduce_mean

quick = settings(deadline=None, max_examples=30)
TARGET = torch.tensor([[0.2, 0.3, 0.6, 0.9], [0.1, 0.1, 0.5, 0.2], [0.0, 0.5, 1.0, 0.6]])
BOX_LOSSES = [BoxL1(), BoxMSE(), BoxGIoU()]
seeds = st.integers(0, 10_000)


def test_box_losses_of_a_worked_example() -> None:
    predicted, target = torch.tensor([[0.0, 0.0, 0.5, 0.5]]), torch.tensor([[0.0, 0.0, 0.5, 1.0]])
    assert BoxL1()(predicted, target).tolist() == pytest.approx([0.5 / 4])
    assert BoxMSE()(predicted, target).tolist() == pytest.approx([0.25 / 4])
    assert BoxGIoU()(predicted, target).tolist() == pytest.approx([0.5])


@pytest.mark.parametrize("loss", BOX_LOSSES, ids=repr)
def test_box_losses_give_one_value_per_box_and_zero_for_the_perfect_one(loss: BoxL1 | BoxMSE | BoxGIoU) -> None:
    values = loss(TARGET, TARGET)
    assert values.shape == (3,)
    assert values.tolist() == pytest.approx([0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("loss", BOX_LOSSES, ids=repr)
@quick
@given(seed=seeds)
def test_no_other_box_is_better_than_the_perfect_one(loss: BoxL1 | BoxMSE | BoxGIoU, seed: int) -> None:
    other = TARGET + 0.3 * torch.randn(TARGET.shape, generator=torch.Generator().manual_seed(seed))
    assert (loss(other, TARGET) > 0).all()


def test_giou_of_an_inverted_box_is_that_of_the_ordered_one_and_has_a_gradient() -> None:
    inverted = torch.tensor([[0.7, 0.8, 0.3, 0.4]], requires_grad=True)
    value = BoxGIoU()(inverted, TARGET[:1])
    assert value.item() == pytest.approx(BoxGIoU()(torch.tensor([[0.3, 0.4, 0.7, 0.8]]), TARGET[:1]).item())
    value.sum().backward()
    assert inverted.grad is not None
    assert (inverted.grad.abs() > 0).all()


def test_bf16_boxes_are_compared_in_fp32() -> None:
    values = BoxL1()(TARGET.bfloat16(), TARGET)
    assert values.dtype == torch.float32
    assert values.max() < 0.002


def soft_cross_entropy(logits: np.ndarray, target: np.ndarray) -> float:
    shifted = logits - logits.max()
    return float(-(target * (shifted - np.log(np.exp(shifted).sum()))).sum())


@quick
@given(seeds)
def test_soft_cross_entropy_equals_the_numpy_oracle_on_the_valid_entries(seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits, target = 5 * generator.standard_normal((2, 5)), generator.dirichlet(np.ones(5), size=2)
    valid = np.array([[True, True, False, True, False], [True] * 5])
    target = np.where(valid, target, 0)
    values = SoftCrossEntropy()(torch.from_numpy(logits), torch.from_numpy(target), torch.from_numpy(valid))
    expected = [soft_cross_entropy(logits[row][valid[row]], target[row][valid[row]]) for row in range(2)]
    assert values.tolist() == pytest.approx(expected)


def test_soft_cross_entropy_is_least_at_the_target_where_it_is_the_entropy() -> None:
    target, valid = torch.tensor([[0.5, 0.25, 0.25]]), torch.ones(1, 3, dtype=torch.bool)
    perfect = target.log().requires_grad_()
    value = SoftCrossEntropy()(perfect, target, valid)
    assert value.item() == pytest.approx(1.5 * math.log(2))
    assert torch.autograd.grad(value.sum(), perfect)[0].abs().max() < 1e-6
    assert SoftCrossEntropy()(perfect + torch.tensor([0.3, 0, 0]), target, valid) > value


@pytest.mark.parametrize("padding", [0.0, 1e9, -math.inf, math.nan])
def test_masked_logits_change_neither_value_nor_gradient(padding: float) -> None:
    target, valid = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[True, True, False]])
    logits = torch.tensor([[1.0, 3.0, padding]], requires_grad=True)
    value = SoftCrossEntropy()(logits, target, valid)
    value.sum().backward()
    assert value.item() == pytest.approx(soft_cross_entropy(np.array([1.0, 3.0]), np.array([0.5, 0.5])))
    assert logits.grad is not None
    assert logits.grad[0, 2] == 0
    assert logits.grad[0, :2].isfinite().all()


def test_a_row_without_a_valid_entry_is_zero_with_a_finite_gradient() -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    valid = torch.tensor([[False] * 3, [True] * 3])
    values = SoftCrossEntropy()(logits, torch.tensor([[0.0] * 3, [1.0, 0, 0]]), valid)
    values.sum().backward()
    assert values[0] == 0
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().sum() > 0
    assert masked_log_softmax(logits.detach(), valid).isfinite().all()


def test_binary_cross_entropy_returns_the_valid_entries_row_by_row() -> None:
    logits, target = torch.tensor([[0.0, 2.0], [math.nan, -1.0]]), torch.tensor([[1.0, 0.25], [0.5, 0.0]])
    values = BinaryCrossEntropy()(logits, target, torch.tensor([[True, True], [False, True]]))
    probability = [1 / (1 + math.exp(-x)) for x in (0.0, 2.0, -1.0)]
    expected = [-(q * math.log(p) + (1 - q) * math.log(1 - p)) for p, q in zip(probability, (1.0, 0.25, 0.0), strict=True)]
    assert values.tolist() == pytest.approx(expected)


def test_binary_cross_entropy_is_finite_where_a_bf16_sigmoid_is_one() -> None:
    logits = torch.tensor([40.0, -40.0], dtype=torch.bfloat16)
    values = BinaryCrossEntropy()(logits, torch.tensor([0.0, 1.0]), torch.tensor([True, True]))
    assert values.tolist() == [40, 40]


def test_reduce_mean_counts_only_valid_values() -> None:
    values = torch.tensor([1.0, math.nan, 3.0, 8.0])
    assert reduce_mean(values, torch.tensor([True, False, True, False])).item() == 2
    assert reduce_mean(values[2:]).item() == 5.5


@pytest.mark.parametrize("masked", [True, False])
def test_reduce_mean_of_nothing_is_zero_with_a_zero_gradient(masked: bool) -> None:
    leaf = torch.tensor([1.0, 2.0], requires_grad=True)
    mean = reduce_mean(leaf, torch.tensor([False, False])) if masked else reduce_mean(leaf[:0])
    mean.backward()
    assert mean.item() == 0
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [0, 0]


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(UsageError, match=r"target: expected the shape of the prediction \(3, 4\), got \(1, 4\)"):
        BoxL1()(TARGET, TARGET[:1])
    with pytest.raises(UsageError, match=r"valid: expected the shape of the values \(2,\), got \(2, 1\)"):
        reduce_mean(torch.zeros(2), torch.ones(2, 1, dtype=torch.bool))
