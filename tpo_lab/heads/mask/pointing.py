"""The mask head of a small language model: it points at a patch, and the box there prompts SAM2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from tpo_lab.boxes import order_corners
from tpo_lab.heads.base import HeadSettings, Visual
from tpo_lab.heads.mask.adapter import PointingAdapter
from tpo_lab.heads.mask.head import MaskHead
from tpo_lab.heads.mask.prediction import MaskPrediction, Proposal, Proposer
from tpo_lab.heads.mask.settings import PointingMaskSettings
from tpo_lab.heads.mask.targets import MaskTargets
from tpo_lab.heads.patches import patch_coverage
from tpo_lab.losses import BoxL1
from tpo_lab.sam2.tracker import Tracker


@dataclass(frozen=True)
class PointedFrames:
    """Where task embeddings point, a softmax over the patches of all frames; called with a frame of each slot, it proposes the box at the
    patch of that frame that is pointed at most.

    Attributes:
        adapter: of the head.
        tracker: that is prompted.
        task_embedding: [slot, d].
        features: of the patches [slot, frame, patch, d_vision].
        logits: over the patches of all frames [slot, frame, patch].
    """

    adapter: PointingAdapter
    tracker: Tracker
    task_embedding: Tensor
    features: Tensor
    logits: Tensor

    def __call__(self, frame: Tensor) -> Proposal:
        """The proposal for a frame of each slot, LongTensor [slot]."""
        slot = torch.arange(len(frame), device=frame.device)
        here = self.logits[slot, frame]
        boxes = self.adapter.patch_boxes(self.task_embedding, self.features[slot, frame])[slot, here.argmax(-1)]
        corners = order_corners(boxes).clamp(0, 1) * self.tracker.image_size
        tokens = self.tracker.prompt_boxes(corners).sparse + self.adapter.beside(self.task_embedding)
        return Proposal(tokens, boxes, here.amax(-1))


@dataclass(frozen=True)
class PointingMaskPrediction(MaskPrediction):
    """Masks, and where the task embeddings pointed.

    Attributes:
        pointed: in all frames.
    """

    pointed: PointedFrames

    @property
    def pointing(self) -> Tensor:
        """Logits over the patches of all frames [slot, frame, patch]."""
        return self.pointed.logits


class PointingMaskHead(MaskHead):
    """The mask head of a small language model: the task embedding points at a patch of a frame, and the box around it prompts SAM2.

    The tokens are those that SAM2's prompt encoder makes of that box, through which gradients flow, plus what the paper's mask adapter
    makes of the task embedding, which is nothing before training.

    Source: `MaskHead`; the pointing is that of `tpo_lab.heads.patches`.
    Differs in: looks at patches, and learns to point: a language model of a million parameters does not spell coordinates.
    """

    variant: ClassVar[str] = "sam2-pointing"
    needs: ClassVar[frozenset[str]] = frozenset({"frames", "frame_features", "frame_states"})
    Settings: ClassVar[type[HeadSettings]] = PointingMaskSettings
    settings: PointingMaskSettings

    def make_adapter(self, embed_dim: int) -> nn.Module:
        """The pointing, and the paper's adapter beside it."""
        return PointingAdapter(embed_dim, self.settings.vision_dim, int(self.sam.hidden_dim), self.settings.adapter_layers)

    def proposer(self, task_embedding: Tensor, visual: Visual) -> PointedFrames:
        """Points at the patches of all frames, once."""
        adapter, features = self.adapter, visual.frame_features
        assert isinstance(adapter, PointingAdapter) and features is not None
        features = features.float()
        return PointedFrames(adapter, self.tracker, task_embedding, features, adapter.point(task_embedding, features, visual))

    def predict(self, task_embedding: Tensor, visual: Visual) -> PointingMaskPrediction:
        """Masks on every frame, and where the task embedding points."""
        propose = self.proposer(task_embedding, visual)
        found = self.follow(propose, visual)
        return PointingMaskPrediction(found.steps, found.condition, found.proposal, found.frame_valid, propose)

    def candidates(self, propose: Proposer, visual: Visual) -> Tensor:
        """The frames in which it points the most decidedly, LongTensor [candidate, slot]."""
        assert isinstance(propose, PointedFrames)
        decided = propose.logits.amax(-1)
        return decided.topk(min(self.settings.candidates, decided.shape[1]), dim=1).indices.T

    def losses(self, prediction: MaskPrediction, target: MaskTargets) -> dict[str, Tensor]:
        """The terms of `MaskHead`, of slots that point at their object, so that pointing at another thing does not teach to outline this
        one from there; "patches" per slot whose object can be seen in some frame: minus the logarithm of the share of its pointing that
        lies on the object's box, in whichever frames, since the head may begin in the one it is surest of; and "box", of one of those
        frames, at the patches that the true box covers.
        """
        assert isinstance(prediction, PointingMaskPrediction)
        pointed = prediction.pointed
        seen = target.visible & target.known & prediction.frame_valid
        slots, frames, patches = pointed.logits.shape
        covered = patch_coverage(target.boxes_xyxy.flatten(0, 1), round(patches**0.5)).reshape(slots, frames, patches)
        covered = covered * seen[..., None]
        slot = torch.arange(slots, device=covered.device)
        meant = covered[slot, prediction.condition, pointed.logits[slot, prediction.condition].argmax(-1)] > 0
        found = super().losses(prediction, replace(target, known=target.known & meant[:, None]))
        rows = seen.any(1).nonzero()[:, 0]
        logits, shares = pointed.logits[rows].flatten(1), covered[rows].flatten(1)
        found["patches"] = logits.logsumexp(1) - (logits + shares.log()).logsumexp(1)
        frame = torch.multinomial(seen[rows].float(), 1)[:, 0] if len(rows) else rows
        wanted = target.boxes_xyxy[rows, frame]
        boxes = pointed.adapter.patch_boxes(pointed.task_embedding[rows], pointed.features[rows, frame])
        weight = covered[rows, frame] / covered[rows, frame].sum(-1, keepdim=True).clamp(min=1e-6)
        apart = BoxL1()(boxes.flatten(0, 1), wanted.repeat_interleave(patches, 0)).reshape(len(rows), patches)
        found["box"] = (apart * weight).sum(-1)
        return found

    def weights(self) -> Mapping[str, float]:
        """The weights of the terms of the chosen loss, of "patches" and of "box"."""
        chosen = self.settings
        return {**super().weights(), "patches": chosen.weight_patches, "box": chosen.weight_box}
