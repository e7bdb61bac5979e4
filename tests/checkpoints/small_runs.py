"""Runs of a few steps through every stage, and what is compared of them. Also used by the benchmark of crash safety."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tpo_lab.model import TPOModel
from tpo_lab.recipes import Recipe
from tpo_lab.runs import read_jsonl
from tpo_lab.stages import Lora, Stage

TEXT = {"mlm": 1.0, "assign": 1.0}
HEADS = ("region", "temporal", "mask")
MEASURED = ("seconds", "memory_mib", "cuda_mib")
"""What differs from run to run: everything else must not."""


def stage(name: str, steps: int, *heads: str, **changes: Any) -> Stage:
    settings: dict[str, Any] = {
        "title": f"stage {name}",
        "learning_rates": {
            "llm.lora.*": 1e-2,
            **{f"heads.{head}.{'adapter.' if head == 'mask' else ''}*": 1e-2 for head in heads},
            **{f"tokens.task.{head}": 1e-2 for head in heads},
        },
        "data": dict.fromkeys(heads or ("region", "temporal"), 1.0),
        "losses": {**TEXT, **dict.fromkeys(heads, 1.0)},
        "steps": steps,
        "batch_size": 2,
        "max_questions": 2,
        "warmup_ratio": 0.3,
        "grad_clip": 1.0,
        "precision": "fp32",
    }
    return Stage(name=name, **{**settings, **changes})


def recipe(*stages: Stage, rank: int = 2) -> Recipe:
    """With dropout on, so that random numbers count."""
    lora = Lora(rank=rank, dropout=0.2, targets=("q_proj", "up_proj"))
    return Recipe(name="small", stages=stages, lora=lora, frames=4, resolution=64)


def every_stage(steps: int = 4) -> Recipe:
    """Stages 1, 2.region, 2.temporal, 2.mask, 3a and 3b, the last two with the vision side."""
    vision = {"vision.*": 1e-3, "connector.*": 1e-3, "prompts.*": 1e-3}
    joint = stage("3a", steps, *HEADS, batching="mixed", batch_size=3)
    rates = {**joint.learning_rates, **vision}
    talking = {**joint.data, "conversation": 1.0}
    return recipe(
        stage("1", steps),
        *(stage(f"2.{head}", steps, head) for head in HEADS),
        stage("3a", steps, *HEADS, batching="mixed", batch_size=3, learning_rates=rates),
        stage("3b", steps, *HEADS, batching="mixed", batch_size=3, learning_rates=rates, data=talking),
    )


def two_stages(steps: int = 4) -> Recipe:
    """Stages 1 and 2.region."""
    return recipe(stage("1", steps), stage("2.region", steps, "region"))


def weights(model: TPOModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parts().items()}


def differing(here: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> list[str]:
    assert here.keys() == there.keys()
    return [name for name in here if not torch.equal(here[name], there[name])]


def lines(run: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in read_jsonl(run / "metrics.jsonl")]


def differences(here: Path, there: Path, *, outputs: bool = True) -> list[str]:
    """What of two finished runs is not equal to the bit: lines of metrics, weights, optimizer states and random numbers at the end."""
    found = [] if lines(here) == lines(there) else ["metrics.jsonl"]
    last = [sorted((run / "checkpoints").iterdir(), key=lambda folder: folder.stat().st_mtime)[-1].name for run in (here, there)]
    assert last[0] == last[1], last
    names = ("tpo.safetensors", "adapter/adapter_model.safetensors", *(("outputs.safetensors",) if outputs else ()))
    files = [f"checkpoint/{name}" for name in names]
    files += [f"checkpoints/{last[0]}/training/{name}.safetensors" for name in ("optimizer", "random", "data")]
    for file in files:
        found += [f"{file}: {name}" for name in differing(load_file(here / file), load_file(there / file))]
    return found
