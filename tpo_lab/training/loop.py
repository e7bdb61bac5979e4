"""One stage on one process: its steps, its resumable state, what it tells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tpo_lab import checkpoint, freeze
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.features import FeatureCache
from tpo_lab.interrupt import Interrupted
from tpo_lab.knobs import to_plain
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.objective import LossReport
from tpo_lab.probes.probing import MOST_SAMPLES
from tpo_lab.runs import RunFolder, save_state
from tpo_lab.schedules import build_optimizer, scheduler
from tpo_lab.stages import Stage
from tpo_lab.training.data import StageData
from tpo_lab.training.gradient_history import GradientHistory
from tpo_lab.training.gradients import GradientWatch
from tpo_lab.training.micro_batch import TrainingStep, joined, shares_of_terms
from tpo_lab.training.process_memory import process_memory
from tpo_lab.training.starts import start_from

if TYPE_CHECKING:
    from accelerate import Accelerator

STATE = "state.pt"
Listener = Callable[[str, int, int, LossReport], None]
"""Called after every step with stage name, step (from 1), total steps and the losses."""


@dataclass(frozen=True)
class TrainingOptions:
    """What a run may choose beside its recipe.

    Attributes:
        seed: of batches and of everything random in the run.
        micro_batch: rows that go through the model at once on one device; None takes the whole batch. Each term of a part weighs
            as much as its values are of the whole batch, so the gradient does not depend on the cut.
        save_every: optimizer steps between two resumable states.
        feature_cache: a folder in which stages that leave the vision side as it is keep its features for later stages and runs; None
            keeps them in memory, for one stage. A clip of 16 frames takes 50 MB at 7B, 0.2 MB with nano.
        gradient_patience: after so many steps of a stage without any gradient a trained head is reported by name.
        trackers: names of experiment trackers that get every number of every step, such as ("tensorboard",); see `tpo_lab.trackers`.
        probe_every: measure gradients before the first step of a stage and before every so many steps, and write them to probes.jsonl; see
            `tpo_lab.training.gradient_history`. None measures none. Training stays the same bit by bit.
        probe_samples: how many of a stage's samples are measured, all in one batch; at least one of each task.
    """

    seed: int = 0
    micro_batch: int | None = None
    save_every: int = 100
    feature_cache: str | None = None
    gradient_patience: int = 50
    trackers: tuple[str, ...] | str = "none"
    probe_every: int | None = None
    probe_samples: int = 8

    def __post_init__(self) -> None:
        if self.probe_every is not None and self.probe_every < 1:
            raise UsageError("probe_every", expected="at least 1, or None", got=self.probe_every)
        if not 1 <= self.probe_samples <= MOST_SAMPLES:
            raise UsageError("probe_samples", expected=f"1 to {MOST_SAMPLES}", got=self.probe_samples)


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
        accelerator: Accelerator,
    ) -> None:
        self.model, self.stage, self.data, self.frames, self.run, self.options = model, stage, data, frames, run, options
        self.accelerator = accelerator
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
        optimizer = build_optimizer(self.groups, stage)
        self.trained = [parameter for group in self.groups for parameter in group.parameters]
        self.module, self.optimizer = accelerator.prepare(TrainingStep(model, bf16=stage.precision == "bf16"), optimizer)
        self.schedule = scheduler(self.optimizer.optimizer, stage, self.total)
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

    def settings(self) -> dict[str, Any]:
        """What must be the same for a stage to go on exactly."""
        return {"stage": to_plain(self.stage), "seed": self.options.seed, "rows": self.data.sizes}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put optimizer, schedule and step where a saved state had them; the weights are there already.

        Raises:
            UsageError: the stage was started with other settings.
        """
        for name, value in self.settings().items():
            if state["settings"][name] != value:
                hint = "Go on with the settings that the stage was started with, or start again in another folder."
                raise UsageError(f"resume of stage {self.stage.name}: {name}", expected=repr(state["settings"][name]), got=value, hint=hint)
        self.optimizer.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = int(state["step"])

    def save(self, finished: Sequence[str]) -> None:
        """Write the resumable state; an interrupted write leaves the old one."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "stage": self.stage.name,
            "finished": list(finished),
            "step": self.step,
            "model": {name: parameter.detach().cpu() for name, parameter in checkpoint.changed_parts(self.model).items()},
            "optimizer": self.optimizer.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "settings": self.settings(),
            "trained_backbone_parts": sorted(self.model.trained_backbone_parts),
            "history": list(self.model.provenance.history),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }
        save_state(self.run.path / STATE, state)

    def train(self, stopped: threading.Event, listener: Listener | None, say: Callable[[str], None], finished: Sequence[str]) -> None:
        """Run the steps that are left."""
        if self.step == 0:
            for target in start_from(self.model.named_parts(), self.stage.starts_from):
                say(f"  {target} starts as it is: the model has no such parts {target} and {self.stage.starts_from[target]} of one shape")
        self.module.train()
        self._began = time.monotonic()
        while self.step < self.total:
            if self.history is not None and self.accelerator.is_main_process:
                # the seconds of the steps are those of training alone
                self._began += self.history.measure(self.step + 1)
            report = self._step()
            self.step += 1
            norms = self.watch.norms()
            for head in self.watch.dead():
                say(f"warning: head {head!r} has had no gradient for {self.options.gradient_patience} steps of stage {self.stage.name}")
            if self.stage.grad_clip is not None:
                self.accelerator.clip_grad_norm_(self.trained, self.stage.grad_clip)
            rate = float(self.schedule.get_last_lr()[0])
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            self._log(self.step, rate, report, norms)
            if listener is not None:
                listener(self.stage.name, self.step, self.total, report)
            if self._is_stopped(stopped):
                self.save(finished)
                raise Interrupted(f"Stopped in stage {self.stage.name} after step {self.step} of {self.total}. Go on with --resume.")
            if self.step % self.options.save_every == 0 and self.step < self.total:
                self.save(finished)

    def _log(self, step: int, rate: float, report: LossReport, norms: Mapping[str, float]) -> None:
        """One line of metrics.jsonl: the seconds that the stage has trained, the rows of all processes, and this one's memory."""
        if not self.accelerator.is_main_process:
            return
        seconds, rows = round(time.monotonic() - self._began, 3), len(self.data.batch(step - 1))
        gradients = {f"gradient/{head}": round(norm, 6) for head, norm in norms.items()}
        line = {"seconds": seconds, "lr": rate, "rows": rows, **process_memory(), **report.floats(), **gradients}
        self.run.log(stage=self.stage.name, step=step, **line)

    def _is_stopped(self, stopped: threading.Event) -> bool:
        """Whether any process was stopped: all of them leave after the same step."""
        if self.accelerator.num_processes == 1:
            return stopped.is_set()
        flags = torch.tensor(float(stopped.is_set()), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flags, "sum").item())

    def _step(self) -> LossReport:
        accelerator = self.accelerator
        rows = [self.frames.row(shown) for shown in self.data.batch(self.step, accelerator.process_index, accelerator.num_processes)]
        size = self.options.micro_batch or len(rows)
        batches = [self.model.collate(rows[start : start + size]) for start in range(0, len(rows), size)]
        shares = shares_of_terms(batches, self.stage.losses)
        reports = []
        for number, (batch, share) in enumerate(zip(batches, shares, strict=True), 1):
            video = None if self.cache is None else self.cache(batch.rows)
            with nullcontext() if number == len(batches) else accelerator.no_sync(self.module):
                weights = {name: weight * share.get(name, 1.0) for name, weight in self.stage.losses.items()}
                report = self.module(batch.to(accelerator.device), video, weights)
                if not bool(torch.isfinite(report.total)):
                    self._log(self.step + 1, float(self.schedule.get_last_lr()[0]), report, {})
                    broken = [name for name, value in report.terms.items() if not bool(torch.isfinite(value))]
                    raise TPOError(f"stage {self.stage.name}, step {self.step + 1}: the loss is not finite (terms: {', '.join(broken)}).")
                accelerator.backward(report.total)
            reports.append(report)
        return reports[0] if len(reports) == 1 else joined(reports, shares)
