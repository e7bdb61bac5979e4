"""Prompt encoders: what a user points at, as one vector in the language model's sequence."""

from __future__ import annotations

from torch import Tensor, nn


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
