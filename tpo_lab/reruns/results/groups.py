"""The runs of a sweep by link and point, each group over its seeds, and the group that one is compared with."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from tpo_lab.errors import UsageError
from tpo_lab.reruns.results.collected import Run
from tpo_lab.reruns.results.table import point_of, seed_of

_OFFERED = 6


@dataclass(frozen=True)
class Group:
    """The runs of one link at one point, by seed."""

    link: str
    point: dict[str, Any]
    runs: dict[Hashable, Run] = field(default_factory=dict)

    def numbers(self, metric: str) -> dict[Hashable, float]:
        """The metric of every seed that has it as a finite number."""
        values = {seed: run.values.get(metric) for seed, run in self.runs.items()}
        return {seed: value for seed, value in values.items() if _is_number(value)}

    def missing(self, metric: str) -> str:
        """Which seeds have no number, and why: "1 failed, 2 waiting"; a run that is done without the number has "no value"."""
        there = self.numbers(metric)
        reasons = ["no value" if run.state == "done" else run.state for seed, run in self.runs.items() if seed not in there]
        return ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def groups_of(runs: Iterable[Run]) -> list[Group]:
    """The runs by link and point, in their order."""
    found: dict[str, Group] = {}
    for run in runs:
        point = point_of(run)
        group = found.setdefault(_name(run.job.link, point), Group(run.job.link, point))
        group.runs[seed_of(run)] = run
    return list(found.values())


def _name(link: str, point: Mapping[str, Any]) -> str:
    return json.dumps([link, point], sort_keys=True, default=str)


def has_seeds(runs: Iterable[Run]) -> bool:
    """Whether some point stands on more than one seed."""
    return any(len(group.runs) > 1 for group in groups_of(runs))


def partner(group: Group, groups: Sequence[Group], baseline: Mapping[str, Any]) -> Group | None:
    """The group that this one is compared with: of the same link, at the baseline, as far as its values reach that link.

    Where the baseline names only some of several swept parameters, and more than one point has these values, it is the point that
    agrees with the group's own in all others.
    """
    of_link = [each for each in groups if each.link == group.link]
    wanted = {name: value for name, value in baseline.items() if any(name in each.point for each in of_link)}
    fitting = [each for each in of_link if _agree(wanted, each.point)] if wanted else []
    for whole in (wanted, {**group.point, **wanted}):
        if len(fitting) > 1:
            fitting = [each for each in fitting if len(each.point) == len(whole) and _agree(whole, each.point)] or fitting
    return fitting[0] if len(fitting) == 1 else None


def _agree(wanted: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    return all(name in point and _same(value, point[name]) for name, value in wanted.items())


def _same(one: Any, other: Any) -> bool:
    """Equal, or one a text that spells the other, as YAML 1.1 leaves 1e-3."""
    if isinstance(one, str) == isinstance(other, str):
        return bool(one == other)
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return False


def check_baseline(groups: Sequence[Group], baseline: Mapping[str, Any]) -> None:
    """Raise unless some run stands at the baseline.

    Raises:
        UsageError: none does; names the points that there are.
    """
    swept = {name for group in groups for name in group.point}
    if not baseline.keys() <= swept or not any(partner(group, groups, baseline) for group in groups):
        points = [text for text in dict.fromkeys(_words(group.point) for group in groups) if text]
        shown = "; ".join(points[:_OFFERED]) + (f"; and {len(points) - _OFFERED} more" if len(points) > _OFFERED else "")
        raise UsageError("--baseline", expected=f"values of a point: {shown or 'nothing was swept'}", got=_words(baseline))


def _words(point: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in point.items())
