"""What trains one stage on each of several processes: how gradients of all become one, and what the optimizer remembers.

Our own engine is that of one process, "ddp" and "fsdp"; the other is `tpo_lab.training.steps.deepspeed`.
Not here: torch's `DistributedDataParallel`. It forgets which parameters were used in all but the last part of an accumulated batch, and
gives those that no process used a gradient of zero, by which AdamW moves them. So several processes would train other weights than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tpo_lab.stages import Stage
from tpo_lab.training.steps.sharding import is_sharded, put, whole

BUCKET = 32 << 20
"""So many numbers of gradients travel at once."""


class Engine(Protocol):
    """The steps of one stage. All processes call the same in the same order.

    Attributes:
        module: computes the losses.
    """

    module: nn.Module

    def adding_up(self) -> AbstractContextManager[None]:
        """Within it the gradients of a batch's parts are found; at its end those of all processes are added up."""

    def backward(self, loss: Tensor) -> None:
        """Find the gradients of one part of a batch; one process may have fewer parts than another."""

    def clip(self) -> None:
        """Scale the gradients of all parameters together where their norm is larger than the stage allows."""

    def step(self) -> None:
        """Change the weights, and forget the gradients."""

    def weights_changed(self) -> None:
        """Trained weights were given other values beside the optimizer, the same in all processes."""

    def remembered(self) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """What the optimizer remembers, by a weight's name: whole tensors in its shape, and a count of steps. To be gone through whole."""

    def remember(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put back what `remembered` gave, for the weights that there still are; all processes have the same."""

    def close(self) -> None:
        """The stage is done: the weights are plain again, where they were so before it."""


class OwnEngine:
    """Adds up gradients by which parameters any process has used, so that AdamW moves no others: as with one process.

    Args:
        module: whose weights are whole, or cut by FSDP2, which adds up what it has cut.
        optimizer: each of its groups has "names".
        stage: says how gradients are clipped.
        everyone: gives the values of all processes.
    """

    def __init__(self, module: nn.Module, optimizer: Optimizer, stage: Stage, everyone: Callable[[Any], list[Any]]) -> None:
        self.module, self.optimizer, self.limit, self.everyone = module, optimizer, stage.grad_clip, everyone
        named = [pair for group in optimizer.param_groups for pair in zip(group["names"], group["params"], strict=True)]
        self.trained: dict[str, nn.Parameter] = dict(named)

    @contextmanager
    def adding_up(self) -> Iterator[None]:
        """See `Engine`."""
        yield
        whole_ones = [parameter for parameter in self.trained.values() if not is_sharded(parameter)]
        flags = self.everyone([parameter.grad is not None for parameter in whole_ones])
        if len(flags) > 1:
            _add_up([parameter for parameter, *used in zip(whole_ones, *flags, strict=True) if any(used)])

    def backward(self, loss: Tensor) -> None:
        """See `Engine`."""
        loss.backward()  # type: ignore[no-untyped-call]

    def clip(self) -> None:
        """See `Engine`."""
        if self.limit is None:
            return
        found = [parameter for parameter in self.trained.values() if parameter.grad is not None]
        cut = [parameter for parameter in found if is_sharded(parameter)]
        if not cut:
            torch.nn.utils.clip_grad_norm_(found, self.limit)
            return
        groups = (cut, [parameter for parameter in found if not is_sharded(parameter)])
        norms = [torch.nn.utils.get_total_norm([p.grad for p in group if p.grad is not None]) for group in groups]
        total = torch.stack([whole(norm).to(cut[0].device) for norm in norms]).norm()
        for group in groups:
            torch.nn.utils.clip_grads_with_norm_(group, self.limit, total)

    def step(self) -> None:
        """See `Engine`."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def weights_changed(self) -> None:
        """Nothing to do: the optimizer has no others."""

    def remembered(self) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """See `Engine`; nothing of a weight that was never moved."""
        for name, parameter in self.trained.items():
            state = sorted(self.optimizer.state.get(parameter, {}).items())
            yield name, {key: whole(value) if isinstance(value, Tensor) else torch.tensor(value) for key, value in state}

    def remember(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        """See `Engine`."""
        for name, parameter in self.trained.items():
            if name in states:
                self.optimizer.state[parameter] = {key: _like(parameter, value) for key, value in states[name].items()}

    def close(self) -> None:
        """Nothing to do: the weights stay as they lie for all stages of a run."""


def _add_up(parameters: Sequence[nn.Parameter]) -> None:
    for bucket in _buckets(parameters):
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        joined = torch.cat([part.flatten().float() for part in parts])
        torch.distributed.all_reduce(joined)
        for parameter, part in zip(bucket, torch.split(joined, [part.numel() for part in parts]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)


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


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """Where and how the parameter is: its moments have its shape; a count of steps stays in main memory."""
    if not value.ndim:
        return value.clone()
    made = torch.zeros_like(parameter, dtype=value.dtype)
    put(made, value)
    return made
