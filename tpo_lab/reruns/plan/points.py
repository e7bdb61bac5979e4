"""Which points a sweep runs: every combination, a list, or a random draw. Not here: what Optuna suggests (`running.study`)."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from tpo_lab.errors import MissingExtraError
from tpo_lab.reruns.plan.chain import Chain
from tpo_lab.reruns.plan.space import Point, choices, draws, space_of
from tpo_lab.reruns.plan.sweep import MAX_RUNS, Sweep


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
        axes = {name: choices(chain, f"grid.{name}", name, values) for name, values in sweep.grid.items()}
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


def require_optuna() -> None:
    """Raise a `MissingExtraError` unless Optuna is installed."""
    if find_spec("optuna") is None:
        raise MissingExtraError("optuna", "optuna", "A search with Optuna")


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


def _listed(sweep: Sweep, chain: Chain) -> list[Point]:
    found: list[Point] = []
    first: dict[str, int] = {}
    for place, point in enumerate(sweep.points or ()):
        found.append({name: chain.typed(name, value, f"list[{place}].{name}") for name, value in point.items()})
        earlier = first.setdefault(same(found[-1]), place)
        if earlier != place:
            raise sweep.wrong(f"list[{place}]", expected=f"each point once, and list[{earlier}] is the same", got=point)
    return found


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
