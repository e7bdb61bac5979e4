"""SAM2's own objective: focal and Dice of the best proposed mask, the expected IoU, and whether the object is there."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tpo_lab.axes import require_axes
from tpo_lab.losses import dice_values, focal_values
from tpo_lab.sam2.tracker import Masks

WEIGHTS = {"focal": 20.0, "dice": 1.0, "iou": 1.0, "there": 1.0}
"""As SAM2 was trained."""


def sam2_terms(masks: Masks, truth: Tensor) -> dict[str, Tensor]:
    """ "focal" and "dice" of the proposed mask that is best by their weighted sum, and "iou", the mean absolute error of the expected IoU
    over all proposed masks: one value per object each.

    Args:
        masks: of one frame, of objects that are in it.
        truth: shares of pixels in [0,1] [object, h, w]; the masks' logits are brought to its size.

    Source: SAM2 (arXiv 2408.00714), appendix (training).
    """
    require_axes("truth", truth, object=len(masks.logits), h=None, w=None)
    logits = functional.interpolate(masks.candidates, truth.shape[-2:], mode="bilinear", align_corners=False)
    wanted = truth[:, None].expand_as(logits)
    focal, dice = focal_values(logits, wanted), dice_values(logits, wanted)
    best = (WEIGHTS["focal"] * focal + WEIGHTS["dice"] * dice).argmin(1, keepdim=True)
    with torch.no_grad():
        inside, true = logits > 0, wanted > 0.5
        both, either = (inside & true).sum((-1, -2)), (inside | true).sum((-1, -2))
        true_iou = both / either.clamp(min=1)
    error = (masks.candidate_iou - true_iou).abs().mean(1)
    return {"focal": focal.gather(1, best)[:, 0], "dice": dice.gather(1, best)[:, 0], "iou": error}


def there_values(masks: Masks, visible: Tensor) -> Tensor:
    """Cross-entropy of the object score with whether the object can be seen [object]: values [object]."""
    return functional.binary_cross_entropy_with_logits(masks.object_logit, visible.to(masks.object_logit.dtype), reduction="none")
