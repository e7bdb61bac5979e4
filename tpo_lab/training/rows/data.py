"""The samples of a run as the rows of a stage: grouped by task, packed by clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tpo_lab.batching import BatchPlan, pack_by_media
from tpo_lab.errors import UsageError
from tpo_lab.sample import Sample, heads_asked
from tpo_lab.stages import CONVERSATION, Stage


def task_of(sample: Sample) -> str:
    """What a sample asks for: its `meta["task"]`, or the first marker of its answers, or "conversation"."""
    named = sample.meta.get("task")
    if isinstance(named, str):
        return named
    found = [name for turn in sample.conversation if turn.role == "assistant" for name in heads_asked(turn.text)]
    return found[0] if found else CONVERSATION


def by_task(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Samples grouped by `task_of`."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(task_of(sample), []).append(sample)
    return groups


def groups_of(samples: Sequence[Sample] | Mapping[str, Sequence[Sample]], stages: Sequence[Stage]) -> dict[str, dict[str, list[Sample]]]:
    """By stage, the samples of each task; the same for every stage unless they are given by stage.

    Raises:
        UsageError: samples are given by stage, and not for all of these.
    """
    if not isinstance(samples, Mapping):
        groups = by_task(samples)
        return {stage.name: groups for stage in stages}
    for stage in stages:
        if stage.name not in samples:
            raise UsageError("samples", expected=f"samples of stage {stage.name}", got=sorted(samples))
    return {stage.name: by_task(samples[stage.name]) for stage in stages}


def counted(
    samples: Sequence[Sample] | Mapping[str, Sequence[Sample]], groups: Mapping[str, Mapping[str, Sequence[Sample]]]
) -> dict[str, Any]:
    """How many samples each task has; by stage where they are given so. JSON-ready."""
    found = {stage: {task: len(group) for task, group in tasks.items()} for stage, tasks in groups.items()}
    return found if isinstance(samples, Mapping) else next(iter(found.values()), {})


def difficulty(sample: Sample) -> float:
    """How hard a sample is, as its data set says in `meta["difficulty"]`; 0 where it says nothing.

    Raises:
        UsageError: it is no number.
    """
    named = sample.meta.get("difficulty", 0.0)
    if isinstance(named, bool) or not isinstance(named, (int, float)):
        raise UsageError(f"meta.difficulty of sample {sample.id!r}", expected="a number", got=named)
    return float(named)


class StageData:
    """The rows of one stage, packed anew for every epoch of a task; under a curriculum, of each of its parts.

    Samples that are too easy for the stage are not among them, unless a task has no others. A part for which some task has no sample
    easy enough is `left_out`, and its steps go to the next one.

    Raises:
        UsageError: a task of the stage has no samples.
    """

    def __init__(self, samples: Mapping[str, list[Sample]], stage: Stage, seed: int) -> None:
        self.stage = stage
        samples = {task: [s for s in group if difficulty(s) >= stage.easiest] or group for task, group in samples.items()}
        self.whole = _Part(samples, stage, seed)
        self.left_out: list[float] = []
        self._parts: list[tuple[int, _Part]] = []
        for part in stage.curriculum:
            easy = {task: [s for s in samples.get(task, ()) if difficulty(s) <= part.difficulty] for task in stage.data}
            if all(easy.values()):
                self._parts.append((round(part.until * self.total_steps), _Part(easy, stage, seed)))
            else:
                self.left_out.append(part.difficulty)

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each task in one epoch."""
        return dict(self.whole.plan.rows)

    @property
    def count(self) -> int:
        """How many samples the stage may show."""
        return sum(len(self.whole.samples[task]) for task in self.stage.data)

    def rows_of(self, task: str) -> list[list[Sample]]:
        """The rows of a task in its first epoch: the samples of each."""
        return [[self.whole.samples[task][index] for index in row] for row in self.whole.rows(task, 0)]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the stage on this data."""
        return self.stage.total_steps(self.whole.plan.steps_per_epoch)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> list[list[Sample]]:
        """The rows of one optimizer step, the first being 0, that process `rank` of `world` computes: the samples of each."""
        begin = 0
        for end, part in self._parts:
            if step < end:
                return part.batch(step - begin, rank, world)
            begin = end
        return self.whole.batch(step - begin, rank, world)


class _Part:
    """Samples, and the plan by which they are visited."""

    def __init__(self, samples: Mapping[str, list[Sample]], stage: Stage, seed: int) -> None:
        missing = [task for task in stage.data if not samples.get(task)]
        if missing:
            have = ", ".join(f"{task} ({len(group)})" for task, group in samples.items())
            raise UsageError(f"data of stage {stage.name}", expected=f"samples of {', '.join(stage.data)}", got=have or "none")
        self.samples, self.max_questions, self.seed = samples, stage.max_questions, seed
        self._packed: dict[tuple[str, int], list[tuple[int, ...]]] = {}
        self.plan = BatchPlan.of(stage, {task: len(self.rows(task, 0)) for task in stage.data}, seed)

    def rows(self, task: str, epoch: int) -> list[tuple[int, ...]]:
        """Places of samples, packed for an epoch of a task."""
        if (task, epoch) not in self._packed:
            # the epoch before is asked for as long as workers are ahead in the next one
            self._packed = {key: rows for key, rows in self._packed.items() if key[0] != task or key[1] in (0, epoch - 1, epoch + 1)}
            self._packed[task, epoch] = pack_by_media(self.samples[task], self.max_questions, seed=self.seed, epoch=epoch)
        return self._packed[task, epoch]

    def batch(self, step: int, rank: int, world: int) -> list[list[Sample]]:
        return [
            [self.samples[visit.task][index] for index in self.rows(visit.task, visit.epoch)[visit.row]]
            for visit in self.plan.rank_slice(step, rank, world)
        ]
