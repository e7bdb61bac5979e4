"""The training loop: a recipe's stages on a model, resumable, with every loss on its own. Stands on accelerate."""

from __future__ import annotations

import pickle
import signal
import threading
import time
import zipfile
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
from tpo_lab.knobs import to_plain
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.objective import LossReport
from tpo_lab.recipes import Recipe
from tpo_lab.runs import METRICS, RunFolder
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
        micro_batch: rows that go through the model at once on one device; None takes the whole batch. Each term of a part weighs
            as much as its values are of the whole batch, so the gradient does not depend on the cut.
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
    """The rows of one stage, packed anew for every epoch of a task.

    Raises:
        UsageError: a task of the stage has no samples.
    """

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
    """Forward pass and losses as one module, so that accelerate can wrap it for several devices.

    The stage's precision is set here and not on the `Accelerator`, which cannot change it between two stages or two runs of a process.
    """

    def __init__(self, model: TPOModel, *, bf16: bool = False) -> None:
        super().__init__()
        self.model, self.bf16 = model, bf16

    def forward(self, batch: Batch, video: list[VideoFeatures] | None, weights: Mapping[str, float]) -> LossReport:
        """The objective of one micro-batch."""
        with torch.autocast(batch.ids.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self.model.losses(batch, self.model(batch, video), weights)


class GradientWatch:
    """Notices heads that a stage trains but that get no gradient."""

    def __init__(self, model: TPOModel, stage: Stage, patience: int) -> None:
        self.heads = {name: [p for p in model.head(name).parameters() if p.requires_grad] for name in stage.heads}
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
        resume: go on from the state in `out`, with the weights there; stages that are finished there are not run again.
        listener: called after every step.
        report: called with lines worth a person's attention (frozen and trained parts, a head without gradient).

    Returns:
        The run folder. The model is left in evaluation mode.

    Raises:
        UsageError: where data, recipe and model do not fit, there is already a run in `out`, or the unfinished stage in it was
            started with other settings.
        Interrupted: after Ctrl-C; the state is saved.
        TPOError: where the loss is no longer finite.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    options = options or TrainingOptions()
    say = report or (lambda line: None)
    untrained = [name for name in model.heads if name not in recipe.heads]
    recipe = recipe.for_heads(tuple(name for name in model.heads if name in recipe.heads))
    stages = recipe.stage(stage)
    out = Path(out)
    state_path = out / STATE
    if not resume and (state_path.exists() or (out / METRICS).exists()):
        raise UsageError("out", expected="a folder without a run", got=str(out), hint="Add --resume to go on, or choose another folder.")
    groups = by_task(samples)
    data = {entry.name: StageData(groups, entry, options.seed) for entry in stages}
    state = _read_state(state_path) if resume and state_path.exists() else None
    torch.manual_seed(options.seed)
    model.add_lora(recipe.lora)
    accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    counts = {task: len(group) for task, group in groups.items()}
    with accelerator.main_process_first():
        run = RunFolder(out, {"recipe": recipe.to_dict(), "stage": stage, "options": asdict(options), "samples": counts})
    finished: list[str] = []
    if state is not None:
        _go_back(model, state, label=str(state_path))
        finished = list(state["finished"])
    for name in untrained:
        say(f"warning: no stage of recipe {recipe.name!r} trains head {name!r}")
    frames = Frames(model.backbone)
    with _stop_on_interrupt() as stopped:
        for entry in stages:
            if entry.name in finished:
                continue
            loop = _StageLoop(model, entry, data[entry.name], frames, run, options, accelerator)
            if state is not None and state["stage"] == entry.name:
                loop.restore(state)
            if resume and accelerator.is_main_process:
                run.keep_until(entry.name, loop.step)
            for line in loop.describe():
                say(line)
            loop.train(stopped, listener, say, finished)
            model.provenance.history.append({"recipe": recipe.name, "stage": entry.name, "steps": loop.total, "seed": options.seed})
            finished.append(entry.name)
            loop.save(finished)
            accelerator.free_memory()
    model.eval()
    if accelerator.is_main_process:
        checkpoint.save(model, out / "checkpoint")
    return run


def _read_state(path: Path) -> dict[str, Any]:
    damaged = TPOError(f"{path}: the state of the run is damaged. Start again in another folder.")
    if not zipfile.is_zipfile(path):
        raise damaged
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise damaged from error
    return state


def _go_back(model: TPOModel, state: Mapping[str, Any], *, label: str) -> None:
    """Give the model the weights of a saved state, and torch its random numbers."""
    model.trained_backbone_parts = set(state["trained_backbone_parts"])
    checkpoint.restore(model, state["model"], label=label)
    model.provenance.history = list(state["history"])
    torch.set_rng_state(state["rng"])
    if torch.cuda.is_available() and state["cuda_rng"] is not None:
        torch.cuda.set_rng_state(state["cuda_rng"])


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
        self.module, self.optimizer = accelerator.prepare(TrainingStep(model, bf16=stage.precision == "bf16"), optimizer)
        self.schedule = scheduler(self.optimizer.optimizer, stage, self.total)
        self.watch = GradientWatch(model, stage, options.gradient_patience)

    def describe(self) -> Iterator[str]:
        """What trains in this stage, a line per part."""
        trained, total = self.shape["trained"], self.shape["total"]
        yield f"stage {self.stage.name}: {self.stage.title}; {self.total} steps; {trained:,} of {total:,} parameters train"
        for name, part in self.shape["parts"].items():
            if part["trained"]:
                yield f"  {name}: {part['parameters']:,} parameters at {part['learning_rate']:g}"

    def settings(self) -> dict[str, Any]:
        """What must be the same for a stage to go on exactly."""
        return {"stage": to_plain(self.stage), "seed": self.options.seed, "rows": dict(self.data.plan.rows)}

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
            if self.stage.grad_clip is not None:
                self.accelerator.clip_grad_norm_(self.trained, self.stage.grad_clip)
            rate = self.schedule.get_last_lr()[0]
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            if self.accelerator.is_main_process:
                gradients = {f"gradient/{head}": round(norm, 6) for head, norm in norms.items()}
                seconds = round(time.monotonic() - began, 3)
                self.run.log(stage=self.stage.name, step=self.step, seconds=seconds, lr=rate, **report.floats(), **gradients)
            if listener is not None:
                listener(self.stage.name, self.step, self.total, report)
            if self._is_stopped(stopped):
                self.save(finished)
                raise Interrupted(f"Stopped in stage {self.stage.name} after step {self.step} of {self.total}. Go on with --resume.")
            if self.step % self.options.save_every == 0 and self.step < self.total:
                self.save(finished)

    def _is_stopped(self, stopped: threading.Event) -> bool:
        """Whether any process was stopped: all of them leave after the same step."""
        if self.accelerator.num_processes == 1:
            return stopped.is_set()
        flags = torch.tensor(float(stopped.is_set()), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flags, "sum").item())

    def _step(self) -> LossReport:
        accelerator = self.accelerator
        visits = self.data.plan.rank_slice(self.step, accelerator.process_index, accelerator.num_processes)
        rows = [self.frames.row(self.data.of(visit)) for visit in visits]
        size = self.options.micro_batch or len(rows)
        batches = [self.model.collate(rows[start : start + size]) for start in range(0, len(rows), size)]
        shares = _shares(batches, self.stage.losses)
        reports = []
        for number, (batch, share) in enumerate(zip(batches, shares, strict=True), 1):
            video = None if self.cache is None else self.cache(batch.rows)
            with nullcontext() if number == len(batches) else accelerator.no_sync(self.module):
                weights = {name: weight * share.get(name, 1.0) for name, weight in self.stage.losses.items()}
                report = self.module(batch.to(accelerator.device), video, weights)
                if not bool(torch.isfinite(report.total)):
                    broken = [name for name, value in report.terms.items() if not bool(torch.isfinite(value))]
                    raise TPOError(f"stage {self.stage.name}, step {self.step + 1}: the loss is not finite (terms: {', '.join(broken)}).")
                accelerator.backward(report.total)
            reports.append(report)
        return reports[0] if len(reports) == 1 else _joined(reports, shares)


