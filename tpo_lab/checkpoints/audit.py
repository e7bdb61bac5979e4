"""Whether a checkpoint lost nothing: every tensor against what was in memory, and outputs against outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab.checkpoints.atomic import located
from tpo_lab.checkpoints.config import build, build_untrained, read_config
from tpo_lab.checkpoints.contents import everything, fingerprint, restore
from tpo_lab.checkpoints.layout import OUTPUTS, read_tensors
from tpo_lab.checkpoints.loading import read_weights
from tpo_lab.checkpoints.outputs import fixed_outputs, largest_difference
from tpo_lab.errors import TPOError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from tpo_lab.model import TPOModel

TOLERANCE = 0.02
"""Outputs that were stored on another machine may differ by so much of their largest value: kernels sum in another order."""


def audit(folder: Path | str, model: TPOModel | None = None) -> dict[str, Any]:
    """Check that a checkpoint lost nothing: load it, and compare it with what was in memory when it was saved.

    Args:
        model: the model in memory that the checkpoint was made of, where it is still there; its outputs must be equal to the bit.

    Returns:
        "parts": by part ("vision", "connector", "llm.base", "llm.lora", "tokens", "prompts", "heads.<name>"), how many tensors it has,
        how many of them "changed" against the base (what the base does not have counts), and how many are "saved";
        "changed" and "saved": their totals; "half": whether they were stored in half precision; "reload_difference": the largest
        difference between a stored tensor and the reloaded one; "equals_memory": whether the reloaded model has the bits that the saved one
        had in memory (never with "half"); "outputs": "against" ("memory", "stored", or None where there is neither) and the largest
        "difference" of outputs for a fixed row; "training": recipe, stage and step of a checkpoint that a run can go on from, or None.

    Raises:
        UsageError: there is no checkpoint, one of another version, or one that was written without fingerprints.
        TPOError: a file is missing or changed; a tensor differs from the base but was not saved; it was saved in full precision and reloads
            as something else; or outputs differ.
    """
    config = read_config(folder)
    if "fingerprints" not in config or "half" not in config:
        raise UsageError(f"checkpoint {folder}: fingerprints", expected="an entry", got=None, hint="Save the checkpoint again to audit it.")
    base, memory = _base_fingerprints(config), config["fingerprints"]
    stored = _weights(folder, config)
    loaded = build(config).eval()
    restore(loaded, stored, label=str(folder))
    reloaded = everything(loaded)
    _require_same_tensors(folder, reloaded, memory)
    changed = {name for name, value in memory.items() if base.get(_unwrapped(name)) != value}
    lost = sorted(changed - set(stored))
    if lost:
        raise TPOError(f"checkpoint {folder}: {len(lost)} changed tensors were not saved: {', '.join(lost[:3])}.")
    unequal = sorted(name for name, value in reloaded.items() if fingerprint(value) != memory[name])
    if unequal and not config["half"]:
        raise TPOError(f"checkpoint {folder}: {len(unequal)} tensors reload as something else: {', '.join(unequal[:3])}.")
    return {
        "parts": _parts(memory, changed, stored),
        "changed": len(changed),
        "saved": len(stored),
        "half": config["half"],
        "reload_difference": max((_difference(reloaded[name], value) for name, value in stored.items()), default=0.0),
        "equals_memory": not unequal,
        "outputs": _outputs(folder, loaded, model, half=config["half"]),
        "training": config.get("training"),
    }


def _weights(folder: Path | str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    try:
        return read_weights(folder, config)
    except UsageError as error:
        # the call was right, and the checkpoint failed
        raise TPOError(str(error)) from error


def _base_fingerprints(config: Mapping[str, Any]) -> dict[str, int]:
    model = build_untrained(config)
    return {name: fingerprint(value) for name, value in everything(model).items() if name.startswith(model.given_parts)}


def _require_same_tensors(folder: Path | str, reloaded: Mapping[str, Tensor], memory: Mapping[str, int]) -> None:
    if set(reloaded) != set(memory):
        different = sorted(set(reloaded) ^ set(memory))
        raise TPOError(f"checkpoint {folder}: expected the tensors that the saved model had, got {len(different)} others, {different[:3]}.")


def _outputs(folder: Path | str, loaded: TPOModel, model: TPOModel | None, *, half: bool) -> dict[str, Any]:
    stored = located(folder) / OUTPUTS
    if model is None and not stored.is_file():
        return {"against": None, "difference": None}
    if model is not None:
        there, allowed = fixed_outputs(model), 0.0
        loaded.to(model.backbone.device)
    else:
        there = read_tensors(stored)
        allowed = TOLERANCE * max((float(value.abs().nan_to_num(0, 0, 0).max()) for value in there.values() if value.numel()), default=0.0)
    difference = largest_difference(fixed_outputs(loaded), there)
    against = "stored" if model is None else "memory"
    if difference > allowed and not half:
        expected = f"the outputs {against if model is None else 'of the model in memory'}"
        raise TPOError(f"checkpoint {folder}: expected {expected}, got outputs that differ by up to {difference:g}.")
    return {"against": against, "difference": difference}


def _parts(memory: Mapping[str, int], changed: set[str], stored: Mapping[str, Tensor]) -> dict[str, dict[str, int]]:
    parts: dict[str, dict[str, int]] = {}
    for name in memory:
        row = parts.setdefault(_part(name), {"tensors": 0, "changed": 0, "saved": 0})
        for key, counts in (("tensors", True), ("changed", name in changed), ("saved", name in stored)):
            row[key] += counts
    return parts


def _unwrapped(name: str) -> str:
    """A weight's name before LoRA wrapped its layer."""
    return name.replace(".base_layer.", ".")


def _part(name: str) -> str:
    pieces = name.split(".")
    return ".".join(pieces[:2]) if pieces[0] in ("llm", "heads") else pieces[0]


def _difference(here: Tensor, there: Tensor) -> float:
    return float((here.detach().cpu().double() - there.double()).abs().max()) if here.numel() else 0.0
