"""Checkpoints that lose nothing: what was trained, the heads, the token rows, and how to build the rest again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tpo_lab import knobs
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.heads import build_head
from tpo_lab.model import TPOModel
from tpo_lab.runs import environment, write_json
from tpo_lab.stages import Lora

if TYPE_CHECKING:
    from tpo_lab.backbones.base import Backbone

SCHEMA = "tpo_lab.checkpoint/1"
_CONFIG, _WEIGHTS = "tpo.json", "tpo.safetensors"
_KEYS = ("backbone", "num_frames", "heads", "lora", "trained_backbone_parts", "history")


def changed_parts(model: TPOModel) -> dict[str, Tensor]:
    """What a checkpoint must hold: everything but weights of pretrained models that no stage has trained; the heads' buffers as well."""
    untrained = tuple(part for part in model.given_parts if part not in model.trained_backbone_parts)
    parts: dict[str, Tensor] = {name: p for name, p in model.named_parts().items() if not name.startswith(untrained)}
    for prefix, module in (("prompts", model.prompts), ("heads", model.heads)):
        kept = {f"{prefix}.{name}": value for name, value in module.state_dict(keep_vars=True).items()}
        parts.update({n: value for n, value in kept.items() if not isinstance(value, nn.Parameter) and not n.startswith(untrained)})
    return parts


def save(model: TPOModel, folder: Path | str, *, half: bool = False) -> Path:
    """Write a checkpoint folder: tpo.json and tpo.safetensors. The backbone is named, not copied, except for parts that were trained.

    An interrupted write leaves an earlier checkpoint in `folder` as it was.

    Args:
        half: store weights in half precision (for shipping; training checkpoints keep fp32).

    Raises:
        UsageError: `folder` holds something else than a checkpoint.
        TPOError: a weight is too large for half precision.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    if folder.exists() and not (folder / _CONFIG).exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError("checkpoint", expected="a new folder, or one with a checkpoint to replace", got=str(folder))
    partial, old = (folder.with_name(folder.name + suffix) for suffix in (".partial", ".old"))
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    tensors = {name: _stored(name, value, half).cpu().contiguous() for name, value in changed_parts(model).items()}
    partial.mkdir(parents=True)
    save_file(tensors, partial / _WEIGHTS, metadata={"format": "pt", "schema": SCHEMA})
    config = {
        "schema": SCHEMA,
        "backbone": model.backbone.name,
        "num_frames": model.backbone.num_frames,
        "prompts": model.prompts.understood,
        "task_input": model.task_input,
        "heads": [model.head(name).spec() for name in model.heads],
        "lora": None if model.lora is None else asdict(model.lora),
        "trained_backbone_parts": sorted(model.trained_backbone_parts),
        "history": model.provenance.history,
        "half": half,
        "fingerprints": {name: fingerprint(value) for name, value in _everything(model).items()},
        "environment": environment(),
    }
    write_json(partial / _CONFIG, config)
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def fingerprint(tensor: Tensor) -> int:
    """The sum of a tensor's raw bits as whole numbers: the same on every device and in every order of summation."""
    widths = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    raw = tensor.detach().contiguous()
    return int(raw.view(widths[raw.element_size()]).sum(dtype=torch.int64)) if raw.numel() else 0


def _everything(model: TPOModel) -> dict[str, Tensor]:
    return {**model.named_parts(), **changed_parts(model)}


def _stored(name: str, value: Tensor, half: bool) -> Tensor:
    value = value.detach()
    if not half or not value.is_floating_point():
        return value
    halved = value.half()
    if (halved.isinf() & ~value.isinf()).any():
        raise TPOError(f"{name}: expected values up to 65504, the largest in half precision, got {value.abs().max().item():g}.")
    return halved


def read_config(folder: Path | str) -> dict[str, Any]:
    """The configuration of a checkpoint.

    Raises:
        UsageError: where there is none, a damaged one, or one of another version.
    """
    path = Path(folder) / _CONFIG
    if not path.exists():
        raise UsageError("checkpoint", expected=f"a folder with {_CONFIG}", got=str(folder), hint="`tpo-lab train` writes one.")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"checkpoint {path}", expected="JSON", got=str(error), hint="The file is damaged.") from error
    found = config.get("schema") if isinstance(config, dict) else None
    if found != SCHEMA:
        raise UsageError(f"checkpoint {path}: schema", expected=SCHEMA, got=found)
    for key in _KEYS:
        if key not in config:
            raise UsageError(f"checkpoint {path}: {key}", expected="an entry", got=None, hint="The file is damaged.")
    return config


def load(folder: Path | str) -> TPOModel:
    """Build the model that `save` described and load its weights.

    Raises:
        UsageError: for a folder without a checkpoint.
        TPOError: where weights and configuration do not fit.
    """
    from tpo_lab.backbones import load_backbone

    config = read_config(folder)
    backbone = load_backbone(config["backbone"], num_frames=config["num_frames"])
    model = _untrained(backbone, config)
    if config["lora"] is not None:
        model.add_lora(knobs.from_plain(Lora, config["lora"], "lora"))
    model.trained_backbone_parts = set(config["trained_backbone_parts"])
    model.provenance.history = list(config["history"])
    restore(model, _read_weights(folder), label=str(Path(folder) / _WEIGHTS))
    return model.eval()


