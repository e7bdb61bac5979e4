"""Metrics of routing: did the model emit the route tokens that the question asks for, others, none, or several?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError

NONE = "none"


@dataclass(frozen=True)
class RoutingScores:
    """What was expected against what was emitted. A rate is None where no sample could show it.

    Attributes:
        labels: the routes of one answer as a label: "none", a task, or several tasks sorted and joined with "+" ("mask+temporal").
        confusion: counts [expected label, emitted label].
        accuracy: share of all samples whose emitted routes are the expected ones (each as often, in any order).
        task_accuracy: the same per task, over the samples that expect that task (alone or with others).
        false_route_rate: share of plain conversation (nothing expected) in which any route was emitted.
        missed_route_rate: share of task samples in which no route was emitted.
        wrong_route_rate: share of task samples in which routes were emitted, but not the expected ones.
        multi_emit_rate: share of all samples with two or more routes emitted and more than were expected.
    """

    labels: tuple[str, ...]
    confusion: NDArray[np.int64]
    accuracy: float
    task_accuracy: dict[str, float]
    task_count: dict[str, int]
    false_route_rate: float | None
    missed_route_rate: float | None
    wrong_route_rate: float | None
    multi_emit_rate: float
    count: int

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON: flat floats, without the rates that are None, then `labels` and `confusion` as lists."""
        names = ("accuracy", "false_route_rate", "missed_route_rate", "wrong_route_rate", "multi_emit_rate")
        rates = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        tasks = {f"accuracy/{task}": value for task, value in self.task_accuracy.items()}
        counts = {"count": float(self.count)} | {f"count/{task}": float(count) for task, count in self.task_count.items()}
        return rates | tasks | counts | {"labels": list(self.labels), "confusion": self.confusion.tolist()}


def route_correct(expected: Sequence[tuple[str, ...]], emitted: Sequence[tuple[str, ...]]) -> NDArray[np.bool_]:
    """Whether [sample] the emitted routes are the expected ones, each as often, in any order; () is plain conversation.

    Raises:
        UsageError: the lengths differ, there is no sample, or a task is called "none" or contains "+".
    """
    return np.array([wanted == given for wanted, given in _labels(expected, emitted)])


def routing_scores(expected: Sequence[tuple[str, ...]], emitted: Sequence[tuple[str, ...]], *, tasks: Sequence[str] = ()) -> RoutingScores:
    """Routing over samples.

    Args:
        expected: per sample the tasks whose routes the answer should emit; () for plain conversation.
        emitted: per sample the tasks whose route tokens the model emitted, in order.
        tasks: tasks that get a row and a column even if no sample has them, so that the tables of two runs compare.

    Raises:
        UsageError: as `route_correct`.
    """
    pairs = _labels(expected, emitted)
    correct = np.array([wanted == given for wanted, given in pairs])
    plain = np.array([wanted == NONE for wanted, _ in pairs])
    silent = np.array([given == NONE for _, given in pairs])
    surplus = np.array([len(given) > max(1, len(wanted)) for wanted, given in zip(expected, emitted, strict=True)])
    seen = {label for pair in pairs for label in pair} | {_label((task,)) for task in tasks}
    labels = (NONE, *sorted(seen - {NONE}, key=lambda label: (label.count("+"), label)))
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for wanted, given in pairs:
        confusion[labels.index(wanted), labels.index(given)] += 1
    expects = {task: np.array([task in wanted for wanted in expected]) for task in sorted({task for row in expected for task in row})}
    return RoutingScores(
        labels=labels,
        confusion=confusion,
        accuracy=float(correct.mean()),
        task_accuracy={task: float(correct[rows].mean()) for task, rows in expects.items()},
        task_count={task: int(rows.sum()) for task, rows in expects.items()},
        false_route_rate=_share(~silent, plain),
        missed_route_rate=_share(silent, ~plain),
        wrong_route_rate=_share(~silent & ~correct, ~plain),
        multi_emit_rate=float(surplus.mean()),
        count=len(pairs),
    )


def _labels(expected: Sequence[tuple[str, ...]], emitted: Sequence[tuple[str, ...]]) -> list[tuple[str, str]]:
    if len(expected) != len(emitted) or not expected:
        raise UsageError("emitted", expected=f"one tuple per expected one, at least one (expected: {len(expected)})", got=len(emitted))
    return [(_label(wanted), _label(given)) for wanted, given in zip(expected, emitted, strict=True)]


def _label(tasks: tuple[str, ...]) -> str:
    if isinstance(tasks, str):
        raise UsageError("expected, emitted", expected="a tuple of tasks per sample", got=tasks)
    for task in tasks:
        if task == NONE or "+" in task:
            raise UsageError("expected, emitted", expected="tasks not called 'none' and without '+'; () for plain conversation", got=task)
    return "+".join(sorted(tasks)) or NONE


def _share(of: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    return float(of[among].mean()) if among.any() else None
