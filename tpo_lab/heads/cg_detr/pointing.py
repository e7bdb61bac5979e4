"""CG-DETR that looks where the task embedding points, and not at all things of a frame at once."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from tpo_lab.heads.base import Visual
from tpo_lab.heads.cg_detr.head import CGDETRHead, PooledFrames
from tpo_lab.heads.cg_detr.settings import CGDETRSettings
from tpo_lab.heads.region_dense import cell_of_patch

SIGNS = 10
"""Numbers per frame by which `PointingCGDETRHead` sees that something goes on; `signs_of` lists them."""
READINGS = 8
"""Numbers per frame that it makes of them, knowing what is asked."""


class PointingCGDETRHead(CGDETRHead):
    """CG-DETR on frames that show the thing that is asked about.

    A frame's vector is the mean of its patches, weighed by a softmax of what each patch has in common with projections of the task
    embedding: its own features, and the language model's state at the visual token that holds it. Beside it stand a few numbers that
    an MLP of the vector, of the signs of change (`signs_of`) and of the task embedding gives: a thing that is hidden fits nowhere, one
    that has turned red looks other than before, and the question says which of these counts.

    Source: `CGDETRHead`; the pointing is that of `tpo_lab.heads.region_dense`.
    Differs in: looks at patches. Features of whole clips, as CG-DETR has them, suit footage that shows one thing at a time; of a scene
    with five things the mean says what happens to none of them.
    """

    variant: ClassVar[str] = "cg-detr-pointing"
    needs: ClassVar[frozenset[str]] = frozenset({"frame_features", "frame_states", "query"})
    fits: ClassVar[int] = READINGS

    def __init__(self, embed_dim: int, settings: CGDETRSettings | None = None) -> None:
        super().__init__(embed_dim, settings)
        width = self.settings.vision_dim
        self.where = nn.Linear(embed_dim, width)
        self.what = nn.Linear(embed_dim, embed_dim)
        self.look = nn.Linear(width + SIGNS, width)
        self.asked = nn.Linear(embed_dim, width, bias=False)
        self.reading = nn.Linear(width, READINGS)
        self.direct = nn.Linear(width, 1)

    def pooled(self, task_embedding: Tensor, visual: Visual) -> PooledFrames:
        """Frames as seen where the task embedding points, what is read off them, and a saliency at first sight."""
        assert visual.frame_features is not None and visual.frame_states is not None
        patches, states = visual.frame_features.to(task_embedding.dtype), visual.frame_states.to(task_embedding.dtype)
        where = torch.einsum("sd,sfpd->sfp", self.where(task_embedding), patches) / patches.shape[-1] ** 0.5
        what = torch.einsum("sd,sfcd->sfc", self.what(task_embedding), states) / states.shape[-1] ** 0.5
        both = where + what[..., cell_of_patch(what.shape[-1], where.shape[-1], what.device)]
        frames = torch.einsum("sfp,sfpd->sfd", both.softmax(-1), patches)
        change, signs = signs_of(frames, (where, what, both), visual.frame_valid)
        asked = self.asked(functional.layer_norm(task_embedding, task_embedding.shape[-1:]))[:, None]
        seen = functional.relu(self.look(torch.cat([change, signs], -1)) + asked)
        return PooledFrames(frames, self.reading(seen), self.direct(seen)[..., 0])


def signs_of(frames: Tensor, logits: tuple[Tensor, ...], valid: Tensor) -> tuple[Tensor, Tensor]:
    """How each frame differs from the others: as a vector [slot, frame, d], and in ten numbers [slot, frame, 10].

    Per kind of logits: how well the frame's patches fit together (log-sum-exp), and by how much the best exceeds the mean, both against
    the mean of all frames. Then how far the vector is from that of the frame before, of the frame after, of all frames' mean, and how
    alike it is to the first frame's.

    Args:
        frames: a vector per frame [slot, frame, d].
        logits: of patches or cells, [slot, frame, patch] each, three kinds.
        valid: which frames exist [slot, frame].
    """
    here = valid[..., None].to(frames.dtype)
    count = here.sum(1, keepdim=True).clamp_min(1)

    def against_mean(values: Tensor) -> Tensor:
        return (values - (values * here).sum(1, keepdim=True) / count) * here

    fits = [part for each in logits for part in (each.logsumexp(-1), each.amax(-1) - each.mean(-1))]
    change = 4 * against_mean(functional.normalize(frames, dim=-1, eps=1e-5))
    steps = (change[:, 1:] - change[:, :-1]).square().sum(-1).add(1e-6).sqrt() * here[:, 1:, 0]
    sizes = change.square().sum(-1).add(1e-6).sqrt()
    moved = [functional.pad(steps, (1, 0)), functional.pad(steps, (0, 1)), sizes, (change * change[:, :1]).sum(-1) / 4]
    return change, torch.cat([against_mean(torch.stack(fits, -1)), torch.stack(moved, -1) * here], -1)
