"""Image files, folders and glob patterns read as if they were videos."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tpo_lab.video.source import Picture

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class ImageSequence:
    """Images shown one after the other, each for 1 / fps seconds; EXIF orientation is applied."""

    files: tuple[Path, ...]
    fps: float

    @property
    def times_sec(self) -> NDArray[np.float64]:
        """When each image comes on display, [frame]."""
        return np.arange(len(self.files), dtype=np.float64) / self.fps

    @property
    def duration_sec(self) -> float:
        """When the last image goes off display."""
        return len(self.files) / self.fps

    @property
    def notes(self) -> tuple[str, ...]:
        """Always empty: a folder announces no length that it could fall short of."""
        return ()

    def decode(self, frames: Sequence[int], fit: Callable[[Picture], Picture]) -> Iterator[tuple[int, Picture | str]]:
        """Yield `fit(picture)`, or why the file is unreadable, for every index in `frames`."""
        for frame in frames:
            picture = _read_image(self.files[frame])
            yield frame, picture if isinstance(picture, str) else fit(picture)


def image_files(candidates: Iterable[Path]) -> tuple[Path, ...]:
    """The visible image files among `candidates`, in natural order (frame 2 before frame 10)."""
    kept = (file for file in candidates if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file())
    return tuple(sorted(kept, key=_natural_key))


def _natural_key(file: Path) -> tuple[list[str | int], str]:
    # Splitting on a captured group alternates text and digits, so that text is never compared with a number.
    parts = re.split(r"(\d+)", str(file))
    return [int(part) if position % 2 else part for position, part in enumerate(parts)], str(file)


def _read_image(file: Path) -> Picture | str:
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image)
            return np.asarray(upright.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"{file.name} does not decode ({error})"
