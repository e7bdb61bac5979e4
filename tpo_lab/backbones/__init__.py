"""Backbones by name or path, all behind one adapter protocol."""

from __future__ import annotations

from importlib import import_module
from importlib.resources import files
from pathlib import Path

import torch

from tpo_lab.backbones.base import Backbone, ChatFormat, Inputs, VideoFeatures
from tpo_lab.errors import UsageError

__all__ = ["FAMILIES", "Backbone", "ChatFormat", "Inputs", "VideoFeatures", "family_of", "load_backbone", "outline_of", "shipped"]

FAMILIES = {
    "llava_onevision": "LLaVA-OneVision",
    "videochat2": "VideoChat2",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen3_vl": "Qwen3-VL",
    "internvl": "InternVL",
}
"""The families by their `model_type`, which is the name of the adapter's module too, and what people call them."""
ANY_SIZE = frozenset({"qwen2_5_vl", "qwen3_vl"})
"""Families whose vision side takes frames of any size."""
NUM_FRAMES = 16


def shipped(name: str) -> Path:
    """The folder of something that TPO Lab ships (weights, notebooks), in a checkout or in an installed wheel.

    Raises:
        UsageError: where neither has it.
    """
    installed = Path(str(files("tpo_lab"))) / f"_{name}" if name == "notebooks" else Path(str(files("tpo_lab"))) / "_data" / name
    checkout = Path(str(files("tpo_lab"))).parent / (name if name == "notebooks" else f"data/{name}")
    for folder in (installed, checkout):
        if folder.is_dir():
            return folder
    raise UsageError("installation", expected=f"{checkout} or {installed}", got="neither", hint="Reinstall tpo-lab.")


def load_backbone(name: str, *, num_frames: int | None = None, dtype: torch.dtype | None = None, image_size: int | None = None) -> Backbone:
    """The shipped `nano`, a folder, or a hub id of a model of one of the `FAMILIES`.

    Args:
        num_frames: of a clip; the backbone's own number, or 16, where None.
        dtype: of the weights; as they are stored where None.
        image_size: side of the squares that frames become, in pixels, for families that take any; the model's own where None.

    Raises:
        UsageError: where there is no such model, or it takes frames of another size only.
    """
    found = _loaded(name, num_frames, dtype, image_size)
    if image_size not in (None, found.image_size):
        raise UsageError("image_size", expected=f"{found.image_size}, the only one that this model takes", got=image_size)
    return found


def _loaded(name: str, num_frames: int | None, dtype: torch.dtype | None, image_size: int | None) -> Backbone:
    folder = shipped("nano") if name == "nano" else Path(name)
    if (folder / "nano.json").exists():
        from tpo_lab.backbones.nano import load_nano

        nano = load_nano(folder)
        nano.name, nano.num_frames = name, num_frames or nano.num_frames
        return nano
    family = family_of(name)
    size = {"image_size": image_size} if family in ANY_SIZE else {}
    found: Backbone = import_module(f"tpo_lab.backbones.{family}").load(name, num_frames=num_frames or NUM_FRAMES, dtype=dtype, **size)
    return found


def outline_of(name: str, num_frames: int | None = None, image_size: int | None = None) -> Backbone:
    """A backbone whose weights have shapes alone, on torch's meta device: configuration and tokenizer are read, no weights.

    A nano backbone is loaded as it is.

    Raises:
        UsageError: as `load_backbone`.
    """
    if name == "nano" or (Path(name) / "nano.json").exists():
        return load_backbone(name, num_frames=num_frames, image_size=image_size)
    with torch.device("meta"):
        return load_backbone(name, num_frames=num_frames, image_size=image_size)


def family_of(name: str) -> str:
    """Which of the `FAMILIES` a folder or hub id belongs to, from its configuration alone.

    Raises:
        UsageError: to none, or there is no such model.
    """
    from transformers import PretrainedConfig

    known = ", ".join(FAMILIES.values())
    expected = f"nano, or a folder or hub id of {known}"
    try:
        family = PretrainedConfig.get_config_dict(name)[0].get("model_type")
    except (OSError, ValueError) as error:
        hint = "There is no such folder." if _is_path(name) else str(error).strip().splitlines()[0]
        raise UsageError("backbone", expected=expected, got=name, hint=hint) from error
    if family not in FAMILIES:
        hint = f"Its config.json names the family {family!r}." if family else "It has no config.json of a model."
        if family == "internvl_chat":
            hint += " Take the release of the same name that ends in -hf."
        raise UsageError("backbone", expected=expected, got=name, hint=hint)
    return str(family)


def _is_path(name: str) -> bool:
    """Whether a name can be no hub id, which has one slash at most."""
    return not Path(name).exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1)
