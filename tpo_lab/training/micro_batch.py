"""Forward pass and losses of a batch in parts whose gradients add up to those of the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tpo_lab.backbones.base import VideoFeatures
from tpo_lab.batch import Batch
from tpo_lab.model import TPOModel
from tpo_lab.objective import LossReport


class TrainingStep(nn.Module):
    """Forward pass and losses as one module, so that accelerate can wrap it for several devices.

    The stage's precision is set here and not on the `Accelerator`, which cannot change it between two stages or two runs of a process.
    """

    def __init__(self, model: TPOModel, *, bf16: bool = False) -> None:
        super().__init__()
        self.model, self.bf16 = model, bf16

    def forward(self, batch: Batch, video: list[VideoFeatures] | None, weights: Mapping[str, float]) -> LossReport:
        """The objective of one micro-batch."""
        with torch.autocast(batch.ids.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self.model.losses(batch, self.model(batch, video), weights)


def shares_of_terms(batches: Sequence[Batch], losses: Mapping[str, float]) -> list[dict[str, float]]:
    """How much of each term's values every part of a batch holds: learned words, routes, slots of each head."""
    counts = []
    for batch in batches:
        routes, learned = int(batch.is_route.sum()), len(batch.target)
        words = {"mlm": learned - routes, "assign": routes} if "assign" in losses else {"mlm": learned}
        counts.append({**words, **{head: len(slots.row) for head, slots in batch.slots.items()}})
    totals = {name: sum(count.get(name, 0) for count in counts) for count in counts for name in count}
    even = 1 / len(counts)
    return [{name: number / totals[name] if totals[name] else even for name, number in count.items()} for count in counts]


def joined(reports: Sequence[LossReport], shares: Sequence[Mapping[str, float]]) -> LossReport:
    """The report of a batch from those of its parts."""
    terms: dict[str, Tensor] = {}
    weights: dict[str, float] = {}
    for report, share in zip(reports, shares, strict=True):
        for name, value in report.terms.items():
            part = share.get(name.partition("/")[0], 1.0)
            terms[name] = terms.get(name, torch.zeros_like(value)) + part * value.detach()
            weights[name] = weights.get(name, 0.0) + report.weights[name]
    return LossReport(torch.stack([report.total.detach() for report in reports]).sum(), terms, weights)
