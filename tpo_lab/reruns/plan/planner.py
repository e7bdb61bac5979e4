"""From a sweep to its jobs. Everything that can be checked is checked here, before anything runs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.reruns.plan.chain import SEED, Chain, ReadLink
from tpo_lab.reruns.plan.job import Job
from tpo_lab.reruns.plan.keys import PATH_PARAMETERS, Contents, key_of
from tpo_lab.reruns.plan.points import check_fixed, check_size, points_of, require_optuna, swept_names
from tpo_lab.reruns.plan.space import Point
from tpo_lab.reruns.plan.sweep import Sweep
from tpo_lab.reruns.plan.values import typed

RECIPE = "recipe_name"
_RECIPE_FILES = (".json", ".toml")
_PLAIN = re.compile(r"[\w./+:-]+")


def jobs_of(sweep: Sweep, point: Point) -> list[Job]:
    """The jobs of one point of a sweep, with every seed, each after the one that it takes from.

    Raises:
        UsageError: as `Planner`, or the point does not fit the notebooks.
    """
    return Planner(sweep).jobs_at(point)


def baseline_of(sweep: Sweep) -> Point | None:
    """The values of the sweep's `baseline` as the types that the notebooks declare; None where it has none.

    Raises:
        UsageError: as `Planner`.
    """
    return Planner(sweep).baseline


class Planner:
    """The jobs of a sweep whose files and notebooks were read once.

    Attributes:
        chain: the links.
        points: those of the sweep; none for Optuna.
        baseline: values of the point that the others are compared with, or None.

    Raises:
        UsageError: anything in the sweep that the notebooks or the files do not allow.
        MissingExtraError: the sweep asks for Optuna, which is not installed.
    """

    def __init__(self, sweep: Sweep) -> None:
        check_size(sweep)
        check_fixed(sweep)
        _check_inputs(sweep)
        self.sweep, self.chain, self._contents = sweep, Chain(sweep), Contents()
        self._fixed = self._read_fixed()
        self._seeded = self.chain.seeded()
        self._check_seed()
        self.points = points_of(sweep, self.chain)
        self.baseline = self._checked_baseline()
        if sweep.optuna:
            require_optuna()

    def jobs(self) -> list[Job]:
        """Of all points, each after the one that it takes from; none for Optuna, whose points come one by one.

        Jobs that would be the same run are one job: a first link that a swept value does not reach runs once for all points.

        Raises:
            UsageError: two points are the same run.
        """
        return self._distinct(job for point in self.points for job in self._at(point))

    def jobs_at(self, point: Point) -> list[Job]:
        """Of one point."""
        return self._distinct(self._at({name: self.chain.typed(name, value, f"point.{name}") for name, value in point.items()}))

    def _distinct(self, jobs: Iterator[Job]) -> list[Job]:
        found: dict[str, Job] = {}
        for job in jobs:
            same = found.setdefault(job.key, job)
            if same.name != job.name:
                raise UsageError(self.sweep.file, expected="each run once", got=f"{same.name!r} and {job.name!r}, which are the same run")
        return list(found.values())

    def _at(self, point: Point) -> Iterator[Job]:
        targets = {name: self.chain.reached(name, name, point) for name in point}
        for seed in self.sweep.seeds or (None,):
            made: dict[str, Job] = {}
            for label, link in self.chain.links.items():
                before = made.get(link.after or "")
                swept = {reached[label]: name for name, reached in targets.items() if label in reached}
                made[label] = self._job(label, link, point, swept, seed if label in self._seeded else None, before)
            yield from made.values()

    def _job(self, label: str, link: ReadLink, point: Point, swept: dict[str, str], seed: int | None, before: Job | None) -> Job:
        """The job of a link at a point; `swept` are its parameters with the names under which the point has them."""
        values = self._fixed[label] | {parameter: point[name] for parameter, name in swept.items()}
        values |= {} if seed is None else {SEED: seed}
        values = {name: typed(f"{self.sweep.file}: {name}", link.declared[name], value) for name, value in values.items()}
        paths = {name: path for name, value in values.items() if (path := self._path_in(name, value)) is not None}
        inputs = {name: self.sweep.folder / name for name in self.sweep.inputs}
        read = inputs | {f"parameter {name}": path for name, path in paths.items()}
        takes = dict(link.link.takes)
        after = None if before is None else before.key
        key = key_of(link.path, values, inputs=read, takes=takes, before=after, contents=self._contents)
        # what reached the link before counts for this one too
        names = {*swept.values(), *(before.point if before else ())}
        seed = seed if seed is not None or before is None else before.seed
        reached = {name: value for name, value in point.items() if name in names}
        return Job(
            key=key,
            name=_name(label, reached, seed),
            link=label,
            notebook=os.path.abspath(link.path),
            point=reached,
            seed=seed,
            values=values | {name: os.path.abspath(path) for name, path in paths.items()},
            after=after,
            takes=takes,
            inputs=tuple(dict.fromkeys(os.path.abspath(path) for path in read.values())),
            limits=self.sweep.run_limits,
        )

    def _path_in(self, name: str, value: Any) -> Path | None:
        """What a value leads to where it is a path: the run works in a folder of its own, where a relative one leads nowhere."""
        if not isinstance(value, str) or not value or not (name in PATH_PARAMETERS or value in self.sweep.inputs):
            return None
        if name == RECIPE and not value.endswith(_RECIPE_FILES):  # a preset, whatever lies beside the sweep
            return None
        path = self.sweep.folder / value
        if path.exists():
            return path
        if name == RECIPE or os.path.isabs(value) or value.startswith((f".{os.sep}", f"..{os.sep}", "./", "../")):
            raise self.sweep.wrong(name, expected="an existing file or folder", got=value, hint=_start(self.sweep))
        return None

    def _read_fixed(self) -> dict[str, dict[str, Any]]:
        """Label -> fixed values of a link."""
        sweep, found = self.sweep, dict[str, dict[str, Any]]()
        for name, value in sweep.parameters.items():
            if "." in name:
                hint = "What is for one link only stands in the `parameters` of that link."
                raise sweep.wrong("parameters", expected="a parameter's name", got=name, hint=hint)
            self.chain.typed(name, value, f"parameters.{name}")
        for label, link in self.chain.links.items():
            general = {name: value for name, value in sweep.parameters.items() if name in link.declared and name not in link.own}
            found[label] = {
                name: typed(f"{sweep.file}: parameters.{name}", link.declared[name], value)
                for name, value in (general | link.link.parameters).items()
            }
        return found

    def _check_seed(self) -> None:
        names = [*self.sweep.parameters, *swept_names(self.sweep)]
        if self.sweep.seeds is not None and any(name.rpartition(".")[2] == SEED for name in names):
            raise self.sweep.wrong("seeds", expected="seeds in one place", got="seeds and a parameter `seed`")

    def _checked_baseline(self) -> Point | None:
        if self.sweep.baseline is None:
            return None
        named = {}
        for name, value in self.sweep.baseline.items():
            if name not in swept_names(self.sweep):
                raise unknown_name(f"{self.sweep.file}: baseline", name, swept_names(self.sweep) or ("no name, since nothing is swept",))
            named[name] = self.chain.typed(name, value, f"baseline.{name}")
        if not any(named.items() <= point.items() for point in self.points):
            raise self.sweep.wrong("baseline", expected=f"values of one of the {len(self.points)} points", got=self.sweep.baseline)
        return named


def _check_inputs(sweep: Sweep) -> None:
    for place, name in enumerate(sweep.inputs):
        if not (sweep.folder / name).exists():
            raise sweep.wrong(f"inputs[{place}]", expected="an existing file or folder", got=name, hint=_start(sweep))


def _start(sweep: Sweep) -> str:
    return f"Paths start from {sweep.folder}."


def _name(label: str, point: Point, seed: int | None) -> str:
    shown = [f"{name}={_shown(value)}" for name, value in point.items()]
    return " ".join([label, *shown, *([] if seed is None else [f"seed={seed}"])])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
