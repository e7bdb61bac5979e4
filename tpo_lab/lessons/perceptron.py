"""The smallest thing worth sweeping: a notebook that trains a perceptron on boxes in a second, and the training it calls.

The vectors stand for task embeddings: random mixtures of a box's numbers, with noise that no training takes away.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tpo_lab.errors import UsageError

PARAMETERS = """rate: float = 0.01  # of AdamW
loss: str = "l1"  # l1, giou or both
hidden: int = 32  # width of the perceptron
steps: int = 150  # of training
out: str = "../runs/small"  # folder of this run
seed: int = 0  # of the perceptron and of the order of the boxes"""
TRAIN = """from tpo_lab.notebooks import emit, start
from tpo_lab.lessons.perceptron import fit_boxes
from tpo_lab.report import Panel, line_chart

start(seed=seed, threads=1)
curve = fit_boxes(rate=rate, loss=loss, hidden=hidden, steps=steps, seed=seed)"""
SHOW = 'line_chart([Panel("IoU on boxes it was not trained on", {"iou": (range(len(curve)), curve)})])'
EMIT = 'emit(out, notebook="small", headline={"iou": curve[-1]}, curve=curve)'
LOSSES = ("l1", "giou", "both")
_EMBEDDING, _TRAINED, _HELD_OUT, _BATCH = 24, 256, 512, 32
_NOISE = 0.3


def write_notebook(path: Path | str) -> Path:
    """Writes the notebook, whose parameters are `rate`, `loss`, `hidden`, `steps`, `out` and `seed`; returns its path."""
    cells: list[dict[str, Any]] = [_code("parameters", PARAMETERS, tags=["parameters"])]
    cells += [_code(name, text) for name, text in (("train", TRAIN), ("show", SHOW), ("emit", EMIT))]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    text = json.dumps({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}, indent=1)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def fit_boxes(*, rate: float, loss: str = "l1", hidden: int = 32, steps: int = 150, seed: int = 0) -> list[float]:
    """Trains a perceptron of two layers to read a box from a vector.

    Args:
        rate: of AdamW; above 0.
        loss: of `LOSSES`.
        hidden: its width.
        steps: of training.
        seed: of its weights and of the order of the boxes; the boxes are always the same.

    Returns:
        The mean IoU on held-out boxes, at every tenth step and at the end.

    Raises:
        UsageError: a rate that is not above 0, or an unknown loss.
    """
    import torch
    from torch import nn

    from tpo_lab.boxes import box_giou, box_iou, cxcywh_to_xyxy

    if not rate > 0:
        raise UsageError("rate", expected="a number above 0", got=rate)
    if loss not in LOSSES:
        raise UsageError("loss", expected=f"one of {', '.join(LOSSES)}", got=loss)
    vectors, boxes = _data()
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    head = nn.Sequential(nn.Linear(_EMBEDDING, hidden), nn.ReLU(), nn.Linear(hidden, 4), nn.Sigmoid())
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate)
    curve = []
    for step in range(steps):
        rows = torch.randint(_TRAINED, (_BATCH,), generator=generator)
        found, true = head(vectors[rows]), boxes[rows]
        l1 = (found - true).abs().sum(1)
        giou = 1 - box_giou(cxcywh_to_xyxy(found), cxcywh_to_xyxy(true))
        value = {"l1": l1, "giou": giou, "both": l1 + giou}[loss].mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if step % 10 == 9 or step == steps - 1:
            with torch.no_grad():
                curve.append(box_iou(cxcywh_to_xyxy(head(vectors[_TRAINED:])), cxcywh_to_xyxy(boxes[_TRAINED:])).mean().item())
    return curve


def _data() -> tuple[Any, Any]:
    """Vectors and their boxes, cxcywh in [0, 1]."""
    import torch

    generator = torch.Generator().manual_seed(12)
    count = _TRAINED + _HELD_OUT
    sizes = torch.rand(count, 2, generator=generator) * 0.4 + 0.1
    centres = sizes / 2 + torch.rand(count, 2, generator=generator) * (1 - sizes)
    boxes = torch.cat([centres, sizes], 1)
    mixture = torch.randn(4, _EMBEDDING, generator=generator)
    return boxes @ mixture + _NOISE * torch.randn(count, _EMBEDDING, generator=generator), boxes


def _code(name: str, text: str, tags: list[str] | None = None) -> dict[str, Any]:
    source = text.splitlines(keepends=True)
    return {"cell_type": "code", "id": name, "metadata": {"tags": tags or []}, "source": source, "outputs": [], "execution_count": None}
