"""How a tiny checkpoint comes to disk: random weights by a seed, without a trace in torch's own random numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def write_drawn(folder: Path, draw: Callable[[], Any], tokenizer: Any, *, seed: int, dtype: torch.dtype) -> Path:
    """Write the model that `draw` makes, and its tokenizer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = draw()
    made.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
