"""Which samples make up a batch, as a pure function of the seed and the step: all processes agree, and a resumed run goes on exactly.

Loads nothing and holds no position: a plan can be asked for any step, in any order.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.stages import Stage

MODES = ("homogeneous", "mixed")


class OnMedia(Protocol):
    """A sample, as far as packing looks at it: where its media lies and which part of it is shown."""

    @property
    def media(self) -> Hashable:
        """What is shown; equal for questions about the same clip."""

    @property
    def media_path(self) -> Path:
        """Where it lies: relative paths of two files may be equal and mean two clips."""


class Visit(NamedTuple):
    """One row of one task, at one place of a batch.

    Args:
        task: whose list of rows it is in.
        row: its place in that list.
        epoch: how often the task's list had been finished before: the epoch to ask `pack_by_media` for.
    """

    task: str
    row: int
    epoch: int


def pack_by_media(samples: Sequence[OnMedia], max_questions: int, *, seed: int = 0, epoch: int = 0) -> list[tuple[int, ...]]:
    """Groups samples into rows: questions about one clip, so that its video prefix is computed once.

    Which questions of a clip meet in a row is drawn anew from (seed, epoch). How many rows there are and which clip each shows is not:
    row i is about the same clip in every epoch. The rows of one clip differ by one question at most.

    Args:
        samples: of one task.
        max_questions: most samples in a row.
        seed: of the run.
        epoch: of the task's rows, as `Visit.epoch`.

    Returns:
        Rows of indices into `samples`; every index stands in exactly one. Clips are in the order of their first sample.

    Raises:
        UsageError: `max_questions` is below 1.
    """
    if max_questions < 1:
        raise UsageError("max_questions", expected="at least 1", got=max_questions)
    clips: dict[Hashable, list[int]] = {}
    for index, sample in enumerate(samples):
        clips.setdefault((sample.media_path, sample.media), []).append(index)
    rows: list[tuple[int, ...]] = []
    for members in clips.values():
        random.Random(f"{seed}/pack/{epoch}/{members[0]}").shuffle(members)
        share = math.ceil(len(members) / max_questions)
        rows += [tuple(members[start::share]) for start in range(share)]
    return rows


@dataclass(frozen=True)
class BatchPlan:
    """The rows of every batch of a run.

    Each task's rows are visited in an endless chain of permutations, one per epoch of that task. Which task comes next is no lottery: among
    the first n draws, a task with share w has between w n - 1 and w n + 1, whatever n is. So its number in any window of n is off by less
    than two. Where a chain passes from one epoch to the next inside a batch, a row may stand in that batch twice.

    Args:
        rows: task -> number of its rows; tasks without a weight are left out.
        weights: task -> share, in any unit.
        batch_size: rows per batch over all processes.
        mode: "homogeneous" draws a task per batch, "mixed" a task per row.
        seed: of the run.

    Raises:
        UsageError: a weighted task without rows, a weight that is not positive, an unknown mode, a batch size below 1.
    """

    rows: Mapping[str, int]
    weights: Mapping[str, float]
    batch_size: int
    mode: Literal["homogeneous", "mixed"] = "homogeneous"
    seed: int = 0
    _order: _Interleaving = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown_name("mode", self.mode, MODES)
        if self.batch_size < 1:
            raise UsageError("batch_size", expected="at least 1", got=self.batch_size)
        if not self.weights:
            raise UsageError("weights", expected="at least one task", got={})
        for task, weight in self.weights.items():
            if not 0 < weight < math.inf:
                raise UsageError(f"weights[{task!r}]", expected="a positive number", got=weight)
            if self.rows.get(task, 0) < 1:
                hint = f"The data has {', '.join(sorted(self.rows)) or 'nothing'}."
                raise UsageError(
                    f"rows[{task!r}]", expected="at least one row of each weighted task", got=self.rows.get(task, 0), hint=hint
                )
        object.__setattr__(self, "_order", _Interleaving(self.weights, self.seed))

    @classmethod
    def of(cls, stage: Stage, rows: Mapping[str, int], seed: int) -> BatchPlan:
        """The plan of one stage on data with these numbers of rows."""
        return cls(rows, stage.data, stage.batch_size, stage.batching, seed)

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which as many rows were visited as the weighted tasks have; each exactly once if the weights follow their numbers."""
        return math.ceil(sum(self.rows[task] for task in self.weights) / self.batch_size)

    def batch(self, step: int) -> list[Visit]:
        """The rows of one optimizer step; the first step is 0.

        Raises:
            UsageError: a negative step.
        """
        if step < 0:
            raise UsageError("step", expected="0 or more", got=step)
        first = step * self.batch_size
        if self.mode == "mixed":
            return [self._visit(*self._order.draw(slot)) for slot in range(first, first + self.batch_size)]
        task, earlier = self._order.draw(step)
        return [self._visit(task, earlier * self.batch_size + offset) for offset in range(self.batch_size)]

    def rank_slice(self, step: int, rank: int, world: int) -> list[Visit]:
        """The neighbouring rows of `batch(step)` that process `rank` of `world` computes: for each as many as for others, or one more.

        Raises:
            UsageError: there is no such rank.
        """
        if world < 1:
            raise UsageError("world", expected="at least 1 process", got=world)
        if not 0 <= rank < world:
            raise UsageError("rank", expected=f"0 to {world - 1}", got=rank)
        first, last = (self.batch_size * place // world for place in (rank, rank + 1))
        return self.batch(step)[first:last]

    def _visit(self, task: str, number: int) -> Visit:
        """The row at one place of a task's endless chain."""
        epoch, place = divmod(number, self.rows[task])
        return Visit(task, _permutation(self.seed, task, epoch, self.rows[task])[place], epoch)


class _Interleaving:
    """An endless sequence of tasks that never leaves their shares by a whole draw.

    The j-th draw of a task with share w may come from (j - 1) / w on and must come by j / w; of those that may, the most urgent is taken.
    With shares that sum to one this meets every deadline (earliest deadline first). After `period` draws all is as at the start.
    """

    def __init__(self, weights: Mapping[str, float], seed: int) -> None:
        self._tasks = sorted(weights)
        # Ties fall to the first, so the seed decides which.
        random.Random(f"{seed}/tasks").shuffle(self._tasks)
        # As written in decimals: 0.1 is a tenth, which keeps the period short.
        exact = [Fraction(str(weights[task])) for task in self._tasks]
        whole = [int(share * math.lcm(*(share.denominator for share in exact))) for share in exact]
        self._shares = [share // math.gcd(*whole) for share in whole]
        self._period = sum(self._shares)
        self._drawn: list[tuple[int, int]] = []
        self._counts = [0] * len(self._tasks)

    def draw(self, place: int) -> tuple[str, int]:
        """The task at one place of the sequence, and how often it came before."""
        rounds, place = divmod(place, self._period)
        while len(self._drawn) <= place:
            self._extend()
        task, earlier = self._drawn[place]
        return self._tasks[task], earlier + rounds * self._shares[task]

    def _extend(self) -> None:
        end = len(self._drawn) + 1
        released = [t for t, share in enumerate(self._shares) if self._counts[t] * self._period < share * end]
        task = min(released, key=lambda t: -(-(self._counts[t] + 1) * self._period // self._shares[t]))
        self._drawn.append((task, self._counts[task]))
        self._counts[task] += 1


@lru_cache(maxsize=32)
def _permutation(seed: int, task: str, epoch: int, size: int) -> array[int]:
    order = array("Q", range(size))
    random.Random(f"{seed}/{task}/{epoch}").shuffle(order)
    return order
