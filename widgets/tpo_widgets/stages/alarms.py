"""Alarms of a stage as it goes on: each look judges the lines since the last one, so that its cost does not grow with the run."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tpo_lab.training.watch.alarms import NOT_FINITE, Alarm, Limits, alarms

if TYPE_CHECKING:
    from tpo_widgets.stages.history import StageHistory

_LIMITS = Limits()
_CONTEXT = max(_LIMITS.window + _LIMITS.lasting, _LIMITS.patience) + 1


class AlarmWatch:
    """What `tpo_lab.training.watch.alarms` finds in one stage, kept up to date.

    Attributes:
        found: so far, in the order of their steps.
    """

    def __init__(self) -> None:
        self.found: tuple[Alarm, ...] = ()
        self._of_lines: tuple[Alarm, ...] = ()
        self._of_probes: tuple[Alarm, ...] = ()
        self._step, self._probes, self._is_whole = 0, 0, True

    def is_behind(self, stage: StageHistory, probes: Sequence[Mapping[str, Any]]) -> bool:
        """Whether there is something that was not looked at."""
        return self._step != stage.step or self._probes != len(probes)

    def look(self, stage: StageHistory, probes: Sequence[Mapping[str, Any]], *, whole: bool = False) -> None:
        """Look at what is new; at everything with `whole`, or where steps were repeated."""
        if self._step > stage.step or (whole and not self._is_whole):
            self._of_lines, self._step, self._is_whole = (), 0, True
        if self._step != stage.step:
            told = {(alarm.kind, alarm.subject) for alarm in self._of_lines if alarm.kind == NOT_FINITE}
            new = alarms(judged(stage, self._step))
            self._of_lines += tuple(each for each in new if each.step > self._step and (each.kind, each.subject) not in told)
            self._is_whole = self._is_whole and self._step == 0
            self._step = stage.step
        if self._probes != len(probes):
            self._of_probes, self._probes = _of_probes(probes), len(probes)
        self.found = tuple(dict.fromkeys(sorted((*self._of_lines, *self._of_probes), key=lambda alarm: alarm.step)))


def judged(stage: StageHistory, after: int) -> list[Mapping[str, Any]]:
    """The lines after a step, and those before it that they are judged by: each curve's first values, its last ones, and the last steps."""
    if after == 0:
        return stage.lines
    steps = set()
    for curve in stage.curves.values():
        end = bisect_right(curve.steps, after)
        steps |= {*curve.steps[: min(end, _LIMITS.least)], *curve.steps[max(0, end - _CONTEXT) : end]}
    begin = max(0, bisect_right(stage.lines, after, key=_step_of) - _CONTEXT)
    first = _step_of(stage.lines[begin])
    before = [stage.lines[bisect_left(stage.lines, step, key=_step_of)] for step in sorted(steps) if step < first]
    return before + stage.lines[begin:]


def _step_of(line: Mapping[str, Any]) -> int:
    return int(line["step"])


def _of_probes(probes: Sequence[Mapping[str, Any]]) -> tuple[Alarm, ...]:
    try:
        return alarms((), probes)
    except (AttributeError, KeyError, TypeError, ValueError):
        # probes of another version may have other fields; then the lines of the steps tell alone
        return ()
