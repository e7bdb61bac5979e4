"""What the tests let one or several processes do. A job is a function of its settings: each process makes the same model and data."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from tpo_lab import checkpoint
from tpo_lab.backbones import load_backbone
from tpo_lab.datasets.world.samples import samples_of
from tpo_lab.datasets.world.scene import sample_scene
from tpo_lab.heads import build_head
from tpo_lab.model import TPOModel
from tpo_lab.recipes import Recipe
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora, Stage
from tpo_lab.training import StageLoop, TrainingOptions, fit
from tpo_lab.training.steps.engine import OwnEngine
from tpo_lab.training.steps.sharding import is_sharded, whole

HEADS = ("region", "temporal", "mask")
LORA = Lora(rank=2, dropout=0.0, targets=("q_proj", "up_proj"))


@dataclass(frozen=True)
class Job:
    """A run on a tiny model.

    Attributes:
        base: folder of the backbone.
        out: the run folder.
        stages: settings of stages that differ from `stage_of`.
        options: of the run.
        bad: of so many samples, the clip of one cannot be read; 0: all can.
        stop_at: the step after which process `stop_by` gets `stop_with`.
        resume, anyway: go on; also with other settings.
        half: the backbone has bf16 weights.
        zero: the stage of DeepSpeed's ZeRO that accelerate is configured for; 0: none.
        all_move: in every step AdamW moves also what no row has used, as with DeepSpeed.
    """

    base: str
    out: str
    stages: tuple[dict[str, Any], ...] = ({},)
    options: dict[str, Any] = field(default_factory=dict)
    heads: tuple[str, ...] = HEADS
    bad: int = 0
    stop_at: int | None = None
    stop_by: int = 1
    stop_with: int = signal.SIGTERM
    resume: bool = False
    anyway: bool = False
    half: bool = False
    scenes: int = 3
    zero: int = 0
    all_move: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a process has found; weights are those of the whole model."""

    weights: dict[str, Tensor]
    metrics: list[dict[str, Any]]
    said: list[str]
    sharded: list[str]
    dtypes: dict[str, torch.dtype]
    error: str | None = None


def stage_of(**changes: Any) -> Stage:
    heads = changes.pop("heads", HEADS)
    rates = {
        "llm.lora.*": 1e-3,
        "tokens.task.*": 1e-3,
        **{f"heads.{head}.*": 1e-3 for head in heads if head != "mask"},
        **({"heads.mask.adapter.*": 1e-3} if "mask" in heads else {}),
    }
    settings: dict[str, Any] = {
        "name": "3a",
        "title": "all together",
        "learning_rates": {name: rate for name, rate in {**rates, **changes.pop("rates", {})}.items() if rate is not None},
        "data": {**dict.fromkeys(heads, 1.0), "conversation": 1.0},
        "losses": {"mlm": 1.0, "assign": 2.0, **dict.fromkeys(heads, 0.5)},
        "steps": 3,
        "batch_size": 4,
        "batching": "mixed",
        "max_questions": 2,
        "warmup_ratio": 0.0,
        "grad_clip": 1.0,
        "precision": "fp32",
        # without this the first steps of AdamW magnify the rounding of gradients near zero
        "eps": 1e-5,
    }
    return Stage(**{**settings, **changes})


def samples(job: Job) -> list[Sample]:
    found = [sample for index in range(job.scenes) for sample in samples_of(sample_scene(index), ("conversation", *job.heads), questions=2)]
    for place in range(0, len(found), job.bad) if job.bad else ():
        broken = str(Path(job.out).parent / f"broken{place}.mp4")
        Path(broken).write_bytes(b"no video")
        found[place] = found[place].model_copy(update={"media": found[place].media.model_copy(update={"path": broken})})
    return found


def model_of(job: Job, seed: int = 0) -> TPOModel:
    torch.manual_seed(seed)
    backbone = load_backbone(job.base, num_frames=4)
    if job.half:
        backbone.model.to(torch.bfloat16)
    return TPOModel(backbone, [build_head(head, backbone.hidden_size) for head in job.heads])