def _shares(batches: Sequence[Batch], losses: Mapping[str, float]) -> list[dict[str, float]]:
    """How much of each term's values every part of a batch holds: learned words, routes, slots of each head."""
    counts = []
    for batch in batches:
        routes, learned = int(batch.is_route.sum()), len(batch.target)
        words = {"mlm": learned - routes, "assign": routes} if "assign" in losses else {"mlm": learned}
        counts.append({**words, **{head: len(slots.row) for head, slots in batch.slots.items()}})
    totals = {name: sum(count.get(name, 0) for count in counts) for count in counts for name in count}
    even = 1 / len(counts)
    return [{name: number / totals[name] if totals[name] else even for name, number in count.items()} for count in counts]


def _joined(reports: Sequence[LossReport], shares: Sequence[Mapping[str, float]]) -> LossReport:
    """The report of a batch from those of its parts."""
    terms: dict[str, Tensor] = {}
    weights: dict[str, float] = {}
    for report, share in zip(reports, shares, strict=True):
        for name, value in report.terms.items():
            part = share.get(name.partition("/")[0], 1.0)
            terms[name] = terms.get(name, torch.zeros_like(value)) + part * value.detach()
            weights[name] = weights.get(name, 0.0) + report.weights[name]
    return LossReport(torch.stack([report.total.detach() for report in reports]).sum(), terms, weights)


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
