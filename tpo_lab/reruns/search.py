"""Which points a sweep runs: every combination, a list, a random draw, or what Optuna suggests from what came before."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tpo_lab.errors import MissingExtraError, TPOError, UsageError, unknown_name
from tpo_lab.reruns.chain import Chain
from tpo_lab.reruns.fields import NoSuchField, field_of
from tpo_lab.reruns.sweep import MAX_RUNS, Range, Sweep
from tpo_lab.runs import read_jsonl

Point = dict[str, Any]
_DIGITS = 6


def check_size(sweep: Sweep) -> None:
    """Refuse a sweep of more than `MAX_RUNS` runs; they are counted without being made."""
    field = next((name for name, value in _searches(sweep).items() if value), "seeds")
    points = math.prod(map(len, sweep.grid.values())) if sweep.grid else 1
    points = len(sweep.points) if sweep.points else sweep.random.points if sweep.random else points
    points = sweep.optuna.trials if sweep.optuna else points
    runs = points * len(sweep.seeds or (None,))
    if runs > MAX_RUNS:
        made = f"{points:,} points" + (f" with {len(sweep.seeds):,} seeds" if sweep.seeds else "")
        raise sweep.wrong(field, expected=f"at most {MAX_RUNS:,} runs of a notebook", got=made)


def points_of(sweep: Sweep, chain: Chain) -> list[Point]:
    """The points of a sweep, values as the types that the notebooks declare; none for Optuna, one empty point where nothing is swept.

    Raises:
        UsageError: an unknown name, a value of another type, a point that is there twice, or fewer different points than asked.
    """
    check_fixed(sweep)
    if sweep.grid is not None:
        axes = {name: _choices(chain, f"grid.{name}", name, values) for name, values in sweep.grid.items()}
        return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    if sweep.points is not None:
        return _listed(sweep, chain)
    if sweep.random is not None:
        drawn = draws(space_of(sweep, chain, "random"), sweep.random.seed)
        return _different(sweep, chain, drawn)
    if sweep.optuna is not None:
        space_of(sweep, chain, "optuna")
        return []
    return [{}]


def check_fixed(sweep: Sweep) -> None:
    """Refuse a parameter that is fixed and swept: in a list, one that every point sets; else, one that is swept at all."""
    listed = set.intersection(*(set(point) for point in sweep.points)) if sweep.points else set()
    over = sweep.grid or (sweep.random.over if sweep.random else sweep.optuna.over if sweep.optuna else listed)
    for name in sweep.parameters:
        if name in over:
            field = next(field for field, value in _searches(sweep).items() if value)
            raise sweep.wrong(f"parameters.{name}", expected=f"a parameter that is not in {field} too", got=sweep.parameters[name])


def swept_names(sweep: Sweep) -> list[str]:
    """Every name that some point sets, in the order of the sweep file."""
    if sweep.points is not None:
        return list(dict.fromkeys(name for point in sweep.points for name in point))
    over = sweep.random.over if sweep.random else sweep.optuna.over if sweep.optuna else {}
    return list(sweep.grid or over)


def same(point: Point) -> str:
    """A text that two points share if and only if they are equal, types included; the order of names does not count."""
    return json.dumps(point, sort_keys=True)


def _searches(sweep: Sweep) -> dict[str, Any]:
    return {"grid": sweep.grid, "list": sweep.points, "random": sweep.random, "optuna": sweep.optuna}


def _choices(chain: Chain, field: str, name: str, values: list[Any]) -> list[Any]:
    chain.reached(name, field)
    found = [chain.typed(name, value, f"{field}[{place}]") for place, value in enumerate(values)]
    for place, value in enumerate(found):
        if value in found[:place]:
            raise chain.sweep.wrong(f"{field}[{place}]", expected="each value once", got=value)
    return found


def _listed(sweep: Sweep, chain: Chain) -> list[Point]:
    found: list[Point] = []
    first: dict[str, int] = {}
    for place, point in enumerate(sweep.points or ()):
        found.append({name: chain.typed(name, value, f"list[{place}].{name}") for name, value in point.items()})
        earlier = first.setdefault(same(found[-1]), place)
        if earlier != place:
            raise sweep.wrong(f"list[{place}]", expected=f"each point once, and list[{earlier}] is the same", got=point)
    return found


class Axis:
    """One swept parameter: choices, or numbers between two bounds.

    Attributes:
        choices: its values; None for a range.
        low, high, log: of a range.
        whole: whether its numbers are whole.
    """

    def __init__(self, choices: list[Any] | None, bounds: Range | None = None, whole: bool = False) -> None:
        self.choices, self.whole = choices, whole
        self.low, self.high, self.log = (bounds.low, bounds.high, bounds.log) if bounds else (0.0, 0.0, False)

    @property
    def size(self) -> float:
        """How many different values there are."""
        return len(self.choices) if self.choices is not None else self.high - self.low + 1 if self.whole else math.inf

    def at(self, share: float) -> Any:
        """The value at a share in [0, 1) of the axis."""
        if self.choices is not None:
            return self.choices[int(share * len(self.choices))]
        # half a step beyond both ends gives the bounds the same weight as other whole numbers
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        value = math.exp(math.log(low) + share * math.log(high / low)) if self.log else low + share * (high - low)
        return int(min(max(round(value), self.low), self.high)) if self.whole else min(max(self._rounded(value), self.low), self.high)

    def _rounded(self, value: float) -> float:
        """Six significant digits are easier to read; a narrow range needs all of them."""
        wide = self.high - self.low > 0.1 * max(abs(self.low), abs(self.high))
        return float(f"{value:.{_DIGITS}g}") if wide else value


def space_of(sweep: Sweep, chain: Chain, field: str) -> dict[str, Axis]:
    """The axes of a random or an Optuna search.

    Raises:
        UsageError: an unknown name, a choice of another type, or a range that its parameter cannot have.
    """
    search = sweep.random if field == "random" else sweep.optuna
    assert search is not None
    found = {}
    for name, axis in search.over.items():
        place = f"{field}.over.{name}"
        found[name] = _ranged(chain, place, name, axis) if isinstance(axis, Range) else Axis(_choices(chain, place, name, axis))
    return found


def _ranged(chain: Chain, field: str, name: str, bounds: Range) -> Axis:
    kind = chain.type_of(name, field)
    if kind not in ("int", "float"):
        raise chain.sweep.wrong(field, expected=f"a list of choices for the parameter {name!r} of type {kind}", got="a range")
    for side in ("low", "high"):
        if kind == "int" and not getattr(bounds, side).is_integer():
            raise chain.sweep.wrong(f"{field}.{side}", expected="a whole number for a parameter of type int", got=getattr(bounds, side))
    return Axis(None, bounds, whole=kind == "int")


def draws(space: Mapping[str, Axis], seed: int) -> Iterator[Point]:
    """Points without end. Each parameter has a stream of random numbers of its own, from the seed and its name.

    So neither the order of the names nor another parameter changes what a parameter gets.
    """
    streams = {name: random.Random(f"{seed}:{name}") for name in space}
    while True:
        yield {name: axis.at(streams[name].random()) for name, axis in space.items()}


def _different(sweep: Sweep, chain: Chain, drawn: Iterator[Point]) -> list[Point]:
    assert sweep.random is not None
    wanted, there = sweep.random.points, math.prod(axis.size for axis in space_of(sweep, chain, "random").values())
    if wanted > there:
        raise sweep.wrong("random.points", expected=f"at most {int(there):,}, the number of different points", got=wanted)
    found: dict[str, Point] = {}
    while len(found) < wanted:
        point = next(drawn)
        found.setdefault(same(point), point)
    return list(found.values())


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


def require_optuna() -> None:
    """Raise a `MissingExtraError` unless Optuna is installed."""
    if find_spec("optuna") is None:
        raise MissingExtraError("optuna", "optuna", "A search with Optuna")


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
