"""One stage, as each process goes through it: its steps, its resumable state, what it tells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

from tpo_lab import freeze
from tpo_lab.batch import Batch, Row
from tpo_lab.checkpoints.contents import fingerprint
from tpo_lab.datasets.conversion import Limit
from tpo_lab.features import FeatureCache
from tpo_lab.interrupt import Interrupted
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.objective import LossReport
from tpo_lab.runs import RunFolder
from tpo_lab.schedules import build_optimizer, scheduler
from tpo_lab.stages import Stage
from tpo_lab.training.cost.memory import checkpoint_layers
from tpo_lab.training.cost.process_memory import process_memory
from tpo_lab.training.options import TrainingOptions
from tpo_lab.training.rows.data import StageData
from tpo_lab.training.rows.dropped import DropList
from tpo_lab.training.rows.loading import RowSource, Share
from tpo_lab.training.starts import start_from
from tpo_lab.training.steps.micro_batch import Spread, broken_terms, expected_values, joined, weighted
from tpo_lab.training.steps.processes import JobFailed, Processes
from tpo_lab.training.steps.sharding import is_sharded
from tpo_lab.training.watch.gradient_history import GradientHistory
from tpo_lab.training.watch.gradients import GradientWatch

if TYPE_CHECKING:
    from tpo_lab.training.resume.state import Saved, Saver

Listener = Callable[[str, int, int, LossReport], None]
"""Called after every step with stage name, step (from 1), total steps and the losses."""


class StageLoop:
    """One stage on one process."""

    def __init__(
        self,
        model: TPOModel,
        stage: Stage,
        data: StageData,
        frames: Frames,
        run: RunFolder,
        options: TrainingOptions,
        processes: Processes,
    ) -> None:
        self.model, self.stage, self.data, self.frames, self.run, self.options = model, stage, data, frames, run, options
        self.processes, self.accelerator = processes, processes.accelerator
        if options.checkpointing:
            checkpoint_layers(model)
        step = processes.place(model, stage)
        plan = freeze.FreezePlan.of(stage)
        self.shape = freeze.shape(plan, model.named_parts())
        self.groups = freeze.apply(plan, model.named_parts())
        self.total = data.total_steps
        self.step = 0
        names = {name for group in self.groups for name in group.names}
        for part in model.given_parts:
            if any(name.startswith(part) for name in names):
                model.trained_backbone_parts.add(part)
        frozen_vision = not any(name.startswith(("vision.", "connector.")) for name in names)
        self.cache = FeatureCache(model, folder=options.feature_cache) if frozen_vision else None
        self.optimizer = build_optimizer(self.groups, stage)
        if processes.count > 1:
            weights = [fingerprint(parameter) for group in self.groups for parameter in group.parameters if not is_sharded(parameter)]
            processes.require_same(stage=stage.name, rows=data.sizes, steps=self.total, weights=weights)
        self.engine = processes.engine(step, self.optimizer, stage)
        self.schedule = scheduler(self.optimizer, stage, self.total)
        self.watch = GradientWatch(model, stage, options.gradient_patience)
        self.history = GradientHistory(model, stage, data, frames, run, options) if options.probe_every else None
        self._began = time.monotonic()

    def describe(self) -> Iterator[str]:
        """What trains in this stage, a line per part."""
        trained, total = self.shape["trained"], self.shape["total"]
        yield f"stage {self.stage.name}: {self.stage.title}; {self.total} steps; {trained:,} of {total:,} parameters train"
        for difficulty in self.data.left_out:
            yield f"  no samples of difficulty {difficulty:g} or less: that part of the curriculum is left out"
        for name, part in self.shape["parts"].items():
            if part["trained"]:
                yield f"  {name}: {part['parameters']:,} parameters at {part['learning_rate']:g}"

    def restore(self, saved: Saved, *, changed: bool = False) -> None:
        """Put optimizer, schedule, step and random numbers where a checkpoint had them; the weights are there already.

        Args:
            changed: settings or data are no longer those that the checkpoint was made with.
        """
        saved.put_back_loop(self, changed=changed)

    def save(self, saver: Saver) -> None:
        """Write a resumable checkpoint; an interrupted write leaves the one before. Every process calls it."""
        saver.save(self)

    def train(self, stopped: threading.Event, listener: Listener | None, say: Callable[[str], None], saver: Saver) -> None:
        """Run the steps that are left."""
        if self.step == 0:
            for target in start_from(self.model.named_parts(), self.stage.starts_from):
                say(f"  {target} starts as it is: the model has no such parts {target} and {self.stage.starts_from[target]} of one shape")
            self.engine.weights_changed()
        self.engine.module.train()
        self._began = time.monotonic()
        with self._open_source() as self.source:
            self._train(stopped, listener, say, saver)

    def _open_source(self) -> RowSource:
        accelerator, options = self.accelerator, self.options
        drops = None
        if options.on_bad == "skip":
            drops = DropList(self.run.path, self.stage.name, samples=self.data.count, limit=Limit(options.max_dropped))
            if accelerator.is_main_process:
                drops.keep_until(self.step)
            accelerator.wait_for_everyone()
        share = Share(accelerator.process_index, accelerator.num_processes)
        return RowSource(self.data, self.frames, share, workers=options.workers, prefetch=options.prefetch, drops=drops)

    def _train(self, stopped: threading.Event, listener: Listener | None, say: Callable[[str], None], saver: Saver) -> None:
        while self.step < self.total:
            if self.history is not None and self.accelerator.is_main_process:
                # the seconds of the steps are those of training alone
                self._began += self.history.measure(self.step + 1)
            report = self._step()
            self.step += 1
            norms = self.watch.norms()
            for head in self.watch.dead():
                say(f"warning: head {head!r} has had no gradient for {self.options.gradient_patience} steps of stage {self.stage.name}")
            self.engine.clip()
            rate = float(self.schedule.get_last_lr()[0])
            self.engine.step()
            self.schedule.step()
            self._log(self.step, rate, report, norms)
            if listener is not None:
                listener(self.stage.name, self.step, self.total, report)
            if self._is_stopped(stopped):
                self.save(saver)
                raise Interrupted(f"Stopped in stage {self.stage.name} after step {self.step} of {self.total}. Go on with --resume.")
            if self.step % self.options.save_every == 0 and self.step < self.total:
                self.save(saver)

    def _log(self, step: int, rate: float, report: LossReport, norms: Mapping[str, float]) -> None:
        """One line of metrics.jsonl: the seconds that the stage has trained, the rows of all processes, and this one's memory."""
        if not self.accelerator.is_main_process:
            return
        seconds, rows = round(time.monotonic() - self._began, 3), len(self.data.batch(step - 1))
        gradients = {f"gradient/{head}": round(norm, 6) for head, norm in norms.items()}
        dropped = {"dropped": count} if (count := self.source.dropped(step - 1)) else {}
        line = {"seconds": seconds, "lr": rate, "rows": rows, **dropped, **process_memory(), **report.floats(), **gradients}
        self.run.log(stage=self.stage.name, step=step, **line)

    def _is_stopped(self, stopped: threading.Event) -> bool:
        """Whether any process was stopped: all of them leave after the same step."""
        return self.processes.any(stopped.is_set())

    def _step(self) -> LossReport:
        """Gradients of one batch, in all processes and all its parts; returns the losses of the whole."""
        with self.processes.all_or_none():
            batches = self._batches()
        counts = [expected_values(batch, self.stage.losses) for batch in batches]
        spread = Spread(self.processes.everyone(counts))
        with self.engine.adding_up():
            parts = [self._part(batches[number] if number < len(batches) else None, spread, number) for number in range(spread.passes)]
        return joined(self.processes.everyone(joined(parts)))

    def _rows(self) -> list[Row]:
        return self.source.rows(self.step)

    def _batches(self) -> list[Batch]:
        """This process's rows in parts that go through the model at once; none where it has no rows."""
        rows = self._rows()
        size = self.options.micro_batch or max(len(rows), 1)
        return [self.model.collate(rows[start : start + size]) for start in range(0, len(rows), size)]

    def _part(self, batch: Batch | None, spread: Spread, number: int) -> LossReport:
        """One pass of all processes, in which this one may have nothing to do."""
        report = self._forward(batch)
        found = self.processes.everyone((report.counts, broken_terms(report)))
        if broken := sorted({term for _, terms in found for term in terms}):
            self._log(self.step + 1, float(self.schedule.get_last_lr()[0]), report, {})
            raise JobFailed(f"stage {self.stage.name}, step {self.step + 1}: the loss is not finite (terms: {', '.join(broken)}).")
        report = weighted(report, [counts for counts, _ in found], spread, number)
        if report.total.requires_grad:
            self.engine.backward(report.total)
        return joined([report])

    def _forward(self, batch: Batch | None) -> LossReport:
        with self.processes.all_or_none() if not self.processes.in_step else nullcontext():
            if batch is None and not self.processes.in_step:
                return joined([])
            video = None if self.cache is None or batch is None else self.cache(batch.rows)
            on_device = None if batch is None else batch.to(self.processes.device)
            return self.engine.module(on_device, video, self.stage.losses)  # type: ignore[no-any-return]
