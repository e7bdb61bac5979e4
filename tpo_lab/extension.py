"""A trained model with one more head: what it has learned stays, and what the new head needs is added untrained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tpo_lab.errors import UsageError
from tpo_lab.heads import Head, build_head, head_class
from tpo_lab.model import TPOModel


def with_heads(model: TPOModel, heads: Sequence[str | Mapping[str, Any]]) -> TPOModel:
    """The model with further heads, in evaluation mode.

    Each new head comes with a task token of random values and with two rows of the token table that start at the vocabulary's mean, as
    in a model that is built with it. Everything else has the values that it had: on a question that asks none of the new heads the
    states of the language model are the same.

    The parts are taken over, not copied, so that a large model is not held twice: `model` cannot be used any more.

    Args:
        model: trained or not, with LoRA or without.
        heads: names of registered heads, or specs with settings, as `build` takes them.

    Raises:
        UsageError: no such head, or the model has one of that name already.
    """
    added = [_built(head, model) for head in heads]
    for head in added:
        if head.name in model.heads:
            raise UsageError("heads", expected=f"heads other than {', '.join(model.heads)}", got=head.name)
    model.tokens.detach_hooks()
    kept = [model.head(name) for name in model.heads]
    device = model.backbone.device
    grown = TPOModel(model.backbone, [*kept, *added], prompts=model.prompts.understood, task_input=model.task_input)
    grown.prompts = model.prompts
    with torch.no_grad():
        for name, row in model.tokens.rows.items():
            # the rows of the heads that it had come first, in the same order
            grown.tokens.rows[name][: len(row)] = row.to(grown.tokens.rows[name])
    for name in model.heads:
        grown.tokens.task[name] = model.tokens.task[name]
    grown.lora = model.lora
    grown.trained_backbone_parts = set(model.trained_backbone_parts)
    grown.provenance = model.provenance
    return grown.to(device).eval()


def _built(head: str | Mapping[str, Any], model: TPOModel) -> Head[Any, Any]:
    """A new head, as wide as the backbone says."""
    spec: dict[str, Any] = {"name": head} if isinstance(head, str) else dict(head)
    settings = head_class(str(spec.get("name", "")), spec.get("head")).Settings.__dataclass_fields__
    if "vision_dim" in settings and not spec.get("features"):
        spec.setdefault("vision_dim", model.backbone.vision_size)
    return build_head(spec, model.backbone.hidden_size)
