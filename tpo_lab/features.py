"""Caches of vision features, in memory and on disk, for as long as the vision side is frozen."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tpo_lab.backbones.base import VideoFeatures
from tpo_lab.batch import Row
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel


class FeatureCache:
    """Encodes each clip once and keeps the result in half precision; valid only while no vision or connector weight changes.

    Every clip is encoded on its own and in evaluation mode. So what comes out depends on the clip alone, not on the batch or on what
    the cache holds, and a resumed run sees the same features as one that was never stopped. The tower's patch features are kept
    only where a head asks for them.

    Args:
        model: whose vision side encodes.
        limit_bytes: how much of the main memory to take; clips that come later are encoded, or read from disk, each time.
        folder: where features are kept for other processes and later runs as well; None keeps none.
    """

    def __init__(self, model: TPOModel, *, limit_bytes: int = 4 << 30, folder: str | Path | None = None) -> None:
        self.model = model
        self.keep_frames = any("frame_features" in head.needs and head.features is None for head in map(model.head, model.heads))
        self._kept: dict[str, VideoFeatures] = {}
        self._free = limit_bytes
        self._disk = None if folder is None else DiskFeatures(folder, model)

    @torch.no_grad()
    def __call__(self, rows: Sequence[Row]) -> list[VideoFeatures]:
        """Features of each row."""
        new = {row.key: row for row in rows if row.key not in self._kept}
        found = {row.key: self._kept[row.key] for row in rows if row.key in self._kept} | self._encode(new)
        weights = next(self.model.backbone.model.parameters())
        moved = {key: _each(both, lambda values: values.to(weights)) for key, both in found.items()}
        return [moved[row.key] for row in rows]

    def _encode(self, rows: Mapping[str, Row]) -> dict[str, VideoFeatures]:
        if not rows:
            return {}
        training = self.model.training
        self.model.eval()
        try:
            made = {key: self._encoded(row) for key, row in rows.items()}
        finally:
            self.model.train(training)
        for key, both in made.items():
            size = sum(values.nbytes for values in _named(both).values())
            if size <= self._free:
                self._free -= size
                self._kept[key] = both
        return made

    def _encoded(self, row: Row) -> VideoFeatures:
        """From disk where it is there, in half precision; without the patches that no head needs."""
        stored = None if self._disk is None else self._disk.get(row.key, patches=self.keep_frames)
        if stored is not None:
            return stored
        both = self.model.encode_video([row])[0]
        made = _each(both if self.keep_frames else _without_patches(both), lambda values: values.half().cpu())
        if self._disk is not None:
            self._disk.put(row.key, made)
        return made


class DiskFeatures:
    """A file of features per clip, in a folder of its own for each state of a vision side.

    The name of that folder is a digest of all vision and connector weights, the name of a file one of `Row.key`: the clip's file and when
    it was changed, the part of it, the number of frames and their size. So features of another model, sampling or file are never found.
    A file that cannot be read counts as missing. Several processes may share a folder.

    Args:
        folder: is made where it is missing.
        model: whose vision side encodes, in the state in which it stays.

    Raises:
        UsageError: `folder` is a file.
    """

    def __init__(self, folder: str | Path, model: TPOModel) -> None:
        if Path(folder).exists() and not Path(folder).is_dir():
            raise UsageError("feature_cache", expected="a folder, new or of earlier features", got=f"{folder}, a file")
        self.folder = Path(folder) / vision_digest(model)
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str, *, patches: bool) -> VideoFeatures | None:
        """The features of a row, or None; those without patch features are none where `patches` are wanted."""
        try:
            found = load_file(self._path(key))
        except (OSError, SafetensorError):
            return None
        both = VideoFeatures(**found)
        if patches:
            return both if both.frames.shape[-1] else None
        return _without_patches(both)

    def put(self, key: str, both: VideoFeatures) -> None:
        """Write the features of a row; nobody ever sees half a file."""
        path = self._path(key)
        unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
        save_file({name: values.contiguous() for name, values in _named(both).items()}, unfinished)
        os.replace(unfinished, path)

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"


def _named(features: VideoFeatures) -> dict[str, Tensor]:
    found = {each.name: getattr(features, each.name) for each in fields(features)}
    return {name: values for name, values in found.items() if values is not None}


def _each(features: VideoFeatures, change: Callable[[Tensor], Tensor]) -> VideoFeatures:
    return VideoFeatures(**{name: change(values) for name, values in _named(features).items()})


def _without_patches(features: VideoFeatures) -> VideoFeatures:
    return replace(features, frames=features.frames[..., :0])


def vision_digest(model: TPOModel) -> str:
    """Tells two states of a vision side apart: a digest of its weights and their names."""
    digest = hashlib.sha256(model.backbone.name.encode())
    for name, parameter in sorted(model.named_parts().items()):
        if name.startswith(("vision.", "connector.")):
            digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
