"""The samples of a run as the rows of a stage: grouped by task, packed by clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tpo_lab.batching import BatchPlan, Visit, pack_by_media
from tpo_lab.errors import UsageError
from tpo_lab.sample import Sample, markers
from tpo_lab.stages import CONVERSATION, Stage


def task_of(sample: Sample) -> str:
    """What a sample asks for: its `meta["task"]`, or the first marker of its answers, or "conversation"."""
    named = sample.meta.get("task")
    if isinstance(named, str):
        return named
    found = [name for turn in sample.conversation if turn.role == "assistant" for name in markers(turn.text)]
    return found[0] if found else CONVERSATION


def by_task(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Samples grouped by `task_of`."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(task_of(sample), []).append(sample)
    return groups


class StageData:
    """The rows of one stage, packed anew for every epoch of a task.

    Raises:
        UsageError: a task of the stage has no samples.
    """

    def __init__(self, samples: Mapping[str, list[Sample]], stage: Stage, seed: int) -> None:
        missing = [task for task in stage.data if not samples.get(task)]
        if missing:
            have = ", ".join(f"{task} ({len(group)})" for task, group in samples.items())
            raise UsageError(f"data of stage {stage.name}", expected=f"samples of {', '.join(stage.data)}", got=have or "none")
        self.samples, self.stage, self.seed = samples, stage, seed
        self._packed: dict[tuple[str, int], list[tuple[int, ...]]] = {}
        self.plan = BatchPlan.of(stage, {task: len(self._rows(task, 0)) for task in stage.data}, seed)

    def _rows(self, task: str, epoch: int) -> list[tuple[int, ...]]:
        if (task, epoch) not in self._packed:
            self._packed = {key: rows for key, rows in self._packed.items() if key[0] != task or key[1] == 0}
            self._packed[task, epoch] = pack_by_media(self.samples[task], self.stage.max_questions, seed=self.seed, epoch=epoch)
        return self._packed[task, epoch]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the stage on this data."""
        return self.stage.total_steps(self.plan.steps_per_epoch)

    def of(self, visit: Visit) -> list[Sample]:
        """The samples of one row."""
        return [self.samples[visit.task][index] for index in self._rows(visit.task, visit.epoch)[visit.row]]
