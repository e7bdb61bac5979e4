"""LaSOT: one object followed through a long video, a box a frame, and a sentence about it.

Convention, declared here since the files do not say it: a box x,y,w,h counts pixels from 1 and covers w x h of them. Samples hold xyxy from
0, so (x - 1, y - 1, x - 1 + w, y - 1 + h); predictions are written back as x, y, w, h from 1.
Times: images are shown at 30 a second, frame i (from 0; its file is number i + 1) at i / 30 s.
Source: the LaSOT evaluation toolkit, and pytracking's data set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.frame_folders import file_name, image_size, pattern, shown
from tpo_lab.datasets.formats.result_folders import new_folder, relative
from tpo_lab.datasets.formats.submission import raw_of
from tpo_lab.datasets.formats.tracks import Box, flags, lines_of, track_sample, visible_boxes
from tpo_lab.errors import UsageError
from tpo_lab.files import Floats, Record, Streamed, read_table, read_text
from tpo_lab.sample import Sample

FPS = 30.0
FIRST_PIXEL = 1
SPLITS = ("train", "test")
VARIANTS = ("box", "language")
_BOXES, _LISTED = "groundtruth.txt", "testing_set"


def rows(source: Source) -> Iterator[Streamed]:
    """One sequence, in the order of names; `test` are those that testing_set.txt lists, `train` the others.

    Raises:
        UsageError: there is none, or no list where a split is asked for.
    """
    found = _sequences(source.path)
    if source.split in SPLITS:
        listed = {*read_text(source.beside(_LISTED, f"{_LISTED}.txt", f"../{_LISTED}.txt")).split()}
        found = {name: file for name, file in found.items() if (name in listed) == (source.split == "test")}
    if not found:
        raise UsageError(str(source.path), expected=f"folders with {_BOXES}, or <sequence>.txt files", got="none")
    for name, file in found.items():
        yield Record(str(file), {"sequence": name, "file": file})


def _sequences(root: Path) -> dict[str, Path]:
    """Files of boxes by sequence: of a sequence, a folder of them, a folder of classes, or the toolkit's folder of text files."""
    if not root.is_dir():
        raise UsageError(str(root), expected="a folder", got="a file" if root.exists() else "nothing")
    # deeper lie only images, whose names take long to list
    levels = (sorted(root.glob(f"{above}{_BOXES}")) for above in ("", "*/", "*/*/"))
    nested = {file.parent.name: file for file in next(filter(None, levels), [])}
    lists = {_LISTED, "training_set"}
    return nested or {file.stem: file for file in sorted(root.glob("*.txt")) if file.stem not in lists}


def sample(record: Record, source: Source) -> Sample:
    """One sequence; null where the object is fully occluded, out of view, or has a box without size."""
    name, file = file_name(record, "", record.value("sequence")), Path(record.where)
    table = _table(record, file)
    folder = _folder(source, file, name)
    images = shown(source.root / folder / "img")
    if images is not None and len(images) != len(table):
        raise record.bad("img", "lengths_equal", f"one image for each box ({len(table)})", len(images))
    size = image_size(source.root / folder / "img" / f"{images[0]}.jpg") if images else None
    boxes = visible_boxes(table - [FIRST_PIXEL, FIRST_PIXEL, 0, 0], _absent(record, file, len(table)), size, source)
    sentence = _sentence(file)
    asked = source.variant == VARIANTS[1]
    if asked and not sentence:
        raise record.bad("nlp.txt", "words", "a sentence about the object", sentence)
    raw = {"sequence": name, "class": name.rpartition("-")[0] or name, "first_xywh": table[0].tolist()}
    meta = {"raw": {**raw, "nlp": sentence} if sentence else raw, "frame_count": len(table)}
    return track_sample(
        record,
        source,
        f"lasot-{name}",
        {"path": pattern(*Path(folder).parts, "img"), "fps": FPS},
        boxes,
        meta if size is None else {**meta, "size": size},
        sentence=sentence if asked else None,
    )


def _table(record: Record, file: Path) -> Floats:
    try:
        return read_table(file, 4, nan=True)
    except UsageError as error:
        raise record.bad(error.argument.removeprefix(str(file)).removeprefix(", "), "boxes", error.expected, error.got) from None


def _folder(source: Source, file: Path, name: str) -> str:
    """The sequence's folder from the root of the media: where its boxes lie, or as the data set has it, <class>/<sequence>."""
    if file.name != _BOXES:
        return f"{name.rpartition('-')[0] or name}/{name}"
    inside = file.parent.relative_to(source.folder).as_posix()
    return "" if inside == "." else inside


def _absent(record: Record, file: Path, frames: int) -> NDArray[np.bool_]:
    if file.name != _BOXES:
        return flags(record, file.parent / "absent" / file.name, frames)
    return flags(record, file.with_name("full_occlusion.txt"), frames) | flags(record, file.with_name("out_of_view.txt"), frames)


def _sentence(file: Path) -> str:
    """The sentence about the object, "" where there is none."""
    place = file.with_name("nlp.txt") if file.name == _BOXES else file.parent / "nlp" / file.name
    return " ".join(read_text(place).split()) if place.is_file() else ""


def write(samples: Iterable[Sample], path: Path) -> int:
    """A folder of <sequence>.txt, a line x,y,w,h for every frame, pixels from 1; a lost object keeps the last box seen (see `tracks`)."""
    count = 0
    with new_folder(path) as root:
        for each in samples:
            name = raw_of(each, "sequence")["sequence"]
            relative(root, each, [name]).with_name(f"{name}.txt").write_text(lines_of(each, _line), encoding="utf-8")
            count += 1
    return count


def _line(box: Box) -> str:
    left, top, right, bottom = box
    return ",".join(f"{round(value, 4):.10g}" for value in (left + FIRST_PIXEL, top + FIRST_PIXEL, right - left, bottom - top))


LASOT = Format(
    name="lasot",
    title="LaSOT",
    home="LaSOT_Evaluation_Toolkit (HengLan); the images from the data set's page",
    licence="Apache-2.0 (annotations in the toolkit)",
    layout="the root with <class>/<sequence>/{img/*.jpg, groundtruth.txt, full_occlusion.txt, out_of_view.txt, nlp.txt};\n"
    "or the toolkit's annos with <sequence>.txt, absent/<sequence>.txt and nlp/<sequence>.txt",
    rows=rows,
    sample=sample,
    variants=VARIANTS,
    splits=SPLITS,
    sides=(_LISTED,),
    write=write,
    tasks=("mask",),
)
