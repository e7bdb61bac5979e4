"""Several processes on one stage, as accelerate starts them: what they tell each other, and how their gradients become one.

Every process computes its own rows with the same trained weights. "ddp": all weights are whole on each process. "fsdp": the language
model's own weights are cut into pieces (`tpo_lab.training.fsdp`), and what trains beside it is whole.
Not here: torch's `DistributedDataParallel`. It forgets which parameters were used in all but the last part of an accumulated batch, and
gives those that no process used a gradient of zero, by which AdamW moves them. So several processes would train other weights than one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import torch
from torch import Tensor, nn

from tpo_lab.errors import TPOError, UsageError, unknown_name
from tpo_lab.model import TPOModel
from tpo_lab.stages import Stage
from tpo_lab.training import fsdp, sharding
from tpo_lab.training.micro_batch import TrainingStep
from tpo_lab.training.sharding import Shard, is_sharded

if TYPE_CHECKING:
    from torch.optim import Optimizer

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: longer than one takes to write a checkpoint, or to encode a step of new clips."""
BUCKET = 32 << 20
"""So many numbers of gradients travel at once."""


class JobFailed(TPOError):
    """What every process of a job knows, so that one sentence from the first of them is enough."""

    common = True


class Processes:
    """The processes of one job; one alone where nothing started more.

    Args:
        shard: "ddp", "fsdp", or "auto" for what accelerate is configured for.
        timeout: how long one waits for the others.

    Raises:
        UsageError: an unknown `shard`, one that accelerate's configuration contradicts, FSDP with one process, or DeepSpeed.
    """

    def __init__(self, shard: str = "auto", *, timeout: timedelta = TIMEOUT) -> None:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs, patch_environment

        self.kind, self.timeout = chosen(shard), timeout
        with patch_environment(ACCELERATE_USE_FSDP="false"):
            self.accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)])
        self.rank, self.count = int(self.accelerator.process_index), int(self.accelerator.num_processes)
        if self.kind == "fsdp" and self.count == 1:
            hint = "Start the command by `accelerate launch --num_processes N -m tpo_lab train ...`."
            raise UsageError("shard", expected="ddp with one process", got="fsdp", hint=hint)
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

    def prepare(self, step: TrainingStep, optimizer: Optimizer) -> tuple[nn.Module, Any]:
        """What computes the losses, and what steps, whose `optimizer` is the given one."""
        return step, self.accelerator.prepare_optimizer(optimizer, device_placement=False)

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

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of one part of a batch."""
        loss.backward()  # type: ignore[no-untyped-call]

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up what all processes have found; a parameter that none has used keeps no gradient, as with one process."""
        if self._told is None:
            return
        own = [parameter for parameter in parameters if not is_sharded(parameter)]
        flags = self.everyone([parameter.grad is not None for parameter in own])
        used = [parameter for parameter, *used in zip(own, *flags, strict=True) if any(used)]
        for bucket in _buckets(used):
            parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            joined = torch.cat([part.flatten().float() for part in parts])
            torch.distributed.all_reduce(joined)
            for parameter, part in zip(bucket, torch.split(joined, [part.numel() for part in parts]), strict=True):
                parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def clip(self, parameters: Sequence[nn.Parameter], max_norm: float) -> None:
        """Scale the gradients of all parameters together to this norm where theirs is larger."""
        cut = [p for p in parameters if is_sharded(p) and p.grad is not None]
        if not cut:
            torch.nn.utils.clip_grad_norm_(parameters, max_norm)
            return
        whole = [p for p in parameters if not is_sharded(p) and p.grad is not None]
        norms = [torch.nn.utils.get_total_norm([p.grad for p in group if p.grad is not None]) for group in (cut, whole)]
        total = torch.stack([sharding.whole(norm).to(self.device) for norm in norms]).norm()
        for group in (cut, whole):
            torch.nn.utils.clip_grads_with_norm_(group, max_norm, total)

    def step(self, optimizer: Any) -> None:
        """Change the weights, and forget the gradients."""
        optimizer.step()
        optimizer.zero_grad()

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
        UsageError: see `Processes`.
    """
    if shard not in get_args(Shard):
        raise unknown_name("shard", shard, get_args(Shard))
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        hint = "Launch without --use_deepspeed and with --shard fsdp, which cuts the language model's weights as ZeRO-3 does."
        raise UsageError("accelerate's use_deepspeed", expected="false", got="true", hint=hint)
    if not _is_set("ACCELERATE_USE_FSDP"):
        return "ddp" if shard == "auto" else shard
    if shard not in ("auto", "fsdp"):
        raise UsageError("shard", expected="auto or fsdp, which accelerate is configured for", got=shard)
    fsdp.require_second_version()
    return "fsdp"


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("true", "1")


def _is_lost(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(phrase in text for phrase in ("connection closed", "connection reset", "broken pipe", "timed out", "nccl error"))


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, TPOError) else f"{type(error).__name__}: {error}"


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Neighbours of one kind that travel together."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and (parameter.dtype != bucket[0].dtype or sum(p.numel() for p in bucket) + parameter.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
