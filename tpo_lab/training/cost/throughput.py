"""How fast training steps go on a device, against what it can do, and what the task heads add to a plain fine-tuning step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tpo_lab import freeze
from tpo_lab.backbones.base import VideoFeatures
from tpo_lab.batch import Batch
from tpo_lab.model import TPOModel
from tpo_lab.objective import LossReport
from tpo_lab.schedules import build_optimizer
from tpo_lab.stages import TEXT_LOSSES, Lora, Stage
from tpo_lab.training.cost.flops import language_flops, peak_of
from tpo_lab.training.steps.micro_batch import TrainingStep


@dataclass(frozen=True)
class Throughput:
    """Medians over steps of one stage on one batch.

    Attributes:
        seconds: of a whole step: vision side where it is not given, language model, heads, backward pass, optimizer.
        language_seconds: of the language model's forward and backward pass alone, on the same inputs.
        tokens_per_second: tokens of the rows, padding left out, by the seconds of the whole step.
        language_flops: operations that the language model asks for in a step.
        utilisation: `language_flops` by `language_seconds`, as a share of the device's bfloat16 peak; None where that is not known.
        peak_memory_gib: the most that torch held on a CUDA device; None elsewhere.
    """

    seconds: float
    language_seconds: float
    tokens_per_second: float
    language_flops: int
    utilisation: float | None
    peak_memory_gib: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def measured_throughput(
    model: TPOModel, batch: Batch, stage: Stage, *, steps: int = 5, video: Sequence[VideoFeatures] | None = None
) -> Throughput:
    """Train a stage on one batch, and measure; the model is trained by it.

    Args:
        model: carries LoRA, on its device.
        batch: on the same device.
        stage: what trains, in which precision.
        steps: measured, after two that are not.
        video: features of the clips, for stages that leave the vision side alone; made in every step where None.
    """
    device = model.backbone.device
    optimizer = build_optimizer(freeze.apply(freeze.FreezePlan.of(stage), model.named_parts()), stage)
    step = TrainingStep(model, bf16=stage.precision == "bf16").train()
    given = None if video is None else list(video)

    def whole() -> None:
        optimizer.zero_grad()
        report: LossReport = step(batch, given, stage.losses)
        report.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = _median_seconds(whole, steps, device)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    optimizer.zero_grad()
    language = _median_seconds(_language_pass(model, batch, stage), steps, device)
    tokens = int((batch.segment >= 0).sum())
    lora = model.lora or Lora()
    asked = language_flops(
        model.backbone.model.config.text_config, rows=len(batch.ids), tokens=batch.ids.shape[1], learned=len(batch.target), lora=lora
    )
    peak = peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return Throughput(seconds, language, tokens / seconds, asked, None if peak is None else asked / language / peak, memory)


def _language_pass(model: TPOModel, batch: Batch, stage: Stage) -> Callable[[], None]:
    """Forward and backward pass of the language model and its output layer, on inputs that are made once."""
    with torch.no_grad():
        inputs, _ = model.inputs(batch, model.encode_video(batch.rows))
    mask, weights = batch.attention_mask(), torch.bfloat16
    rows, places = batch.predictor.T

    def run() -> None:
        with torch.autocast(batch.ids.device.type, dtype=weights, enabled=stage.precision == "bf16"):
            # as in training, where task tokens reach the first layer
            entering = replace(inputs, embeds=inputs.embeds.detach().requires_grad_())
            hidden, _ = model.backbone.language_model(entering, mask=mask)
            logits: Tensor = model.backbone.logits(hidden[rows, places])
        logits.float().logsumexp(-1).mean().backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)

    return run


def _median_seconds(call: Callable[[], None], rounds: int, device: torch.device, *, unmeasured: int = 2) -> float:
    seconds = []
    for _ in range(unmeasured + rounds):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[unmeasured:])


def without_heads(batch: Batch, stage: Stage) -> tuple[Batch, Stage]:
    """The same tokens as plain fine-tuning: no head reads a slot, and the text losses alone are learned."""
    text: Mapping[str, float] = {name: weight for name, weight in stage.losses.items() if name in TEXT_LOSSES}
    return replace(batch, slots={}), replace(stage, losses=text)
