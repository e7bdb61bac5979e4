"""GOT-10k: one object followed through a video, a box a frame; of the test split only the first box is public.

Convention, as the official evaluation has it: a box x,y,w,h is in pixels from 0 with fractions, and no pixel is added to a side; samples
hold (x, y, x + w, y + h). Times: images are shown at 10 a second, frame i (from 0; its file is number i + 1) at i / 10 s.
Source: the data set of the GOT-10k toolkit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.frame_folders import file_name, image_size, pattern, shown
from tpo_lab.datasets.formats.result_folders import new_folder, relative
from tpo_lab.datasets.formats.submission import raw_of
from tpo_lab.datasets.formats.tracks import Box, flags, lines_of, track_sample, visible_boxes
from tpo_lab.errors import UsageError
from tpo_lab.files import Floats, Record, Streamed, folders, read_table, read_text
from tpo_lab.sample import Sample

FPS = 10.0
SPLITS = ("train", "val", "test")
_BOXES, _ABSENCE, _META = "groundtruth.txt", "absence.label", "meta_info.ini"


def rows(source: Source) -> Iterator[Streamed]:
    """One sequence, of those that list.txt names, or of all folders with boxes.

    Raises:
        UsageError: there is none.
    """
    root = source.path / source.split if source.split and (source.path / source.split).is_dir() else source.path
    listed = root / "list.txt"
    known = folders(root)
    names = read_text(listed).split() if listed.is_file() else [name for name, folder in known.items() if (folder / _BOXES).is_file()]
    if not names:
        hint = f"The root's splits are {', '.join(SPLITS)}."
        raise UsageError(str(root), expected=f"folders with {_BOXES}", got="none", hint=hint)
    for name in names:
        yield Record(str(root / name), {"sequence": name})


def sample(record: Record, source: Source) -> Sample:
    """One sequence; null where the object is absent. A sequence with one box and no flags is a question only."""
    name, folder = file_name(record, "", record.value("sequence")), Path(record.where)
    table = _table(record, folder / _BOXES)
    inside = folder.relative_to(source.folder)
    images = shown(source.root / inside)
    info = _info(folder / _META)
    size = _size(info) or (image_size(source.root / inside / f"{images[0]}.jpg") if images else None)
    answered = len(table) > 1 or (folder / _ABSENCE).is_file()
    if answered and images is not None and len(images) != len(table):
        raise record.bad("", "lengths_equal", f"one image for each box ({len(table)})", len(images))
    absent = flags(record, folder / _ABSENCE, len(table)) if answered else np.zeros(1, dtype=bool)
    boxes = visible_boxes(table, absent, size, source)
    count = len(table) if answered else len(images or ())
    meta: dict[str, Any] = {"raw": {"sequence": name, **info, "first_xywh": table[0].tolist()}}
    meta |= {"size": size} if size else {}
    meta |= {"frame_count": count} if count else {}
    media = {"path": pattern(*inside.parts), "fps": FPS}
    return track_sample(record, source, f"got10k-{name}", media, boxes, meta, answered=answered)


def _table(record: Record, file: Path) -> Floats:
    try:
        return read_table(file, 4)
    except UsageError as error:
        raise record.bad(file.name, "boxes", error.expected, error.got) from None


def _info(file: Path) -> dict[str, str]:
    """The lines "key: value" of meta_info.ini; the test split has none."""
    if not file.is_file():
        return {}
    pairs = (line.partition(":") for line in read_text(file).splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon and key.strip()}


def _size(info: dict[str, str]) -> list[int] | None:
    """Width and height of the frame in pixels."""
    found = re.fullmatch(r"\(?\s*([0-9]{1,6})\s*,\s*([0-9]{1,6})\s*\)?", info.get("resolution", ""))
    size = [int(found[1]), int(found[2])] if found else [0, 0]
    return size if min(size) > 0 else None


def write(samples: Iterable[Sample], path: Path) -> int:
    """A folder <sequence> with <sequence>_001.txt, a line x,y,w,h for every frame; a lost object keeps the last box seen (see `tracks`).

    The toolkit's file of times a frame is left out: it is read where it is there, and nothing here knows them.
    """
    count = 0
    with new_folder(path) as root:
        for each in samples:
            folder = relative(root, each, [raw_of(each, "sequence")["sequence"]])
            folder.mkdir()
            (folder / f"{folder.name}_001.txt").write_text(lines_of(each, _line), encoding="utf-8")
            count += 1
    return count


def _line(box: Box) -> str:
    left, top, right, bottom = box
    return ",".join(f"{value:.3f}" for value in (left, top, right - left, bottom - top))


GOT10K = Format(
    name="got10k",
    title="GOT-10k",
    home="got-10k toolkit; the images from the challenge's page",
    licence="not stated",
    layout="the root with <split>/<sequence>/{*.jpg, groundtruth.txt, absence.label, cover.label, meta_info.ini} and <split>/list.txt,\n"
    "or one split's folder",
    rows=rows,
    sample=sample,
    splits=SPLITS,
    write=write,
    tasks=("mask",),
)
