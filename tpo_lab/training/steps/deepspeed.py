"""DeepSpeed's engine for one stage, where `accelerate launch --use_deepspeed` starts the processes. Needs the extra `deepspeed`.

ZeRO-2 cuts what the optimizer remembers, and gradients once they are added up, into pieces, one for each process. ZeRO-3 cuts the weights
of the language model's decoder layers as well; all others stay whole on every process, since a head, a vision side or a row of tokens is
used by one process and not by another, and a piece that only some of them ask for would never come. For the same reason gradients do not
travel while a backward pass finds them, in an order that differs between processes, but at the end of a step, in one order: until then
each process holds those of all that trains.

Different from "ddp" and "fsdp": AdamW sees one long piece of all weights, so it also moves those that no process has used in a step.

Source: Rajbhandari et al., ZeRO (arXiv 1910.02054).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tpo_lab.errors import MissingExtraError, UsageError
from tpo_lab.narrow_weights import EXACT
from tpo_lab.stages import Stage
from tpo_lab.training.steps.fsdp import decoder_layers, reach_inputs
from tpo_lab.training.steps.micro_batch import TrainingStep
from tpo_lab.training.steps.sharding import is_sharded, whole

if TYPE_CHECKING:
    from torch.optim import Optimizer

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW remembers of every weight."""
BUCKET = 50_000_000
"""So many numbers of gradients travel at once."""
_ALWAYS = -1
"""In place of the number of a module that uses a weight."""


