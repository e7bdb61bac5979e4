"""What a GradientView shows: which loss moves which module, who pulls against whom and where, from a trace or along a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tpo_lab.errors import UsageError
from tpo_lab.probes.sample_trace import owner_of
from tpo_lab.probes.trace import Trace
from tpo_lab.runs import RunFolder
from tpo_widgets.content import Moment, Resource
from tpo_widgets.gradients.measurements import TRACE, Measurement, Values, in_order, of_run, of_trace, pairs_of, part_of, values_of

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_AT_ONCE = 1500
"""Numbers of the first measurement that travel with the view's state; more are fetched."""
_CHUNK_BYTES = 1 << 20
_QUESTION = 160


class Segment(NamedTuple):
    """Neighbouring measurements of the same modules and owners, on the same samples."""

    measurements: tuple[Measurement, ...]
    chunk: int


class Conflict(NamedTuple):
    """Two owners that pull against each other in a module."""

    one: str
    other: str
    module: str
    cosine: float

    def __str__(self) -> str:
        return f"{self.one} and {self.other} pull against each other in {self.module}: cosine {self.cosine:.2f}"


@dataclass(frozen=True)
class GradientContent:
    """Measurements of gradients.

    Attributes:
        measurements: the trace's, if there is one, then the run's.
        measured: how many the run has in all; more than there are here where it has very many.
        trace: whose samples are named.
    """

    measurements: tuple[Measurement, ...]
    measured: int = 0
    trace: Trace | None = None

    @classmethod
    def of(cls, trace: Trace | None = None, run: str | Path | RunFolder | None = None) -> GradientContent:
        """From a trace, a run folder with measurements, or both.

        Raises:
            UsageError: there is neither, or there are no gradients in it.
        """
        if trace is None and run is None:
            raise UsageError(
                "trace, run", expected="one of them or both", got=None, hint="GradientView(trace) or GradientView(run='runs/first')."
            )
        found = [] if trace is None else [of_trace(trace)]
        more, measured = ([], 0) if run is None else of_run(run)
        return cls((*found, *more), measured, trace)

    @cached_property
    def owners(self) -> tuple[str, ...]:
        """Of all measurements, in the order of the one that has the most."""
        most_first = sorted(self.measurements, key=lambda each: -len(each.table.owners))
        return tuple(dict.fromkeys(owner for each in most_first for owner in each.table.owners))

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Of all measurements, groups of modules before their members."""
        return tuple(in_order(list({module: None for each in self.measurements for module in each.table.modules})))

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Name -> its members."""
        names = [module for module in self.modules if module == part_of(module)]
        members = {name: [each for each in self.modules if part_of(each) == name and each != name] for name in names}
        return {name: found for name, found in members.items() if found}

    @cached_property
    def pairs(self) -> list[str]:
        """Every two owners, as "region|temporal"."""
        return ["|".join(pair) for pair in pairs_of(self.owners)]

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """All measurements, cut where modules, owners, stage or samples change."""

        def alike(each: Measurement) -> tuple[Any, ...]:
            return each.line == TRACE, each.stage, each.table.modules, each.table.parameters, each.table.owners, each.samples

        found = [tuple(group) for _, group in groupby(self.measurements, alike)]
        return tuple(Segment(group, max(1, _CHUNK_BYTES // self._values(group[0]).nbytes)) for group in found)

    @property
    def start(self) -> Measurement:
        """What is shown at first: the trace, or where the run is now."""
        return self.measurements[0 if self.trace is not None else -1]

    def at(self, line: int) -> Measurement:
        """The measurement that stands on a line of probes.jsonl, or the last one before it; -1 is the trace's, or the last one."""
        run = [each for each in self.measurements if each.line != TRACE]
        if line == TRACE or not run:
            return self.start
        return [run[0], *(each for each in run if each.line <= line)][-1]

    @cached_property
    def document(self) -> dict[str, Any]:
        """See `front/gradient_data.js`."""
        place = {module: number for number, module in enumerate(self.modules)}
        values = self._values(self.start)
        return {
            "owners": list(self.owners),
            "modules": list(self.modules),
            "groups": {name: [place[module] for module in members] for name, members in self.groups.items()},
            "segments": [self._described(segment, place) for segment in self.segments],
            "start": self.start.line,
            "values": _plain(values) if values.size <= _MOST_AT_ONCE else None,
            "measured": self.measured,
            "samples": self._samples(),
            "ranked": self._ranked(),
        }

    def resource(self, name: str) -> Resource:
        """Values of measurements of a segment, "values/<segment>/<chunk>": float32 [measurement, module, column]; see `values_of`.

        Raises:
            UsageError: there is no such resource.
        """
        if name not in set(self.names()):
            raise UsageError("resource", expected="values/<segment>/<chunk>", got=name)
        segment, chunk = (int(piece) for piece in name.split("/")[1:])
        measurements, size = self.segments[segment]
        found = np.stack([self._values(each) for each in measurements[chunk * size : (chunk + 1) * size]])
        return Resource(found.astype("<f4").tobytes(), {"shape": list(found.shape)})

    def names(self) -> Iterable[str]:
        """All numbers, the latest first."""
        for number, (measurements, size) in reversed(list(enumerate(self.segments))):
            for chunk in reversed(range(math.ceil(len(measurements) / size))):
                yield f"values/{number}/{chunk}"

    def picture(self, moment: Moment, *, dark: bool, width: int) -> Image:
        """Norms and conflicts of the measurement that is shown at first."""
        return self.drawn(self.start, dark=dark, width=width)

    def drawn(self, measurement: Measurement, *, dark: bool = False, width: int = 900, per_parameter: bool = False) -> Image:
        """Norms and conflicts of one measurement.

        Args:
            per_parameter: whether norms are divided by the square root of a module's number of parameters.
        """
        from tpo_widgets.gradients.picture import gradient_picture

        return gradient_picture(self, measurement, dark=dark, width=width, per_parameter=per_parameter)

    def conflicts(self, measurement: Measurement) -> list[Conflict]:
        """Where two owners pull against each other, the strongest first; groups of modules are left out."""
        table = measurement.table
        found = [
            Conflict(*pair, module, float(table.cosines[row, column]))
            for row, module in enumerate(table.modules)
            if module not in self.groups
            for column, pair in enumerate(table.pairs)
            if table.cosines[row, column] < 0
        ]
        return sorted(found, key=lambda each: each.cosine)

    def cost(self, measurement: Measurement) -> str:
        """How many backward passes a measurement took, and how much it looked at."""
        table = measurement.table
        own = [number for module, number in zip(table.modules, table.parameters, strict=True) if module not in self.groups]
        passes = f"{len(table.owners)} {'losses' if len(table.owners) > 1 else 'loss'}, {_count(len(table.owners), 'backward pass', 'es')}"
        return f"{passes} · {_count(sum(own), 'parameter')} in {_count(len(own), 'module')} · {_count(len(measurement.samples), 'sample')}"

    def title(self, measurement: Measurement) -> str:
        """Which measurement it is."""
        stage = f"stage {measurement.stage}" if measurement.stage is not None else "one step, no stage"
        return f"Gradients of {stage}" + (f", before step {measurement.step}" if measurement.step is not None else "")

    def _values(self, measurement: Measurement) -> Values:
        """Of the modules of its segment, in the order of all modules."""
        mine = set(measurement.table.modules)
        return values_of(measurement, [module for module in self.modules if module in mine], self.owners)

    def _described(self, segment: Segment, place: dict[str, int]) -> dict[str, Any]:
        measurements, size = segment
        first = measurements[0]
        counts = dict(zip(first.table.modules, first.table.parameters, strict=True))
        modules = [module for module in self.modules if module in counts]
        return {
            "stage": first.stage,
            "modules": [place[module] for module in modules],
            "parameters": [counts[module] for module in modules],
            "owners": [self.owners.index(owner) for owner in first.table.owners],
            "samples": list(first.samples),
            "lines": [each.line for each in measurements],
            "steps": [each.step for each in measurements],
            "seconds": [each.seconds for each in measurements],
            "title": self.title(first).split(", before")[0],
            "cost": self.cost(first),
            "chunk": size,
        }

    def _samples(self) -> dict[str, dict[str, Any]]:
        """What is known of the trace's samples, by their ids."""
        found = {}
        for sample in self.trace.samples if self.trace else ():
            owners = dict.fromkeys(owner_of(term) for term in sample.losses)
            losses = {owner: _rounded(sample.loss_of({owner})) for owner in owners}
            found[sample.id] = {"question": sample.question[:_QUESTION], "losses": losses}
        return found

    def _ranked(self) -> dict[str, list[int]]:
        """By pair, the places of the trace's samples that make what the two do to each other, the first ones the most."""
        if self.trace is None:
            return {}
        return {f"{one}|{other}": list(self.trace.samples_of(one, other)) for one, other in self.measurements[0].table.pairs}


def _plain(values: Values) -> list[float | None]:
    return [_rounded(value) for value in values.ravel().tolist()]


def _rounded(value: float) -> float | None:
    return float(f"{value:.8g}") if math.isfinite(value) else None


def _count(number: int, what: str, plural: str = "s") -> str:
    return f"{number:,} {what}{plural if number != 1 else ''}"


def most_interesting(content: GradientContent, measurement: Measurement, most: int) -> Sequence[str]:
    """Modules for a picture, in their order: those with the strongest conflicts, then those with the greatest norms."""
    table = measurement.table
    place = {module: number for number, module in enumerate(table.modules)}
    modules = [module for module in content.modules if module in place and module not in content.groups]
    lowest = np.nan_to_num(table.cosines, nan=1.0).min(1, initial=1.0)
    norms = np.nan_to_num(table.norms, nan=np.inf).max(1, initial=0.0)
    ranked = sorted(modules, key=lambda module: (min(lowest[place[module]], 0.0), -norms[place[module]]))
    chosen = set(ranked[:most])
    return [module for module in modules if module in chosen]
