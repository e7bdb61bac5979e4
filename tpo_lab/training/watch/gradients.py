"""A watch over the gradients of the heads that a stage trains."""

from __future__ import annotations

from tpo_lab.model import TPOModel
from tpo_lab.stages import Stage
from tpo_lab.training.steps.sharding import whole_gradient


class GradientWatch:
    """Notices heads that a stage trains but that get no gradient."""

    def __init__(self, model: TPOModel, stage: Stage, patience: int) -> None:
        self.heads = {name: [p for p in model.head(name).parameters() if p.requires_grad] for name in stage.heads}
        self.quiet = {name: 0 for name, parameters in self.heads.items() if parameters}
        self.patience = patience

    def norms(self) -> dict[str, float]:
        """Gradient norm per head over all processes, after a backward pass; all of them call it."""
        found = {}
        for name in self.quiet:
            squares = [float(grad.pow(2).sum()) for grad in map(whole_gradient, self.heads[name]) if grad is not None]
            found[name] = sum(squares) ** 0.5
            self.quiet[name] = 0 if found[name] > 0 else self.quiet[name] + 1
        return found

    def dead(self) -> list[str]:
        """Heads that have just reached the limit of steps without gradient."""
        return [name for name, steps in self.quiet.items() if steps == self.patience]
