"""The training loop: a recipe's stages on a model, resumable, with every loss on its own. Stands on accelerate."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tpo_lab import checkpoint, freeze
from tpo_lab.backbones.base import VideoFeatures
from tpo_lab.batch import Batch
from tpo_lab.batching import BatchPlan, Visit, pack_by_media
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.features import FeatureCache
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.objective import LossReport
from tpo_lab.recipes import Recipe
from tpo_lab.runs import RunFolder
from tpo_lab.sample import Sample, markers
from tpo_lab.schedules import build_optimizer, scheduler
from tpo_lab.stages import CONVERSATION, Stage

if TYPE_CHECKING:
    from accelerate import Accelerator

STATE = "state.pt"
Listener = Callable[[str, int, int, LossReport], None]
"""Called after every step with stage name, step (from 1), total steps and the losses."""


class Interrupted(TPOError):
    """Training was stopped by the user; everything is saved."""


@dataclass(frozen=True)
class TrainingOptions:
    """What a run may choose beside its recipe.

    Attributes:
        seed: of batches and of everything random in the run.
        micro_batch: rows that go through the model at once on one device; None takes the whole batch.
        save_every: optimizer steps between two resumable states.
        gradient_patience: after so many steps of a stage without any gradient a trained head is reported by name.
    """

    seed: int = 0
    micro_batch: int | None = None
    save_every: int = 100
    gradient_patience: int = 50


def task_of(sample: Sample) -> str:
    """What a sample asks for: its `meta["task"]`, or the first marker of its answers, or "conversation"."""
    named = sample.meta.get("task")
    if isinstance(named, str):
        return named
    found = [name for turn in sample.conversation if turn.role == "assistant" for name in markers(turn.text)]
    return found[0] if found else CONVERSATION


def by_task(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Samples grouped by `task_of`."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(task_of(sample), []).append(sample)
    return groups


class StageData:
    """The rows of one stage, packed anew for every epoch of a task."""

    def __init__(self, samples: Mapping[str, list[Sample]], stage: Stage, seed: int) -> None:
        missing = [task for task in stage.data if not samples.get(task)]
        if missing:
            have = ", ".join(f"{task} ({len(group)})" for task, group in samples.items())
            raise UsageError(f"data of stage {stage.name}", expected=f"samples of {', '.join(stage.data)}", got=have or "none")
        self.samples, self.stage, self.seed = samples, stage, seed
        self._packed: dict[tuple[str, int], list[tuple[int, ...]]] = {}
        self.plan = BatchPlan.of(stage, {task: len(self._rows(task, 0)) for task in stage.data}, seed)

    def _rows(self, task: str, epoch: int) -> list[tuple[int, ...]]:
        if (task, epoch) not in self._packed:
            self._packed = {key: rows for key, rows in self._packed.items() if key[0] != task or key[1] == 0}
            self._packed[task, epoch] = pack_by_media(self.samples[task], self.stage.max_questions, seed=self.seed, epoch=epoch)
        return self._packed[task, epoch]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the stage on this data."""
        return self.stage.total_steps(self.plan.steps_per_epoch)

    def of(self, visit: Visit) -> list[Sample]:
        """The samples of one row."""
        return [self.samples[visit.task][index] for index in self._rows(visit.task, visit.epoch)[visit.row]]


class TrainingStep(nn.Module):
    """Forward pass and losses as one module, so that accelerate can wrap it for several devices."""

    def __init__(self, model: TPOModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, video: list[VideoFeatures] | None, weights: Mapping[str, float]) -> LossReport:
        """The objective of one micro-batch."""
        return self.model.losses(batch, self.model(batch, video), weights)


