"""Several images that one question is about, as the one pattern that a sample's media can be: where it takes them, and no others."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from tpo_lab.datasets.formats.format import Source
from tpo_lab.files import Record

_DIGITS = re.compile(r"([0-9]+)")
SEVERAL = "one image, or images of one folder, in order, whose names differ in a number that counts up by one"
"""What the rule "several_images" asks for."""


def image_pattern(record: Record, field: str, value: Any, source: Source, folder: str = "") -> str:
    """The path of an image, or the pattern of several; each is shown for a second then.

    Where only the last digit changes the pattern cannot match more ("000[1-8].png"). Other numbers ("[0-9]*.png") must begin at 0 or 1,
    and where images lie under `source.root` none beside these may be matched.

    Args:
        record: whose field it is, for errors.
        field: its name.
        value: a path, or a list of paths.
        source: says where images would lie.
        folder: stands before every path.

    Raises:
        BadRecord: rule "media" where there is no path at all, "several_images" where no pattern takes these images alone.
    """
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) and path.strip() for path in paths):
        raise record.bad(field, "media", "the path of an image, or a list of paths", value)
    placed = [str(PurePosixPath(folder, path.strip())) for path in paths]
    if len(placed) == 1:
        return placed[0]
    pattern = _pattern(placed)
    if pattern is None or not _is_exact(pattern, placed, source):
        raise record.bad(field, "several_images", SEVERAL, value)
    return pattern


def _pattern(paths: list[str]) -> str | None:
    """The pattern of paths that differ in one number, which counts up by one; None for all others."""
    folders = {str(PurePosixPath(path).parent) for path in paths}
    # splitting on a captured group alternates text and digits
    names = [_DIGITS.split(PurePosixPath(path).name) for path in paths]
    if len(folders) > 1 or len({len(name) for name in names}) > 1:
        return None
    columns = list(zip(*names, strict=True))
    differ = [place for place, column in enumerate(columns) if len(set(column)) > 1]
    if len(differ) != 1 or differ[0] % 2 == 0:
        return None
    (place,), numbers = differ, columns[differ[0]]
    if max(map(len, numbers)) > 9 or [int(number) - int(numbers[0]) for number in numbers] != list(range(len(numbers))):
        return None
    middle = _digits(numbers)
    before, after = "".join(names[0][:place]), "".join(names[0][place + 1 :])
    return middle and str(PurePosixPath(glob.escape(folders.pop()), f"{glob.escape(before)}{middle}{glob.escape(after)}"))


def _digits(numbers: Sequence[str]) -> str | None:
    """What matches numbers that count up: exactly, where only the last digit changes."""
    if len({(len(number), number[:-1]) for number in numbers}) == 1:
        return f"{numbers[0][:-1]}[{numbers[0][-1]}-{numbers[-1][-1]}]"
    return "[0-9]*" if int(numbers[0]) <= 1 else None


def _is_exact(pattern: str, paths: list[str], source: Source) -> bool:
    """Whether the pattern matches none but these; where the images are not there, nothing says that it does."""
    if "*" not in PurePosixPath(pattern).name:
        return True
    try:
        return set(glob.glob(pattern, root_dir=source.root)) <= set(paths)
    except (OSError, ValueError):  # a name that no file can have
        return True
