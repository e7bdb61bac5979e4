"""Several processes on one stage, as accelerate starts them: what they tell each other, and how their gradients become one.

Every process computes its own rows with the same trained weights. "ddp": all weights are whole on each process. "fsdp": the language
model's own weights are cut into pieces (`tpo_lab.training.steps.fsdp`), and what trains beside it is whole. "deepspeed": as
`tpo_lab.training.steps.deepspeed` says, where accelerate is configured for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import torch

from tpo_lab.errors import TPOError, UsageError, unknown_name
from tpo_lab.model import TPOModel
from tpo_lab.stages import Stage
from tpo_lab.training.steps import deepspeed, fsdp
from tpo_lab.training.steps.engine import Engine, OwnEngine
from tpo_lab.training.steps.micro_batch import TrainingStep
from tpo_lab.training.steps.sharding import Shard

if TYPE_CHECKING:
    from torch.optim import Optimizer

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: longer than one takes to write a checkpoint, or to encode a step of new clips."""


class JobFailed(TPOError):
    """What every process of a job knows, so that one sentence from the first of them is enough."""

    common = True


class Processes:
    """The processes of one job; one alone where nothing started more.

    Args:
        shard: "ddp", "fsdp", or "auto" for what accelerate is configured for.
        timeout: how long one waits for the others.

    Raises:
        UsageError: an unknown `shard`, one that accelerate's configuration contradicts, or pieces for one process.
        MissingExtraError: accelerate is configured for DeepSpeed, which is not installed.
    """

    def __init__(self, shard: str = "auto", *, timeout: timedelta = TIMEOUT) -> None:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs, patch_environment

        self.kind, self.timeout = chosen(shard), timeout
        with patch_environment(ACCELERATE_USE_FSDP="false", ACCELERATE_USE_DEEPSPEED="false"):
            self.accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)])
        self.rank, self.count = int(self.accelerator.process_index), int(self.accelerator.num_processes)
        if self.in_step and self.count == 1:
            hint = "Start the command by `accelerate launch --num_processes N -m tpo_lab train ...`."
            raise UsageError("shard", expected="ddp with one process", got=self.kind, hint=hint)
        # beside the accelerators' own connections, so that what is told does not wait for what they compute
        self._told = torch.distributed.new_group(backend="gloo", timeout=timeout) if self.count > 1 else None
        self._module: TrainingStep | None = None

    @property
    def device(self) -> torch.device:
        """Of this process."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def is_main(self) -> bool:
        """Whether this process writes what all have done."""
        return bool(self.accelerator.is_main_process)

    @property
    def in_step(self) -> bool:
        """Whether every process has to go through the model equally often, since its weights come from all of them."""
        return self.kind != "ddp"

    def place(self, model: TPOModel, stage: Stage) -> TrainingStep:
        """The module that trains, on this process's device; sharded once, and the same for all stages.

        Called before the parameters are given to an optimizer, since sharding replaces them.
        """
        if self._module is None or self._module.model is not model:
            self._module = TrainingStep(model)
            if self.kind == "fsdp":
                fsdp.shard(self._module, self.device, self.count)
            else:
                self._module.to(self.device)
        self._module.bf16 = stage.precision == "bf16"
        return self._module

    def engine(self, step: TrainingStep, optimizer: Optimizer, stage: Stage) -> Engine:
        """What trains one stage; one at a time."""
        if self.kind == "deepspeed":
            return deepspeed.DeepSpeedEngine(step, optimizer, stage)
        return OwnEngine(step, optimizer, stage, self.everyone)

    def everyone(self, value: T) -> list[T]:
        """The values of all processes, in their order; all of them call it."""
        if self._told is None:
            return [value]
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, value, group=self._told)
        found[self.rank] = value
        return found

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process."""
        return any(self.everyone(flag))

    def require_same(self, **values: Any) -> None:
        """Refuse processes that would not train the same: each gives what it has, by name, small enough to travel.

        Raises:
            JobFailed: one differs from the first process.
        """
        for rank, others in enumerate(everyones := self.everyone(values)):
            for name, value in everyones[0].items():
                if others[name] != value:
                    shown = "" if len(repr(value)) > 100 else f": {value!r} in process 0, {others[name]!r} in process {rank}"
                    hint = "All of them need the same command, data and versions."
                    raise JobFailed(f"Processes 0 and {rank} differ in {name}{shown}. {hint}")

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """What one process could not do, none goes on from: all leave, those who could with the reason of the one who could not.

        Raises:
            JobFailed: another process failed.
        """
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        told = self.everyone(None if failed is None else _sentence(failed))
        if failed is not None:
            failed.common = True  # type: ignore[attr-defined]
            raise failed
        for rank, reason in enumerate(told):
            if reason is not None:
                raise JobFailed(f"Process {rank} of {self.count} failed. {reason}")

    @contextmanager
    def company(self) -> Iterator[None]:
        """While processes work together: a lost connection becomes a sentence.

        Raises:
            JobFailed: another process has gone.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not _is_lost(error):
                raise
            minutes = int(self.timeout.total_seconds() // 60)
            message = f"Another process of this job has ended, or has not answered for {minutes} minutes. Its own message says why."
            raise JobFailed(message) from error


def chosen(shard: str) -> str:
    """How weights lie on processes: what is asked, where it agrees with accelerate's own configuration.

    Raises:
        UsageError, MissingExtraError: see `Processes`.
    """
    if shard not in get_args(Shard):
        raise unknown_name("shard", shard, get_args(Shard))
    configured = "deepspeed" if _is_set("ACCELERATE_USE_DEEPSPEED") else "fsdp" if _is_set("ACCELERATE_USE_FSDP") else None
    if configured is not None and shard not in ("auto", configured):
        raise UsageError("shard", expected=f"auto or {configured}, which accelerate is configured for", got=shard)
    if configured == "deepspeed":
        deepspeed.require()
    if configured == "fsdp":
        fsdp.require_second_version()
    return configured or ("ddp" if shard == "auto" else shard)


def cuts_weights(kind: str) -> bool:
    """Whether each process holds a piece of the language model's weights only, for one of the kinds that `chosen` gives."""
    return kind == "fsdp" or (kind == "deepspeed" and deepspeed.asked_for()["stage"] == 3)


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("true", "1")


def _is_lost(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(phrase in text for phrase in ("connection closed", "connection reset", "broken pipe", "timed out", "nccl error"))


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, TPOError) else f"{type(error).__name__}: {error}"
