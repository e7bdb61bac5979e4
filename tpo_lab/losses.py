"""Losses of the heads: small frozen dataclasses that return unreduced values, computed in at least fp32.

Weights belong to the head that uses a loss; the mean over values, and what an empty set of them means, is `reduce_mean`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tpo_lab.boxes import box_giou, order_corners
from tpo_lab.errors import UsageError


@dataclass(frozen=True)
class BoxL1:
    """Mean absolute difference of the four coordinates: [box, 4] xyxy in [0,1] -> values [box].

    Source: the first term of the official region loss, 2 * mean|b - b*| (the factor is the head's weight).
    """

    def __call__(self, predicted_xyxy: Tensor, target_xyxy: Tensor) -> Tensor:
        """Return one value per aligned pair of boxes."""
        predicted, target = _aligned(predicted_xyxy, target_xyxy)
        return (predicted - target).abs().mean(-1)


@dataclass(frozen=True)
class BoxMSE:
    """Mean squared difference of the four coordinates: [box, 4] xyxy in [0,1] -> values [box].

    Source: TPO, appendix (implementation of the region head): mean squared error.
    """

    def __call__(self, predicted_xyxy: Tensor, target_xyxy: Tensor) -> Tensor:
        """Return one value per aligned pair of boxes."""
        predicted, target = _aligned(predicted_xyxy, target_xyxy)
        return (predicted - target).square().mean(-1)


@dataclass(frozen=True)
class BoxGIoU:
    """1 - GIoU in [0,2] of the box with its corners put in order: [box, 4] xyxy -> values [box].

    Source: the second term of the official region loss, 0.2 * mean(1 - GIoU).
    Differs in: the official code leaves inverted boxes out, so they get no gradient, and uses the constant 2 where all are inverted.
    """

    def __call__(self, predicted_xyxy: Tensor, target_xyxy: Tensor) -> Tensor:
        """Return one value per aligned pair of boxes."""
        predicted, target = _aligned(predicted_xyxy, target_xyxy)
        return 1 - box_giou(order_corners(predicted), target)


@dataclass(frozen=True)
class SoftCrossEntropy:
    """Cross-entropy -sum_t q_t log softmax(x)_t over the valid entries of the last axis: [..., frame] -> values [...].

    A target row that sums to 0 gives 0. The least value is the entropy of the target, at softmax(x) = q.
    """

    def __call__(self, logits: Tensor, target_prob: Tensor, valid: Tensor) -> Tensor:
        """Return one value per row; `valid` [..., frame] is True where an entry exists, and masked logits weigh nothing."""
        logits, target_prob = _aligned(logits, target_prob)
        log_prob = masked_log_softmax(logits, valid)
        return -torch.where(valid, target_prob * log_prob, 0).sum(-1)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Binary cross-entropy of logits against probabilities in [0,1]: [...] -> values of the valid entries [valid], row by row."""

    def __call__(self, logits: Tensor, target_prob: Tensor, valid: Tensor) -> Tensor:
        """Return one value per entry where `valid` [...] is True."""
        logits, target_prob = _aligned(logits, target_prob)
        return functional.binary_cross_entropy_with_logits(logits[valid], target_prob[valid], reduction="none")


def masked_log_softmax(logits: Tensor, valid: Tensor) -> Tensor:
    """Log-probabilities over the valid entries of the last axis [..., frame]; masked entries get the lowest finite number.

    A row without a valid entry stays finite, so that neither it nor its gradient turns into NaN.
    """
    lowest = torch.finfo(logits.dtype).min
    return logits.masked_fill(~valid, lowest).log_softmax(-1).masked_fill(~valid, lowest)


def reduce_mean(values: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean of unreduced values [...] over the valid ones, a scalar; 0 with a (zero) gradient where there are none, never NaN."""
    if valid is None:
        return values.sum() / max(values.numel(), 1)
    if valid.shape != values.shape:
        raise UsageError("valid", expected=f"the shape of the values {tuple(values.shape)}", got=tuple(valid.shape))
    return torch.where(valid, values, 0).sum() / valid.sum().clamp(min=1)


def _aligned(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if predicted.shape != target.shape:
        raise UsageError("target", expected=f"the shape of the prediction {tuple(predicted.shape)}", got=tuple(target.shape))
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    return predicted.to(dtype), target.to(dtype)


def mask_bce_values(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean binary cross-entropy over the pixels of each mask: logits and truth in [0,1] [..., h, w] -> values [...]."""
    logits, truth = _aligned(logits, truth)
    return functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((-1, -2))


def focal_values(logits: Tensor, truth: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Mean focal loss over the pixels of each mask: logits and truth in [0,1] [..., h, w] -> values [...].

    Per pixel alpha_t (1 - p_t)^gamma times the cross-entropy, with p_t the probability of what is true and alpha_t = alpha inside the mask,
    1 - alpha outside.

    Source: focal loss (arXiv 1708.02002), with the settings of SAM2.
    """
    logits, truth = _aligned(logits, truth)
    surprise = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    prob = logits.sigmoid()
    wrong = prob * (1 - truth) + (1 - prob) * truth
    balance = alpha * truth + (1 - alpha) * (1 - truth)
    return (balance * wrong**gamma * surprise).mean((-1, -2))


def dice_values(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - (2 sum(p t) + 1) / (sum p + sum t + 1) of each mask: logits and truth in [0,1] [..., h, w] -> values [...] in [0,1].

    Source: Dice loss (V-Net, arXiv 1606.04797), smoothed by 1 as in LISA and SAM2.
    """
    logits, truth = _aligned(logits, truth)
    prob = logits.sigmoid()
    both, sums = (prob * truth).sum((-1, -2)), prob.sum((-1, -2)) + truth.sum((-1, -2))
    return 1 - (2 * both + 1) / (sums + 1)
