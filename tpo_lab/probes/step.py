"""One step of training, measured and not taken: losses, gradients and routes of some rows in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from tpo_lab.batch import Batch, Row
from tpo_lab.model import Forward, TPOModel
from tpo_lab.probes.gradients import gradients_of
from tpo_lab.probes.one_sample import terms_of
from tpo_lab.probes.sample_trace import NONE, TermLoss, owner_of
from tpo_lab.probes.step_trace import Gradients


@dataclass(frozen=True)
class RoutesOf:
    """What the model would write where one head's route is due, in all true answers of a batch.

    Attributes:
        due: how often it is.
        probability: of the right route there, mean.
        most_probable: by head, and "none" for any other token, how large a part of those places has it as the most probable one; in sum 1.
    """

    due: int
    probability: float
    most_probable: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"due": self.due, "probability": self.probability, "most_probable": dict(self.most_probable)}


@dataclass(frozen=True)
class Step:
    """What a step of some rows would do.

    Attributes:
        losses: by term; those that nothing in the rows teaches are left out.
        gradients: None where they were not asked for.
        routes: by head, for those whose route is due somewhere.
    """

    losses: Mapping[str, TermLoss]
    gradients: Gradients | None
    routes: Mapping[str, RoutesOf]


def step_of(
    model: TPOModel, rows: Sequence[Row], weights: Mapping[str, float] | None, *, gradients: bool = True, bf16: bool = False
) -> Step:
    """Measure a step; one backward pass for each owner of loss terms, and one copy of all that learns.

    Args:
        weights: the stage's, as in `TPOModel.losses`.
        bf16: whether the forward pass runs in that precision, as a stage may ask for.
    """
    batch = model.collate(rows).to(model.backbone.device)
    precision = torch.autocast(batch.ids.device.type, dtype=torch.bfloat16) if bf16 else nullcontext()
    with torch.set_grad_enabled(gradients), precision:
        forward = model(batch)
        report = model.losses(batch, forward, weights)
    terms = terms_of(report, batch)
    taught = {owner_of(name) for name in terms}
    owners = {owner: loss for owner, loss in report.per_head().items() if owner in taught}
    return Step(terms, gradients_of(owners, model.named_parts()) if gradients else None, routes_of(model, batch, forward))


def routes_of(model: TPOModel, batch: Batch, forward: Forward) -> dict[str, RoutesOf]:
    """How the routes fare that are due in a batch, by head."""
    routes = model.tokens.ids.route
    logits = forward.logits.detach()[batch.is_route].float()
    probability, best = logits.softmax(-1), logits.argmax(-1)
    due = batch.target[batch.is_route]
    found = {}
    for head, token in routes.items():
        here = due == token
        if not bool(here.any()):
            continue
        shares = {other: float((best[here] == written).double().mean()) for other, written in routes.items()}
        none = float((~torch.isin(best[here], torch.tensor(list(routes.values()), device=best.device))).double().mean())
        found[head] = RoutesOf(int(here.sum()), float(probability[here, token].mean()), {**shares, NONE: none})
    return found
