"""The models that commands name: checkpoint folders, run folders, and what TPO Lab ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tpo_lab.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

    from tpo_lab.model import TPOModel

UNTRAINED, SHIPPED = "nano", "nano-tpo"
SHIPPED_SAM = "nano-sam2"
_FOLLOWERS = (
    SHIPPED_SAM,
    SHIPPED,
    "a folder of SAM2 as transformers saves it",
    "an official SAM2 .pt file",
    "a checkpoint with a mask head",
)


def checkpoint_folder(name: str) -> Path:
    """The folder of a checkpoint: itself, the shipped one, or that of a run folder: of the trained model, or the latest of a stopped run.

    Raises:
        UsageError: there is none of that name.
    """
    if name == SHIPPED:
        from tpo_lab.backbones import shipped

        return shipped(SHIPPED)
    folder = Path(name)
    if not folder.is_dir():
        raise unknown_name("checkpoint", name, [UNTRAINED, SHIPPED, "a folder that `tpo-lab train` wrote"])
    from tpo_lab.checkpoints.atomic import located
    from tpo_lab.checkpoints.kept import TRAINED, latest

    trained = folder / TRAINED
    return trained if located(trained).is_dir() else latest(folder) or folder


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


def open_follower(name: str) -> TPOModel | Sam2VideoModel:
    """What can follow objects: a SAM2 by itself, or a checkpoint, whose mask head has one.

    Raises:
        UsageError: there is no such model, or it cannot be read.
    """
    import torch

    place = Path(name)
    # a hub id has an owner and a name; what lies below an existing folder is a path with a slip in it
    on_hub = name.count("/") == 1 and not place.exists() and not place.parent.exists()
    if not (name == SHIPPED_SAM or place.suffix in (".pt", ".pth") or _holds_sam(place) or on_hub):
        if name not in (UNTRAINED, SHIPPED) and not place.is_dir():
            raise unknown_name("model", name, _FOLLOWERS)
        return open_model(name)
    from tpo_lab.heads.mask.head import load_named

    try:
        sam = load_named(name, None)
    except UsageError:
        raise
    except Exception as error:  # what transformers and safetensors raise for files they cannot read has no class in common
        reason = " ".join(str(error).split())[:300]
        raise UsageError("model", expected=f"one of {', '.join(_FOLLOWERS)}", got=name, hint=f"It cannot be read: {reason}") from error
    torch.nn.Module.to(sam, "cuda" if torch.cuda.is_available() else "cpu")
    return sam


def _holds_sam(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "sam2_video"
