"""Gradients as a stage goes on: every so many steps, what each loss would do to each module, on the same few samples.

One measurement is one forward pass over all of them in one batch, one backward pass for each owner of loss terms, and as many copies of all
that learns. Training does not notice: modes, gradients and random numbers are put back, and its cache of features is left alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

import torch

from tpo_lab.batch import Row
from tpo_lab.clips import UnreadableClip
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.probes.sample_trace import plain_losses
from tpo_lab.probes.step import step_of
from tpo_lab.probes.untouched import untouched
from tpo_lab.runs import RunFolder
from tpo_lab.sample import Sample
from tpo_lab.stages import Stage
from tpo_lab.training.rows.data import StageData

if TYPE_CHECKING:
    from tpo_lab.training.options import TrainingOptions


class GradientHistory:
    """Writes a line to probes.jsonl before the first step of a stage and before every so many steps; see `tpo_lab.runs.read_probes`.

    Args:
        model: as the stage trains it: what its plan frees has `requires_grad`.
        data: whose samples are measured, always the same.
        options: say how often, how many samples, and the seed by which they are chosen.
    """

    def __init__(self, model: TPOModel, stage: Stage, data: StageData, frames: Frames, run: RunFolder, options: TrainingOptions) -> None:
        self.model, self.stage, self.frames, self.run = model, stage, frames, run
        self.every, self.skips = options.probe_every or 0, options.on_bad == "skip"
        groups = {task: data.whole.samples[task] for task in stage.data}
        self.samples = handful(groups, options.probe_samples, f"{options.seed}|{stage.name}")

    def measure(self, step: int) -> float:
        """Measure before a step, counted from 1, where one is due; returns how many seconds it took."""
        if not self.every or (step != 1 and step % self.every):
            return 0.0
        began = time.monotonic()
        with untouched(self.model):
            torch.manual_seed(0)
            rows = list(self._rows())
            if not rows:
                return time.monotonic() - began
            found = step_of(self.model, rows, self.stage.losses, bf16=self.stage.precision == "bf16")
        seconds = time.monotonic() - began
        assert found.gradients is not None
        self.run.log_probe(
            stage=self.stage.name,
            step=step,
            seconds=round(seconds, 3),
            samples=[row.samples[0].id for row in rows],
            losses=plain_losses(found.losses),
            gradients=found.gradients.to_dict(),
            routes={head: routes.to_dict() for head, routes in found.routes.items()},
        )
        return seconds

    def _rows(self) -> Iterator[Row]:
        """Of the samples that can be read, where a run goes on without the others."""
        for sample in self.samples:
            try:
                yield self.frames.row([sample])
            except UnreadableClip:
                if not self.skips:
                    raise


def handful(groups: Mapping[str, Sequence[Sample]], count: int, seed: str) -> list[Sample]:
    """A few samples by chance, from each task in turn: at least one of each, and `count` where there are so many.

    Args:
        groups: by task.
        seed: the same one chooses the same samples.
    """
    chance = random.Random(seed)
    drawn = [chance.sample(group, min(count, len(group))) for group in groups.values()]
    in_turn = [sample for turn in zip_longest(*drawn) for sample in turn if sample is not None]
    return in_turn[: max(count, len(groups))]
