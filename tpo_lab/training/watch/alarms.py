"""What is wrong with a run, told from the lines that it wrote: metrics.jsonl and probes.jsonl. Nothing is computed but counts and medians.

Not here: faults of a model at one moment, which `tpo_lab.probes.symptoms` finds in a trace.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from statistics import median
from typing import Any

from tpo_lab.runs import is_loss

NO_GRADIENT = "no gradient"
NOT_FINITE = "not finite"
EXPLODED = "exploded"
ROUTE_COLLAPSE = "route collapse"
NONE = "none"

_GRADIENT = "gradient/"

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Alarm:
    """One thing that is wrong with a run.

    Attributes:
        kind: "no gradient", "not finite", "exploded" or "route collapse".
        stage: its name.
        step: of the stage, from 1, at which it could be told.
        began: the step at which it began.
        subject: the head or the term of the objective that it is about.
        meaning: one sentence of what it means.
        advice: one sentence of what to do.
    """

    kind: str
    stage: str
    step: int
    began: int
    subject: str
    meaning: str
    advice: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class Limits:
    """From where on something is an alarm.

    Attributes:
        patience: steps in a row without any gradient of a trained head.
        factor: a term has exploded where it stays at more than so many times its running median,
        lasting: for so many of its values in a row; a single one is a batch with a hard sample.
        window: values of a term in its running median.
        least: values of a term before any explosion is told; it must also exceed all of these first ones of the stage.
        share: of the due routes of other heads that have one route as the most probable.
        due: how many such routes there must be.
        probes: measurements in a row that must show it; untrained routes begin so.
    """

    patience: int = 50
    factor: float = 10.0
    lasting: int = 5
    window: int = 50
    least: int = 10
    share: float = 0.9
    due: int = 2
    probes: int = 2


def alarms(metrics: Sequence[Line], probes: Sequence[Line] = (), limits: Limits | None = None) -> tuple[Alarm, ...]:
    """What is wrong with a run, in its order; nothing of a sound one.

    What goes on is told once, at the step at which it could be; again where it has stopped in between.

    Args:
        metrics: the lines of a run's metrics.jsonl, as `RunFolder.metrics` reads them; also of a run that still trains, or that stopped.
        probes: those of its probes.jsonl, as `tpo_lab.runs.read_probes` reads them; routes are told of only where there are some.
    """
    limits = limits or Limits()
    found: list[Alarm] = []
    for stage, lines in _by_stage(metrics):
        found += [*_not_finite(stage, lines), *_no_gradient(stage, lines, limits), *_exploded(stage, lines, limits)]
    for stage, lines in _by_stage(probes):
        found += [*_not_finite_probes(stage, lines), *_collapsed(stage, lines, limits)]
    order = list(dict.fromkeys(str(line.get("stage")) for line in (*metrics, *probes)))
    # metrics and probes may tell of the same thing
    return tuple(dict.fromkeys(sorted(found, key=lambda alarm: (order.index(alarm.stage), alarm.step))))


def _by_stage(lines: Iterable[Line]) -> Iterator[tuple[str, list[Line]]]:
    for stage, group in groupby(lines, key=lambda line: str(line.get("stage"))):
        yield stage, list(group)


def _step(line: Line) -> int:
    return int(line.get("step", 0))


def _in_a_row(steps: list[int], line: Line, holds: bool) -> int:
    """How often something has held in a row, with the step of a line added to those of before, or all of them forgotten."""
    steps.append(_step(line))
    if not holds:
        steps.clear()
    return len(steps)


def _not_finite(stage: str, lines: Sequence[Line]) -> Iterator[Alarm]:
    """Every name once in a stage; the sum only where none of its terms is named."""
    told: set[str] = set()
    for line in lines:
        broken = [name for name in _broken(line) if name not in told]
        told.update(broken)
        terms = [name for name in broken if name != "loss"]
        for name in terms or broken:
            yield _of_not_finite(stage, line, name)


def _broken(line: Line) -> list[str]:
    """Names whose numbers are not finite, as logged: named in a list, or NaN or infinite where they stand."""
    standing = [name for name, value in line.items() if isinstance(value, float) and not math.isfinite(value)]
    return [*line.get("not_finite", ()), *standing]


def _of_not_finite(stage: str, line: Line, name: str) -> Alarm:
    what = f"The gradient of {name.removeprefix(_GRADIENT)!r}" if name.startswith(_GRADIENT) else f"The loss {name!r}"
    meaning = f"{what} is not a finite number at step {_step(line)}, and a step with it spoils every weight that trains."
    advice = "Start the stage again with a lower learning rate or in fp32, and look for broken targets among the samples of this step."
    return Alarm(NOT_FINITE, stage, _step(line), _step(line), name.removeprefix(_GRADIENT), meaning, advice)


def _not_finite_probes(stage: str, lines: Sequence[Line]) -> Iterator[Alarm]:
    told: set[str] = set()
    for line in lines:
        broken = [name for name, term in line.get("losses", {}).items() if term["value"] is None]
        norms = [module["norms"] for module in line.get("gradients", {}).get("modules", {}).values()]
        gradients = dict.fromkeys(f"{_GRADIENT}{owner}" for each in norms for owner, norm in each.items() if norm is None)
        # what is broken already breaks its gradient too
        for name in broken or gradients:
            if name not in told:
                told.add(name)
                yield _of_not_finite(stage, line, name)


def _no_gradient(stage: str, lines: Sequence[Line], limits: Limits) -> Iterator[Alarm]:
    quiet: dict[str, list[int]] = {}
    for line in lines:
        for name, value in line.items():
            if not name.startswith(_GRADIENT):
                continue
            head = name.removeprefix(_GRADIENT)
            if _in_a_row(quiet.setdefault(head, []), line, value == 0) == limits.patience:
                yield _of_no_gradient(stage, quiet[head], head)


def _of_no_gradient(stage: str, steps: Sequence[int], head: str) -> Alarm:
    meaning = f"Head {head!r} is to be trained, but no loss has reached it for {len(steps)} steps, so that it learns nothing."
    advice = (
        f"See that the stage's losses weigh {head!r} above 0, that its data has samples with this head's marker and targets, "
        "and that nothing between the head and its loss is detached."
    )
    return Alarm(NO_GRADIENT, stage, steps[-1], steps[0], head, meaning, advice)


def _exploded(stage: str, lines: Sequence[Line], limits: Limits) -> Iterator[Alarm]:
    history: dict[str, _Term] = {}
    for line in lines:
        for name, value in line.items():
            # the sum explodes with its terms
            if name == "loss" or not is_loss(name) or not isinstance(value, (int, float)) or not math.isfinite(value):
                continue
            term = history.setdefault(name, _Term(limits))
            if term.explodes_with(float(value), _step(line)):
                yield _of_exploded(stage, name, term)


def _of_exploded(stage: str, name: str, term: _Term) -> Alarm:
    (began, usual), step = term.high[0], term.high[-1][0]
    stays = f"has stayed at more than {term.limits.factor:g} times its usual {usual:.3g} since step {began}"
    meaning = f"The loss {name!r} {stays}, and higher than when the stage began: it is {term.recent[-1]:.3g} at step {step}."
    advice = "Start the stage again with a lower learning rate, a lower limit of the gradient's norm or a longer warm-up."
    return Alarm(EXPLODED, stage, step, began, name, meaning, advice)


class _Term:
    """One term of a stage, value by value.

    Attributes:
        recent: its last values, of which the running median is.
        first: its first ones in the stage.
        high: step and running median of the values in a row that are far above it, the last one's included.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.recent: deque[float] = deque(maxlen=limits.window)
        self.first: list[float] = []
        self.high: list[tuple[int, float]] = []

    def explodes_with(self, value: float, step: int) -> bool:
        """Whether it can be told with this value, which is taken into the history, that the term has exploded."""
        known = len(self.first) >= self.limits.least
        usual = median(self.recent) if self.recent else 0.0
        high = known and usual > 0 and value > self.limits.factor * usual and value > max(self.first)
        self.high.append((step, usual))
        if not high:
            self.high.clear()
        self.recent.append(value)
        if not known:
            self.first.append(value)
        return len(self.high) == self.limits.lasting


def _collapsed(stage: str, lines: Sequence[Line], limits: Limits) -> Iterator[Alarm]:
    shown: dict[str, list[int]] = {}
    for line in lines:
        routes: Mapping[str, Line] = line.get("routes", {})
        for route in sorted({name for each in routes.values() for name in each["most_probable"]} - {NONE}):
            others = [each for head, each in routes.items() if head != route]
            due = sum(each["due"] for each in others)
            taken = sum(each["due"] * each["most_probable"].get(route, 0.0) for each in others)
            collapsed = due >= limits.due and taken >= limits.share * due
            if _in_a_row(shown.setdefault(route, []), line, collapsed) == limits.probes:
                yield _of_collapse(stage, shown[route], route, taken / due)


def _of_collapse(stage: str, steps: Sequence[int], route: str, share: float) -> Alarm:
    meaning = f"Where other heads are due the model would ask head {route!r} in {share:.0%} of the places, whatever the question is."
    advice = (
        f"See that the data does not ask {route!r} far more often than the other heads, that 'assign' has a weight in this stage, "
        "and that the rows of the routes train."
    )
    return Alarm(ROUTE_COLLAPSE, stage, steps[-1], steps[0], route, meaning, advice)
