"""CG-DETR part by part: readings with a part switched off, and what its tokens have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from tpo_lab.report.spans import Span
from tpo_lab.spans import cw_to_sec

if TYPE_CHECKING:
    from tpo_lab.heads.cg_detr.network import Network, Reading, Scene


@torch.no_grad()
def without_dummies(network: Network, scene: Scene) -> Reading:
    """What the network reads where every frame's attention must go to words."""
    kept = network.dummies.position
    network.dummies.position = nn.Parameter(kept[:0])
    try:
        return network.read(replace(scene, dummies=scene.dummies[:, :0]))
    finally:
        network.dummies.position = kept


@torch.no_grad()
def without_prototypes(network: Network, scene: Scene) -> Reading:
    """What it reads where the saliency token is the mean of the frames and nothing is mixed into it."""
    kept = network.saliency.prototypes
    network.saliency.prototypes = nn.Parameter(torch.zeros_like(kept))
    try:
        return network.read(scene)
    finally:
        network.saliency.prototypes = kept


@torch.no_grad()
def agreements(network: Network, scene: Scene, inside: Tensor) -> Tensor:
    """Cosines [slot, 2, 2] of moment tokens (of the frames inside, of those outside) with sentence tokens (of the words, of the dummies).

    Args:
        network: of the head.
        scene: its inputs.
        inside: frames of the moment, bool [slot, frame].
    """
    words, dummies, _ = network.sum_up(scene)
    within, outside, _ = network.sum_up_moments(scene, inside)
    moments, sentences = (functional.normalize(torch.stack(pair, 1), dim=-1) for pair in ((within, outside), (words, dummies)))
    return moments @ sentences.transpose(1, 2)


def proposals(spans_cw: Tensor, probability: Tensor | None, duration_sec: float) -> list[Span]:
    """Windows (centre, width) in [0,1] of the clip [query, 2] with their probabilities [query] as bars; all equally dark without."""
    weights = torch.ones(len(spans_cw)) if probability is None else probability
    windows = cw_to_sec(spans_cw.detach(), duration_sec).tolist()
    return [Span(start, end, weight) for (start, end), weight in zip(windows, weights.detach().tolist(), strict=True)]
