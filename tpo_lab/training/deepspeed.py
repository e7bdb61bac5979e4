"""DeepSpeed ZeRO-2 and ZeRO-3, for jobs that `accelerate launch --use_deepspeed` starts. Needs the extra `deepspeed`.

Tested is what is asked of it: the refusal where it is missing, and its configuration. No test runs the engine itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from tpo_lab.errors import MissingExtraError
from tpo_lab.model import TPOModel
from tpo_lab.stages import Stage


def require() -> None:
    """Raise a `MissingExtraError` where DeepSpeed is not installed."""
    if find_spec("deepspeed") is None:
        raise MissingExtraError("deepspeed", "deepspeed", "`accelerate launch --use_deepspeed`")


def beside_the_language_model(model: TPOModel) -> list[nn.Parameter]:
    """What trains and is not the language model's."""
    return [p for name, p in model.named_parts().items() if p.requires_grad and not name.startswith("llm.")]


def touch(parameters: Sequence[nn.Parameter]) -> Tensor:
    """A zero that gives each of them a gradient of zero: the engine waits until it has one of every parameter, in every process.

    So, differently from other jobs, AdamW also moves what no process has used.
    """
    return torch.stack([0.0 * parameter.float().sum() for parameter in parameters]).sum() if parameters else torch.zeros(())


def configure(config: dict[str, Any], model: TPOModel, stage: Stage) -> None:
    """Complete accelerate's configuration of the engine in place.

    The loop cuts batches and sets the precision itself. ZeRO-3 leaves everything outside the language model whole on each process, by a
    threshold on the number of values: heads run only where a batch asks for them, and a process must not wait for others to run them too.
    """
    config["train_micro_batch_size_per_gpu"] = config["gradient_accumulation_steps"] = 1
    config.pop("train_batch_size", None)
    config["bf16"] = config["fp16"] = {"enabled": False}
    config["gradient_clipping"] = 0.0 if stage.grad_clip is None else stage.grad_clip
    config["zero_allow_untested_optimizer"] = True
    zero = config.setdefault("zero_optimization", {})
    if zero.get("stage") == 3:
        outside = [p.numel() for name, p in model.named_parts().items() if not name.startswith("llm.base.")]
        zero["stage3_param_persistence_threshold"] = max(outside) + 1
        zero["stage3_model_persistence_threshold"] = sum(outside) + 1
        zero["stage3_gather_16bit_weights_on_model_save"] = False
