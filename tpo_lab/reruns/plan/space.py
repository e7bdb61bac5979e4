"""The space that a random or an Optuna search draws from: an axis for each swept parameter, and points drawn from all of them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

from tpo_lab.reruns.plan.chain import Chain
from tpo_lab.reruns.plan.sweep import Range, Sweep

Point = dict[str, Any]
_DIGITS = 6


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
        found[name] = _ranged(chain, place, name, axis) if isinstance(axis, Range) else Axis(choices(chain, place, name, axis))
    return found


def choices(chain: Chain, field: str, name: str, values: list[Any]) -> list[Any]:
    """The values of a list as the type that the notebooks declare.

    Raises:
        UsageError: an unknown name, a value of another type, or one that is there twice.
    """
    chain.reached(name, field)
    found = [chain.typed(name, value, f"{field}[{place}]") for place, value in enumerate(values)]
    for place, value in enumerate(found):
        if value in found[:place]:
            raise chain.sweep.wrong(f"{field}[{place}]", expected="each value once", got=value)
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
