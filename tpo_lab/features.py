"""A cache of vision features for as long as the vision side is frozen."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tpo_lab.backbones.base import VideoFeatures
from tpo_lab.batch import Row
from tpo_lab.model import TPOModel


class FeatureCache:
    """Encodes each clip once and keeps the result in half precision; valid only while no vision or connector weight changes.

    Args:
        model: whose vision side encodes.
        keep_frames: also keep the tower's patch features; only heads that ask for them need that.
    """

    def __init__(self, model: TPOModel) -> None:
        self.model = model
        self.keep_frames = any("frame_features" in head.needs for head in model.heads.values())
        self._kept: dict[str, VideoFeatures] = {}

    @torch.no_grad()
    def __call__(self, rows: Sequence[Row]) -> list[VideoFeatures]:
        """Features of each row."""
        missing = {row.key: row for row in rows if row.key not in self._kept}
        if missing:
            for key, features in zip(missing, self.model.encode_video(list(missing.values())), strict=True):
                frames = features.frames if self.keep_frames else features.frames[..., :0]
                self._kept[key] = VideoFeatures(features.tokens.half(), frames.half())
        dtype = next(self.model.backbone.model.parameters()).dtype
        found = (self._kept[row.key] for row in rows)
        return [VideoFeatures(features.tokens.to(dtype), features.frames.to(dtype)) for features in found]
