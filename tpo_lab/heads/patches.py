"""Pointing at patches of a video, and the square grids that they lie on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tpo_lab.boxes import cxcywh_to_xyxy
from tpo_lab.heads.base import Visual
from tpo_lab.heads.region import two_layers

HARMONICS = 8
"""Cosines of the time in the clip, and of the place along each side, by which the task embedding says which moment and where it means."""


class Pointing(nn.Module):
    """What lets a task embedding point at patches, and read a box at one: shared by the heads that do.

    `where`, `what`, `when` and, if there is one, `place` project the task embedding for `point`; `mlp` and `asked` read boxes.
    """

    where: nn.Linear
    what: nn.Linear
    when: nn.Linear
    place: nn.Linear | None
    mlp: nn.Sequential
    asked: nn.Linear
    corners: bool
    """Whether the MLP gives how far the corners lie from the middle of the patch, not logits of centre and size."""

    def add_pointing(self, embed_dim: int, vision_dim: int, hidden_dim: int | None, *, corners: bool, place: bool = False) -> None:
        """Make the layers; with `place`, it can also point at a place of the frame, whatever lies there."""
        self.where = nn.Linear(embed_dim, vision_dim)
        self.what = nn.Linear(embed_dim, embed_dim)
        self.when = nn.Linear(embed_dim, HARMONICS)
        self.place = nn.Linear(embed_dim, 2 * HARMONICS) if place else None
        hidden_dim = vision_dim if hidden_dim is None else hidden_dim
        self.mlp = two_layers(vision_dim, hidden_dim)
        self.asked = nn.Linear(embed_dim, hidden_dim, bias=False)
        self.corners = corners

    def point(self, task_embedding: Tensor, features: Tensor, visual: Visual) -> Tensor:
        """Logits [slot, frame, patch]: by the patch's features [slot, frame, patch, d_vision], by its cell's state, by its frame's time and
        by its place in the frame.
        """
        assert visual.frame_states is not None
        where: Tensor = torch.einsum("sd,sfpd->sfp", self.where(task_embedding), features) / features.shape[-1] ** 0.5
        moment = visual.times_sec / visual.duration_sec[:, None].clamp_min(1e-6)
        waves = torch.cos(torch.pi * moment[..., None] * torch.arange(1, HARMONICS + 1, device=moment.device))
        when = torch.einsum("sh,sfh->sf", self.when(task_embedding), waves)
        states = visual.frame_states.float()
        what: Tensor = torch.einsum("sd,sfcd->sfc", self.what(task_embedding), states) / states.shape[-1] ** 0.5
        what = what[..., cell_of_patch(what.shape[-1], where.shape[-1], what.device)]
        if self.place is not None:
            middles = patch_middles(where.shape[-1], where.device)
            waves = torch.cos(torch.pi * middles[..., None] * torch.arange(1, HARMONICS + 1, device=middles.device)).flatten(1)
            what = what + (self.place(task_embedding) @ waves.T)[:, None]
        return (where + what + when[..., None]).masked_fill(~visual.frame_valid[..., None], float("-inf"))

    def patch_boxes(self, task_embedding: Tensor, features: Tensor) -> Tensor:
        """The box around each patch of one frame [slot, patch, 4], xyxy in [0,1], from the patches' features [slot, patch, d_vision].

        With `corners` the MLP gives how far the corners lie from the middle of the patch; without, the same in logits of the
        centre, and the logits of width and height.
        """
        first, relu, second = self.mlp
        output: Tensor = second(relu(first(features) + self.asked(task_embedding)[:, None]))
        middle = patch_middles(features.shape[1], features.device)
        if self.corners:
            return torch.cat([middle, middle], -1) + output
        return cxcywh_to_xyxy((torch.cat([middle.logit(), torch.zeros_like(middle)], -1) + output).sigmoid())


def patch_middles(patches: int, device: torch.device) -> Tensor:
    """Middles (x, y) in [0,1] of the patches of a square grid, row-major [patch, 2]."""
    side = round(patches**0.5)
    middle = (torch.arange(side, device=device) + 0.5) / side
    return torch.stack([middle.repeat(side), middle.repeat_interleave(side)], -1)


def cell_of_patch(cells: int, patches: int, device: torch.device) -> Tensor:
    """The cell of a coarser square grid that holds each patch, both row-major: LongTensor [patch]."""
    coarse, fine = round(cells**0.5), round(patches**0.5)
    line = torch.arange(fine, device=device) * coarse // fine
    grid: Tensor = line[:, None] * coarse + line
    return grid.flatten()


def patch_coverage(boxes_xyxy: Tensor, side: int) -> Tensor:
    """Share of each patch of a side x side grid that each box covers; boxes [box, 4] in [0,1] to [box, patch], row-major."""
    edges = torch.arange(side + 1, device=boxes_xyxy.device) / side

    def overlap(low: Tensor, high: Tensor) -> Tensor:
        inside = torch.minimum(edges[1:], high[:, None]) - torch.maximum(edges[:-1], low[:, None])
        return inside.clamp_min(0) * side

    across, down = overlap(boxes_xyxy[:, 0], boxes_xyxy[:, 2]), overlap(boxes_xyxy[:, 1], boxes_xyxy[:, 3])
    return (down[:, :, None] * across[:, None, :]).flatten(1)
