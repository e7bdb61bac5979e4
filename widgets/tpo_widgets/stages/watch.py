"""A recipe and the run that follows it, taken from the run's files, from training in this process, or from both."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import UsageError
from tpo_lab.runs import RunFolder
from tpo_lab.schedules import lr_factor
from tpo_lab.training.cost.process_memory import process_memory
from tpo_widgets.stages.content import RunStatus, StageContent
from tpo_widgets.stages.files import RunFiles, Tail
from tpo_widgets.stages.history import History
from tpo_widgets.stages.plan import StagePlan

if TYPE_CHECKING:
    from tpo_lab.model import TPOModel
    from tpo_lab.objective import LossReport


class StageWatch:
    """What is known of a recipe and of a run; not safe for several threads at once.

    Args:
        recipe: as `StagePlan.of` takes it, or None.
        model: tells how many parameters each part has, or None.

    Attributes:
        plan: that of the run, where it has one; otherwise the one that was given.
        history: of the run; None where there is none.
        status: of the run.

    Raises:
        UsageError: as `StagePlan.of`.
    """

    def __init__(self, recipe: Any = None, model: TPOModel | None = None) -> None:
        self.model = model
        self.plan = None if recipe is None else StagePlan.of(recipe, model)
        self.history: History | None = None
        self.status = RunStatus()
        self._given = "" if self.plan is None else self.plan.recipe.name
        self._files: RunFiles | None = None
        self._totals: dict[str, int] = {}
        self._pending: list[dict[str, Any]] = []
        self._began, self._heard, self._place = 0.0, 0.0, ("", 0)

    @property
    def folder(self) -> Path | None:
        """The run's; None where it is only heard of."""
        return None if self._files is None else self._files.folder

    @property
    def problem(self) -> str:
        """What is wrong with the run's config.json; "" where nothing is."""
        return "" if self._files is None else self._files.problem

    def begin(self, folder: Path | None, *, live: bool = False, local: bool = False) -> None:
        """Forget one run and begin with another.

        Args:
            folder: of its files, or None.
            live: whether it goes on.
            local: whether it trains in this process.
        """
        self.history, self._pending, self._totals = History(), [], {}
        self._files = None if folder is None else RunFiles(folder)
        self._began = self._heard = time.monotonic()
        self._place = ("", 0)
        self.status = RunStatus("" if self._files is None else self._files.label, live=live, local=local, revision=self.status.revision)

    def end(self) -> None:
        """The run is not watched any more."""
        self.status = replace(self.status, live=False, local=False)

    def hear(self, stage: str, step: int, total: int, report: LossReport) -> None:
        """A step of training in this process."""
        if self.history is None or not self.status.local:
            self.begin(self.folder, live=True, local=True)
        now = time.monotonic()
        if stage != self._place[0] or step <= self._place[1]:
            self._began = self._heard
        self._place, self._heard = (stage, step), now
        self._totals[stage] = total
        self.status = replace(self.status, heard_sec=time.time())
        line = {"stage": stage, "step": step, "seconds": round(now - self._began, 3), **process_memory()}
        self._pending.append({**line, **self._planned(stage, step, total), **report.floats()})

    def poll(self) -> bool:
        """Take what files and training have new; whether there was something. Where both tell of a step, the files are right."""
        if self.history is None:
            return False
        news = False if self._files is None else self._poll_files(self._files)
        if self._pending and self.history.last != (self._pending[-1]["stage"], self._pending[-1]["step"]):
            self.history.add(self._pending, self._rows())
            news = True
        self._pending = []
        return news

    @property
    def alarms_are_due(self) -> bool:
        """Whether it is time to look for alarms though nothing is new."""
        return self.history is not None and self.history.alarms_are_due

    def content(self) -> StageContent:
        """How things stand.

        Raises:
            UsageError: as `StageContent.document`.
        """
        self.status = replace(self.status, revision=self.status.revision + 1, totals=dict(self._totals))
        found = StageContent(self.plan, self.history, self.status)
        _ = found.document  # made now: the history goes on
        return found

    def _poll_files(self, files: RunFiles) -> bool:
        if files.read_config() and files.recipe is not None:
            # what the run says that it trains is nearer to the truth than what the view was given
            self.plan = StagePlan.of(files.recipe, self.model)
        lines, anew = files.metrics.read()
        probes, probes_anew = files.probes.read()
        if anew or probes_anew:
            # a resumed run writes its files anew: all of both is read again
            files.metrics, files.probes = Tail(files.metrics.path), Tail(files.probes.path)
            self.history = History()
            lines, probes = files.metrics.read()[0], files.probes.read()[0]
        self._take(files, lines, probes)
        before = self.status
        finished = files.is_finished and not self.status.local
        heard = time.time() if lines and self.status.live else self.status.heard_sec
        self.status = replace(self.status, finished=finished, stages=files.stages, notes=tuple(self._notes(files)), heard_sec=heard)
        return bool(lines or probes or anew or self.status != before)

    def _take(self, files: RunFiles, lines: list[Any], probes: list[Any]) -> None:
        assert self.history is not None
        self.history.add(lines, self._rows())
        self.history.add_probes(probes)
        self.history.broken += files.metrics.broken + files.probes.broken
        files.metrics.broken = files.probes.broken = 0

    def _notes(self, files: RunFiles) -> list[str]:
        notes = [files.problem] if files.problem else []
        if files.recipe is not None and self._given not in ("", files.recipe.name):
            notes.append(f"The run trains recipe {files.recipe.name!r}, not {self._given!r}; its own is shown.")
        return notes

    def _planned(self, stage: str, step: int, total: int) -> dict[str, float]:
        """What the recipe says of a step: the rate of its first group, and its rows."""
        found = next((each for each in self.plan.stages if each.name == stage), None) if self.plan else None
        if found is None:
            return {}
        factor = lr_factor(step - 1, total, found.warmup_ratio, found.min_lr_ratio)
        return {"lr": next(iter(found.learning_rates.values())) * factor, "rows": found.batch_size}

    def _rows(self) -> dict[str, int]:
        return {stage.name: stage.batch_size for stage in self.plan.stages} if self.plan else {}


def watched(recipe: Any, model: TPOModel | None, run: Any) -> StageWatch:
    """A recipe, or a run as it stands, or both.

    Raises:
        UsageError: neither is given, or the run has nothing to show.
    """
    if recipe is None and run is None:
        raise UsageError("recipe", expected="a recipe or a run", got=None, hint='StageView("nano"), or StageView(run="runs/first").')
    watch = StageWatch(recipe, model)
    if run is None:
        return watch
    watch.begin(folder_of(run))
    watch.poll()
    if watch.plan is None and watch.history is not None and not watch.history.stages:
        hint = watch.problem or "Use follow for a run that is yet to begin."
        raise UsageError("run", expected="a run folder with config.json and metrics.jsonl", got=str(watch.folder), hint=hint)
    return watch


def folder_of(run: Any) -> Path:
    """The folder of a run.

    Raises:
        UsageError: neither a run folder nor a path.
    """
    if isinstance(run, RunFolder):
        return run.path
    if isinstance(run, (str, Path)) and str(run):
        return Path(run)
    raise UsageError("run", expected="a run folder", got=type(run).__name__ if run != "" else run)
