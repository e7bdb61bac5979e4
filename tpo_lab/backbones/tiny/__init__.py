"""Checkpoints of a few hundred thousand random weights on disk, in everything but their size as the hub has them, one of each family.

They have learned nothing. They are there to run, without any download, the code that real ones run through.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch

from tpo_lab.backbones import FAMILIES
from tpo_lab.errors import unknown_name

__all__ = ["write_tiny"]


def write_tiny(
    family: str, folder: Path | str, *, seed: int = 0, width: int = 48, layers: int = 4, dtype: torch.dtype = torch.bfloat16
) -> Path:
    """Write a tiny checkpoint of a family, with untrained weights.

    Args:
        family: one of `tpo_lab.backbones.FAMILIES`.
        folder: made where it is missing.
        seed: of the weights.
        width: of the language model, a multiple of 8.
        layers: of the language model.
        dtype: in which the weights are stored, and loaded.

    Returns:
        The folder, as `tpo_lab.build(backbone=...)` takes it.

    Raises:
        UsageError: there is no such family.
    """
    if family not in FAMILIES:
        raise unknown_name("family", family, FAMILIES)
    written: Path = import_module(f"tpo_lab.backbones.tiny.{family}").write(
        Path(folder), seed=seed, width=width, layers=layers, dtype=dtype
    )
    return written
