"""The content of StageView: a recipe as a table, and the run that follows it as curves, within a bounded number of bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.schedules import lr_factor
from tpo_lab.stages import Stage
from tpo_widgets.content import Moment, Resource
from tpo_widgets.stages.history import LOSS, MOST_POINTS, PACE, Curve, History, Name
from tpo_widgets.stages.plan import Cell, StagePlan

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 40_000
"""Of the document, whatever the recipe and however long the run."""
_AIM_LIVE, _AIM_STILL = 36_000, 16_000
"""Of a document with curves: a run that is watched has no picture beside it, and of one that stands still fine curves can be fetched."""
MOST_ALARMS = 10
"""That are listed: the last ones."""
_SPARKS, _EPOCH_STEPS = 33, 1000
_BYTES_PER_POINT = 14


@dataclass(frozen=True)
class RunStatus:
    """What is known of a run beside its lines.

    Attributes:
        label: what people call it.
        live: whether it is being watched.
        finished: whether training has written its model.
        stages: that the run was asked for; empty where that is not known.
        totals: steps by stage, as training tells; for stages whose recipe does not say.
        revision: grows with every change.
        heard_sec: when the last step was heard of, seconds since 1970; 0 where that was not watched.
        local: whether training runs in this process, so that nobody answers while it does.
        notes: sentences worth a person's attention.
    """

    label: str = ""
    live: bool = False
    finished: bool = False
    stages: tuple[str, ...] = ()
    totals: Mapping[str, int] = field(default_factory=dict)
    revision: int = 0
    heard_sec: float = 0.0
    local: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageContent:
    """A recipe, a run, or both.

    Attributes:
        plan: the recipe's table; None where only a run is known.
        history: what the run has logged; None where there is no run.
        status: of the run.
    """

    plan: StagePlan | None
    history: History | None = None
    status: RunStatus = RunStatus()

    @cached_property
    def document(self) -> dict[str, Any]:
        """All but the fine curves; at most `MOST_BYTES` as JSON.

        Raises:
            UsageError: the recipe alone is larger.
        """
        found: dict[str, Any] = {"recipe": {}, "rows": [], "kinds": [], "stages": [], "notes": [], "run": None}
        if self.plan is not None:
            found |= table_document(self.plan)
        if self.history is None:
            return _within(found)
        found["run"] = self._run(self.history)
        bare = _size(found)
        aim = _AIM_LIVE if self.status.live else _AIM_STILL
        aim = min(MOST_BYTES, max(aim, bare + 8_000))
        names = self.history.names()
        most = min(MOST_POINTS, max(4, (aim - bare) // (_BYTES_PER_POINT * max(1, len(names)))))
        while True:
            found["run"]["curves"] = self._coarse(names, most)
            size = _size(found)
            if size <= aim:
                return found
            if most <= 4:
                found["run"]["curves"] = [] if size > MOST_BYTES else found["run"]["curves"]
                return _within(found)
            most = max(4, min(most - 1, int(most * (aim - bare) / (size - bare) * 0.95)))

    def resource(self, name: str) -> Resource:
        """Fine curves, "curves/<revision>/<stage>", of all stages where none is named.

        For each of `about["parts"]`, [key, place of the stage, count, whether it has medians]: its steps, values, maybe medians, float32.

        Raises:
            UsageError: there are none of that name.
        """
        kind, _, stage = name.rpartition("/")
        if self.history is None or not kind.startswith("curves/"):
            raise UsageError("resource", expected="curves/<revision>/<stage>, of a run", got=name)
        if stage and stage not in self.history.stages:
            raise unknown_name("stage", stage, self.history.stages)
        parts: list[list[Any]] = []
        data: list[bytes] = []
        for each in self.history.names(stage):
            for place, (steps, values, medians) in self._parts(each, MOST_POINTS, stage):
                columns = (steps, values, medians) if each.group in (LOSS, PACE) else (steps, values)
                parts.append([each.key, place, len(steps), len(columns) == 3])
                data += [np.asarray(column, "<f4").tobytes() for column in columns]
        return Resource(b"".join(data), {"parts": parts})

    def names(self) -> Iterable[str]:
        """Fine curves of the whole run and of each stage."""
        return [] if self.history is None else [f"curves/{self.status.revision}/{stage}" for stage in ("", *self.history.stages)]

    def picture(self, moment: Moment, *, dark: bool, width: int) -> Image:
        """The table of the stages, and the loss curves below it."""
        from tpo_widgets.stages.picture import picture

        return picture(self, head=moment.head, dark=dark, width=width)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Of the recipe, and those that only the run has."""
        planned = [stage.name for stage in self.plan.stages] if self.plan else []
        return tuple(dict.fromkeys((*planned, *(self.history.stages if self.history else ()))))

    def progress(self) -> list[dict[str, Any]]:
        """For each stage its step, its total (None where that is not known), what it does, and the seconds it took."""
        return [self._progress_of(name) for name in self.stage_names]

    def _progress_of(self, name: str) -> dict[str, Any]:
        assert self.history is not None
        begun = self.history.stages.get(name)
        step, total = begun.step if begun else 0, self.total_of(name)
        is_last = self.history.last is not None and self.history.last[0] == name
        over = bool(begun) and (step == total or not is_last or self.status.finished)
        if begun:
            state = "done" if over else "training" if self.status.live else "stopped"
        else:
            later = self.stage_names[self.stage_names.index(name) + 1 :]
            passed = any(each in self.history.stages for each in later)
            state = "skipped" if passed or (self.status.stages and name not in self.status.stages) else "waiting"
        total = step if over else None if total is None else max(total, step)
        return {"name": name, "step": step, "total": total, "state": state, "seconds": round(begun.seconds, 1) if begun else 0}

    def total_of(self, name: str) -> int | None:
        """Steps of a stage, as far as they are known before it ends."""
        planned = {stage.name: stage.steps for stage in self.plan.stages} if self.plan else {}
        return self.status.totals.get(name, planned.get(name))

    def _run(self, history: History) -> dict[str, Any]:
        found = history.alarms(whole=not self.status.live)
        broken = f"{history.broken} lines of the run's files are no records of steps and were left out." if history.broken else ""
        return {
            "name": self.status.label,
            "live": self.status.live,
            "finished": self.status.finished,
            "heard": round(self.status.heard_sec, 1),
            "stages": self.progress(),
            "now": self._now(history),
            "curves": [],
            "alarms": [alarm.to_dict() for alarm in found[-MOST_ALARMS:]],
            "alarms_in_all": len(found),
            "fine": "" if self._is_busy() else f"curves/{self.status.revision}/",
            "notes": [*self.status.notes, *([broken] if broken else [])],
        }

    def _is_busy(self) -> bool:
        """Whether training holds this process, so that nobody would answer the front end."""
        return self.status.local and any(each["state"] in ("training", "waiting") for each in self.progress())

    def _now(self, history: History) -> dict[str, Any] | None:
        if history.last is None:
            return None
        name, step = history.last
        stage = history.stages[name]
        total = self.total_of(name)
        left = None if total is None or stage.seconds_per_step is None else max(0, total - step) * stage.seconds_per_step
        values = {"loss": stage.last("loss"), "lr": stage.last("lr"), "rows_per_sec": stage.usual("rows/s")}
        memory = {key: stage.last(key) for key in ("memory_mib", "cuda_mib")}
        times = {"sec_per_step": stage.seconds_per_step, "stage_left_sec": left, "run_left_sec": self._run_left(name, left)}
        numbers = {key: _digits(value, 6) for key, value in {**values, **memory, **times}.items()}
        return {"stage": name, "step": step, "total": total, **numbers}

    def _run_left(self, name: str, left: float | None) -> float | None:
        """With as many seconds for each row as now; None where some stage's steps are not known."""
        if self.plan is None or left is None or self.history is None:
            return None
        stages = {stage.name: stage for stage in self.plan.stages}
        pace = self.history.stages[name].seconds_per_step
        if name not in stages or pace is None:
            return None
        order = list(stages)
        later = [stages[each] for each in order[order.index(name) + 1 :] if not self.status.stages or each in self.status.stages]
        for stage in later:
            if (total := self.total_of(stage.name)) is None:
                return None
            left += total * stage.batch_size * pace / stages[name].batch_size
        return left

    def _parts(self, name: Name, most: int, stage: str = "") -> list[tuple[int, Any]]:
        """(place of the stage, points) of a curve in every stage that has it; at most `most` points in all, or 4 for each stage."""
        assert self.history is not None
        places = {each: place for place, each in enumerate(self.stage_names)}
        chosen = [each for each in list(self.history.stages.values()) if stage in ("", each.name)]
        found = [(places[each.name], each.curves.get(name.key)) for each in chosen]
        curves: list[tuple[int, Curve]] = [(place, curve) for place, curve in found if curve is not None and curve.steps]
        count = sum(len(curve.steps) for _, curve in curves)
        free = max(0, most - 4 * len(curves))
        return [(place, curve.points(most if len(curves) == 1 else 4 + free * len(curve.steps) // count)) for place, curve in curves]

    def _coarse(self, names: Iterable[Name], most: int) -> list[dict[str, Any]]:
        found = []
        for name in names:
            parts = []
            for place, (steps, values, medians) in self._parts(name, most):
                columns = [np.diff(steps, prepend=0).tolist(), [_digits(value) for value in values.tolist()]]
                if name.group in (LOSS, PACE):
                    columns.append([_digits(value) for value in medians[::-2][::-1].tolist()])
                parts.append([place, *columns])
            found.append({**name._asdict(), "parts": parts})
        return found


def table_document(plan: StagePlan) -> dict[str, Any]:
    """The table of a recipe, JSON-ready; equal cells are told once."""
    recipe = plan.recipe
    kinds: dict[Cell, int] = {}
    rows = [
        {"key": key, "label": label, "cells": [kinds.setdefault(cell, len(kinds)) for cell in cells]}
        for (key, label), cells in zip(plan.rows.items(), plan.cells, strict=True)
    ]
    lora = f"rank {recipe.lora.rank}, alpha {recipe.lora.alpha:g}" + (", output layer too" if recipe.lora.lm_head else "")
    about = {"name": recipe.name, "description": recipe.description, "source": recipe.source, "lora": lora}
    return {
        "recipe": {**about, "frames": recipe.frames, "resolution": recipe.resolution},
        "rows": rows,
        "kinds": [cell.to_dict() for cell in kinds],
        "stages": [stage_document(stage) for stage in plan.stages],
        "totals": [list(total) for total in plan.totals],
        "notes": list(plan.notes),
    }


def stage_document(stage: Stage) -> dict[str, Any]:
    """What a stage's column tells below the parts, JSON-ready."""
    mixture = sum(stage.data.values())
    return {
        "name": stage.name,
        "title": stage.title,
        "data": [[task, _digits(share / mixture)] for task, share in stage.data.items()],
        "losses": [[term, weight] for term, weight in stage.losses.items()],
        "steps": stage.steps,
        "epochs": stage.epochs,
        "batch": stage.batch_size,
        "questions": stage.max_questions,
        "batching": stage.batching,
        "rates": sorted(set(stage.learning_rates.values()), reverse=True),
        "schedule": {"warmup": stage.warmup_ratio, "end": stage.min_lr_ratio, **schedule(stage)},
        "curriculum": [[part.until, part.difficulty] for part in stage.curriculum],
        "easiest": stage.easiest,
        "precision": stage.precision,
        "decay": stage.weight_decay,
        "clip": stage.grad_clip,
        "starts": [[target, source] for target, source in stage.starts_from.items()],
    }


def schedule(stage: Stage, count: int = _SPARKS) -> dict[str, list[Any]]:
    """Some steps from the first, 0, to the last, and what the peak rates are multiplied by there; in epochs, as if of 1000 steps in all."""
    total = stage.steps or _EPOCH_STEPS
    steps = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()
    return {"steps": steps, "factors": [round(lr_factor(step, total, stage.warmup_ratio, stage.min_lr_ratio), 3) for step in steps]}


def _within(document: dict[str, Any]) -> dict[str, Any]:
    if (size := _size(document)) > MOST_BYTES:
        hint = 'Show it in parts, such as recipe.for_heads(("region",)).'
        raise UsageError("recipe", expected=f"a table of at most {MOST_BYTES} bytes", got=f"{size} bytes", hint=hint)
    return document


def _size(document: Mapping[str, Any]) -> int:
    return len(json.dumps(document, allow_nan=False))


def _digits(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")
