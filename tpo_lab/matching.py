"""Set matching: which predicted slot answers for which annotated object, within each answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tpo_lab.errors import UsageError


@dataclass(frozen=True)
class Matching:
    """Pairs of slot and object; what found no partner is listed, never dropped.

    Attributes:
        slot: LongTensor [match], rows of the prediction.
        box: LongTensor [match], rows of the target; the partner of `slot` at the same place.
        extra_slots: LongTensor [extra], slots without an object, increasing.
        unmatched_boxes: LongTensor [unmatched], objects without a slot, increasing.
    """

    slot: Tensor
    box: Tensor
    extra_slots: Tensor
    unmatched_boxes: Tensor


def match_within(cost: Tensor, slot_answer: Tensor, box_answer: Tensor) -> Matching:
    """Find the one-to-one matching of least total cost among the slots and objects of each answer.

    A cost that is not finite counts as worse than every finite one: a diverged prediction is still matched, and shows in its loss.

    Args:
        cost: cost of each pair [slot, box].
        slot_answer: LongTensor [slot], the answer to which a slot belongs.
        box_answer: LongTensor [box], the answer to which an object belongs.

    Raises:
        UsageError: the answers do not fit the cost's axes.

    Source: the Hungarian matching of DETR (arXiv 2005.12872, eq. 1), one problem per answer.
    """
    from scipy.optimize import linear_sum_assignment

    if cost.shape != (len(slot_answer), len(box_answer)):
        raise UsageError("cost", expected=f"[slot={len(slot_answer)}, box={len(box_answer)}]", got=tuple(cost.shape))
    table = _finite(cost.detach().double().cpu())

    def assign(slots: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = linear_sum_assignment(table[slots][:, boxes].numpy())
        return slots[torch.from_numpy(rows)], boxes[torch.from_numpy(columns)]

    return _match(slot_answer, box_answer, assign)


def match_in_order(slot_answer: Tensor, box_answer: Tensor) -> Matching:
    """Pair the k-th slot of each answer with its k-th object: for answers whose text names the objects in their order."""
    return _match(slot_answer, box_answer, lambda slots, boxes: (slots[: len(boxes)], boxes[: len(slots)]))


def _match(slot_answer: Tensor, box_answer: Tensor, assign: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Matching:
    slots, boxes = slot_answer.cpu(), box_answer.cpu()
    pairs = [assign((slots == answer).nonzero()[:, 0], (boxes == answer).nonzero()[:, 0]) for answer in sorted(set(slots.tolist()))]
    matched_slots = torch.cat([rows for rows, _ in pairs]) if pairs else slots.new_zeros(0)
    matched_boxes = torch.cat([columns for _, columns in pairs]) if pairs else boxes.new_zeros(0)
    found = (matched_slots, matched_boxes, _missing(len(slots), matched_slots), _missing(len(boxes), matched_boxes))
    return Matching(*(rows.to(slot_answer.device) for rows in found))


def _missing(count: int, present: Tensor) -> Tensor:
    free = torch.ones(count, dtype=torch.bool)
    free[present] = False
    return free.nonzero()[:, 0]


def _finite(cost: Tensor) -> Tensor:
    finite = cost.isfinite()
    if finite.all():
        return cost
    # More than any choice among the finite ones could save.
    return torch.where(finite, cost, 2 * cost[finite].abs().sum() + 1)
