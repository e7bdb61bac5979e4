"""Checkpoints that lose nothing: what was trained, the heads, the token rows, and how to build the rest again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tpo_lab.errors import TPOError, UsageError
from tpo_lab.heads import build_head
from tpo_lab.model import TPOModel
from tpo_lab.runs import environment, write_json
from tpo_lab.stages import Lora

SCHEMA = "tpo_lab.checkpoint/1"
_CONFIG, _WEIGHTS = "tpo.json", "tpo.safetensors"


def changed_parts(model: TPOModel) -> dict[str, torch.nn.Parameter]:
    """Parameters that a checkpoint must hold: everything but backbone weights that no stage has trained."""
    trained = tuple(model.trained_backbone_parts)
    return {
        name: parameter
        for name, parameter in model.named_parts().items()
        if name.startswith(("tokens.", "prompts.", "heads.", "llm.lora.")) or (trained and name.startswith(trained))
    }


def save(model: TPOModel, folder: Path | str, *, half: bool = False) -> Path:
    """Write a checkpoint folder: tpo.json and tpo.safetensors. The backbone is named, not copied, except for parts that were trained.

    Args:
        half: store weights in half precision (for shipping; training checkpoints keep fp32).
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    parts = changed_parts(model)
    tensors = {name: (p.detach().half() if half else p.detach()).cpu().contiguous() for name, p in parts.items()}
    save_file(tensors, partial / _WEIGHTS, metadata={"format": "pt", "schema": SCHEMA})
    config = {
        "schema": SCHEMA,
        "backbone": model.backbone.name,
        "num_frames": model.backbone.num_frames,
        "heads": [head.spec() for head in model.heads.values()],
        "lora": None if model.lora is None else asdict(model.lora),
        "trained_backbone_parts": sorted(model.trained_backbone_parts),
        "history": model.provenance.history,
        "environment": environment(),
    }
    write_json(partial / _CONFIG, config)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)
    return folder


def read_config(folder: Path | str) -> dict[str, Any]:
    """The configuration of a checkpoint.

    Raises:
        UsageError: where there is none, or one of another version.
    """
    path = Path(folder) / _CONFIG
    if not path.exists():
        raise UsageError("checkpoint", expected=f"a folder with {_CONFIG}", got=str(folder), hint="`tpo-lab train` writes one.")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UsageError(f"checkpoint {path}", expected="JSON", got=str(error), hint="The file is damaged.") from error
    if config.get("schema") != SCHEMA:
        raise UsageError(f"checkpoint {path}: schema", expected=SCHEMA, got=config.get("schema"))
    return config


def load(folder: Path | str) -> TPOModel:
    """Build the model that `save` described and load its weights.

    Raises:
        UsageError: for a folder without a checkpoint.
        TPOError: where weights and configuration do not fit.
    """
    from safetensors.torch import load_file

    from tpo_lab.backbones import load_backbone

    config = read_config(folder)
    backbone = load_backbone(config["backbone"], num_frames=config["num_frames"])
    model = TPOModel(backbone, [build_head(spec, backbone.hidden_size) for spec in config["heads"]])
    if config["lora"] is not None:
        model.add_lora(Lora(**{**config["lora"], "targets": tuple(config["lora"]["targets"])}))
    model.trained_backbone_parts = set(config["trained_backbone_parts"])
    model.provenance.history = list(config["history"])
    path = Path(folder) / _WEIGHTS
    if not path.exists():
        raise UsageError("checkpoint", expected=f"a folder with {_WEIGHTS}", got=str(folder), hint="The checkpoint is incomplete.")
    restore(model, load_file(path), label=str(path))
    return model.eval()


def restore(model: TPOModel, tensors: Mapping[str, torch.Tensor], *, label: str) -> None:
    """Put saved tensors back; every tensor must find its place, and every part that a checkpoint holds its tensor."""
    parts = changed_parts(model)
    if set(parts) != set(tensors):
        missing, extra = sorted(set(parts) - set(tensors)), sorted(set(tensors) - set(parts))
        raise TPOError(f"checkpoint {label}: expected one tensor per trained part, got {len(missing)} missing {missing[:3]} and {extra[:3]} extra.")
    with torch.no_grad():
        for name, parameter in parts.items():
            if parameter.shape != tensors[name].shape:
                raise TPOError(f"checkpoint {label}: {name} expected shape {tuple(parameter.shape)}, got {tuple(tensors[name].shape)}.")
            parameter.copy_(tensors[name].to(parameter))
