"""The runs of a sweep as tables: a row per run, or a row per point and metric over its seeds. Not here: how a table is written down."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from tpo_lab.errors import UsageError
from tpo_lab.reruns.collected import HEADLINE, Run
from tpo_lab.reruns.frames import frame_of
from tpo_lab.reruns.statistics import Spread, method_for, paired, spread

if TYPE_CHECKING:
    import pandas as pd

_BEFORE = ("key", "run", "link")
_BETWEEN = ("seed", "state")
_AFTER = ("seconds", "peak_memory_mb", "attempts", "error_cell", "error_type", "error_message", "executed")
_GROUPED = ("link", "metric", "n", "of", "missing", "mean", "standard_error", "low", "high", "difference", "difference_low")
_OFFERED = 6
_TAKEN = frozenset((*_BEFORE, *_BETWEEN, *_AFTER, *_GROUPED, "difference_high", "pairs", "interval"))


def chosen_metrics(runs: Iterable[Run], wanted: Sequence[str] = ()) -> list[str]:
    """Dotted names of fields of the result records, in their order.

    Args:
        runs: whose records are looked at.
        wanted: full names, names below `headline`, or the start of several (`headline`, `after.region`); the whole headline by default.

    Raises:
        UsageError: no record has such a field.
    """
    known = list(dict.fromkeys(name for run in runs for name in run.values))
    if not known:
        return list(wanted)
    found: list[str] = []
    for name in wanted or (HEADLINE,):
        fitting = _fitting(name, known)
        if not fitting and wanted:
            raise _no_such_metric(name, known)
        found += fitting
    return list(dict.fromkeys(found))


def _fitting(name: str, known: Sequence[str]) -> list[str]:
    exact = [each for each in known if each in (name, f"{HEADLINE}.{name}")]
    return exact or [each for each in known if each.startswith((f"{name}.", f"{HEADLINE}.{name}."))]


def _no_such_metric(name: str, known: Sequence[str]) -> UsageError:
    short = {each.removeprefix(f"{HEADLINE}."): each for each in known}
    close = difflib.get_close_matches(name, [*known, *short], n=3, cutoff=0.5)
    near = list(dict.fromkeys(short.get(each, each) for each in close)) or known[:3]
    return UsageError("--metric", expected="a field of a result record", got=name, hint=f"Some that are there: {', '.join(near)}.")


def label(metric: str) -> str:
    """The column of a metric: without `headline.` in front of it."""
    short = metric.removeprefix(f"{HEADLINE}.")
    return metric if short in _TAKEN else short


def seed_of(run: Run) -> int | None:
    """The seed of a run: of the sweep's `seeds`, or where they are swept as a parameter, that one."""
    seed = run.job.seed if run.job.seed is not None else run.job.point.get("seed")
    return seed if isinstance(seed, int) else None


def point_of(run: Run) -> dict[str, Any]:
    """The swept values of a run without its seed."""
    return {name: value for name, value in run.job.point.items() if name != "seed"}


def parameter_columns(runs: Iterable[Run]) -> dict[str, str]:
    """Swept parameter -> its column; one that is called like another column is `parameter.NAME`."""
    names = dict.fromkeys(name for run in runs for name in point_of(run))
    return {name: f"parameter.{name}" if name in _TAKEN else name for name in names}


def run_table(runs: Sequence[Run], metrics: Sequence[str]) -> pd.DataFrame:
    """A row per run, failed ones too: what was asked, the state, the metrics, time and memory, the error, the executed notebook."""
    swept = parameter_columns(runs)
    columns = {metric: f"result.{metric}" if label(metric) in swept.values() else label(metric) for metric in metrics}
    rows = [_row(run, swept, columns) for run in runs]
    return frame_of(rows, [*_BEFORE, *swept.values(), *_BETWEEN, *columns.values(), *_AFTER])


def _row(run: Run, swept: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, Any]:
    point, values, error = point_of(run), run.values, run.error or {}
    return {
        "key": run.job.key,
        "run": run.job.name,
        "link": run.job.link,
        **{column: _plain(point.get(name)) for name, column in swept.items()},
        "seed": seed_of(run),
        "state": run.state,
        **{column: values.get(metric) for metric, column in columns.items()},
        "seconds": run.seconds,
        "peak_memory_mb": run.peak_memory_mb,
        "attempts": len(run.attempts),
        **{f"error_{part}": error.get(part) for part in ("cell", "type", "message")},
        "executed": str(run.executed) if run.executed.exists() else None,
    }


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value)


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


@dataclass(frozen=True)
class Grouped:
    """A table over seeds.

    Attributes:
        frame: a row per link, metric and point. `n` of `of` seeds have the number, `missing` says what the others are; `low` and `high`
            are the ends of the mean's 95% interval, `difference...` the same for the mean difference from the baseline, seed by seed
            over the `pairs` seeds that both have; the baseline's own rows have no difference. `interval` names the method.
        method: of all intervals in it; see `tpo_lab.reruns.statistics`.
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
    columns = ["link", "metric", *swept.values(), *_GROUPED[2:], "difference_high", "pairs", "interval"]
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
            **{column: _plain(self.group.point.get(name)) for name, column in swept.items()},
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


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet; a column that holds numbers beside texts is written as texts.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    from importlib.util import find_spec

    from tpo_lab.errors import MissingExtraError

    if find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow", "parquet", "Writing Parquet")
    one_type = frame.copy()
    for name in frame.columns:
        present = frame[name].dropna()
        if frame[name].dtype == object and present.map(type).nunique() > 1:
            one_type[name] = frame[name].map(lambda value: value if value is None else str(value))
    path.parent.mkdir(parents=True, exist_ok=True)
    one_type.to_parquet(path)
