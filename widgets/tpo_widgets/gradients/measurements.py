"""Measurements of gradients in one order: that of a trace, and those that a run wrote as it trained.

They are set on one list of modules and owners, so that a front end can go from one to the next without building anything anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError
from tpo_lab.probes.gradient_table import GradientTable
from tpo_lab.probes.trace import Trace
from tpo_lab.runs import RunFolder, read_probes

TRACE = -1
"""The line of a measurement that stands in no file."""
MOST_MEASUREMENTS = 1000
MOST_BYTES = 12 << 20
"""Of all numbers together; where a run has more, some of its measurements are left out evenly."""
NO_LOSS = -1.0
"""In place of the norms of an owner that has no loss in a measurement."""

_ORDER = ("llm.lora", "llm.base", "tokens", "heads", "prompts", "connector", "vision")
_WAY_OUT = "Train with TrainingOptions(probe_every=50), or tpo-lab train --probe-every 50."

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Measurement:
    """One measurement.

    Attributes:
        line: its place in probes.jsonl, from 0; -1 for a trace.
        stage: its name; None without one.
        step: before which it was made, from 1; None for a trace.
        seconds: that it took, where that is known.
        samples: their ids.
        table: its numbers, groups of modules included.
    """

    line: int
    stage: str | None
    step: int | None
    seconds: float | None
    samples: tuple[str, ...]
    table: GradientTable


def of_trace(trace: Trace) -> Measurement:
    """That of a trace.

    Raises:
        UsageError: it is none, or has no gradients to show.
    """
    if not isinstance(trace, Trace):
        raise UsageError("trace", expected="what tpo.probe(model, samples) gives", got=type(trace).__name__)
    if trace.gradients is None:
        raise UsageError(
            "trace", expected="gradients in it", got="none", hint="Measure again with tpo.probe(model, samples, gradients=True)."
        )
    table = _grouped(GradientTable.of(trace.gradients))
    _check("trace", table)
    return Measurement(TRACE, trace.stage, None, None, tuple(sample.id for sample in trace.samples), table)


def of_run(run: str | Path | RunFolder) -> tuple[list[Measurement], int]:
    """Those of a run, and how many lines its file has: no more are kept than a view can hold.

    Raises:
        UsageError: there is no such folder, it has no measurements, or a line of its file is damaged.
    """
    if not isinstance(run, str | Path | RunFolder):
        raise UsageError("run", expected="the folder of a run, or what tpo.fit gives", got=run)
    folder = Path(run.path if isinstance(run, RunFolder) else run)
    if not folder.is_dir():
        raise UsageError("run", expected="the folder of a run", got=str(folder))
    lines = read_probes(folder)
    if not lines:
        raise UsageError("run", expected="a folder with measurements of gradients in probes.jsonl", got=str(folder), hint=_WAY_OUT)
    first = _measurement(0, lines[0])
    chosen = evenly(len(lines), min(MOST_MEASUREMENTS, max(2, MOST_BYTES // _bytes(first.table))))
    return [_measurement(place, lines[place]) for place in chosen], len(lines)


def evenly(count: int, most: int) -> list[int]:
    """At most so many of some places, evenly, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(place) for place in np.linspace(0, count - 1, most)})


def part_of(module: str) -> str:
    """The part of the model that a module belongs to: "llm.lora" of "llm.lora.3", "tokens" of "tokens.task.region"."""
    pieces = module.split(".")
    return ".".join(pieces[: 2 if pieces[0] == "llm" else 1])


def in_order(modules: Sequence[str]) -> list[str]:
    """Parts from the language model outwards, layers by their numbers, and each group before its members."""

    def key(module: str) -> tuple[Any, ...]:
        part = part_of(module)
        place = _ORDER.index(part) if part in _ORDER else len(_ORDER)
        pieces = re.split(r"(\d+)", module)
        # what is in no layer ("llm.lora.other") comes behind the layers
        return place, part, [(0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in pieces]

    return sorted(modules, key=key)


def values_of(measurement: Measurement, modules: Sequence[str], owners: Sequence[str]) -> Values:
    """Its numbers [module, column]: by owner the norms, by owner the shares, and the cosines of every two owners in their order.

    The norms of owners without a loss are -1. NaN stands for norms that are not finite, and for shares and cosines that there are none.
    """
    table, count = measurement.table, len(owners)
    rows = [table.modules.index(module) for module in modules]
    columns = {owner: place for place, owner in enumerate(owners)}
    places = [columns[owner] for owner in table.owners]
    found = np.full((len(modules), 2 * count + count * (count - 1) // 2), np.nan)
    found[:, :count] = NO_LOSS
    norms = table.norms[rows]
    found[:, places] = np.where(np.isfinite(norms), norms, np.nan)
    found[:, [count + place for place in places]] = table.shares[rows]
    pairs = pairs_of(owners)
    cosines = table.cosines[rows]
    for place, (one, other) in enumerate(table.pairs):
        pair = (one, other) if (one, other) in pairs else (other, one)
        found[:, 2 * count + pairs.index(pair)] = cosines[:, place]
    return found.astype(np.float32)


def pairs_of(owners: Sequence[str]) -> list[tuple[str, str]]:
    """Every two owners, in their order."""
    return [(one, other) for place, one in enumerate(owners) for other in owners[place + 1 :]]


def _measurement(place: int, line: Mapping[str, Any]) -> Measurement:
    argument = f"line {place + 1} of probes.jsonl"
    try:
        table = _grouped(GradientTable.read(line["gradients"]))
        samples = tuple(str(sample) for sample in line["samples"])
        stage, step, seconds = str(line["stage"]), int(line["step"]), line.get("seconds")
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise UsageError(argument, expected="a measurement of gradients", got=f"{type(error).__name__}: {error}") from error
    _check(argument, table)
    return Measurement(place, stage, step, None if seconds is None else float(seconds), samples, table)


def _grouped(table: GradientTable) -> GradientTable:
    groups: dict[str, list[str]] = {}
    for module in table.modules:
        groups.setdefault(part_of(module), []).append(module)
    return table.with_groups({name: members for name, members in groups.items() if len(members) > 1})


def _check(argument: str, table: GradientTable) -> None:
    if not table.owners:
        raise UsageError(argument, expected="samples with an answer to learn from", got="no loss at all")
    if not table.modules:
        raise UsageError(
            argument, expected="a model of which some part can learn", got="a frozen one", hint="Name a stage: tpo.probe(..., stage=...)."
        )


def _bytes(table: GradientTable) -> int:
    count = len(table.owners)
    return 4 * len(table.modules) * (2 * count + count * (count - 1) // 2)
