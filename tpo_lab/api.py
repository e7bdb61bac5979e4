"""The few calls that most programs need: build, load, fit, evaluate. Re-exported lazily by `import tpo_lab`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tpo_lab import checkpoint
from tpo_lab.backbones import Backbone, load_backbone, shipped
from tpo_lab.checkpoints.atomic import located
from tpo_lab.errors import UsageError
from tpo_lab.heads import build_head, head_class
from tpo_lab.heads.cg_detr import NANO, CGDETRSettings
from tpo_lab.model import TPOModel
from tpo_lab.recipes import Recipe
from tpo_lab.stages import Switches

DEFAULT_HEADS = ("region", "temporal", "mask")
INTERNVIDEO2_WIDTH = 768
INTERNVIDEO2_STEP_SEC = 1.0
"""Of the features that the released temporal head sees: clips of 8 frames at 8 frames per second."""


def build(
    backbone: str | Backbone = "nano",
    heads: Sequence[str | Mapping[str, Any]] = DEFAULT_HEADS,
    *,
    recipe: Recipe | None = None,
    num_frames: int | None = None,
    image_size: int | None = None,
) -> TPOModel:
    """A backbone with untrained heads.

    Args:
        backbone: "nano", a folder, a hub id, or a backbone that is built already.
        heads: names, or specs with settings such as `{"name": "temporal", "head": "cg-detr",
            "features": [{"folder": "clip_features", "width": 512}], "step_sec": 2.0}`.
        recipe: decides heads, their settings (e.g. the region loss) and what is understood of prompts, by its switches; a setting in a spec
            wins.
        num_frames: frames of a clip that the model is shown; the backbone's own number where None.
        image_size: side of the squares that frames become, in pixels, where the backbone takes any; its own where None.
    """
    found = load_backbone(backbone, num_frames=num_frames, image_size=image_size) if isinstance(backbone, str) else backbone
    switches = recipe.switches if recipe is not None else None
    specs = [{"name": head} if isinstance(head, str) else dict(head) for head in heads]
    built = [build_head({**_decided(spec, switches, found), **spec}, found.hidden_size) for spec in specs]
    chosen = Switches() if switches is None else switches
    return TPOModel(found, built, prompts=chosen.prompts, task_input=chosen.task_input)


def _decided(spec: Mapping[str, Any], switches: Switches | None, backbone: Backbone) -> dict[str, Any]:
    """Head settings that a recipe's switches or the backbone decide."""
    decided: dict[str, Any] = {}
    if spec.get("name") == "region" and switches is not None:
        decided |= {"loss": switches.region_loss, "head": switches.region_head}
    if spec.get("name") == "temporal" and switches is not None:
        decided["head"] = switches.temporal_head
        if issubclass(head_class("temporal", spec.get("head", switches.temporal_head)).Settings, CGDETRSettings):
            decided |= {"weight_saliency": switches.saliency_weight, **(NANO if switches.temporal_size == "nano" else {})}
    if spec.get("name") == "mask" and switches is not None:
        loss = {"paper": "mask", "official": "distill"}[switches.mask_loss]
        prompt = {"llm": "token", "sam2": "direct"}[switches.tracking_prompt]
        decided |= {"head": switches.mask_head, "sam": switches.mask_sam, "loss": loss, "prompt": prompt}
        decided["adapter_layers"] = switches.mask_adapter_layers
    chosen = head_class(str(spec.get("name", "")), spec.get("head", decided.get("head")))
    settings = {field.name for field in fields(chosen.Settings)}
    if chosen.name == "temporal" and "features" in settings and switches is not None and switches.temporal_features != "backbone":
        decided |= {"features": [{"folder": switches.temporal_features, "width": INTERNVIDEO2_WIDTH}], "step_sec": INTERNVIDEO2_STEP_SEC}
    if "vision_dim" in settings and not spec.get("features", decided.get("features")):
        decided["vision_dim"] = backbone.vision_size
    return decided


def load(name: str | Path) -> TPOModel:
    """A trained model: a checkpoint folder, or the shipped "nano-tpo".

    Raises:
        UsageError: where there is no such checkpoint.
    """
    if str(name) == "nano-tpo":
        return checkpoint.load(shipped("nano-tpo"))
    if not located(name).is_dir():
        raise UsageError("checkpoint", expected='a checkpoint folder or "nano-tpo"', got=str(name))
    return checkpoint.load(name)
