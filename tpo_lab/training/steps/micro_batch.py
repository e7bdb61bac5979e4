"""Forward pass and losses of a batch in parts, over passes and processes, whose gradients add up to those of the whole.

A loss term is the mean of its values, so a part counts by how many values of the whole it holds. How many a head has is known behind its
forward pass only. So a pass of all processes counts by what is known before (learned words, routes, slots), and a process within a pass by
the values that it has found: exact for any batch that is one pass, on any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tpo_lab.backbones.base import VideoFeatures
from tpo_lab.batch import Batch
from tpo_lab.model import TPOModel
from tpo_lab.objective import LossReport

Counts = Mapping[str, int]
"""How many values there are, by name."""


class TrainingStep(nn.Module):
    """Forward pass and losses as one module, so that it can be wrapped for several devices.

    The stage's precision is set here and not on the `Accelerator`, which cannot change it between two stages or two runs of a process.
    """

    def __init__(self, model: TPOModel, *, bf16: bool = False) -> None:
        super().__init__()
        self.model, self.bf16 = model, bf16

    def forward(self, batch: Batch | None, video: list[VideoFeatures] | None, weights: Mapping[str, float]) -> LossReport:
        """The objective of one micro-batch. Without one, a pass of a single token that teaches nothing.

        That is for a process without rows, where the others need it: they wait for its pieces of the weights.
        """
        with torch.autocast(self.model.backbone.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            if batch is None:
                return LossReport(self._nothing(), {}, {})
            return self.model.losses(batch, self.model(batch, video), weights)

    def _nothing(self) -> Tensor:
        backbone = self.model.backbone
        first = torch.zeros(1, 1, dtype=torch.long, device=backbone.device)
        hidden, _ = backbone.language_model(backbone.written(first, first), mask=None)
        return 0.0 * (hidden.float().sum() + backbone.logits(hidden).float().sum())


def expected_values(batch: Batch, losses: Mapping[str, float]) -> Counts:
    """What a batch holds before any forward pass: learned words, routes, slots of each head."""
    routes, learned = int(batch.is_route.sum()), len(batch.target)
    words = {"mlm": learned - routes, "assign": routes} if "assign" in losses else {"mlm": learned}
    return {**words, **{head: len(slots.row) for head, slots in batch.slots.items()}}


@dataclass(frozen=True)
class Spread:
    """One batch, spread over processes, and over passes of each.

    Args:
        counts: `expected_values` by process, then by pass; a process may have fewer passes than another, or none.
    """

    counts: Sequence[Sequence[Counts]]

    @property
    def passes(self) -> int:
        """How often the process with most parts goes through the model."""
        return max(map(len, self.counts), default=0)

    def share(self, number: int, owner: str) -> float:
        """How much of a term's values one pass of all processes holds; evenly where there are none. 1 for a term that is not known."""
        by_pass = [sum(parts[place].get(owner, 0) for parts in self.counts if place < len(parts)) for place in range(self.passes)]
        if not any(owner in part for parts in self.counts for part in parts):
            return 1.0
        return by_pass[number] / sum(by_pass) if sum(by_pass) else 1 / self.passes


def weighted(report: LossReport, everyones: Sequence[Counts], spread: Spread, number: int) -> LossReport:
    """A part's report, each term weighing as much as its values are of the whole batch.

    Args:
        report: of this process, in one pass.
        everyones: how many values each term has in every process, in this pass.
        spread: of the batch.
        number: of the pass, from 0.

    Returns:
        The same means, each multiplied with its share: those of all parts add up to the batch's, and so do the totals.
    """
    shares = {}
    for name, own in report.counts.items():
        found = sum(counts.get(name, 0) for counts in everyones)
        among = own / found if found else 1 / len(everyones)
        shares[name] = among * spread.share(number, name.partition("/")[0])
    if all(share == 1.0 for share in shares.values()):
        return report
    terms = {name: shares[name] * value for name, value in report.terms.items()}
    total = torch.stack([report.weights[name] * value for name, value in terms.items()]).sum()
    return LossReport(total, terms, report.weights, report.counts)


def joined(reports: Sequence[LossReport]) -> LossReport:
    """The sum of weighted reports, on the CPU and without gradient."""
    terms: dict[str, Tensor] = {}
    weights: dict[str, float] = {}
    counts: dict[str, int] = {}
    for report in reports:
        for name, value in report.terms.items():
            terms[name] = terms[name] + value.detach().cpu() if name in terms else value.detach().cpu()
            counts[name] = counts.get(name, 0) + report.counts[name]
        weights.update(report.weights)
    totals = [report.total.detach().cpu() for report in reports]
    return LossReport(torch.stack(totals).sum() if totals else torch.zeros(()), terms, weights, counts)


def broken_terms(report: LossReport) -> list[str]:
    """The terms that are not finite, where the total is not."""
    if bool(torch.isfinite(report.total)):
        return []
    return [name for name, value in report.terms.items() if not bool(torch.isfinite(value))] or ["the sum"]
