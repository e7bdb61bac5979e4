"""Prompt encoders: what a user points at, as one vector in the language model's sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from tpo_lab.errors import UsageError, unknown_name

Understood = Literal["box", "box+stroke", "drawn"]
"""What a model understands of what users point at, and how: boxes by their numbers, as published; strokes beside them, which points are the
shortest of, drawn on a grid; or all of it drawn, boxes as the cells that they cover."""
RASTER = 16
"""Cells per side of the grid that prompts are drawn on."""
COSINES = 8
"""Along each side, by which a drawing is seen."""
PLACES = 64
"""Places along a stroke, evenly spread, that are drawn."""


@dataclass(frozen=True)
class Pointed:
    """What users pointed at, in row-major order of the places in a batch.

    Attributes:
        boxes_xyxy: boxes, and the boxes around strokes, in [0,1] of the frame [prompt, 4].
        drawn: how much of a stroke, or of a box's area, lies in each cell of the frame, in sum 1 [prompt, y, x].
        is_box: [prompt].
        row: of the batch, LongTensor [prompt].
        token: its place in the row, LongTensor [prompt].
        frame: of the row's clip, the one shown nearest to the time of the prompt, LongTensor [prompt].
    """

    boxes_xyxy: Tensor
    drawn: Tensor
    is_box: Tensor
    row: Tensor
    token: Tensor
    frame: Tensor

    @classmethod
    def collate(cls, prompts: Sequence[Sequence[Sequence[float]]], places: Sequence[tuple[int, int, int]]) -> Pointed:
        """From corners of boxes as ((x0, y0, x1, y1),) or points of strokes as ((x, y), ...), in [0,1]; row, token and frame of each."""
        is_box = [len(prompt[0]) == 4 for prompt in prompts]
        around = [prompt[0] if box else _around(prompt) for prompt, box in zip(prompts, is_box, strict=True)]
        drawn = [(draw_box if box else draw_stroke)(torch.tensor(prompt)) for prompt, box in zip(prompts, is_box, strict=True)]
        return cls(
            boxes_xyxy=torch.tensor(around, dtype=torch.float32).reshape(-1, 4),
            drawn=torch.stack(drawn) if drawn else torch.zeros(0, RASTER, RASTER),
            is_box=torch.tensor(is_box, dtype=torch.bool),
            row=torch.tensor([row for row, _, _ in places], dtype=torch.long),
            token=torch.tensor([token for _, token, _ in places], dtype=torch.long),
            frame=torch.tensor([frame for _, _, frame in places], dtype=torch.long),
        )

    def mean_within(self, embedded: Tensor, row: Tensor, question: Tensor) -> Tensor:
        """The mean of what is pointed at in each of some questions [question, d]; zero where nothing is.

        Args:
            embedded: the prompts [prompt, d].
            row: of each question [question].
            question: its first and last (exclusive) token [question, 2].
        """
        start, end = question[:, :1], question[:, 1:]
        inside = (self.row == row[:, None]) & (self.token >= start) & (self.token < end)
        share = inside.to(embedded.dtype)
        return (share / share.sum(1, keepdim=True).clamp(min=1)) @ embedded

    def __len__(self) -> int:
        return len(self.is_box)

    def to(self, device: torch.device | str) -> Pointed:
        """The same on another device."""
        return Pointed(*(getattr(self, each.name).to(device) for each in fields(self)))


class PromptEncoder(nn.Module):
    """What users point at, as embeddings of the language model.

    Args:
        width: width d of the language model.
        understood: what it understands, and how.

    Raises:
        UsageError: an unknown name.
    """

    def __init__(self, width: int, understood: Understood = "box+stroke") -> None:
        super().__init__()
        if understood not in get_args(Understood):
            raise unknown_name("prompts", understood, get_args(Understood))
        self.understood = understood
        self.box = None if understood == "drawn" else BoxPromptEncoder(width)
        self.stroke = None if understood == "box" else DrawnPromptEncoder(width)

    def forward(self, pointed: Pointed, seen: Tensor) -> Tensor:
        """Embeddings [prompt, d].

        Args:
            pointed: what users pointed at.
            seen: the language model's visual tokens of the frame that each prompt lies on [prompt, cell, d], row-major cells of a square.

        Raises:
            UsageError: a point or scribble, and the model understands boxes alone.
        """
        if self.box is None:
            return self._drawn(pointed, seen)
        boxes: Tensor = self.box(pointed.boxes_xyxy)
        return boxes if bool(pointed.is_box.all()) else torch.where(pointed.is_box[:, None], boxes, self._drawn(pointed, seen))

    def _drawn(self, pointed: Pointed, seen: Tensor) -> Tensor:
        if self.stroke is None:
            hint = "Point with a box, or take a checkpoint that was trained with strokes."
            raise UsageError("prompts", expected="boxes, which are all that this model understands", got="a point or a scribble", hint=hint)
        embedded: Tensor = self.stroke(pointed.drawn, seen)
        return embedded


class BoxPromptEncoder(nn.Module):
    """Two-layer MLP from a box to an embedding.

    Args:
        width: width d of the language model.
        hidden: width between the two layers; half of d where None, as in the released model (4 -> 2048 -> 4096).

    Source: TPO section 4 ("another two-layer MLP to encode the spatial input into the MLLM").
    """

    def __init__(self, width: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or width // 2
        self.layers = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, boxes_xyxy: Tensor) -> Tensor:
        """Boxes [prompt, 4], xyxy normalised by frame width and height, to embeddings [prompt, d]."""
        return self.layers(boxes_xyxy.to(next(self.parameters()).dtype))  # type: ignore[no-any-return]


class DrawnPromptEncoder(nn.Module):
    """What the language model sees of the frame under a drawing, plus a two-layer MLP of where that is.

    So a prompt looks like the thing that it means, in terms that the language model reads anyway. The MLP sees the drawing's first cosines
    along both sides, which change as smoothly as the drawing moves.

    Args:
        width: width d of the language model.

    Source: VITRON (arXiv 2412.19806), whose region encoder pools visual features under what the user draws; the MLP is that of the box.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(COSINES * COSINES, width // 2), nn.ReLU(), nn.Linear(width // 2, width))
        middles = (torch.arange(RASTER) + 0.5) / RASTER
        self.waves = nn.Buffer(torch.cos(torch.pi * middles[:, None] * torch.arange(COSINES)), persistent=False)

    def forward(self, drawn: Tensor, seen: Tensor) -> Tensor:
        """Drawings [prompt, y, x], in sum 1, on frames of visual tokens [prompt, cell, d], to embeddings [prompt, d]."""
        where = self.waves.T @ drawn.to(self.waves.dtype) @ self.waves
        side = round(seen.shape[1] ** 0.5)
        under = nn.functional.adaptive_avg_pool2d(drawn[:, None], side).flatten(1)
        looks = torch.einsum("pc,pcd->pd", under / under.sum(1, keepdim=True).clamp(min=1e-6), seen.to(drawn.dtype))
        placed: Tensor = self.layers(where.flatten(1).to(next(self.parameters()).dtype))
        return placed + looks.to(placed.dtype)


def draw_box(xyxy: Tensor) -> Tensor:
    """The share of a box's area, xyxy in [0,1] [1, 4], that lies in each cell [y, x]."""
    edges = torch.arange(RASTER + 1) / RASTER
    low, high = xyxy[0, :2], xyxy[0, 2:]
    inside = [(edges[1:].clamp(max=high[axis]) - edges[:-1].clamp(min=low[axis])).clamp(min=0) for axis in (0, 1)]
    covered = inside[1][:, None] * inside[0]
    # a box without any area is where its middle is
    return covered / covered.sum() if covered.sum() > 0 else draw_stroke(xyxy.reshape(2, 2).mean(0, keepdim=True))


def draw_stroke(points: Tensor) -> Tensor:
    """How much of a line through points (x, y) in [0,1] [point, 2] lies in each cell, in sum 1 [y, x]; of one point, where that is.

    Each place along the line counts for the four cells around it, by nearness.
    """
    places = torch.from_numpy(spread_along(points, PLACES)).to(points.dtype) * RASTER - 0.5
    cells = torch.arange(RASTER)
    near = (1 - (places.clamp(0, RASTER - 1)[:, :, None] - cells).abs()).clamp(min=0)
    drawn = near[:, 1, :, None] * near[:, 0, None, :]
    return torch.mean(drawn, 0)


def spread_along(points: ArrayLike, count: int) -> NDArray[np.float64]:
    """So many places (x, y), evenly spread along the line through points (x, y) [point, 2], from its first to its last [place, 2]."""
    line = np.asarray(points, dtype=np.float64)
    along = np.concatenate([[0.0], np.hypot(*np.diff(line, axis=0).T).cumsum()])
    places = np.linspace(0, along[-1], count)
    return np.stack([np.interp(places, along, axis) for axis in line.T], 1)


def _around(points: Sequence[Sequence[float]]) -> list[float]:
    xs, ys = ([point[axis] for point in points] for axis in (0, 1))
    return [min(xs), min(ys), max(xs), max(ys)]
