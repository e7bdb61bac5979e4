"""CG-DETR that looks where the task embedding points, and not at all things of a frame at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from tpo_lab.errors import UsageError
from tpo_lab.heads.base import HeadSettings, Visual
from tpo_lab.heads.cg_detr.head import CGDETRHead, CGDETRPrediction, PooledFrames
from tpo_lab.heads.cg_detr.matcher import WindowMatches
from tpo_lab.heads.cg_detr.settings import CGDETRSettings
from tpo_lab.heads.cg_detr.targets import CGDETRTarget
from tpo_lab.heads.patches import cell_of_patch, patch_middles
from tpo_lab.losses import BinaryCrossEntropy
from tpo_lab.spans import cw_to_sec, span_iou

SIGNS = 16
"""Numbers per frame by which `PointingCGDETRHead` sees that something goes on; `signs_of` lists them."""
READINGS = 8
"""Numbers per frame that it makes of them, knowing what is asked."""
TRUST = 10.0
"""By how much full agreement with the first guess raises a proposal's logit before training."""
NEIGHBOURS = 2
"""Frames before and after that a frame is read together with."""


@dataclass(frozen=True)
class PointingCGDETRSettings(CGDETRSettings):
    """Settings of CG-DETR that points.

    Attributes:
        weight_glance: of the first guess which frames belong to the moment.
        near_iou: a proposal that starts with at least this IoU with an annotated window learns the window's place; so does, as in CG-DETR,
            the one that answers for it.
    """

    weight_glance: float = 10.0
    near_iou: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.near_iou <= 1:
            raise UsageError("near_iou", expected="an IoU above 0, at most 1", got=self.near_iou)


class PointingCGDETRHead(CGDETRHead):
    """CG-DETR on frames that show the thing that is asked about.

    A frame's vector is the mean of its patches, weighed by a softmax of what each patch has in common with projections of the task
    embedding: its own features, and the language model's state at the visual token that holds it. Beside it stand a few numbers that
    `Watch` reads off how the thing changes and moves from frame to frame, knowing what is asked: a thing that is hidden fits nowhere,
    one that has turned red looks other than before, one that has stopped stays where it is.

    One of the numbers is a first guess whether the frame belongs to the moment, the glance; it learns from a term of its own. The
    network's saliency is added to it, the proposals start from the likeliest windows by it, and a proposal is worth the more the better its
    window agrees with it.

    Source: `CGDETRHead`; the pointing is that of `tpo_lab.heads.patches`.
    Differs in: looks at patches. Features of whole clips, as CG-DETR has them, suit footage that shows one thing at a time; of a scene
    with five things the mean says what happens to none of them. And all proposals that start near a moment learn its place, not only the
    one that answers for it: with that one alone, refinement drew the good starts away from the moments.
    """

    variant: ClassVar[str] = "cg-detr-pointing"
    needs: ClassVar[frozenset[str]] = frozenset({"frame_features", "frame_states", "query"})
    fits: ClassVar[int] = READINGS + 1
    Settings: ClassVar[type[HeadSettings]] = PointingCGDETRSettings
    settings: PointingCGDETRSettings

    def __init__(self, embed_dim: int, settings: PointingCGDETRSettings | None = None) -> None:
        super().__init__(embed_dim, settings)
        width = self.settings.vision_dim
        self.where = nn.Linear(embed_dim, width)
        self.what = nn.Linear(embed_dim, embed_dim)
        self.watch = Watch(embed_dim, width)
        self.reading = nn.Linear(width, READINGS)
        self.glance = nn.Linear(width, 1)
        self.trust = nn.Parameter(torch.tensor(TRUST))
        nn.init.zeros_(self.network.decoder.windows)

    def pooled(self, task_embedding: Tensor, visual: Visual) -> PooledFrames:
        """Frames as seen where the task embedding points, what is read off them, and a saliency at first sight."""
        assert visual.frame_features is not None and visual.frame_states is not None
        patches, states = visual.frame_features.to(task_embedding.dtype), visual.frame_states.to(task_embedding.dtype)
        where = torch.einsum("sd,sfpd->sfp", self.where(task_embedding), patches) / patches.shape[-1] ** 0.5
        what = torch.einsum("sd,sfcd->sfc", self.what(task_embedding), states) / states.shape[-1] ** 0.5
        both = where + what[..., cell_of_patch(what.shape[-1], where.shape[-1], what.device)]
        share = both.softmax(-1)
        frames = torch.einsum("sfp,sfpd->sfd", share, patches)
        places = share @ patch_middles(share.shape[-1], share.device).to(share.dtype)
        signs = signs_of(frames, places, (where, what, both), visual.frame_valid)
        seen = self.watch(signs, task_embedding, visual.frame_valid)
        glance = self.glance(seen)
        return PooledFrames(frames, torch.cat([self.reading(seen), glance], -1), glance[..., 0])

    def losses(self, prediction: CGDETRPrediction, target: CGDETRTarget) -> dict[str, Tensor]:
        """The terms of `CGDETRHead`, and "glance": the cross-entropy of the first guess with the moment, per frame."""
        glance = prediction.glance_logits
        assert glance is not None
        inside = target.inside(prediction.cells_sec, prediction.frame_valid).to(glance.dtype)
        return {**super().losses(prediction, target), "glance": BinaryCrossEntropy()(glance, inside, prediction.frame_valid)}

    def placed(self, prediction: CGDETRPrediction, target: CGDETRTarget, matches: WindowMatches) -> WindowMatches:
        """The matches, and every proposal that starts near an annotated window, with the one that it starts nearest to."""
        first = prediction.first_cw
        assert first is not None
        window = torch.full(prediction.class_logits.shape[:-1], -1, device=first.device)
        window[matches.layer, matches.slot, matches.query] = matches.window
        if target.window_valid.shape[1]:
            truth = target.windows_sec / prediction.duration_sec[:, None, None]
            overlap = span_iou(cw_to_sec(first, 1.0)[:, :, None], truth[:, None]).masked_fill(~target.window_valid[:, None], -1)
            highest, nearest = overlap.max(-1)
            window = torch.where(highest >= self.settings.near_iou, nearest, window)
        layer, slot, query = (window >= 0).nonzero(as_tuple=True)
        return WindowMatches(layer, slot, query, window[layer, slot, query])

    def weights(self) -> Mapping[str, float]:
        """The weights of `CGDETRHead`, and that of "glance"."""
        return {**super().weights(), "glance": self.settings.scale * self.settings.weight_glance}