class GradientWatch:
    """Notices heads that a stage trains but that get no gradient."""

    def __init__(self, model: TPOModel, stage: Stage, patience: int) -> None:
        self.heads = {name: [p for p in model.heads[name].parameters() if p.requires_grad] for name in stage.heads if name in model.heads}
        self.quiet = {name: 0 for name, parameters in self.heads.items() if parameters}
        self.patience = patience

    def norms(self) -> dict[str, float]:
        """Gradient norm per head, after a backward pass."""
        found = {}
        for name in self.quiet:
            squares = [float(p.grad.pow(2).sum()) for p in self.heads[name] if p.grad is not None]
            found[name] = sum(squares) ** 0.5
            self.quiet[name] = 0 if found[name] > 0 else self.quiet[name] + 1
        return found

    def dead(self) -> list[str]:
        """Heads that have just reached the limit of steps without gradient."""
        return [name for name, steps in self.quiet.items() if steps == self.patience]


def fit(
    model: TPOModel,
    samples: Sequence[Sample],
    recipe: Recipe,
    out: Path | str,
    *,
    stage: str = "all",
    resume: bool = False,
    options: TrainingOptions | None = None,
    listener: Listener | None = None,
    report: Callable[[str], None] | None = None,
) -> RunFolder:
    """Train a model through the stages of a recipe.

    Args:
        samples: the training data of every task that the stages name.
        recipe: is cut to the heads that the model has.
        out: the run folder; `out/checkpoint` is the trained model.
        stage: "1", "2", "2.<head>", "3a", "3b" or "all".
        resume: go on from the state in `out`.
        listener: called after every step.
        report: called with lines worth a person's attention (frozen and trained parts, a head without gradient).

    Raises:
        UsageError: where data, recipe and model do not fit, or there is already a run in `out`.
        Interrupted: after Ctrl-C; the state is saved.
        TPOError: where the loss is no longer finite.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    options = options or TrainingOptions()
    say = report or (lambda line: None)
    recipe = recipe.for_heads(tuple(name for name in model.heads if name in recipe.heads))
    stages = recipe.stage(stage)
    out = Path(out)
    state_path = out / STATE
    if state_path.exists() and not resume:
        raise UsageError("out", expected="a folder without a run", got=str(out), hint="Add --resume to go on, or choose another folder.")
    model.add_lora(recipe.lora)
    torch.manual_seed(options.seed)
    groups = by_task(samples)
    data = {entry.name: StageData(groups, entry, options.seed) for entry in stages}
    run = RunFolder(out, {"recipe": recipe.to_dict(), "stage": stage, "options": asdict(options), "samples": {t: len(g) for t, g in groups.items()}})
    state = torch.load(state_path, weights_only=True) if resume and state_path.exists() else None
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    precision = "bf16" if stages[0].precision == "bf16" else "no"
    accelerator = Accelerator(mixed_precision=precision, kwargs_handlers=[unused])
    frames = Frames(model.backbone)
    with _stop_on_interrupt() as stopped:
        for entry in stages:
            if state is not None and entry.name in state["finished"]:
                continue
            loop = _StageLoop(model, entry, data[entry.name], frames, run, options, accelerator)
            if state is not None and state["stage"] == entry.name:
                loop.restore(state)
            for line in loop.describe():
                say(line)
            loop.train(stopped, listener, say, finished=[e.name for e in stages[: stages.index(entry)]])
            model.provenance.history.append({"recipe": recipe.name, "stage": entry.name, "steps": loop.total, "seed": options.seed})
    if accelerator.is_main_process:
        checkpoint.save(model, out / "checkpoint")
    return run


class _StageLoop:
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
        for part in ("vision.", "connector.", "llm.base."):
            if any(name.startswith(part) for name in names):
                model.trained_backbone_parts.add(part)
        frozen_vision = not any(name.startswith(("vision.", "connector.")) for name in names)
        self.cache = FeatureCache(model) if frozen_vision else None
        optimizer = build_optimizer(self.groups, stage)
        self.trained = [parameter for group in self.groups for parameter in group.parameters]
        self.module, self.optimizer = accelerator.prepare(TrainingStep(model), optimizer)
        self.schedule = scheduler(self.optimizer.optimizer, stage, self.total)
        self.watch = GradientWatch(model, stage, options.gradient_patience)

    def describe(self) -> Iterator[str]:
        """What trains in this stage, a line per part."""
        yield f"stage {self.stage.name}: {self.stage.title}; {self.total} steps; {self.shape['trained']:,} of {self.shape['total']:,} parameters train"
        for name, part in self.shape["parts"].items():
            if part["trained"]:
                yield f"  {name}: {part['parameters']:,} parameters at {part['learning_rate']:g}"

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved state."""
        checkpoint.restore(self.model, state["model"], label=str(self.run.path / STATE))
        self.optimizer.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["rng"])
        self.step = int(state["step"])
        self.run.keep_until(self.stage.name, self.step)

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
            "rng": torch.get_rng_state(),
        }
        partial = self.run.path / (STATE + ".partial")
        torch.save(state, partial)
        partial.replace(self.run.path / STATE)

    def train(self, stopped: threading.Event, listener: Listener | None, say: Callable[[str], None], finished: Sequence[str]) -> None:
        """Run the steps that are left."""
        self.module.train()
        began = time.monotonic()
        while self.step < self.total:
            report = self._step()
            self.step += 1
            norms = self.watch.norms()
            for head in self.watch.dead():
                say(f"warning: head {head!r} has had no gradient for {self.options.gradient_patience} steps of stage {self.stage.name}")
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            if self.accelerator.is_main_process:
                rate = self.schedule.get_last_lr()[0]
                gradients = {f"gradient/{head}": round(norm, 6) for head, norm in norms.items()}
                seconds = round(time.monotonic() - began, 3)
                self.run.log(stage=self.stage.name, step=self.step, seconds=seconds, lr=rate, **report.floats(), **gradients)
            if listener is not None:
                listener(self.stage.name, self.step, self.total, report)
            if stopped.is_set():
                self.save(finished)
                raise Interrupted(f"Stopped in stage {self.stage.name} after step {self.step} of {self.total}. Go on with --resume.")
            if self.step % self.options.save_every == 0 and self.step < self.total:
                self.save(finished)
        self.save([*finished, self.stage.name])

    def _step(self) -> LossReport:
        accelerator = self.accelerator
        visits = self.data.plan.rank_slice(self.step, accelerator.process_index, accelerator.num_processes)
        size = self.options.micro_batch or len(visits)
        parts = [visits[start : start + size] for start in range(0, len(visits), size)]
        reports = []
        for number, part in enumerate(parts, 1):
            batch, video = self._load(part)
            last = number == len(parts)
            with nullcontext() if last else accelerator.no_sync(self.module):
                report = self.module(batch, video, self.stage.losses)
                if not bool(torch.isfinite(report.total)):
                    broken = [name for name, value in report.terms.items() if not bool(torch.isfinite(value))]
                    raise TPOError(f"stage {self.stage.name}, step {self.step + 1}: the loss is not finite (terms: {', '.join(broken)}).")
                accelerator.backward(report.total / len(parts))
            reports.append(report)
        if self.stage.grad_clip is not None:
            accelerator.clip_grad_norm_(self.trained, self.stage.grad_clip)
        return reports[0] if len(reports) == 1 else _mean_report(reports)

    def _load(self, visits: Sequence[Visit]) -> tuple[Batch, list[VideoFeatures] | None]:
        rows = [self.frames.row(self.data.of(visit)) for visit in visits]
        batch = self.model.collate(rows).to(self.accelerator.device)
        return batch, None if self.cache is None else self.cache(rows)


def _mean_report(reports: Sequence[LossReport]) -> LossReport:
    names = {name for report in reports for name in report.terms}

    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack([value.detach() for value in values]).mean()

    terms = {name: mean([report.terms[name] for report in reports if name in report.terms]) for name in sorted(names)}
    weights = {name: weight for report in reports for name, weight in report.weights.items()}
    return LossReport(mean([report.total for report in reports]), terms, weights)


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C into a flag that the loop looks at after each step; a second one interrupts at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number: int, frame: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, previous)
