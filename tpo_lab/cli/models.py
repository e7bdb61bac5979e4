"""The models that commands name: checkpoint folders, run folders, and what TPO Lab ships."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tpo_lab.errors import unknown_name

if TYPE_CHECKING:
    from tpo_lab.model import TPOModel

UNTRAINED, SHIPPED = "nano", "nano-tpo"


def checkpoint_folder(name: str) -> Path:
    """The folder of a checkpoint: itself, that of a run folder, or the shipped one.

    Raises:
        UsageError: there is none of that name.
    """
    if name == SHIPPED:
        from tpo_lab.backbones import shipped

        return shipped(SHIPPED)
    folder = Path(name)
    if not folder.is_dir():
        raise unknown_name("checkpoint", name, [UNTRAINED, SHIPPED, "a folder that `tpo-lab train` wrote"])
    return folder / "checkpoint" if (folder / "checkpoint").is_dir() else folder


def open_model(name: str) -> TPOModel:
    """A model ready to answer, on the accelerator where there is one; "nano" has heads that no stage has trained.

    Raises:
        UsageError: there is no such model.
    """
    import torch

    from tpo_lab import api

    torch.manual_seed(0)  # so that untrained heads are the same at every call
    model = api.build(UNTRAINED) if name == UNTRAINED else api.load(checkpoint_folder(name))
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
