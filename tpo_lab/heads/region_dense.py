"""The region head that looks: the task embedding points at patches of the video, and the box is read where it points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tpo_lab.errors import UsageError
from tpo_lab.heads.base import ClipInfo, HeadSettings, Visual
from tpo_lab.heads.patches import Pointing, patch_coverage
from tpo_lab.heads.region import RegionHead, RegionPrediction, RegionSettings, RegionTarget
from tpo_lab.losses import SoftCrossEntropy


@dataclass(frozen=True)
class DenseRegionSettings(RegionSettings):
    """Settings of the region head with patches. Its `hidden_dim` is that of the patches where None.

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
    """Where the task embedding points, the box at the patch that it points at most, and what boxes at other patches are read from.

    Attributes:
        patch_logits: over all patches of all frames [slot, frame, patch], row-major patches; -inf in frames that do not exist.
        times_sec: seconds of the frames [slot, frame].
        features: of the patches [slot, frame, patch, d_vision].
        task_embedding: [slot, d].
    """

    patch_logits: Tensor
    times_sec: Tensor
    features: Tensor
    task_embedding: Tensor


@dataclass(frozen=True)
class DenseRegionTarget(RegionTarget):
    """Boxes with their times.

    Attributes:
        time_sec: seconds [box].
    """

    time_sec: Tensor


class DenseRegionHead(Pointing, RegionHead):
    """The task embedding points at a patch, and a two-layer MLP of that patch and of the task embedding says how the box lies around it.

    Pointing is a softmax over the patches of all frames. A patch's logit is a sum of three products with projections of the task
    embedding: its own features (how it looks, where it is), the language model's state at the visual token that holds it (what went on
    before: a patch of one frame does not show what moves), and its frame's time. It is trained by cross-entropy against the share of
    each patch that the box covers, in the box's frame (term "patches"). The MLP is trained at the patches that the true box covers, each
    weighing as much as it is covered, so that pointing at another thing does not teach it to give this one's box from there. Predicted is
    the box at the patch pointed at most.

    Source: none in the paper, whose region head is an MLP of the task embedding that learns from the box only.
    Differs in: looks at patches. A large language model can spell coordinates; one of a million parameters that sees 16 pooled places a
    frame tells the right thing from others far more often than it says to a few pixels where that is, which patches know.
    """

    variant: ClassVar[str] = "dense"
    needs: ClassVar[frozenset[str]] = frozenset({"frame_features", "frame_states"})
    Settings: ClassVar[type[HeadSettings]] = DenseRegionSettings
    settings: DenseRegionSettings

    def __init__(self, embed_dim: int, settings: DenseRegionSettings | None = None) -> None:
        super().__init__(embed_dim, settings)
        chosen = self.settings
        self.add_pointing(embed_dim, chosen.vision_dim, chosen.hidden_dim, corners=chosen.parametrisation == "corners")

    def predict(self, task_embedding: Tensor, visual: Visual) -> DenseRegionPrediction:
        """Point at a patch, and read a box there, normalised by the frame's size."""
        assert visual.frame_features is not None and visual.frame_states is not None
        features = visual.frame_features.float()
        logits = self.point(task_embedding, features, visual)
        patches = features.shape[2]
        best = logits.flatten(1).argmax(-1)
        slot = torch.arange(len(best), device=best.device)
        boxes = self.patch_boxes(task_embedding, features[slot, best // patches])[slot, best % patches]
        return DenseRegionPrediction(boxes, logits, visual.times_sec, features, task_embedding)

    def losses(self, prediction: RegionPrediction, target: RegionTarget) -> dict[str, Tensor]:
        """The terms of `RegionHead` and "patches", per match."""
        assert isinstance(prediction, DenseRegionPrediction) and isinstance(target, DenseRegionTarget)
        match = self.match(prediction, target)
        wanted = target.boxes_xyxy[match.box]
        logits = prediction.patch_logits[match.slot]
        matches, frames, patches = logits.shape
        valid = logits.isfinite()
        apart_sec = (prediction.times_sec[match.slot] - target.time_sec[match.box, None]).abs()
        # frames that only fill up the batch stand at second 0
        frame = apart_sec.masked_fill(~valid.any(-1), float("inf")).argmin(-1)
        covered = patch_coverage(wanted, round(patches**0.5))
        share = covered / covered.sum(-1, keepdim=True).clamp_min(1e-6)
        boxes = self.patch_boxes(prediction.task_embedding[match.slot], prediction.features[match.slot, frame])
        terms = self.box_terms(boxes.flatten(0, 1), wanted.repeat_interleave(patches, 0))
        found = {name: (values.reshape(matches, patches) * share).sum(-1) for name, values in terms.items()}
        everywhere = share.new_zeros(matches, frames, patches)
        everywhere[torch.arange(matches, device=frame.device), frame] = share
        pointing = SoftCrossEntropy()(logits.flatten(1), everywhere.flatten(1), valid.flatten(1))
        return {**found, "patches": pointing}

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