def _untrained(backbone: Backbone, config: Mapping[str, Any]) -> TPOModel:
    heads = [build_head(spec, backbone.hidden_size) for spec in config["heads"]]
    # what was saved before strokes were understood does not say what it understands
    return TPOModel(backbone, heads, prompts=config.get("prompts", "box"), task_input=config.get("task_input", "token"))


def _read_weights(folder: Path | str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / _WEIGHTS
    if not path.exists():
        raise UsageError("checkpoint", expected=f"a folder with {_WEIGHTS}", got=str(folder), hint="The checkpoint is incomplete.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UsageError(f"checkpoint {path}", expected="a safetensors file", got=str(error), hint="The file is damaged.") from error


def audit(folder: Path | str) -> dict[str, Any]:
    """Check that a checkpoint lost nothing: load it, and compare every parameter with what was in memory when it was saved.

    Returns:
        "parts": by part ("vision", "connector", "llm.base", "llm.lora", "tokens", "prompts", "heads.<name>"), how many tensors it has,
        how many of them "changed" against the base (what the base does not have counts), and how many are "saved";
        "changed" and "saved": their totals; "half": whether they were stored in half precision; "reload_difference": the largest
        difference between a stored tensor and the reloaded one; "equals_memory": whether the reloaded model has the bits that the saved one
        had in memory (never with "half").

    Raises:
        UsageError: as `load`, or a checkpoint that was written without fingerprints.
        TPOError: a tensor differs from the base but was not saved; or it was saved in full precision and reloads as something else.
    """
    config = read_config(folder)
    if "fingerprints" not in config or "half" not in config:
        raise UsageError(f"checkpoint {folder}: fingerprints", expected="an entry", got=None, hint="Save the checkpoint again to audit it.")
    base, memory = _base_fingerprints(config), config["fingerprints"]
    stored, reloaded = _read_weights(folder), _everything(load(folder))
    if set(reloaded) != set(memory):
        different = sorted(set(reloaded) ^ set(memory))
        raise TPOError(f"checkpoint {folder}: expected the tensors that the saved model had, got {len(different)} others, {different[:3]}.")
    changed = {name for name, value in memory.items() if base.get(_unwrapped(name)) != value}
    lost = sorted(changed - set(stored))
    if lost:
        raise TPOError(f"checkpoint {folder}: {len(lost)} changed tensors were not saved: {', '.join(lost[:3])}.")
    unequal = sorted(name for name, value in reloaded.items() if fingerprint(value) != memory[name])
    if unequal and not config["half"]:
        raise TPOError(f"checkpoint {folder}: {len(unequal)} tensors reload as something else: {', '.join(unequal[:3])}.")
    parts: dict[str, dict[str, int]] = {}
    for name in memory:
        row = parts.setdefault(_part(name), {"tensors": 0, "changed": 0, "saved": 0})
        for key, counts in (("tensors", True), ("changed", name in changed), ("saved", name in stored)):
            row[key] += counts
    return {
        "parts": parts,
        "changed": len(changed),
        "saved": len(stored),
        "half": config["half"],
        "reload_difference": max((_difference(reloaded[name], value) for name, value in stored.items()), default=0.0),
        "equals_memory": not unequal,
    }


def _base_fingerprints(config: Mapping[str, Any]) -> dict[str, int]:
    from tpo_lab.backbones import load_backbone

    backbone = load_backbone(config["backbone"], num_frames=config["num_frames"])
    model = _untrained(backbone, config)
    return {name: fingerprint(value) for name, value in _everything(model).items() if name.startswith(model.given_parts)}


def _unwrapped(name: str) -> str:
    """A weight's name before LoRA wrapped its layer."""
    return name.replace(".base_layer.", ".")


def _part(name: str) -> str:
    pieces = name.split(".")
    return ".".join(pieces[:2]) if pieces[0] in ("llm", "heads") else pieces[0]


def _difference(here: Tensor, there: Tensor) -> float:
    return float((here.detach().cpu().double() - there.double()).abs().max()) if here.numel() else 0.0


def restore(model: TPOModel, tensors: Mapping[str, Tensor], *, label: str) -> None:
    """Put saved tensors back; every tensor must find its place, and every part that a checkpoint holds its tensor."""
    parts = changed_parts(model)
    if set(parts) != set(tensors):
        missing, extra = sorted(set(parts) - set(tensors)), sorted(set(tensors) - set(parts))
        raise TPOError(
            f"checkpoint {label}: expected one tensor per trained part, got {len(missing)} missing {missing[:3]} and {extra[:3]} extra."
        )
    with torch.no_grad():
        for name, parameter in parts.items():
            if parameter.shape != tensors[name].shape:
                raise TPOError(f"checkpoint {label}: {name} expected shape {tuple(parameter.shape)}, got {tuple(tensors[name].shape)}.")
            parameter.copy_(tensors[name].to(parameter))
