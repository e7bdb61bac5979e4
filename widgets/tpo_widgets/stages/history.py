"""The course of a run, line by line: its curves with their running medians, and how far each stage is."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError
from tpo_lab.training.watch.alarms import Alarm, Limits
from tpo_widgets.stages.alarms import AlarmWatch

WINDOW = Limits().window
"""Values in a running median: as many as an alarm takes for usual."""
MOST_POINTS = 400
"""Of a curve that is drawn."""
_SHARE_FOR_ALARMS = 0.02
"""Of the time, that may be spent on looking for alarms while a run goes on."""

LOSS, GRADIENT, RATE, PACE, MEMORY = "loss", "gradient", "lr", "pace", "memory"
_GROUPS = {"lr": RATE, "rows/s": PACE, "memory_mib": MEMORY, "cuda_mib": MEMORY}
_NO_CURVES = frozenset({"stage", "step", "seconds", "rows", "not_finite"})
_GRADIENT_OF = "gradient/"


class Name(NamedTuple):
    """What a curve is of.

    Attributes:
        key: as metrics.jsonl has it, or "rows/s".
        group: "loss", "gradient", "lr", "pace" or "memory": the chart that it is drawn in.
        owner: the head, or "mlm", "assign", "loss"; "" for what belongs to none.
    """

    key: str
    group: str
    owner: str

    @classmethod
    def of(cls, key: str) -> Name:
        """From the key of a number in metrics.jsonl."""
        if key.startswith(_GRADIENT_OF):
            return cls(key, GRADIENT, key.removeprefix(_GRADIENT_OF))
        group = _GROUPS.get(key, LOSS)
        return cls(key, group, key.partition("/")[0] if group == LOSS else "")


class Curve:
    """One number over the steps of one stage, and the median of its last values at each of them."""

    def __init__(self) -> None:
        self.steps, self.values, self.medians = array("q"), array("d"), array("d")
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, step: int, value: float) -> None:
        """A further value."""
        self._recent.append(value)
        insort(self._sorted, value)
        if len(self._recent) > WINDOW:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        middle = len(self._sorted) // 2
        even = len(self._sorted) % 2 == 0
        self.steps.append(step)
        self.values.append(value)
        self.medians.append((self._sorted[middle - 1] + self._sorted[middle]) / 2 if even else self._sorted[middle])

    def cut(self, step: int) -> None:
        """Forget values from a step on."""
        end = bisect_left(self.steps, step)
        for column in (self.steps, self.values, self.medians):
            del column[end:]
        self._recent = deque(self.values[-WINDOW:])
        self._sorted = sorted(self._recent)

    def points(self, most: int = MOST_POINTS) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Steps, values and medians of at most so many points, the highest and lowest of each part of the curve among them."""
        # another thread may add a value meanwhile, of which the median comes last
        count = len(self.medians)
        steps, values, medians = (np.array(column[:count]) for column in (self.steps, self.values, self.medians))
        kept = thinned(values, most)
        return steps[kept], values[kept], medians[kept]


class StageHistory:
    """What one stage has logged."""

    def __init__(self, name: str) -> None:
        self.name, self.step, self.seconds = name, 0, 0.0
        self.curves: dict[str, Curve] = {}
        self.lines: list[Mapping[str, Any]] = []
        self._durations: deque[float] = deque(maxlen=WINDOW)

    @property
    def seconds_per_step(self) -> float | None:
        """The median of the last steps; None where none was timed."""
        return median(self._durations) if self._durations else None

    def add(self, step: int, line: Mapping[str, Any], rows: int | None) -> None:
        """The line of one step; one that was there before, and those after it, are forgotten, since a resumed run repeats them."""
        if step <= self.step:
            self._cut(step)
        self.step = step
        self.lines.append(line)
        self._add_pace(step, line, rows)
        for key, value in line.items():
            if key not in _NO_CURVES and (number := _number(value)) is not None:
                self._add(key, step, number)

    def last(self, key: str) -> float | None:
        """The last value of a curve."""
        curve = self.curves.get(key)
        return curve.values[-1] if curve and curve.values else None

    def usual(self, key: str) -> float | None:
        """Its running median there."""
        curve = self.curves.get(key)
        return curve.medians[-1] if curve and curve.medians else None

    def _add(self, key: str, step: int, value: float) -> None:
        if key not in self.curves:
            self.curves[key] = Curve()
        self.curves[key].add(step, value)

    def _add_pace(self, step: int, line: Mapping[str, Any], rows: int | None) -> None:
        """Seconds count from where this process began the stage, so after a resume they begin anew."""
        seconds, counted = _number(line.get("seconds")), _number(line.get("rows", rows))
        if seconds is None:
            return
        taken = seconds - self.seconds if seconds >= self.seconds else seconds
        self.seconds = seconds
        if taken <= 0:
            return
        self._durations.append(taken)
        if counted is not None:
            self._add("rows/s", step, counted / taken)

    def _cut(self, step: int) -> None:
        for curve in self.curves.values():
            curve.cut(step)
        self.lines = [line for line in self.lines if line["step"] < step]
        self.seconds = (_number(self.lines[-1].get("seconds")) if self.lines else None) or 0.0


