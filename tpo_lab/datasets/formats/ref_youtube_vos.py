"""Ref-YouTube-VOS: an object of a video meant by an expression, with palette PNGs in which a pixel's value is its object.

Times: every fifth frame of videos of 30 frames a second is on disk and listed, so images are shown at 6 a second, the i-th at i / 6 s.
Source: the data set's layout as the loader and the inference script of ReferFormer use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tpo_lab.datasets.formats.expressions import expression_sample, split_expressions, video_rows
from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.frame_folders import file_name, pattern
from tpo_lab.datasets.formats.mask_images import object_masks, write_binary
from tpo_lab.datasets.formats.submission import raw_of
from tpo_lab.errors import UsageError
from tpo_lab.files import Record, Streamed, stream_members
from tpo_lab.sample import Sample

FPS = 6.0
META = "meta_expressions.json"
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class _Files:
    """Of one split: its expressions, the folder of images and annotations, and the way to that from `Source.root`."""

    meta: Path
    folder: Path
    inside: str
    hidden: Path


def rows(source: Source) -> Iterator[Streamed]:
    """One video; those that the test split's file names are left out of valid, whose file lists them too."""
    files = _files(source)
    hidden = set()
    if files.meta.parent.name == "valid" and files.hidden.is_file():
        hidden = {key for key, _ in stream_members(files.hidden, ["videos"])}
    for row in video_rows(files.meta):
        if not isinstance(row, Record):
            yield row
        elif row.fields["video"] not in hidden:
            yield Record(row.where, {**row.fields, "files": files})


def _files(source: Source) -> _Files:
    root = source.folder
    if source.path.is_file():
        if root.parent.name == "meta_expressions":
            split, top = root.name, root.parent.parent
            return _Files(source.path, top / split, f"../../{split}/", root.parent / "test" / META)
        return _Files(source.path, root, "", root / "test" / META)
    if (root / META).is_file():
        return _Files(root / META, root, "", root / "test" / META)
    split = source.split or SPLITS[0]
    meta = root / "meta_expressions" / split / META
    if not meta.is_file():
        raise UsageError(str(root), expected=f"meta_expressions/{split}/{META}", got="no such file")
    return _Files(meta, root / split, f"{split}/", root / "meta_expressions" / "test" / META)


def parts(record: Record, source: Source) -> Iterator[Record]:
    """One record an expression, with its object's masks; the PNGs of a video are read once for all of them."""
    files: _Files = record.fields["files"]
    video = file_name(record, "", record.value("video"))
    found = list(split_expressions(record, source.root / f"{files.inside}JPEGImages" / video, FPS))
    images = _annotated(found, files.folder / "Annotations" / video)
    masks, size = object_masks(record, images, {each for each in map(_object_id, found) if each is not None}) if images else ({}, [])
    for each in found:
        yield Record(each.where, {**each.fields, "masks": masks, "size": size})


def _annotated(found: list[Record], folder: Path) -> list[Path]:
    """The PNGs of the video's frames; [] where no expression names its object, or the folder is missing."""
    if not folder.is_dir() or all(_object_id(each) is None for each in found):
        return []
    return [folder / f"{name}.png" for name in found[0].fields["frames"]]


def _object_id(record: Record) -> int | None:
    """The object's number, which the files hold as text; None where it is not given, or is none."""
    expression = record.fields["expression"]
    value = expression.get("obj_id") if isinstance(expression, dict) else None
    is_number = isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).isascii() and str(value).isdecimal()
    return int(str(value)) if is_number and 0 < int(str(value)) < 255 else None


def sample(record: Record, source: Source) -> Sample:
    """One expression with the masks of its object; a question only where the object is not named or the PNGs are missing."""
    files: _Files = record.fields["files"]
    expression = record.inner("expression").fields
    media = files.inside + pattern("JPEGImages", record.fields["video"])
    number = _object_id(record)
    if "obj_id" in expression and number is None:
        raise record.bad("obj_id", "object_id", "the number of an object, 1 to 254", expression["obj_id"])
    masks = record.fields["masks"].get(number)
    return expression_sample(record, source, "ref-youtube-vos", media, FPS, masks)


def write(samples: Iterable[Sample], path: Path) -> int:
    """A folder Annotations/<video>/<expression> of <frame>.png, white where the answer is; what the official server takes, zipped."""
    names = ("video", "expression")
    return write_binary(samples, path, lambda each: ["Annotations", *(raw_of(each, *names)[name] for name in names)])


REF_YOUTUBE_VOS = Format(
    name="ref-youtube-vos",
    title="Ref-YouTube-VOS",
    home="Ref-YouTube-VOS, by the server of its challenge; the videos from YouTube-VOS 2019",
    licence="not stated",
    layout="the root with meta_expressions/<split>/meta_expressions.json, <split>/Annotations/<video>/<frame>.png and\n"
    "<split>/JPEGImages/<video>/<frame>.jpg; or a folder with meta_expressions.json, Annotations and JPEGImages",
    rows=rows,
    parts=parts,
    sample=sample,
    splits=SPLITS,
    write=write,
    tasks=("mask",),
)
