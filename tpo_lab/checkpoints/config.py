"""`tpo.json`: how to build the model of a checkpoint again, and what stands in the folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab import knobs
from tpo_lab.checkpoints.atomic import located
from tpo_lab.checkpoints.layout import CONFIG, FIRST_SCHEMA, SCHEMA, check_file, read_manifest, read_object
from tpo_lab.errors import UsageError
from tpo_lab.runs import environment
from tpo_lab.stages import Lora

if TYPE_CHECKING:
    from tpo_lab.backbones.base import Backbone
    from tpo_lab.model import TPOModel

_KEYS = ("backbone", "num_frames", "heads", "lora", "trained_backbone_parts", "history")


def describe(model: TPOModel, fingerprints: Mapping[str, int], *, half: bool, training: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `tpo.json` says of a model.

    Args:
        fingerprints: of every tensor in memory.
        half: whether weights are stored in half precision.
        training: recipe, stage, step and order of a resumable checkpoint; None for others.
    """
    return {
        "schema": SCHEMA,
        **identity(model),
        "lora": None if model.lora is None else asdict(model.lora),
        "trained_backbone_parts": sorted(model.trained_backbone_parts),
        "history": model.provenance.history,
        "training": None if training is None else dict(training),
        "half": half,
        "fingerprints": dict(fingerprints),
        "environment": _environment(),
    }


def identity(model: TPOModel) -> dict[str, Any]:
    """What a model was built of: backbone, heads with their settings, and what it understands; JSON-ready."""
    return {
        "backbone": model.backbone.name,
        "num_frames": model.backbone.num_frames,
        "image_size": model.backbone.image_size,
        "prompts": model.prompts.understood,
        "task_input": model.task_input,
        "heads": [model.head(name).spec() for name in model.heads],
    }


@cache
def _environment() -> dict[str, Any]:
    """Asking git takes longer than a step of a small model."""
    return environment()


def read_config(folder: Path | str) -> dict[str, Any]:
    """The configuration of a checkpoint; weights are not looked at.

    Raises:
        UsageError: where there is none, a damaged or incomplete one, or one of another version.
    """
    path = located(folder) / CONFIG
    if not path.exists():
        raise UsageError("checkpoint", expected=f"a folder with {CONFIG}", got=str(folder), hint="`tpo-lab train` writes one.")
    config = read_object(path)
    found = config.get("schema")
    if found not in (SCHEMA, FIRST_SCHEMA):
        hint = "Another version of TPO Lab wrote it." if found else ""
        raise UsageError(f"checkpoint {path}: schema", expected=f"{FIRST_SCHEMA} or {SCHEMA}", got=found, hint=hint)
    if found == SCHEMA:
        check_file(path.parent, CONFIG, read_manifest(path.parent)[CONFIG])
    for key in _KEYS:
        if key not in config:
            raise UsageError(f"checkpoint {path}: {key}", expected="an entry", got=None, hint="The file is damaged.")
    if config["backbone"] == ".":
        # a merged checkpoint has its backbone in its own folder, wherever that lies
        config["backbone"] = str(path.parent)
    return config


def build(config: Mapping[str, Any]) -> TPOModel:
    """The model that a configuration describes, with the weights of its backbone alone."""
    model = build_untrained(config)
    if config["lora"] is not None:
        model.add_lora(knobs.from_plain(Lora, config["lora"], "lora"))
    model.trained_backbone_parts = set(config["trained_backbone_parts"])
    model.provenance.history = list(config["history"])
    return model


def build_untrained(config: Mapping[str, Any]) -> TPOModel:
    """The backbone with new heads and without LoRA, as it was before any stage."""
    from tpo_lab.backbones import load_backbone
    from tpo_lab.heads import build_head
    from tpo_lab.model import TPOModel

    # checkpoints of earlier versions do not say the size
    backbone: Backbone = load_backbone(config["backbone"], num_frames=config["num_frames"], image_size=config.get("image_size"))
    heads = [build_head(spec, backbone.hidden_size) for spec in config["heads"]]
    # what was saved before strokes were understood does not say what it understands
    return TPOModel(backbone, heads, prompts=config.get("prompts", "box"), task_input=config.get("task_input", "token"))
