"""Pretraining of the nano vision tower on its own: attribute labels per patch and reconstruction of the patch's pixels.

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
from tpo_lab.schedules import lr_factor

PIXEL_MEAN, PIXEL_STD = 0.5, 0.5
"""SigLIP's normalisation of pixels in [0, 1]."""


@dataclass(frozen=True)
class TowerPretraining:
    """Settings of the tower's pretraining; reconstruction is on pixels averaged over `pool` x `pool`."""

    steps: int = 2500
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    warmup_ratio: float = 0.05
    reconstruction_weight: float = 1.0
    pool: int = 2
    seed: int = 0
    checkpoint_every: int = 200


class PatchReadout(nn.Module):
    """Linear readouts of the attributes and of the pixels from patch features; thrown away after pretraining."""

    def __init__(self, width: int, patch: int, pool: int) -> None:
        super().__init__()
        self.patch, self.pool = patch, pool
        self.attributes = nn.ModuleDict({name: nn.Linear(width, len(classes)) for name, classes in ATTRIBUTES.items()})
        self.pixels = nn.Linear(width, 3 * (patch // pool) ** 2)

    def losses(self, features: torch.Tensor, frames: torch.Tensor, labels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Mean losses; `features` [frame, patch, width], `frames` normalised [frame, 3, h, w], labels [frame, patch]."""
        losses = {name: F.cross_entropy(layer(features).flatten(0, 1), labels[name].flatten()) for name, layer in self.attributes.items()}
        small = F.avg_pool2d(frames, self.pool)
        target = F.unfold(small, self.patch // self.pool, stride=self.patch // self.pool).transpose(1, 2)
        losses["pixels"] = F.mse_loss(self.pixels(features), target)
        return losses

    @torch.no_grad()
    def accuracies(self, features: torch.Tensor, labels: dict[str, torch.Tensor]) -> dict[str, float]:
        """Share of right labels among the patches that show something."""
        found = {}
        for name, layer in self.attributes.items():
            shown = labels[name] > 0
            found[name] = float((layer(features).argmax(-1) == labels[name])[shown].float().mean())
        return found


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


def pretrain_tower(tower: nn.Module, settings: TowerPretraining, *, patch: int, out: Path, workers: int = 1) -> dict[str, float]:
    """Train the tower in place; writes metrics.jsonl and a resumable tower.pt under `out`.

    Returns:
        accuracies per attribute on frames of scenes never trained on, over patches that show something.
    """
    torch.manual_seed(settings.seed)
    out.mkdir(parents=True, exist_ok=True)
    width = int(tower.config.hidden_size)
    readout = PatchReadout(width, patch, settings.pool)
    parameters = [*tower.parameters(), *readout.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98))
    held = next(patch_batches(256, seed=settings.seed + 10_000, patch=patch))
    held_pixels = normalise(held.frames)
    held_labels = {name: torch.from_numpy(rows) for name, rows in held.labels.items()}
    checkpoint, start = out / "tower.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        tower.load_state_dict(state["tower"])
        readout.load_state_dict(state["readout"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    loader = iter(torch.utils.data.DataLoader(_Stream(settings, patch, settings.seed + 1 + start), batch_size=None, num_workers=workers))
    began, scores = time.monotonic(), {}
    tower.train()
    for step in range(start, settings.steps):
        batch = next(loader)
        pixels = normalise(np.asarray(batch.frames))
        labels = {name: torch.as_tensor(rows) for name, rows in batch.labels.items()}
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * lr_factor(step, settings.steps, settings.warmup_ratio, 0.02)
        losses = readout.losses(_features(tower, pixels), pixels, labels)
        total = sum(losses[name] for name in ATTRIBUTES) + settings.reconstruction_weight * losses["pixels"]
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
            tower.eval()
            with torch.no_grad():
                features = _features(tower, held_pixels)
                scores = readout.accuracies(features, held_labels)
                scores["pixels"] = float(readout.losses(features, held_pixels, held_labels)["pixels"])
            tower.train()
            with (out / "metrics.jsonl").open("a") as log:
                log.write(json.dumps({"step": step + 1, "seconds": round(time.monotonic() - began, 1), **scores}) + "\n")
            partial = checkpoint.with_suffix(".partial")
            torch.save(
                {"tower": tower.state_dict(), "readout": readout.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, partial
            )
            partial.replace(checkpoint)
    tower.eval()
    return scores
