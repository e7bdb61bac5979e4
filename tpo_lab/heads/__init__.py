"""The heads, and the registry by which a recipe or a checkpoint names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from torch import nn

from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.heads.base import ClipInfo, Head, HeadSettings, Visual
from tpo_lab.heads.cg_detr import CGDETRHead, CGDETRSettings, PointingCGDETRHead
from tpo_lab.heads.mask import MaskHead, MaskSettings, PointingMaskHead, PointingMaskSettings
from tpo_lab.heads.region import RegionHead, RegionSettings
from tpo_lab.heads.region_dense import DenseRegionHead, DenseRegionSettings
from tpo_lab.heads.temporal import SimpleTemporalHead, SimpleTemporalSettings

__all__ = [
    "HEADS",
    "CGDETRHead",
    "CGDETRSettings",
    "ClipInfo",
    "DenseRegionHead",
    "DenseRegionSettings",
    "Head",
    "HeadSettings",
    "MaskHead",
    "MaskSettings",
    "PointingMaskHead",
    "PointingMaskSettings",
    "RegionHead",
    "RegionSettings",
    "SimpleTemporalHead",
    "SimpleTemporalSettings",
    "Visual",
    "build_head",
    "head_class",
    "register",
]

HeadClass = TypeVar("HeadClass", bound=type[Head[Any, Any]])

HEADS: dict[str, dict[str, type[Head[Any, Any]]]] = {
    "region": {"mlp": RegionHead, "dense": DenseRegionHead},
    "temporal": {"simple": SimpleTemporalHead, "cg-detr": CGDETRHead, "cg-detr-pointing": PointingCGDETRHead},
    "mask": {"sam2": MaskHead, "sam2-pointing": PointingMaskHead},
}
"""Name of the head -> variant -> class. The first variant of a name is its default."""


def register(head: HeadClass) -> HeadClass:
    """Add a head class under its `name` and `variant`; usable as a decorator.

    Running the cell of a notebook that defines a class again replaces it.

    Raises:
        UsageError: the class has no name, or another class holds the place.
    """
    name = getattr(head, "name", "")
    if not name:
        raise UsageError(f"{head.__name__}.name", expected="the head's name, e.g. 'count'", got=name)
    holder = HEADS.get(name, {}).get(head.variant)
    if holder is not None and (holder.__module__, holder.__qualname__) != (head.__module__, head.__qualname__):
        raise UsageError(f"{head.__name__}.variant", expected=f"a free key; {holder.__name__} holds {name!r}", got=head.variant)
    HEADS.setdefault(name, {})[head.variant] = head
    return head


def head_class(name: str, variant: str | None = None) -> type[Head[Any, Any]]:
    """The registered class of a name and variant; the name's first variant where None.

    Raises:
        UsageError: an unknown name or variant; the message lists the valid ones.
    """
    if name not in HEADS:
        raise unknown_name("head", name, HEADS)
    variant = variant or next(iter(HEADS[name]))
    if variant not in HEADS[name]:
        raise unknown_name(f"variant of the {name} head", variant, HEADS[name])
    return HEADS[name][variant]


def build_head(
    name_or_spec: str | Mapping[str, Any],
    embed_dim: int,
    *,
    head: str | None = None,
    parts: Mapping[str, nn.Module] | None = None,
    **settings: Any,
) -> Head[Any, Any]:
    """Build a registered head.

    Args:
        name_or_spec: the head's name, or what `Head.spec()` returned (name, variant and settings).
        embed_dim: width d of the task embedding, the language model's hidden size.
        head: the variant; the name's first one where None.
        parts: modules that the class takes built, by keyword, e.g. a frozen image encoder.
        settings: fields of the class's `Settings`; they win over those of a spec.

    Raises:
        UsageError: an unknown name, variant or setting; the message lists the valid ones.
    """
    spec = {"name": name_or_spec} if isinstance(name_or_spec, str) else dict(name_or_spec)
    name, variant = str(spec.pop("name", "")), spec.pop("head", None)
    cls = head_class(name, head or variant)
    chosen = {**spec, **settings}
    valid = [field.name for field in fields(cls.Settings)]
    for key in chosen:
        if key not in valid:
            raise unknown_name(f"setting of the {name} head ({cls.variant})", key, valid)
    return cls(embed_dim, cls.Settings(**chosen), **(parts or {}))
