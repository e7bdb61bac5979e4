"""What a run may choose beside its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from tpo_lab.datasets.conversion import Limit
from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.probes.probing import MOST_SAMPLES
from tpo_lab.training.rows.dropped import BAD_FILE_POLICIES
from tpo_lab.training.steps.sharding import Shard
from tpo_lab.video import CORRUPTION_POLICIES


@dataclass(frozen=True)
class TrainingOptions:
    """What a run may choose beside its recipe.

    Attributes:
        seed: of batches and of everything random in the run.
        micro_batch: rows that go through the model at once on one device; None takes the whole batch. Each term of a part weighs
            as much as its values are of the whole batch, so the gradient does not depend on the cut.
        save_every: optimizer steps between two resumable checkpoints.
        keep: how many of those a run keeps, the latest ones.
        feature_cache: a folder in which stages that leave the vision side as it is keep its features for later stages and runs; None
            keeps them in memory, for one stage. A clip of 16 frames takes 50 MB at 7B, 0.2 MB with nano.
        gradient_patience: after so many steps of a stage without any gradient a trained head is reported by name.
        trackers: names of experiment trackers that get every number of every step, such as ("tensorboard",); see `tpo_lab.trackers`.
        probe_every: measure gradients before the first step of a stage and before every so many steps, and write them to probes.jsonl; see
            `tpo_lab.training.watch.gradient_history`. None measures none. Training stays the same bit by bit.
        probe_samples: how many of a stage's samples are measured, all in one batch; at least one of each task.
        checkpointing: keep the input of each layer alone in the forward pass, and compute the rest again in the backward pass: less memory,
            the same gradient, about a third more time.
        shard: "ddp": every process holds all weights; "fsdp": a piece of the language model's; "auto": as accelerate is configured. See
            `tpo_lab.training.steps.processes`.
        workers: processes that decode clips ahead of the training; 0 decodes in this one. The rows are the same with any number.
        prefetch: steps that each of them may be ahead.
        frame_cache: a folder in which decoded and resized frames are kept for later runs and other processes; see
            `tpo_lab.frame_files.FrameFiles`.
        on_bad: "raise" ends the job at a clip that cannot be read; "skip" leaves its samples out of their batch and lists them in
            dropped.jsonl.
        max_dropped: the number of a stage's samples that may be left out so, or their share, such as "1%"; "" for any.
        on_corrupt: what the video reader does with damaged frames of a clip; see `tpo_lab.video.read_clip`.
    """

    seed: int = 0
    micro_batch: int | None = None
    save_every: int = 100
    keep: int = 2
    feature_cache: str | None = None
    gradient_patience: int = 50
    trackers: tuple[str, ...] | str = "none"
    probe_every: int | None = None
    probe_samples: int = 8
    checkpointing: bool = False
    shard: str = "auto"
    workers: int = 0
    prefetch: int = 2
    frame_cache: str | None = None
    on_bad: str = "raise"
    max_dropped: str = "1%"
    on_corrupt: str = "raise"

    def __post_init__(self) -> None:
        for name in ("save_every", "keep"):
            if getattr(self, name) < 1:
                raise UsageError(name, expected="at least 1", got=getattr(self, name))
        if self.probe_every is not None and self.probe_every < 1:
            raise UsageError("probe_every", expected="at least 1, or None", got=self.probe_every)
        if not 1 <= self.probe_samples <= MOST_SAMPLES:
            raise UsageError("probe_samples", expected=f"1 to {MOST_SAMPLES}", got=self.probe_samples)
        for name, least in (("workers", 0), ("prefetch", 1)):
            if getattr(self, name) < least:
                raise UsageError(name, expected=f"at least {least}", got=getattr(self, name))
        for name, valid in (("on_bad", BAD_FILE_POLICIES), ("on_corrupt", CORRUPTION_POLICIES)):
            if getattr(self, name) not in valid:
                raise unknown_name(name, getattr(self, name), valid)
        if self.shard not in get_args(Shard):
            raise unknown_name("shard", self.shard, get_args(Shard))
        Limit(self.max_dropped)
