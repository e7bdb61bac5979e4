"""Whether a language model looks: its loss on what is said of a clip, shown that clip, and shown another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from tpo_lab.errors import UsageError
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample


@torch.no_grad()
def losses_by_video(model: TPOModel, samples: Sequence[Sample]) -> dict[str, float]:
    """The mean loss of the words of these samples in nats, each shown its "own" clip, and "another": that of the sample before.

    Raises:
        UsageError: fewer than two clips.
    """
    frames = Frames(model.backbone)
    rows = [frames.row([sample]) for sample in samples]
    if len({row.key for row in rows}) < 2:
        raise UsageError("samples", expected="samples of at least two clips", got=len(samples))
    others = [replace(row, frames=other.frames, key=other.key) for row, other in zip(rows, [rows[-1], *rows[:-1]], strict=True)]
    device = model.backbone.device
    found = {}
    for name, shown in (("own", rows), ("another", others)):
        batch = model.collate(shown).to(device)
        found[name] = float(model.losses(batch, model(batch), {"mlm": 1.0}).terms["mlm"])
    return found
