"""What the runs of a sweep logged as they trained: curves of a term over the steps, thinned out for looking at."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from tpo_lab.errors import TPOError, unknown_name

MOST_POINTS = 300
LOOKED_AT = 12
"""Runs whose terms are collected."""
_KEPT_BYTES = 16 << 20
"""Of files whose lines are kept; as Python's values they take some times as much."""
_NO_TERMS = ("stage", "step")

Points = tuple[list[float], list[float]]
"""Steps and values of a curve."""


@dataclass
class Logs:
    """The learning curves of runs.

    Attributes:
        folders: id of a run -> its folder, for runs that have one.
    """

    folders: Mapping[str, Path]
    _kept: OrderedDict[Path, tuple[tuple[int, int], list[dict[str, Any]]]] = field(default_factory=OrderedDict, repr=False)
    _parts: dict[str, dict[str, Path]] = field(default_factory=dict, repr=False)

    def among(self, folders: Mapping[str, Path]) -> Logs:
        """The same of other runs; what was read is kept."""
        return Logs(folders, self._kept)

    def terms(self) -> list[str]:
        """Names of what can be drawn, "loss" first; a run of several trainings has the training's name before each: "3a · loss"."""
        found = list(islice(filter(None, map(self.parts, self.folders)), LOOKED_AT))
        several = any(len(parts) > 1 for parts in found)
        named: dict[str, None] = {}
        for parts in found:
            for part, folder in parts.items():
                named.update(dict.fromkeys(f"{part} · {term}" if several else term for term in _terms(self._lines(folder))))
        return sorted(named, key=lambda name: _rank(name.rpartition(" · ")[2]))

    def curve(self, run: str, name: str) -> Points:
        """A term of a run over its steps; where it was trained in stages, they follow each other.

        Raises:
            TPOError: the run logged no such term.
        """
        part, _, term = name.rpartition(" · ")
        parts = self.parts(run)
        if not parts:
            raise TPOError("this run has no metrics.jsonl.")
        if part and part not in parts:
            raise TPOError(f"this run has no training called {part!r}.")
        lines = self._lines(parts[part] if part else next(iter(parts.values())))
        found = _points(lines, term)
        if not found[0]:
            raise unknown_name("term", term, _terms(lines))
        return found

    def parts(self, run: str) -> dict[str, Path]:
        """The trainings of a run: name -> folder."""
        from tpo_lab.reruns.results.training_runs import training_runs

        folder = self.folders.get(run)
        if folder is None:
            return {}
        if not self._parts.get(run):
            self._parts[run] = {_part(each, folder): each for each in training_runs(folder)}
        return self._parts[run]

    def _lines(self, folder: Path) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, read again only where it has grown."""
        from tpo_lab.runs import METRICS, read_jsonl

        path = folder / METRICS
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if path not in self._kept or self._kept[path][0] != stamp:
                self._kept[path] = (stamp, read_jsonl(path))
        except OSError as error:
            raise TPOError(f"{path.name} cannot be read: {error.strerror}.") from error
        self._kept.move_to_end(path)
        while len(self._kept) > 1 and sum(size for (_, size), _ in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return self._kept[path][1]


def over_seeds(curves: Sequence[Points]) -> dict[str, list[float | None]]:
    """Mean and 95% interval of several curves at the steps that all of them have.

    Returns:
        "steps", "mean", "low" and "high"; the last two are None where there is only one curve.
    """
    from tpo_lab.reruns.results.statistics import STUDENT_T, spread

    tables = [dict(zip(*curve, strict=True)) for curve in curves]
    shared = sorted(set(tables[0]).intersection(*tables[1:])) if tables else []
    kept = _evenly(shared)
    found = [spread([table[step] for table in tables], STUDENT_T) for step in kept]
    return {
        "steps": [float(step) for step in kept],
        "mean": [each.mean for each in found],
        "low": [each.low for each in found],
        "high": [each.high for each in found],
    }


def thinned(steps: Sequence[float], values: Sequence[float], most: int = MOST_POINTS) -> Points:
    """At most so many points of a curve: its ends, and the least and the greatest value of each of equal parts between them."""
    count = len(steps)
    if count <= most:
        return list(steps), list(values)
    parts = (most - 2) // 2
    edges = [1 + (count - 2) * number // parts for number in range(parts + 1)]
    places = {0, count - 1}
    for start, end in pairwise(edges):
        part = range(start, end)
        places |= {min(part, key=values.__getitem__), max(part, key=values.__getitem__)}
    kept = sorted(places)
    return [steps[place] for place in kept], [values[place] for place in kept]


def _evenly(steps: Sequence[float]) -> list[float]:
    if len(steps) <= MOST_POINTS:
        return list(steps)
    return [steps[(len(steps) - 1) * number // (MOST_POINTS - 1)] for number in range(MOST_POINTS)]


def _points(lines: Sequence[Mapping[str, Any]], term: str) -> Points:
    steps: list[float] = []
    values: list[float] = []
    for step, line in _stepped(lines):
        value = line.get(term)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            steps.append(step)
            values.append(value)
    return steps, values


def _stepped(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, Mapping[str, Any]]]:
    """Each line with its step, counted on over the stages; lines without a step are counted."""
    before, last, stage = 0.0, 0.0, None
    for number, line in enumerate(lines, 1):
        if line.get("stage") != stage:
            before, stage = last, line.get("stage")
        step = line.get("step")
        last = before + (float(step) if isinstance(step, (int, float)) else number - before)
        yield last, line


def _terms(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the numbers in these lines."""
    found: dict[str, None] = {}
    for line in lines:
        numbers = (name for name, value in line.items() if isinstance(value, (int, float)) and not isinstance(value, bool))
        found.update(dict.fromkeys(name for name in numbers if name not in _NO_TERMS))
    return list(found)


def _rank(term: str) -> int:
    """The loss, its terms, and then what is no loss."""
    if term == "loss":
        return 0
    return 2 if term.startswith("gradient/") or term in ("lr", "seconds", "rows") or "memory" in term else 1


def _part(training: Path, run: Path) -> str:
    return str(training.relative_to(run).as_posix()).removeprefix("run/") if training != run else run.name
