"""The region head that looks: the task embedding points at patches of the video, and the box is read where it points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tpo_lab.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from tpo_lab.errors import UsageError
from tpo_lab.heads.base import ClipInfo, HeadSettings, Visual
from tpo_lab.heads.region import RegionHead, RegionPrediction, RegionSettings, RegionTarget, two_layers
from tpo_lab.losses import SoftCrossEntropy

HARMONICS = 8
"""Cosines of the time in the clip by which the task embedding says which moment it means."""


@dataclass(frozen=True)
class DenseRegionSettings(RegionSettings):
    """Settings of the region head with patches.

    Attributes:
        vision_dim: width of the vision tower's patch features; `tpo_lab.build` fills it in.
        weight_patches: weight of the term "patches".
    """

    vision_dim: int = 0
    weight_patches: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vision_dim < 1:
            raise UsageError("vision_dim", expected="the width of the vision tower's features", got=self.vision_dim)


@dataclass(frozen=True)
class DenseRegionPrediction(RegionPrediction):
    """Boxes, and where the task embedding points.

    Attributes:
        patch_logits: over all patches of all frames [slot, frame, patch], row-major patches; -inf in frames that do not exist.
        times_sec: seconds of the frames [slot, frame].
    """

    patch_logits: Tensor
    times_sec: Tensor


@dataclass(frozen=True)
class DenseRegionTarget(RegionTarget):
    """Boxes with their times.

    Attributes:
        time_sec: seconds [box].
    """

    time_sec: Tensor


class DenseRegionHead(RegionHead):
    """Attention from the task embedding over the patches of all frames, and a two-layer MLP that reads the box where it points.

    The attended patches alone say roughly where the box is: a uniform box has its mean in the middle and half a width of sqrt(3)
    standard deviations. The MLP sees the task embedding, the attended features, and that rough box, and corrects the latter.
    Attention is trained by one more term: cross-entropy against the share of each patch that the box covers, in the box's frame.

    Source: none in the paper, whose region head is an MLP of the task embedding that learns from the box only.
    Differs in: looks at patches. A large language model can spell coordinates; one of a million parameters that sees 16 pooled
    places a frame finds the right thing far more often than it can say where exactly that is.
    """

    variant: ClassVar[str] = "dense"
    needs: ClassVar[frozenset[str]] = frozenset({"frame_features"})
    Settings: ClassVar[type[HeadSettings]] = DenseRegionSettings
    settings: DenseRegionSettings

    def __init__(self, embed_dim: int, settings: DenseRegionSettings | None = None) -> None:
        super().__init__(embed_dim, settings)
        vision_dim = self.settings.vision_dim
        self.where = nn.Linear(embed_dim, vision_dim)
        self.when = nn.Linear(embed_dim, HARMONICS)
        self.mlp = two_layers(embed_dim + vision_dim + 4, self.settings.hidden_dim)

    def predict(self, task_embedding: Tensor, visual: Visual) -> DenseRegionPrediction:
        """Point at patches, and read a box there, normalised by the frame's size."""
        assert visual.frame_features is not None
        features = visual.frame_features.float()
        logits = self.point(task_embedding, features, visual)
        attention = logits.flatten(1).softmax(-1)
        seen = torch.einsum("sk,skd->sd", attention, features.flatten(1, 2))
        rough = spread_box(attention.reshape(logits.shape).sum(1))
        correction = self.mlp(torch.cat([task_embedding, seen, rough], -1))
        return DenseRegionPrediction(self._corrected(rough, correction), logits, visual.times_sec)

    def point(self, task_embedding: Tensor, features: Tensor, visual: Visual) -> Tensor:
        """Logits [slot, frame, patch]: which patch, by its features [slot, frame, patch, d_vision], and which moment."""
        where: Tensor = torch.einsum("sd,sfpd->sfp", self.where(task_embedding), features) / features.shape[-1] ** 0.5
        moment = visual.times_sec / visual.duration_sec[:, None].clamp_min(1e-6)
        waves = torch.cos(torch.pi * moment[..., None] * torch.arange(1, HARMONICS + 1, device=moment.device))
        when = torch.einsum("sh,sfh->sf", self.when(task_embedding), waves)
        return (where + when[..., None]).masked_fill(~visual.frame_valid[..., None], float("-inf"))

    def _corrected(self, rough: Tensor, correction: Tensor) -> Tensor:
        """Corrected boxes: corners are moved as they are, "centre" in the logits of the sigmoid that keeps it valid."""
        if self.settings.parametrisation == "corners":
            return rough + correction
        return cxcywh_to_xyxy((xyxy_to_cxcywh(rough).logit(eps=1e-3) + correction).sigmoid())

    def losses(self, prediction: RegionPrediction, target: RegionTarget) -> dict[str, Tensor]:
        """The terms of `RegionHead`, and "patches" per match."""
        assert isinstance(prediction, DenseRegionPrediction) and isinstance(target, DenseRegionTarget)
        match = self.match(prediction, target)
        logits = prediction.patch_logits[match.slot]
        frame = (prediction.times_sec[match.slot] - target.time_sec[match.box, None]).abs().argmin(-1)
        covered = patch_coverage(target.boxes_xyxy[match.box], round(logits.shape[-1] ** 0.5))
        share = torch.zeros_like(logits)
        share[torch.arange(len(frame), device=frame.device), frame] = covered / covered.sum(-1, keepdim=True).clamp_min(1e-6)
        valid = logits.isfinite().flatten(1)
        return {**super().losses(prediction, target), "patches": SoftCrossEntropy()(logits.flatten(1), share.flatten(1), valid)}

    def weights(self) -> dict[str, float]:
        """The weights of the box's terms and of "patches"."""
        return {**super().weights(), "patches": self.settings.weight_patches}

    def encode_target(self, annotation: Sequence[dict[str, Any]], clip: ClipInfo) -> Tensor:
        """Boxes in [0,1] and their seconds, [box, 5]."""
        times = torch.tensor([float(entry.get("time_sec", 0.0)) for entry in annotation]).reshape(-1, 1)
        return torch.cat([super().encode_target(annotation, clip), times], 1)

    def collate_targets(self, items: Sequence[Tensor], slots_per_answer: Sequence[int], device: torch.device | str) -> DenseRegionTarget:
        """Join the boxes of all answers."""
        boxes = super().collate_targets([item[:, :4] for item in items], slots_per_answer, device)
        times = torch.cat([torch.zeros(0), *(item[:, 4] for item in items)]).to(device)
        return DenseRegionTarget(boxes.boxes_xyxy, boxes.box_answer, boxes.slot_answer, times)


