"""FSDP2 for the language model: which of its weights are cut into pieces, and which are whole on every process.

Cut: the language model's own weights, one group for each decoder layer and one for all beside the layers (embeddings, final norm,
output rows, tied or not). Whole: the vision side, so that a feature cache may hit on one process and miss on another; LoRA, tokens, prompts
and heads, whose single precision may not stand in a group with a bf16 language model, and which a process without rows for a head
need not touch; and of each group, weights of another type than most of it. Their gradients are added up by `OwnEngine`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.training.steps.micro_batch import TrainingStep


def shard(step: TrainingStep, device: torch.device, processes: int) -> None:
    """Cut the language model's weights of a step into pieces, one for each process, and bring all to the device.

    Parameters are replaced: what is given to an optimizer is read afterwards.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    layers = decoder_layers(step.model)
    base = {p for name, p in step.model.named_parts().items() if name.startswith("llm.base.")}
    cut: set[nn.Parameter] = set()
    inside: set[nn.Parameter] = set()
    for layer in layers:
        own = [parameter for parameter in layer.parameters() if parameter in base]
        inside.update(own)
        cut.update(_of_one_type(own))
    cut.update(_of_one_type([parameter for parameter in base if parameter not in inside]))
    whole = {parameter for parameter in step.parameters() if parameter not in cut}
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    keep = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() in ("false", "0")
    for module in layers:
        fully_shard(module, mesh=mesh, reshard_after_forward=not keep, mp_policy=policy, ignored_params=whole)
    fully_shard(step, mesh=mesh, reshard_after_forward=False, mp_policy=policy, ignored_params=whole)
    for module in step.modules():
        if isinstance(module, FSDPModule):
            # every process has its share of the mean already, so that gradients are added up
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    for parameter in whole:
        parameter.data = parameter.data.to(device)
    for buffer in step.buffers():
        buffer.data = buffer.data.to(device)
    step.model.backbone.embedding.register_forward_hook(partial(reach_inputs, step.model))


def decoder_layers(model: TPOModel) -> list[nn.Module]:
    """The layers of the language model, in their order.

    Raises:
        UsageError: its modules hold no list of layers.
    """
    found = list(_layers(model.backbone.model, model.backbone.parts()["llm"]))
    if not found:
        raise UsageError("shard", expected="a backbone whose language model is a list of layers", got=model.backbone.name)
    return found


def require_second_version() -> None:
    """Refuse what accelerate may be configured for and is not done here.

    Raises:
        UsageError: the first version of FSDP, or weights that are kept in the main memory.
    """
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UsageError("accelerate's fsdp_version", expected="2", got=os.environ.get("FSDP_VERSION", "1"), hint="Add --fsdp_version 2.")
    if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() in ("true", "1"):
        raise UsageError("accelerate's fsdp_offload_params", expected="false", got="true", hint="Weights stay on the devices.")


def reach_inputs(model: TPOModel, module: nn.Module, args: tuple[object, ...], embedded: Tensor) -> Tensor:
    """Let the backward pass go through the same layers on every process, also where a batch has no task token and nothing pointed at.

    Each layer of it waits for the pieces of all processes.
    """
    before = (p for name, p in model.named_parts().items() if not name.startswith(("llm.", "heads.")))
    if torch.is_grad_enabled() and not embedded.requires_grad and any(parameter.requires_grad for parameter in before):
        return embedded.detach().requires_grad_()
    return embedded


def _layers(module: nn.Module, prefixes: tuple[str, ...], name: str = "") -> Iterator[nn.Module]:
    """The members of the outermost lists of modules below these prefixes."""
    for short, child in module.named_children():
        path = f"{name}{short}."
        if isinstance(child, nn.ModuleList) and path.startswith(prefixes):
            yield from child
        elif path.startswith(prefixes) or any(prefix.startswith(path) for prefix in prefixes):
            yield from _layers(child, prefixes, path)


def _of_one_type(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Those of the type that most numbers have: a group of FSDP2 holds one type only."""
    parameters = list(parameters)
    numbers: Counter[torch.dtype] = Counter()
    for parameter in parameters:
        numbers[parameter.dtype] += parameter.numel()
    return [parameter for parameter in parameters if parameter.dtype == numbers.most_common(1)[0][0]]
