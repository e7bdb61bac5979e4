"""What a tower's pretraining is to be compared with: how often the best constant answer is right."""

from __future__ import annotations

import numpy as np

from tpo_lab.datasets.world.patches import PatchBatch
from tpo_lab.errors import UsageError


def chance_levels(batch: PatchBatch) -> dict[str, float]:
    """By attribute, the share of the commonest class among patches that show something.

    Raises:
        UsageError: no patch shows anything.
    """
    found = {}
    for name, labels in batch.labels.items():
        counts = np.bincount(labels[labels > 0])
        if not counts.sum():
            raise UsageError("batch", expected="a patch that shows something", got=f"{labels.size} patches of nothing")
        found[name] = float(counts.max() / counts.sum())
    return found