def train(job: Job) -> Outcome:
    """Train, and say how it ended."""
    rank = int(os.environ.get("RANK", "0"))
    model, said = model_of(job), []
    stages = tuple(stage_of(heads=job.heads, **stage) for stage in job.stages)
    recipe = Recipe(name="small", stages=stages, lora=LORA, frames=4, resolution=64)

    def stop(name: str, step: int, total: int, report: Any) -> None:
        if step == job.stop_at and rank == job.stop_by:
            os.kill(os.getpid(), job.stop_with)

    error = None
    run = None
    try:
        options = TrainingOptions(**job.options)
        again = {"resume": job.resume, "resume_anyway": job.anyway}
        with launched(job), all_used() if job.all_move else nullcontext():
            run = fit(model, samples(job), recipe, job.out, options=options, listener=stop, report=said.append, **again)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    parts = model.named_parts()
    return Outcome(
        weights={name: whole(parameter).clone() for name, parameter in parts.items()} if error is None else {},
        metrics=[] if run is None else run.metrics(),
        said=said,
        sharded=[name for name, parameter in parts.items() if is_sharded(parameter)],
        dtypes={name: parameter.dtype for name, parameter in parts.items()},
        error=error,
    )


@contextmanager
def launched(job: Job) -> Iterator[None]:
    """Configured as `accelerate launch` does it."""
    if not job.zero:
        yield
        return
    from deepspeed.ops import __compatible_ops__

    # else it compiles one for sums within a machine
    __compatible_ops__["deepspeed_shm_comm"] = False
    with mock.patch.dict(os.environ, ACCELERATE_USE_DEEPSPEED="true", ACCELERATE_DEEPSPEED_ZERO_STAGE=str(job.zero)):
        yield


@contextmanager
def all_used() -> Iterator[None]:
    """Every weight that trains has a gradient, if only of zeros."""
    original = OwnEngine.adding_up

    @contextmanager
    def adding_up(self: OwnEngine) -> Iterator[None]:
        with original(self):
            yield
        for parameter in self.trained.values():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

    with mock.patch.object(OwnEngine, "adding_up", adding_up):
        yield


def linear() -> tuple[str, str]:
    """Where torch's own function comes from."""
    return torch.nn.functional.linear.__module__, torch.nn.functional.linear.__name__


def fail(job: Job) -> Outcome:
    """One process raises in its second step what nobody expected."""
    original: Callable[..., Any] = StageLoop._rows

    def rows(self: Any) -> Any:
        if self.step == 1 and self.processes.rank == 1:
            raise ZeroDivisionError("rows of nothing")
        return original(self)

    with mock.patch.object(StageLoop, "_rows", rows):
        return train(job)


def unlike(job: Job, what: str) -> Outcome:
    """The second process has other data, or another model."""
    if os.environ.get("RANK") != "1":
        return train(job)
    if what == "data":
        return train(replace(job, scenes=job.scenes + 1))
    with mock.patch(f"{__name__}.model_of", partial(model_of, seed=1)):
        return train(job)


def broken_loss(job: Job) -> Outcome:
    """One process finds a loss that is not finite."""
    original: Callable[..., Any] = StageLoop._forward

    def forward(self: Any, batch: Any) -> Any:
        report = original(self, batch)
        if self.processes.rank == 1:
            terms = {name: value * math.nan if name == "mlm" else value for name, value in report.terms.items()}
            report = replace(report, total=report.total * math.nan, terms=terms)
        return report

    with mock.patch.object(StageLoop, "_forward", forward):
        return train(job)


def loaded(job: Job) -> dict[str, Tensor]:
    """The weights of the checkpoint that a run has left."""
    return {name: parameter.detach() for name, parameter in checkpoint.load(Path(job.out) / "checkpoint").named_parts().items()}


def largest_difference(here: dict[str, Tensor], there: dict[str, Tensor], names: Sequence[str] | None = None) -> float:
    assert here.keys() == there.keys()
    return max(float((here[name].double() - there[name].double()).abs().max()) for name in names or here)