def spread_box(attention: Tensor) -> Tensor:
    """The box over which attention [slot, patch] on a square grid would be uniform: its mean, plus and minus sqrt(3) deviations; xyxy."""
    side = round(attention.shape[-1] ** 0.5)
    middle = (torch.arange(side, device=attention.device) + 0.5) / side
    grid = attention.reshape(-1, side, side)
    across, down = grid.sum(1), grid.sum(2)
    mean = torch.stack([across @ middle, down @ middle], -1)
    square = torch.stack([across @ middle.square(), down @ middle.square()], -1)
    # a patch itself spreads by 1 / side^2 / 12, which also keeps the root's gradient finite
    half = (3 * (square - mean.square()).clamp_min(0) + 0.25 / side**2).sqrt()
    return torch.cat([mean - half, mean + half], -1)


def patch_coverage(boxes_xyxy: Tensor, side: int) -> Tensor:
    """Share of each patch of a side x side grid that each box covers; boxes [box, 4] in [0,1] to [box, patch], row-major."""
    edges = torch.arange(side + 1, device=boxes_xyxy.device) / side

    def overlap(low: Tensor, high: Tensor) -> Tensor:
        inside = torch.minimum(edges[1:], high[:, None]) - torch.maximum(edges[:-1], low[:, None])
        return inside.clamp_min(0) * side

    across, down = overlap(boxes_xyxy[:, 0], boxes_xyxy[:, 2]), overlap(boxes_xyxy[:, 1], boxes_xyxy[:, 3])
    return (down[:, :, None] * across[:, None, :]).flatten(1)
