"""Decoded frames of clips on disk, a file for each, for runs that look at the same clips again."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import warnings
import zlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from tpo_lab.errors import UsageError
from tpo_lab.heads.base import ClipInfo

_DAMAGED = (OSError, SafetensorError, KeyError, ValueError, TypeError)


class FrameFiles:
    """A folder with one file for each clip: its resized frames, their times, and the size and length of the clip.

    A file's name is a digest of the clip's key: the media and their state, the part shown, the number of frames, their size and how they
    were resized. So frames of another file, sampling or backbone are never found. A file is written whole or not at all, and holds
    a checksum: one that is damaged counts as missing and is written again. Any number of processes may share the folder. Frames are not
    compressed: 16 of 384 x 384 pixels take 7 MB.

    Args:
        folder: is made where it is missing.

    Raises:
        UsageError: `folder` is a file.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError("frame_cache", expected="a folder, new or of earlier frames", got=f"{folder}, a file")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._is_full = False

    def get(self, key: str) -> tuple[Tensor, ClipInfo] | None:
        """Frames, uint8 [frame, 3, h, w], and their clip; None where there is no sound file."""
        try:
            # read once: another process may put another file there at any time, or cut this one short under a memory map
            content = self._path(key).read_bytes()
            held, frames = _clip_of(content), load(content)["frames"]
            clip = ClipInfo(held["width"], held["height"], held["duration_sec"], tuple(held["times_sec"]))
            is_sound = held["key"] == key and held["checksum"] == _checksum(frames)
        except _DAMAGED:
            return None
        return (frames, clip) if is_sound else None

    def put(self, key: str, frames: Tensor, clip: ClipInfo) -> None:
        """Write a clip. Where that fails, as on a full disk, this process warns and writes no more: the frames can be decoded again."""
        if self._is_full:
            return
        frames = frames.contiguous()
        held = {
            "key": key,
            "width": clip.width,
            "height": clip.height,
            "duration_sec": clip.duration_sec,
            "times_sec": list(clip.times_sec),
            "checksum": _checksum(frames),
        }
        path = self._path(key)
        unfinished = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.unfinished")
        try:
            path.parent.mkdir(exist_ok=True)
            save_file({"frames": frames}, unfinished, metadata={"clip": json.dumps(held)})
            os.replace(unfinished, path)
        except (OSError, SafetensorError) as error:
            self._is_full = True
            warnings.warn(f"{self.folder}: no more frames are written there ({error})", stacklevel=2)
        finally:
            unfinished.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        # a folder for each two letters: file systems are slow with a million files in one
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.safetensors"


def _clip_of(content: bytes) -> Any:
    """What `put` wrote beside the frames: the head of the file is JSON, behind its length."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8:end])["__metadata__"]["clip"])


def _checksum(frames: Tensor) -> int:
    return zlib.crc32(frames.contiguous().numpy().data)
