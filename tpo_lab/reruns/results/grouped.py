"""The runs of a sweep as a table over seeds: a row per link, metric and point, with intervals and differences from a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tpo_lab.reruns.results.collected import Run
from tpo_lab.reruns.results.frames import frame_of
from tpo_lab.reruns.results.groups import Group, check_baseline, groups_of, partner
from tpo_lab.reruns.results.statistics import Spread, method_for, paired, spread
from tpo_lab.reruns.results.table import GROUPED, label, parameter_columns, plain

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Grouped:
    """A table over seeds.

    Attributes:
        frame: a row per link, metric and point. `n` of `of` seeds have the number, `missing` says what the others are; `low` and `high`
            are the ends of the mean's 95% interval, `difference...` the same for the mean difference from the baseline, seed by seed
            over the `pairs` seeds that both have; the baseline's own rows have no difference. `interval` names the method.
        method: of all intervals in it; see `tpo_lab.reruns.results.statistics`.
        baseline: the values that the differences are from; None without one.
    """

    frame: pd.DataFrame
    method: str
    baseline: dict[str, Any] | None


def grouped_table(runs: Sequence[Run], metrics: Sequence[str], baseline: Mapping[str, Any] | None = None) -> Grouped:
    """The metrics over the seeds of each point, and their differences from a baseline.

    Raises:
        UsageError: no run stands at the baseline.
    """
    groups = groups_of(runs)
    if baseline is not None:
        check_baseline(groups, baseline)
    others = [None if baseline is None else partner(group, groups, baseline) for group in groups]
    cells = [
        _Cell.of(group, metric, other)
        for link in dict.fromkeys(group.link for group in groups)
        for metric in metrics
        if _is_shown(metric, link, groups)
        for group, other in zip(groups, others, strict=True)
        if group.link == link
    ]
    method = method_for([count for cell in cells for count in (len(cell.values), len(cell.differences))])
    swept = parameter_columns(runs)
    rows = [cell.row(swept, method) for cell in cells]
    columns = ["link", "metric", *swept.values(), *GROUPED[2:], "difference_high", "pairs", "interval"]
    if baseline is None:
        columns = [name for name in columns if not name.startswith("difference") and name != "pairs"]
    return Grouped(frame_of(rows, columns), method, None if baseline is None else dict(baseline))


def _is_shown(metric: str, link: str, groups: Sequence[Group]) -> bool:
    """A link has no rows for what its finished runs do not give, or give as text; while none is finished, it has rows for all."""
    done = [run for group in groups if group.link == link for run in group.runs.values() if run.state == "done"]
    given = [run.values[metric] for run in done if metric in run.values]
    return not done or any(isinstance(value, (int, float)) and not isinstance(value, bool) for value in given)


@dataclass(frozen=True)
class _Cell:
    """One metric of one group, with its differences from the partner's, seed by seed; those are empty where it has none."""

    group: Group
    metric: str
    values: list[float]
    differences: list[float]

    @classmethod
    def of(cls, group: Group, metric: str, other: Group | None) -> _Cell:
        numbers = group.numbers(metric)
        differences = [] if other is None or other is group else paired(numbers, other.numbers(metric))
        return cls(group, metric, list(numbers.values()), differences)

    def row(self, swept: Mapping[str, str], method: str) -> dict[str, Any]:
        own, difference = spread(self.values, method), spread(self.differences, method)
        return {
            "link": self.group.link,
            "metric": label(self.metric),
            **{column: plain(self.group.point.get(name)) for name, column in swept.items()},
            "n": own.count,
            "of": len(self.group.runs),
            "missing": self.group.missing(self.metric),
            "mean": own.mean,
            "standard_error": own.standard_error,
            "low": own.low,
            "high": own.high,
            **_difference(difference),
            "interval": method,
        }


def _difference(found: Spread) -> dict[str, Any]:
    return {"difference": found.mean, "difference_low": found.low, "difference_high": found.high, "pairs": found.count}
