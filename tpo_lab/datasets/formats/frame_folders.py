"""Videos that come as folders of JPEG frames: which frames there are, and when each is shown.

A reader shows image i of the sorted files at i / fps, so a frame's time is its place among the files, whatever number it bears.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tpo_lab.files import Record

_LONGEST_NAME = 200


def pattern(*parts: str) -> str:
    """The media path of a folder of frames: all its .jpg files."""
    return "/".join([*(glob.escape(part) for part in parts if part), "*.jpg"])


def shown(folder: Path) -> list[str] | None:
    """Names without suffix of the .jpg files in a folder, in the order in which they are shown; None where there is none."""
    from tpo_lab.video.images import image_files

    if not folder.is_dir():
        return None
    return [file.stem for file in image_files(folder.glob("*.jpg"))] or None


def times_sec(record: Record, field: str, names: Sequence[str], files: Sequence[str] | None, fps: float) -> list[float]:
    """When the frames of these names are shown, in seconds.

    Args:
        record: for errors.
        field: that lists the names.
        names: of the annotated frames, in order.
        files: of all frames (`shown`); None where the images are not there, and the names are all frames.
        fps: images per second.

    Raises:
        BadRecord: a frame has no file.
    """
    if files is None:
        return [place / fps for place in range(len(names))]
    places = {name: place for place, name in enumerate(files)}
    absent = next((name for name in names if name not in places), None)
    if absent is not None:
        raise record.bad(field, "frame_on_disk", "an image for every frame, or no folder of images at all", absent)
    return [places[name] / fps for name in names]


def frame_names(record: Record, field: str, value: Any) -> list[str]:
    """A list of names of frames, ascending, at least one.

    Raises:
        BadRecord: it is none.
    """
    if not isinstance(value, list) or not value:
        raise record.bad(field, "frames", "a list of names of frames, at least one", value)
    names = [file_name(record, f"{field}[{place}]", name) for place, name in enumerate(value)]
    wrong = next((place for place in range(1, len(names)) if names[place] <= names[place - 1]), None)
    if wrong is not None:
        raise record.bad(f"{field}[{wrong}]", "frames_ascending", f"a name after {names[wrong - 1]!r}", names[wrong])
    return names


def file_name(record: Record, field: str, value: Any) -> str:
    """A name that a file or a folder can have, since predictions are written under it.

    Raises:
        BadRecord: it is none.
    """
    is_name = isinstance(value, str) and value.strip(". ") and value.isprintable() and not {*value} & {*'/\\:"'}
    if not is_name or len(value) > _LONGEST_NAME:
        raise record.bad(field, "file_name", "a name that a file can have", value)
    return str(value)


def image_size(file: Path) -> list[int] | None:
    """Width and height of an image in pixels as stored; None where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return [image.width, image.height]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
