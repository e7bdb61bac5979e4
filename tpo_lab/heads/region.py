"""The region head: one box per slot from its task embedding, several per answer by set matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from tpo_lab.axes import require_axes
from tpo_lab.boxes import (
    box_iou,
    clamp_xyxy,
    cxcywh_to_xyxy,
    denormalise_xyxy,
    is_inverted,
    normalise_xyxy,
    order_corners,
    pairwise_box_giou,
)
from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.heads.base import ClipInfo, Head, HeadSettings, Visual, require_answers, require_finite
from tpo_lab.losses import BoxGIoU, BoxL1, BoxMSE
from tpo_lab.matching import Matching, match_in_order, match_within

Loss = Literal["paper", "official"]
Parametrisation = Literal["corners", "centre"]
Assignment = Literal["hungarian", "in-order"]


@dataclass(frozen=True)
class RegionSettings(HeadSettings):
    """Settings of the region head.

    Attributes:
        loss: "paper" is the mean squared error of the corners; "official" is 2 * L1 + 0.2 * (1 - GIoU).
        parametrisation: "corners" reads the output as raw xyxy, as published, so a box can be inverted; "centre" reads it as
            sigmoid(cx, cy, w, h), which cannot.
        assignment: "hungarian" lets each answer's slots choose their boxes; "in-order" pairs the k-th slot with the k-th box, for
            texts that name the objects one after the other.
        hidden_dim: width of the hidden layer; None is half of the task embedding's, as published (4096 -> 2048).
        weight_mse: weight of the term "mse" (loss "paper").
        weight_l1: weight of the term "l1" (loss "official").
        weight_giou: weight of the term "giou" (loss "official").
        match_l1: weight of the mean absolute difference in the matching cost.
        match_giou: weight of -GIoU in the matching cost.
    """

    loss: Loss = "official"
    parametrisation: Parametrisation = "corners"
    assignment: Assignment = "hungarian"
    hidden_dim: int | None = None
    weight_mse: float = 1.0
    weight_l1: float = 2.0
    weight_giou: float = 0.2
    match_l1: float = 2.0
    match_giou: float = 0.2

    def __post_init__(self) -> None:
        for field, choices in (("loss", Loss), ("parametrisation", Parametrisation), ("assignment", Assignment)):
            value = getattr(self, field)
            if value not in get_args(choices):
                raise unknown_name(f"{field} of the region head", value, get_args(choices))


@dataclass(frozen=True)
class RegionPrediction:
    """One box per slot.

    Attributes:
        boxes_xyxy: corners in [0,1] of the frame's width and height [slot, 4]; not clamped, and under "corners" maybe inverted.
    """

    boxes_xyxy: Tensor

    def validate(self) -> RegionPrediction:
        """Return itself, or raise a `UsageError`."""
        require_axes("prediction.boxes_xyxy", self.boxes_xyxy, slot=None, xyxy=4)
        return self


@dataclass(frozen=True)
class RegionTarget:
    """The annotated boxes of a batch, and which slots may answer for them.

    Attributes:
        boxes_xyxy: corners in [0,1] of the frame's width and height [box, 4].
        box_answer: LongTensor [box], the answer of each box.
        slot_answer: LongTensor [slot], the answer of each slot.
    """

    boxes_xyxy: Tensor
    box_answer: Tensor
    slot_answer: Tensor

    def validate(self) -> RegionTarget:
        """Return itself, or raise a `UsageError`."""
        boxes = require_axes("target.boxes_xyxy", self.boxes_xyxy, box=None, xyxy=4)[0]
        require_axes("target.box_answer", self.box_answer, box=boxes)
        require_axes("target.slot_answer", self.slot_answer, slot=None)
        return self


class RegionHead(Head[RegionPrediction, RegionTarget]):
    """Two-layer MLP, Linear - ReLU - Linear, from a task embedding [slot, d] to a box.

    Source: TPO sec. 3 and appendix (region head); the released `loc_decoder`.
    Differs in: GIoU is taken on ordered corners, so that an inverted box gets its gradient too; several boxes per answer are matched
    as a set (the official code pairs them in order: `assignment="in-order"`); decoded boxes are ordered and clamped to the frame.
    """

    name: ClassVar[str] = "region"
    variant: ClassVar[str] = "mlp"
    Settings: ClassVar[type[HeadSettings]] = RegionSettings
    settings: RegionSettings

    def __init__(self, embed_dim: int, settings: RegionSettings | None = None) -> None:
        super().__init__(embed_dim, settings)
        self.mlp = two_layers(embed_dim, self.settings.hidden_dim)

    def predict(self, task_embedding: Tensor, visual: Visual) -> RegionPrediction:
        """Predict one box per slot, normalised by the frame's size; `visual` is not looked at."""
        return RegionPrediction(self.to_boxes(self.mlp(task_embedding)))

    def to_boxes(self, output: Tensor) -> Tensor:
        """Read the MLP's output [slot, 4] as xyxy in [0,1] of the frame, by the parametrisation."""
        return cxcywh_to_xyxy(output.sigmoid()) if self.settings.parametrisation == "centre" else output

    def match(self, prediction: RegionPrediction, target: RegionTarget) -> Matching:
        """Pair slots with boxes within each answer; the cost is match_l1 * mean|b - b*| - match_giou * GIoU.

        The cost is the official loss up to a constant, under either loss.
        """
        predicted, wanted = prediction.validate().boxes_xyxy.detach(), target.validate().boxes_xyxy
        require_axes("target.slot_answer", target.slot_answer, slot=len(predicted))
        if self.settings.assignment == "in-order":
            return match_in_order(target.slot_answer, target.box_answer)
        distance = torch.cdist(predicted, wanted, p=1) / predicted.shape[-1]
        cost = self.settings.match_l1 * distance - self.settings.match_giou * pairwise_box_giou(order_corners(predicted), wanted)
        return match_within(cost, target.slot_answer, target.box_answer)

    def losses(self, prediction: RegionPrediction, target: RegionTarget) -> dict[str, Tensor]:
        """Values [match] of "mse", or of "l1" and "giou"; slots and boxes without a partner have none (see `diagnostics`)."""
        match = self.match(prediction, target)
        return self.box_terms(prediction.boxes_xyxy[match.slot], target.boxes_xyxy[match.box])

    def box_terms(self, predicted: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """The chosen loss's terms of pairs of boxes [pair, 4], one value per pair."""
        if self.settings.loss == "paper":
            return {"mse": BoxMSE()(predicted, wanted)}
        return {"l1": BoxL1()(predicted, wanted), "giou": BoxGIoU()(predicted, wanted)}

    def weights(self) -> dict[str, float]:
        """The weights of the terms of the chosen loss."""
        terms = ("mse",) if self.settings.loss == "paper" else ("l1", "giou")
        named = super().weights()
        return {term: named[term] for term in terms}

    def encode_target(self, annotation: Sequence[dict[str, Any]], clip: ClipInfo) -> Tensor:
        """Turn a list of {"time_sec", "xyxy"} in pixels into boxes in [0,1] [box, 4]; the times are not used.

        Raises:
            UsageError: a box is inverted or not finite.
        """
        boxes = torch.tensor([entry["xyxy"] for entry in annotation], dtype=torch.float32).reshape(-1, 4)
        wrong = (is_inverted(boxes) | ~boxes.isfinite().all(-1)).nonzero()[:, 0].tolist()
        if wrong:
            raise UsageError(f"region[{wrong[0]}].xyxy", expected="finite pixels, x0 <= x1 and y0 <= y1", got=boxes[wrong[0]].tolist())
        return normalise_xyxy(boxes, torch.tensor([clip.width, clip.height]))

    def collate_targets(self, items: Sequence[Tensor], slots_per_answer: Sequence[int], device: torch.device | str) -> RegionTarget:
        """Join the boxes of all answers; counts of boxes and slots may differ."""
        require_answers(items, slots_per_answer)
        answers = torch.arange(len(items))
        boxes = torch.cat([torch.zeros(0, 4), *items])
        box_answer = answers.repeat_interleave(torch.tensor([len(item) for item in items], dtype=torch.long))
        slot_answer = answers.repeat_interleave(torch.tensor(slots_per_answer, dtype=torch.long))
        return RegionTarget(boxes.to(device), box_answer.to(device), slot_answer.to(device))

    def decode(self, prediction: RegionPrediction, clips: Sequence[ClipInfo], answer: Tensor) -> list[dict[str, Any]]:
        """Per answer: "boxes_xyxy" in pixels, ordered and clamped to the frame, and "inverted", how many had to be ordered."""
        boxes = require_finite(self.name, prediction.validate().boxes_xyxy)
        inverted = is_inverted(boxes)
        answer = answer.cpu()
        decoded = []
        for index, clip in enumerate(clips):
            size_wh = torch.tensor([clip.width, clip.height])
            pixels = clamp_xyxy(denormalise_xyxy(order_corners(boxes[answer == index]), size_wh), size_wh)
            decoded.append({"boxes_xyxy": pixels.tolist(), "inverted": int(inverted[answer == index].sum())})
        return decoded

    def diagnostics(self, prediction: RegionPrediction, target: RegionTarget) -> dict[str, float]:
        """Rate of inverted slots, mean IoU of the pairs, and the counts that the loss cannot show.

        "count_mismatch" is the number of answers with more or fewer slots than boxes; "extra_slots" and "unmatched_boxes" are the
        slots and the boxes left over in them.
        """
        match = self.match(prediction, target)
        predicted = prediction.boxes_xyxy.detach()
        answers = int(max([-1, *target.slot_answer.tolist(), *target.box_answer.tolist()])) + 1
        slots, boxes = (rows.bincount(minlength=answers) for rows in (target.slot_answer, target.box_answer))
        iou = box_iou(order_corners(predicted[match.slot]), target.boxes_xyxy[match.box])
        return {
            "inverted_rate": float(is_inverted(predicted).float().mean()) if len(predicted) else 0.0,
            "mean_iou": float(iou.mean()) if len(iou) else 0.0,
            "count_mismatch": float((slots != boxes).sum()),
            "extra_slots": float(len(match.extra_slots)),
            "unmatched_boxes": float(len(match.unmatched_boxes)),
        }


def two_layers(width: int, hidden_dim: int | None) -> nn.Sequential:
    """Linear - ReLU - Linear from `width` to a box; the hidden layer has half the width where None.

    Raises:
        UsageError: the hidden layer would have no unit.
    """
    hidden_dim = width // 2 if hidden_dim is None else hidden_dim
    if hidden_dim < 1:
        raise UsageError("hidden_dim", expected="a width of at least 1", got=hidden_dim)
    return nn.Sequential(nn.Linear(width, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, 4))
