"""Freezing as data: patterns over the names of `named_parts()` say what trains and how fast; everything else is frozen."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from torch import nn

from tpo_lab.errors import UsageError
from tpo_lab.stages import Stage

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class FreezePlan:
    """What trains, and at which peak learning rate.

    A parameter that two patterns match is refused: the order of a table in a file must not decide a learning rate.

    Args:
        learning_rates: pattern (fnmatch, "*" crosses dots, case counts) -> peak learning rate.
        decay_vectors: whether weight decay also pulls on tokens and on parameters of one axis or none (biases, norms, scales).
    """

    learning_rates: Mapping[str, float]
    decay_vectors: bool = False

    @classmethod
    def of(cls, stage: Stage) -> FreezePlan:
        """The plan of one stage."""
        return cls(stage.learning_rates, decay_vectors=stage.decay_on == "everything")


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """The parameters of one pattern that share weight decay.

    Args:
        pattern: the plan's pattern.
        learning_rate: peak.
        decayed: whether weight decay applies.
        names: canonical names, in the model's order.
        parameters: in the order of `names`.
    """

    pattern: str
    learning_rate: float
    decayed: bool
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]


@dataclass(frozen=True)
class Part:
    """A subtree of the model whose parameters share one fate.

    Args:
        name: dotted prefix of its parameters, or the name of a single one.
        learning_rate: peak; None where it is frozen.
        parameters: how many numbers it holds.
    """

    name: str
    learning_rate: float | None
    parameters: int


def apply(plan: FreezePlan, parameters: Mapping[str, nn.Parameter]) -> list[ParameterGroup]:
    """Sets `requires_grad` of every parameter, drops gradients of the frozen ones, and groups the others for the optimizer.

    Args:
        plan: what trains.
        parameters: canonical name -> parameter.

    Returns:
        Per pattern, in the plan's order, one group; two where only some of its parameters have weight decay.

    Raises:
        UsageError: a pattern that matches nothing; a parameter that two patterns match, that has two names, or that cannot have a
            gradient because it does not hold floating-point numbers. No flag has been changed then.
    """
    patterns = _matched(plan, parameters)
    _refuse_unfit(patterns, parameters)
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in patterns)
        if name not in patterns:
            parameter.grad = None
    groups = []
    for pattern, rate in plan.learning_rates.items():
        for decayed in (True, False):
            names = tuple(n for n, p in patterns.items() if p == pattern and _is_decayed(plan, n, parameters[n]) == decayed)
            if names:
                groups.append(ParameterGroup(pattern, rate, decayed, names, tuple(parameters[name] for name in names)))
    return groups


def parts(plan: FreezePlan, parameters: Mapping[str, nn.Parameter]) -> list[Part]:
    """The largest subtrees that train at one rate or are frozen as a whole, in the model's order; changes nothing.

    The vision encoder and the connector are one part each; the language model, tokens, prompts and heads at least one for each child.

    Raises:
        UsageError: as `apply`, for the patterns.
    """
    patterns = _matched(plan, parameters)
    leaves = [Part(n, plan.learning_rates[patterns[n]] if n in patterns else None, p.numel()) for n, p in parameters.items()]
    return _merged(leaves, depth=1)


def shape(plan: FreezePlan, parameters: Mapping[str, nn.Parameter]) -> dict[str, Any]:
    """What `table` shows, for JSON.

    Returns:
        "parts": name -> {"trained", "parameters", "learning_rate" (None where frozen)}; "trained" and "total": numbers of parameters.
    """
    found = parts(plan, parameters)
    return {
        "parts": {
            part.name: {"trained": part.learning_rate is not None, "parameters": part.parameters, "learning_rate": part.learning_rate}
            for part in found
        },
        "trained": sum(part.parameters for part in found if part.learning_rate is not None),
        "total": sum(part.parameters for part in found),
    }


def table(plan: FreezePlan, parameters: Mapping[str, nn.Parameter], title: str = "") -> Table:
    """A row per part: trained or frozen, number of parameters, learning rate."""
    from rich.table import Table

    summary = shape(plan, parameters)
    drawn = Table("part", "state", title=title, caption=f"{summary['trained']:,} of {summary['total']:,} parameters train")
    drawn.add_column("parameters", justify="right")
    drawn.add_column("lr", justify="right")
    for name, part in summary["parts"].items():
        state, rate = ("trained", f"{part['learning_rate']:g}") if part["trained"] else ("frozen", "-")
        drawn.add_row(name, state, f"{part['parameters']:,}", rate, style=None if part["trained"] else "dim")
    return drawn


def _matched(plan: FreezePlan, names: Iterable[str]) -> dict[str, str]:
    """Trained name -> its pattern, in the order of the names."""
    names = list(names)
    found: dict[str, str] = {}
    for pattern in plan.learning_rates:
        hits = [name for name in names if fnmatchcase(name, pattern)]
        if not hits:
            raise UsageError("freeze pattern", expected="a pattern that matches a parameter", got=pattern, hint=_closest(pattern, names))
        for name in hits:
            if name in found:
                twice = f"{found[name]!r} and {pattern!r} both match it; make them disjoint."
                raise UsageError("freeze plan", expected="one pattern for each parameter", got=name, hint=twice)
            found[name] = pattern
    return {name: found[name] for name in names if name in found}


def _closest(pattern: str, names: Iterable[str]) -> str:
    """Names, and prefixes of names as patterns, that are spelt like the pattern."""
    choices = {name: None for name in names}
    for name in list(choices):
        pieces = name.split(".")
        choices.update({".".join(pieces[:depth]) + ".*": None for depth in range(1, len(pieces))})
    close = difflib.get_close_matches(pattern, choices, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    return f"The model has {', '.join(sorted({name.partition('.')[0] for name in choices}))}."


def _refuse_unfit(patterns: Mapping[str, str], parameters: Mapping[str, nn.Parameter]) -> None:
    owners: dict[int, str] = {}
    for name, parameter in parameters.items():
        if owners.setdefault(id(parameter), name) != name:
            raise UsageError(
                "parameters", expected="one name for each parameter", got=name, hint=f"It is also called {owners[id(parameter)]!r}."
            )
        if name in patterns and not (parameter.is_floating_point() or parameter.is_complex()):
            hint = f"The pattern {patterns[name]!r} would train it; quantised weights stay frozen."
            raise UsageError(name, expected="floating-point numbers", got=str(parameter.dtype), hint=hint)


def _is_decayed(plan: FreezePlan, name: str, parameter: nn.Parameter) -> bool:
    return plan.decay_vectors or (parameter.ndim > 1 and not name.startswith("tokens.") and not name.endswith(".bias"))


def _merged(leaves: Iterable[Part], depth: int) -> list[Part]:
    """Joins leaves that share their first `depth` name pieces where all of them share a rate, and looks deeper where they do not."""
    branches: dict[str, list[Part]] = {}
    for leaf in leaves:
        branches.setdefault(".".join(leaf.name.split(".")[:depth]), []).append(leaf)
    rows: list[Part] = []
    for prefix, inside in branches.items():
        alike = len({leaf.learning_rate for leaf in inside}) == 1
        if alike and (depth > 1 or prefix in ("vision", "connector")):
            rows.append(Part(prefix, inside[0].learning_rate, sum(leaf.parameters for leaf in inside)))
        else:
            rows += _merged(inside, depth + 1)
    return rows
