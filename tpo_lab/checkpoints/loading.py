"""A checkpoint folder as a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab.checkpoints import adapter
from tpo_lab.checkpoints.atomic import located
from tpo_lab.checkpoints.config import build, read_config
from tpo_lab.checkpoints.contents import restore
from tpo_lab.checkpoints.layout import SCHEMA, WEIGHTS, check, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from tpo_lab.model import TPOModel


def load(folder: Path | str) -> TPOModel:
    """Build the model that `save` described and load its weights.

    Raises:
        UsageError: for a folder without a checkpoint, an incomplete or damaged one, or one of another version.
        TPOError: where weights and configuration do not fit.
    """
    config = read_config(folder)
    tensors = read_weights(folder, config)
    model = build(config)
    restore(model, tensors, label=str(located(folder)))
    return model.eval()


def read_weights(folder: Path | str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """All stored weights by their names among the model's parts, LoRA's too; the files are compared with the manifest first.

    Args:
        config: what `read_config` gave for the folder.

    Raises:
        UsageError: a file is missing or damaged.
    """
    place = located(folder)
    if config["schema"] == SCHEMA:
        check(place)
    return read_checked(place, config)


def read_checked(folder: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The same of a folder that was compared with its manifest already."""
    # in the first version LoRA is among the weights
    lora = adapter.read(folder) if config["schema"] == SCHEMA and config["lora"] is not None else {}
    return {**read_tensors(folder / WEIGHTS), **lora}