class History:
    """What a run has logged so far.

    Attributes:
        stages: by name, in their order.
        broken: lines that say nothing, since they are no record of a step.
        last: name of the stage and its step that were heard of last.
    """

    def __init__(self) -> None:
        self.stages: dict[str, StageHistory] = {}
        self.broken = 0
        self.last: tuple[str, int] | None = None
        self.probes: list[Mapping[str, Any]] = []
        self._watches: dict[str, AlarmWatch] = {}
        self._cost, self._looked = 0.0, -math.inf

    def add(self, lines: Iterable[Any], rows: Mapping[str, int] | None = None) -> None:
        """Lines of metrics.jsonl in their order.

        Args:
            rows: of a step, by stage, for lines that do not tell.
        """
        for line in lines:
            stage, step = (line.get("stage"), line.get("step")) if isinstance(line, Mapping) else (None, None)
            if not isinstance(stage, str) or isinstance(step, bool) or not isinstance(step, int) or step < 1:
                self.broken += 1
                continue
            self.stages.setdefault(stage, StageHistory(stage)).add(step, line, (rows or {}).get(stage))
            self.last = (stage, step)

    def add_probes(self, lines: Iterable[Any]) -> None:
        """Lines of probes.jsonl in their order."""
        for line in lines:
            if isinstance(line, Mapping) and isinstance(line.get("stage"), str) and isinstance(line.get("step"), int):
                self.probes.append(line)

    def names(self, stage: str = "") -> list[Name]:
        """Of the curves of one stage, or of all."""
        chosen = [each for each in list(self.stages.values()) if stage in ("", each.name)]
        return [Name.of(key) for key in dict.fromkeys(key for each in chosen for key in list(each.curves))]

    def offsets(self) -> dict[str, int]:
        """Steps of the run before each stage."""
        found: dict[str, int] = {}
        before = 0
        for name, stage in list(self.stages.items()):
            found[name] = before
            before += stage.step
        return found

    def alarms(self, *, whole: bool = True) -> tuple[Alarm, ...]:
        """What is wrong with the run, as `tpo_lab.training.watch.alarms` tells.

        Args:
            whole: judge all lines at once; otherwise those since the last look, where it is time to look again.
        """
        if whole or self.alarms_are_due:
            began = perf_counter()
            for name, stage in self.stages.items():
                self._watches.setdefault(name, AlarmWatch()).look(stage, self._probes_of(name), whole=whole)
            self._looked = perf_counter()
            self._cost = self._looked - began
        return tuple(alarm for name in self.stages if name in self._watches for alarm in self._watches[name].found)

    @property
    def alarms_are_due(self) -> bool:
        """Whether there are lines that were not looked at for alarms, and it is time to."""
        if perf_counter() - self._looked < self._cost / _SHARE_FOR_ALARMS:
            return False
        watches = {name: self._watches.get(name, AlarmWatch()) for name in self.stages}
        return any(watch.is_behind(self.stages[name], self._probes_of(name)) for name, watch in watches.items())

    def _probes_of(self, stage: str) -> list[Mapping[str, Any]]:
        return [line for line in self.probes if line["stage"] == stage]


def thinned(values: NDArray[np.float64], most: int = MOST_POINTS) -> NDArray[np.intp]:
    """Places of at most so many values: the first, the last, and the lowest and highest of equal parts between them, so that spikes stay.

    Args:
        values: finite, in the order of their steps.
        most: at least 4.

    Raises:
        UsageError: fewer than 4.
    """
    if most < 4:
        raise UsageError("most", expected="at least 4", got=most)
    count = len(values)
    if count <= most:
        return np.arange(count)
    edges = np.linspace(1, count - 1, (most - 2) // 2 + 1).astype(int)
    kept = {0, count - 1}
    for begin, end in pairwise(edges.tolist()):
        part = values[begin:end]
        if len(part):
            kept |= {begin + int(part.argmin()), begin + int(part.argmax())}
    return np.array(sorted(kept))


def _number(value: Any) -> float | None:
    """A finite number; None in the place of anything else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