class DeepSpeedEngine:
    """See `tpo_lab.training.steps.engine.Engine`. The weights are plain before it is made and after `close`.

    Args:
        step: on this process's device; the weights of all processes are equal.
        optimizer: over its trained weights. Afterwards it holds pieces of them, in the same groups.
        stage: says how gradients are clipped.

    Raises:
        UsageError: ZeRO-3 where weights train that are not in single precision, weights of several types that train as one pattern, or
            see `asked_for`.
    """

    module: nn.Module

    def __init__(self, step: TrainingStep, optimizer: Optimizer, stage: Stage) -> None:
        named = [pair for group in optimizer.param_groups for pair in zip(group["params"], group["names"], strict=True)]
        self.optimizer, self.names = optimizer, dict(named)
        config = configuration(stage, sum(parameter.numel() for parameter in self.names))
        self.cut = config["zero_optimization"]["stage"] == 3
        _require_one_type(optimizer, self.cut)
        self._plain = {parameter: set(vars(parameter)) for parameter in step.parameters()}
        # its way to cut weights fails at those without an axis
        scalars: list[Any] = [parameter for parameter in step.parameters() if self.cut and not parameter.ndim]
        for parameter in scalars:
            parameter.data = parameter.data.reshape(1)
        self._engine = _engine(step, optimizer, config)
        for parameter in scalars:
            parameter.ds_shape = torch.Size(())
        self.module = self._engine
        self._whole = self._keep_whole(step) if self.cut else []
        self._hold()
        self._reaching = step.model.backbone.embedding.register_forward_hook(partial(reach_inputs, step.model))
        self._begin()

    @contextmanager
    def adding_up(self) -> Iterator[None]:
        """See `Engine`."""
        with self._engine.coalesce_grad_reduction():
            try:
                yield
            except BaseException:
                # it adds up what there is, and the other processes may be gone
                for parameter in self.names:
                    parameter.grad = None
                raise
            for parameter in self.names:
                # for one without, ZeRO-3 would take the gradient of an earlier step
                if parameter.grad is None and not is_sharded(parameter):
                    parameter.grad = torch.zeros_like(parameter)

    def backward(self, loss: Tensor) -> None:
        """See `Engine`; the loss is this process's share of the mean, so what the engine divides by is made up for."""
        self._engine.backward(loss * self._engine.world_size)

    def clip(self) -> None:
        """See `Engine`; it does so within a step."""

    def step(self) -> None:
        """See `Engine`."""
        self._engine.step()
        self._hold()

    @torch.no_grad()
    def weights_changed(self) -> None:
        """See `Engine`; it has a copy of them."""
        for parameter in self.names:
            self._set(parameter, whole(parameter))

    def remembered(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """See `Engine`; under the names that AdamW has for it."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        (count, *_) = (self.optimizer.state[piece]["step"] for piece in self._pieces())
        for parameter, name in self.names.items():
            exact = {EXACT: safe_get_full_fp32_param(parameter)} if parameter.dtype.itemsize < 4 else {}
            yield name, {**{key: safe_get_full_optimizer_state(parameter, key) for key in MOMENTS}, **exact, "step": count.clone()}

    def remember(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        """See `Engine`; a weight of which nothing is known begins with zeros."""
        count = max((float(state["step"]) for state in states.values()), default=0.0)
        for piece in self._pieces():
            self.optimizer.state[piece]["step"].fill_(count)
        for parameter, name in self.names.items():
            for key in MOMENTS if name in states else ():
                self._set(parameter, states[name][key], key)
            if EXACT in states.get(name, {}):
                self._set(parameter, states[name][EXACT])

    @torch.no_grad()
    def close(self) -> None:
        """See `Engine`."""
        self._engine.destroy()
        self._reaching.remove()
        values = [whole(parameter) for parameter in self._plain]
        for (parameter, before), value in zip(self._plain.items(), values, strict=True):
            for name in set(vars(parameter)) - before:
                delattr(parameter, name)
            parameter.data = value

    def _keep_whole(self, step: TrainingStep) -> list[Any]:
        """Of what ZeRO-3 has cut, put together for good what is not a decoder layer's own weight, and leave its modules alone."""
        layers = decoder_layers(step.model)
        base = {p for name, p in step.model.named_parts().items() if name.startswith("llm.base.")}
        cut = {parameter for layer in layers for parameter in layer.parameters() if parameter in base}
        kept: list[Any] = [parameter for parameter in step.parameters() if parameter not in cut]
        for parameter in kept:
            parameter.ds_persist = True
        self._engine.optimizer.persistent_parameters.extend(kept)
        kept[0].all_gather(kept)
        inside = [module for layer in layers for module in layer.modules()]
        hooked = {id(hooks) for module in inside for hooks in (module._forward_hooks, module._forward_pre_hooks)}
        offload = self._engine.optimizer.parameter_offload
        for handle in (*offload.forward_hooks, *offload.backward_hooks):
            if id(handle.hooks_dict_ref()) not in hooked:
                handle.remove()
        return kept

    def _hold(self) -> None:
        """Until it knows the order of modules, the engine lets go of every weight that no module is using; so one always is."""
        for parameter in self._whole:
            parameter.ds_active_sub_modules.add(_ALWAYS)

    def _begin(self) -> None:
        """AdamW makes what it remembers in its first step; the engine, which links it to the weights, would miss all groups but one."""
        for piece in self._pieces():
            self.optimizer.state[piece] = {"step": torch.tensor(0.0), **{key: torch.zeros_like(piece) for key in MOMENTS}}
        if not self.cut:
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _pieces(self) -> list[Tensor]:
        """The optimizer's weights in this process."""
        inner = self._engine.optimizer
        return list(inner.fp32_partitioned_groups_flat if self.cut else inner.single_partition_of_fp32_groups)

    def _set(self, parameter: nn.Parameter, value: Tensor, *key: str) -> None:
        """Give the optimizer's piece of a weight, or of what it remembers of it by `key`, the values of a whole one."""
        from deepspeed import utils

        value = value.to(parameter.device, torch.float32)
        if not self.cut:
            (utils.safe_set_full_optimizer_state if key else utils.safe_set_full_fp32_param)(parameter, value, *key)
            return
        # the engine's own way for whole values fails where they do not divide evenly
        size: int = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        even = nn.functional.pad(value.flatten(), (0, size * self._engine.world_size - value.numel()))
        piece = even.narrow(0, size * self._engine.global_rank, size)
        (utils.safe_set_local_optimizer_state if key else utils.safe_set_local_fp32_param)(parameter, piece, *key)


def _require_one_type(optimizer: Optimizer, cut: bool) -> None:
    """Refuse weights that the engine would not put into one piece of memory."""
    for group in optimizer.param_groups:
        first = torch.float32 if cut else group["params"][0].dtype
        for parameter, name in zip(group["params"], group["names"], strict=True):
            if parameter.dtype != first:
                asked = "all trained weights in single precision with ZeRO-3" if cut else f"weights of one type in {group['pattern']}"
                hint = "Use --zero_stage 2 or --shard fsdp, or freeze them." if cut else "Give each type a pattern of its own."
                raise UsageError("deepspeed", expected=asked, got=f"{name} in {str(parameter.dtype).removeprefix('torch.')}", hint=hint)


def require() -> None:
    """Ask, before anything is loaded, for what the engine will need.

    Raises:
        MissingExtraError: DeepSpeed is not installed.
        UsageError: see `asked_for`.
    """
    if find_spec("deepspeed") is None:
        raise MissingExtraError("deepspeed", "deepspeed", "`accelerate launch --use_deepspeed`")
    asked_for()


def asked_for() -> dict[str, Any]:
    """How accelerate is configured for ZeRO, under DeepSpeed's own names.

    Raises:
        UsageError: accelerate cannot read it, it names another stage of ZeRO than 2 and 3, or something that would not happen.
    """
    from accelerate.utils import DeepSpeedPlugin

    try:
        asked = DeepSpeedPlugin().deepspeed_config
    except (ValueError, OSError) as error:
        raise UsageError("deepspeed", expected="settings that accelerate can read", got=str(error)) from error
    zero = {key: value for key, value in asked["zero_optimization"].items() if value != "auto"}
    if zero.get("stage") not in (2, 3):
        raise UsageError("accelerate's zero_stage", expected="2 or 3", got=zero.get("stage"))
    for key in ("offload_optimizer", "offload_param"):
        device = (zero.pop(key, None) or {}).get("device") or "none"
        if device != "none":
            raise UsageError(f"accelerate's {key}_device", expected="none", got=device, hint="Weights stay on the devices.")
    for key in ("optimizer", "scheduler"):
        if key in asked:
            hint = "The recipe says how fast each part learns."
            raise UsageError(f"deepspeed's configuration, {key}", expected="no such entry", got=asked[key], hint=hint)
    return zero


def configuration(stage: Stage, trained: int) -> dict[str, Any]:
    """What the engine is asked for: what accelerate is, without what the loop does itself (batches, precision, rates).

    Args:
        trained: how many numbers train.

    Raises:
        UsageError: see `asked_for`.
    """
    zero = asked_for()
    zero |= {"reduce_bucket_size": min(trained, BUCKET), "overlap_comm": False, "round_robin_gradients": False}
    if zero["stage"] == 3:
        # nothing is fetched ahead: what comes next differs between processes
        zero |= {"stage3_prefetch_bucket_size": 0, "stage3_param_persistence_threshold": 0}
        # it would put its own function in place of torch's, for all of this process and for good
        zero["memory_efficient_linear"] = False
        zero["stage3_gather_16bit_weights_on_model_save"] = False
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": stage.grad_clip or 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
    }


def _engine(step: TrainingStep, optimizer: Optimizer, config: dict[str, Any]) -> Any:
    """DeepSpeed's own, on the connections that there are."""
    # it says on standard output what belongs on the other one
    with redirect_stdout(sys.stderr):
        from deepspeed import comm
        from deepspeed.runtime import engine
        from deepspeed.runtime.config import DeepSpeedConfig

    class Equal(engine.DeepSpeedEngine):  # type: ignore[misc]  # it is untyped
        """For processes whose trained weights are equal, which they have asked each other."""

        def _broadcast_model(self) -> None:
            """Its own fails at weights without an axis."""

    with redirect_stdout(sys.stderr):
        if not comm.is_initialized():
            comm.init_distributed(dist_init_required=False)
        parsed = DeepSpeedConfig(config)
        return Equal(None, step, optimizer, dist_init_required=False, config=config, config_class=parsed, dont_change_device=True)