class Watch(nn.Module):
    """Reads off each frame and its neighbours what goes on, knowing what is asked: [slot, frame, d + SIGNS] to [slot, frame, d]."""

    def __init__(self, embed_dim: int, width: int) -> None:
        super().__init__()
        self.look = nn.Linear(width + SIGNS, width)
        self.asked = nn.Linear(embed_dim, width, bias=False)
        self.gate = nn.Linear(embed_dim, width)
        self.neighbours = nn.Conv1d(width, width, 2 * NEIGHBOURS + 1, padding=NEIGHBOURS)
        self.norm = nn.LayerNorm(width)

    def forward(self, signs: Tensor, task_embedding: Tensor, valid: Tensor) -> Tensor:
        """Frames that do not exist, where valid [slot, frame] is False, are as if the clip ended before them."""
        asked = functional.layer_norm(task_embedding, task_embedding.shape[-1:])[:, None]
        seen = functional.relu(self.look(signs) + self.asked(asked)) * (1 + self.gate(asked)) * valid[..., None]
        around = functional.relu(self.neighbours(seen.transpose(1, 2)).transpose(1, 2))
        return self.norm(seen + around)  # type: ignore[no-any-return]


def signs_of(frames: Tensor, places: Tensor, logits: tuple[Tensor, ...], valid: Tensor) -> Tensor:
    """How each frame differs from the others: as a vector, and in sixteen numbers, [slot, frame, d + SIGNS].

    The vector is the frame's, normed, against the mean of all frames. The numbers are, per kind of logits: how well the frame's patches
    fit together (log-sum-exp), and by how much the best exceeds the mean, both against the mean of all frames. Then how far the vector is
    from that of the frame before, of the frame after, of all frames' mean, and how alike it is to the first frame's. Then how far the
    place is from that of the frame before, of the frame after, of the first and of the last frame, and its x and y.

    Args:
        frames: a vector per frame [slot, frame, d].
        places: x and y in [0,1] of the frame [slot, frame, 2].
        logits: of patches or cells, [slot, frame, patch] each, three kinds.
        valid: which frames exist, the first ones [slot, frame].
    """
    here = valid[..., None].to(frames.dtype)
    count = here.sum(1, keepdim=True).clamp_min(1)
    last = (valid.sum(1) - 1).clamp_min(0)

    def against_mean(values: Tensor) -> Tensor:
        return (values - (values * here).sum(1, keepdim=True) / count) * here

    fits = [part for each in logits for part in (each.logsumexp(-1), each.amax(-1) - each.mean(-1))]
    change = 4 * against_mean(functional.normalize(frames, dim=-1, eps=1e-5))
    looks = [*_steps(change, valid), _length(change), (change * change[:, :1]).sum(-1) / 4]
    end = places[torch.arange(len(places), device=places.device), last][:, None]
    travel = [3 * each for each in (*_steps(places, valid), _length(places - places[:, :1]), _length(places - end))]
    numbers = [*looks, *travel, *(3 * (places - 0.5)).unbind(-1)]
    return torch.cat([change, against_mean(torch.stack(fits, -1)), torch.stack(numbers, -1) * here], -1)


def _length(vectors: Tensor) -> Tensor:
    """Their lengths, with a gradient that is finite at zero."""
    return vectors.square().sum(-1).add(1e-6).sqrt()


def _steps(vectors: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """How far each frame's vector [slot, frame, d] is from the one before and from the one after, 0 at the ends: [slot, frame]."""
    steps = _length(vectors[:, 1:] - vectors[:, :-1]) * valid[:, 1:]
    return functional.pad(steps, (1, 0)), functional.pad(steps, (0, 1))
