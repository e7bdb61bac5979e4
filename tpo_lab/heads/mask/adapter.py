"""The parts between language model and SAM2: from the task embedding to prompt tokens."""

from __future__ import annotations

from torch import Tensor, nn

from tpo_lab.heads.patches import Pointing

PROMPT_TOKENS = 3
"""A box is two corners and one token that says "no more points" to SAM2."""


class MaskAdapter(nn.Module):
    """From the task embedding [slot, d] to prompt tokens [slot, 3, c], and to a box [slot, 4] in [0,1] by an MLP of its own.

    Source: TPO section 4 (mask adapter); the released `track_embed` and `track_embed_decode2`.
    """

    def __init__(self, embed_dim: int, width: int, layers: int) -> None:
        super().__init__()
        self.tokens = mlp(embed_dim, PROMPT_TOKENS * width, layers)
        self.box = mlp(embed_dim, 4, 2)

    def forward(self, task_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and box."""
        tokens = self.tokens(task_embedding)
        return tokens.reshape(len(tokens), PROMPT_TOKENS, -1), self.box(task_embedding)


class PointingAdapter(Pointing):
    """Points at patches and reads boxes there, and has the paper's adapter beside it, which starts at nothing."""

    def __init__(self, embed_dim: int, vision_dim: int, width: int, layers: int) -> None:
        super().__init__()
        self.add_pointing(embed_dim, vision_dim, None, corners=True, place=True)
        self.tokens = mlp(embed_dim, PROMPT_TOKENS * width, layers)
        for parameter in self.tokens[-1].parameters():
            nn.init.zeros_(parameter)

    def beside(self, task_embedding: Tensor) -> Tensor:
        """What is added to the box's tokens [slot, 3, c]."""
        tokens: Tensor = self.tokens(task_embedding)
        return tokens.reshape(len(tokens), PROMPT_TOKENS, -1)


def mlp(width: int, out: int, layers: int) -> nn.Sequential:
    """One linear layer, or two with ReLU in between."""
    return nn.Sequential(nn.Linear(width, out)) if layers == 1 else nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))
