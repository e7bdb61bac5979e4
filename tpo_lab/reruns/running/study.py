"""A search with Optuna: which point comes next, from what the earlier ones gave."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpo_lab.errors import TPOError, UsageError, unknown_name
from tpo_lab.reruns.disk.record import NoSuchField, field_of
from tpo_lab.reruns.plan.chain import Chain
from tpo_lab.reruns.plan.points import require_optuna, same
from tpo_lab.reruns.plan.space import Axis, Point, space_of
from tpo_lab.reruns.plan.sweep import Range, Sweep
from tpo_lab.runs import read_jsonl


class Study:
    """A search with Optuna, one point after the other. It can be stopped at any time and goes on from its journal.

    The journal holds the points that were asked, in order, and no results: after a stop the same points are given out first, and the
    caller tells what their finished runs gave. So a result of another version of the code is never taken for one of this version.
    Each point depends only on the seed, on its number and on what was told before it.

    Args:
        sweep: with an `optuna` search.
        journal: file of the points that were asked; begun anew where it belongs to another search space or seed.

    Raises:
        UsageError: the search does not fit the notebooks.
        MissingExtraError: Optuna is not installed.
    """

    def __init__(self, sweep: Sweep, journal: Path | str | None = None) -> None:
        require_optuna()
        if sweep.optuna is None:
            raise UsageError(f"{sweep.file}: optuna", expected="a search with Optuna", got="none")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search = sweep.optuna
        self._space = space_of(sweep, Chain(sweep), "optuna")
        self._distributions = {name: _distribution(axis) for name, axis in self._space.items()}
        self._study = optuna.create_study(direction=self.search.direction)
        self._journal = None if journal is None else Path(journal)
        self._asked = self._read_journal()
        self._issued = 0
        self._open: dict[str, list[int]] = {}
        self._told: dict[str, float | None] = {}

    def ask(self) -> Point | None:
        """The next point to run; None when all trials are given out. A point that was given out before is not given out again."""
        while self._issued < self.search.trials:
            point = self._next()
            number = self._issued
            self._issued += 1
            key = same(point)
            if key in self._told:
                self._finish(number, self._told[key])
            elif key in self._open:
                self._open[key].append(number)
            else:
                self._open[key] = [number]
                return dict(point)
        return None

    def tell(self, point: Point, value: float | None) -> None:
        """What a point gave; None where it failed. Told again, a point stays as it was.

        Raises:
            UsageError: the point was not asked.
        """
        key = same(point)
        if key not in self._open and key not in self._told:
            raise UsageError("point", expected="one that `ask` gave", got=point)
        value = None if value is None or not math.isfinite(value) else float(value)
        self._told.setdefault(key, value)
        for number in self._open.pop(key, ()):
            self._finish(number, value)

    def best(self) -> tuple[Point, float] | None:
        """The best point so far and what it gave; None where nothing was told."""
        told = {key: value for key, value in self._told.items() if value is not None}
        if not told:
            return None
        key = (max if self.search.direction == "maximize" else min)(told, key=lambda each: told[each])
        return json.loads(key), told[key]

    def _next(self) -> Point:
        import optuna

        if self._issued < len(self._asked):
            point = self._asked[self._issued]
            state = optuna.trial.TrialState.RUNNING
            self._study.add_trial(optuna.trial.create_trial(state=state, params=point, distributions=self._distributions))
            return point
        # a seed per number, so that a search that was stopped goes on as if it had not been
        self._study.sampler = _sampler(random.Random(f"{self.search.seed}:{self._issued}").getrandbits(31))
        trial = self._study.ask(self._distributions)
        point = {name: trial.params[name] for name in self._space}
        self._asked.append(point)
        self._write(point)
        return point

    def _finish(self, number: int, value: float | None) -> None:
        import optuna

        failed = optuna.trial.TrialState.FAIL if value is None else None
        self._study.tell(number, value, state=failed)

    def _head(self) -> dict[str, Any]:
        over = {name: axis.model_dump() if isinstance(axis, Range) else axis for name, axis in self.search.over.items()}
        return {"search": {"seed": self.search.seed, "over": over}}

    def _read_journal(self) -> list[Point]:
        if self._journal is None:
            return []
        lines = read_jsonl(self._journal) if self._journal.exists() else []
        kept = lines[1:] if lines[:1] == [json.loads(json.dumps(self._head()))] else []
        # written anew, since a line that was cut off must not be continued
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        partial = self._journal.with_name(self._journal.name + ".partial")
        partial.write_text("".join(json.dumps(line) + "\n" for line in [self._head(), *kept]), encoding="utf-8")
        os.replace(partial, self._journal)
        return [line["point"] for line in kept]

    def _write(self, point: Point) -> None:
        if self._journal is not None:
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"point": point}) + "\n")


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.choices is not None:
        return CategoricalDistribution(axis.choices)
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _sampler(seed: int) -> Any:
    import warnings

    from optuna.samplers import TPESampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # points that still run count as bad ones, so that two workers are not sent to the same place
        return TPESampler(seed=seed, constant_liar=True)


def value_of(record: Mapping[str, Any], field: str) -> float:
    """The number at a dotted field of a result record.

    Raises:
        TPOError: there is no such field (the closest names are offered), or no finite number in it.
    """
    try:
        value = field_of(record, field)
    except NoSuchField as missing:
        raise TPOError(str(unknown_name(f"{field}: {missing.where or 'result record'}", missing.name, missing.known))) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TPOError(f"result record: {field}: expected a finite number, got {value!r}.")
    return float(value)
