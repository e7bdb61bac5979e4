"""Equation 1: L = L_mlm + L_assign + sum_i w_i L_task_i, every term on its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from tpo_lab.losses import reduce_mean


@dataclass(frozen=True)
class LossReport:
    """The objective of one step and what it is made of.

    Attributes:
        total: the scalar to call backward on.
        terms: mean of each term before its weight: "mlm", "assign", "region/l1", ...
        weights: what each term was multiplied with; total = sum of terms x weights.
        counts: how many values each term is the mean of.
    """

    total: Tensor
    terms: dict[str, Tensor]
    weights: dict[str, float]
    counts: dict[str, int] = field(default_factory=dict)

    def per_head(self) -> dict[str, Tensor]:
        """Weighted sums that carry gradient, by owner: "mlm", "assign", "region", ..."""
        sums: dict[str, Tensor] = {}
        for name, value in self.terms.items():
            owner = name.split("/")[0]
            weighted = self.weights[name] * value
            sums[owner] = sums[owner] + weighted if owner in sums else weighted
        return sums

    def floats(self) -> dict[str, float]:
        """Plain numbers for logs."""
        return {"loss": float(self.total.detach()), **{name: float(value.detach()) for name, value in self.terms.items()}}


def word_losses(logits: Tensor, target: Tensor, is_route: Tensor, *, separate: bool = True) -> dict[str, Tensor]:
    """Cross-entropy of the learned tokens.

    Args:
        logits: [target, vocabulary].
        target: token ids [target].
        is_route: which of them are route tokens [target].
        separate: whether routes have a term of their own, or are words like any others.

    Returns:
        "mlm" on words and "assign" on routes, or "mlm" on both; unreduced, in fp32.

    Source: TPO Eq. 1; the released code has no L_assign of its own (`separate=False`).
    """
    values = F.cross_entropy(logits.float(), target, reduction="none")
    return {"mlm": values[~is_route], "assign": values[is_route]} if separate else {"mlm": values}


def combine(
    terms: Mapping[str, Mapping[str, Tensor]], weights: Mapping[str, Mapping[str, float]], owner_weights: Mapping[str, float]
) -> LossReport:
    """Reduce unreduced values to means, and sum them with their weights.

    Args:
        terms: per owner ("mlm", "assign" or a head), unreduced values by term name; the owner's own name is a lone term.
        weights: per owner, the weight of each term.
        owner_weights: the stage's weight of each owner, w_i of Eq. 1; 1 where not named.
    """
    means: dict[str, Tensor] = {}
    factors: dict[str, float] = {}
    counts: dict[str, int] = {}
    for owner, values in terms.items():
        for term, value in values.items():
            name = owner if term == owner else f"{owner}/{term}"
            means[name], counts[name] = reduce_mean(value), value.numel()
            factors[name] = float(owner_weights.get(owner, 1.0)) * float(weights.get(owner, {}).get(term, 1.0))
    total = sum((factors[name] * value for name, value in means.items()), torch.zeros((), device=_device(means)))
    return LossReport(total, means, factors, counts)


def _device(means: Mapping[str, Tensor]) -> torch.device | None:
    return next(iter(means.values())).device if means else None
