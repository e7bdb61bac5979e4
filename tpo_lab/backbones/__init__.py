"""Backbones by name or path, all behind one adapter protocol."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from tpo_lab.backbones.base import Backbone, ChatFormat, VideoFeatures
from tpo_lab.errors import UsageError

__all__ = ["Backbone", "ChatFormat", "VideoFeatures", "load_backbone", "shipped"]


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


def load_backbone(name: str, *, num_frames: int | None = None) -> Backbone:
    """The shipped `nano`, a folder, or a hub id of a LLaVA-OneVision model.

    Raises:
        UsageError: where there is no such model.
    """
    if name == "nano":
        from tpo_lab.backbones.nano import load_nano

        return _with_frames(load_nano(shipped("nano")), num_frames)
    if (Path(name) / "nano.json").exists():
        from tpo_lab.backbones.nano import load_nano

        found = load_nano(Path(name))
        found.name = name
        return _with_frames(found, num_frames)
    from tpo_lab.backbones.llava_onevision import load_llava_onevision

    return load_llava_onevision(name, num_frames=num_frames or 16)


def _with_frames(backbone: Backbone, num_frames: int | None) -> Backbone:
    backbone.num_frames = num_frames or backbone.num_frames
    return backbone
