"""Pretraining of the nano vision tower on its own: attribute labels per patch, its place, and reconstruction of the pixels.

Real towers arrive with attributes linearly readable from their patches (SigLIP was trained on billions of pairs); this
module gives the nano tower the same property before a language model ever sees it. No boxes, masks or windows are used.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tpo_lab.datasets.world.patches import ATTRIBUTES, PatchBatch, patch_batches
from tpo_lab.datasets.world.scene import FRAME_SIZE
from tpo_lab.runs import save_state
from tpo_lab.schedules import lr_factor

PIXEL_MEAN, PIXEL_STD = 0.5, 0.5
"""SigLIP's normalisation of pixels in [0, 1]."""


@dataclass(frozen=True)
class TowerPretraining:
    """Settings of the tower's pretraining; reconstruction is on pixels averaged over `pool` x `pool`, scores on `held_frames` frames."""

    steps: int = 2500
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    warmup_ratio: float = 0.05
    reconstruction_weight: float = 1.0
    pool: int = 4
    seed: int = 0
    checkpoint_every: int = 100
    held_frames: int = 256


class PatchReadout(nn.Module):
    """Linear readouts of attributes and pixels; thrown away after pretraining.

    Attributes are read twice: from each patch, and, for all patches of a block at once, from the block's mean, which is all that the
    connector hands to the language model. So a patch must also carry where in its block it is, or boxes could never be exact; and a
    block's mean where in the frame it is, as the position embeddings of a full-size tower see to it.

    Args:
        width: of the patch features.
        patch: side of a patch in pixels.
        pool: pixels are averaged over pool x pool before they are reconstructed.
        block: patches per side that the connector averages into one visual token.
        image: side of a frame in pixels.
    """

    def __init__(self, width: int, patch: int, pool: int, block: int = 2, image: int = FRAME_SIZE) -> None:
        super().__init__()
        self.patch, self.pool, self.block = patch, pool, block
        self.from_patch = nn.ModuleDict({name: nn.Linear(width, len(classes)) for name, classes in ATTRIBUTES.items()})
        self.from_block = nn.ModuleDict({name: nn.Linear(width, block**2 * len(classes)) for name, classes in ATTRIBUTES.items()})
        self.pixels = nn.Linear(width, 3 * (block * patch // pool) ** 2)
        self.place = nn.Linear(width, (image // patch // block) ** 2)

    def _in_blocks(self, patches: torch.Tensor) -> torch.Tensor:
        """[frame, patch, ...] to [frame, block, patch of the block, ...]."""
        side = round(patches.shape[1] ** 0.5) // self.block
        split = patches.reshape(len(patches), side, self.block, side, self.block, *patches.shape[2:]).transpose(2, 3)
        return split.flatten(3, 4).flatten(1, 2)

    def _logits(self, features: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [frame, block, patch of the block, class], from the patches and from the blocks' means."""
        blocks = self._in_blocks(features)
        seen = self.from_block[name](blocks.mean(2))
        return self.from_patch[name](blocks), seen.reshape(*blocks.shape[:3], -1)

    def losses(self, features: torch.Tensor, frames: torch.Tensor, labels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Mean losses; `features` [frame, patch, width], `frames` normalised [frame, 3, h, w], labels [frame, patch]."""
        losses = {}
        for name in ATTRIBUTES:
            target = self._in_blocks(labels[name]).flatten()
            patch, block = (F.cross_entropy(logits.flatten(0, 2), target) for logits in self._logits(features, name))
            losses[name] = patch + block
        side = self.block * self.patch // self.pool
        pixels = F.unfold(F.avg_pool2d(frames, self.pool), side, stride=side).transpose(1, 2)
        means = self._in_blocks(features).mean(2)
        losses["pixels"] = F.mse_loss(self.pixels(means), pixels)
        losses["place"] = F.cross_entropy(self.place(means).flatten(0, 1), _places(means).flatten())
        return losses

    @torch.no_grad()
    def accuracies(self, features: torch.Tensor, labels: dict[str, torch.Tensor]) -> dict[str, float]:
        """Share of right labels among the patches that show something, from the patch ("colour") and from its block ("colour/block");
        "place" among all blocks."""
        found = {}
        for name in ATTRIBUTES:
            target = self._in_blocks(labels[name])
            for suffix, logits in zip(("", "/block"), self._logits(features, name), strict=True):
                found[name + suffix] = float((logits.argmax(-1) == target)[target > 0].float().mean())
        means = self._in_blocks(features).mean(2)
        found["place"] = float((self.place(means).argmax(-1) == _places(means)).float().mean())
        return found


def _places(blocks: torch.Tensor) -> torch.Tensor:
    """The number of each block of a frame, [frame, block]."""
    return torch.arange(blocks.shape[1], device=blocks.device).expand(blocks.shape[:2])


def normalise(frames: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
    """uint8 [frame, y, x, 3] to float [frame, 3, y, x] as the tower takes it."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
    return (pixels - PIXEL_MEAN) / PIXEL_STD


class _Stream(torch.utils.data.IterableDataset[PatchBatch]):
    def __init__(self, settings: TowerPretraining, patch: int, seed: int) -> None:
        self.settings, self.patch, self.seed = settings, patch, seed

    def __iter__(self) -> Any:
        return patch_batches(self.settings.batch_size, seed=self.seed, patch=self.patch)


def _features(tower: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    return tower(pixels, output_hidden_states=True).hidden_states[-1]  # type: ignore[no-any-return]


@torch.no_grad()
def _scores(tower: nn.Module, readout: PatchReadout, held: PatchBatch) -> dict[str, float]:
    pixels = normalise(held.frames)
    labels = {name: torch.from_numpy(rows) for name, rows in held.labels.items()}
    training = tower.training
    features = _features(tower.eval(), pixels)
    tower.train(training)
    return {**readout.accuracies(features, labels), "pixels": float(readout.losses(features, pixels, labels)["pixels"])}


def pretrain_tower(tower: Any, settings: TowerPretraining, *, patch: int, out: Path, workers: int = 1) -> dict[str, float]:
    """Train the tower in place; writes metrics.jsonl and a resumable tower.pt under `out`.

    Returns:
        accuracies per attribute on frames of scenes never trained on, over patches that show something, and the error of the "pixels".
    """
    torch.manual_seed(settings.seed)
    out.mkdir(parents=True, exist_ok=True)
    width = int(tower.config.hidden_size)
    readout = PatchReadout(width, patch, settings.pool)
    parameters = [*tower.parameters(), *readout.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98))
    held = next(patch_batches(settings.held_frames, seed=settings.seed + 10_000, patch=patch))
    checkpoint, start = out / "tower.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        tower.load_state_dict(state["tower"])
        readout.load_state_dict(state["readout"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    loader = iter(torch.utils.data.DataLoader(_Stream(settings, patch, settings.seed + 1 + start), batch_size=None, num_workers=workers))
    began, scores = time.monotonic(), {}
    if start >= settings.steps:
        scores = _scores(tower, readout, held)
    tower.train()
    for step in range(start, settings.steps):
        batch = next(loader)
        pixels = normalise(np.asarray(batch.frames))
        labels = {name: torch.as_tensor(rows) for name, rows in batch.labels.items()}
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * lr_factor(step, settings.steps, settings.warmup_ratio, 0.02)
        losses = readout.losses(_features(tower, pixels), pixels, labels)
        total = sum(losses[name] for name in (*ATTRIBUTES, "place")) + settings.reconstruction_weight * losses["pixels"]
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
            scores = _scores(tower, readout, held)
            with (out / "metrics.jsonl").open("a") as log:
                log.write(json.dumps({"step": step + 1, "seconds": round(time.monotonic() - began, 1), **scores}) + "\n")
            parts = {"tower": tower, "readout": readout, "optimizer": optimizer}
            save_state(checkpoint, {**{name: part.state_dict() for name, part in parts.items()}, "step": step + 1})
    tower.eval()
    return scores
