"""Video in and out: frames with true timestamps, rotation, and a policy for corrupt files.

Not here: what a clip means to a model (backbones) and how it is annotated (datasets).
"""

from __future__ import annotations

from tpo_lab.video.reader import CORRUPTION_POLICIES, READERS, Clip, open_source, read_clip
from tpo_lab.video.sampling import displayed_frames, segment_centres
from tpo_lab.video.source import Picture, Source
from tpo_lab.video.writer import clip_writer, write_clip

__all__ = [
    "CORRUPTION_POLICIES",
    "READERS",
    "Clip",
    "Picture",
    "Source",
    "clip_writer",
    "displayed_frames",
    "open_source",
    "read_clip",
    "segment_centres",
    "write_clip",
]
