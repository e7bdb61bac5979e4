"""How good a model is where it is shown another number of frames than it was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tpo_lab.errors import UsageError

if TYPE_CHECKING:
    from tpo_lab.model import TPOModel
    from tpo_lab.sample import Sample


def scores_by_frames(model: TPOModel, samples: Sequence[Sample], counts: Sequence[int]) -> dict[int, dict[str, float]]:
    """The headline figures of an evaluation at each number of frames per clip; the model shows as many as before afterwards.

    Raises:
        UsageError: a number below 1.
    """
    from tpo_lab.evaluation import evaluate

    if min(counts, default=1) < 1:
        raise UsageError("counts", expected="numbers of frames from 1 up", got=list(counts))
    before, found = model.backbone.num_frames, {}
    try:
        for count in counts:
            model.backbone.num_frames = count
            found[count] = evaluate(model, samples).headline()
    finally:
        model.backbone.num_frames = before
    return found
