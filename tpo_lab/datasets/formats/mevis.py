"""MeViS: objects of a video meant by an expression about their motion, with run lengths in one large file beside the expressions.

Times: the files state no frame rate; images are shown at 6 a second here, frame i of the folder at i / 6 s.
Source: the data set's README and loader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tpo_lab.datasets.formats import frame_folders
from tpo_lab.datasets.formats.expressions import expression_sample, split_expressions, video_rows
from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.mask_images import write_binary
from tpo_lab.datasets.formats.members import Members
from tpo_lab.datasets.formats.run_lengths import Masks, checked, united
from tpo_lab.datasets.formats.submission import raw_of
from tpo_lab.files import Record, Streamed
from tpo_lab.sample import Sample

FPS = 6.0
META = "meta_expressions.json"
_MASKS = "mask_dict"


def rows(source: Source) -> Iterator[Streamed]:
    """One video of meta_expressions.json with the index of the mask file, None where there is none.

    Raises:
        UsageError: expressions name masks, and there is no file of masks.
    """
    path = source.path / META if source.path.is_dir() else source.path
    side = source.finds(_MASKS, f"{_MASKS}.json")
    masks = None if side is None else Members(side)
    for row in video_rows(path):
        if not isinstance(row, Record):
            yield row
            continue
        if masks is None and _names_masks(row.fields["entry"].get("expressions")):
            source.beside(_MASKS, f"{_MASKS}.json")
        yield Record(row.where, {**row.fields, "masks": masks})


def _names_masks(expressions: Any) -> bool:
    rows = expressions.values() if isinstance(expressions, dict) else ()
    return any(isinstance(each, dict) and "anno_id" in each for each in rows)


def parts(record: Record, source: Source) -> Iterator[Record]:
    """One record an expression."""
    video = frame_folders.file_name(record, "", record.value("video"))
    yield from split_expressions(record, source.root / "JPEGImages" / video, FPS)


def sample(record: Record, source: Source) -> Sample:
    """One expression with the union of its objects in every frame; null where none of them is visible."""
    masks = None
    expression = record.inner("expression")
    if "anno_id" in expression.fields:
        masks = _united(Record(record.where, expression.fields), record.fields["masks"], len(record.fields["frames"]), source)
    media = frame_folders.pattern("JPEGImages", record.fields["video"])
    return expression_sample(record, source, "mevis", media, FPS, masks)


def _united(expression: Record, index: Members, frames: int, source: Source) -> Masks:
    keys = [str(key) for key in expression.several("anno_id")]
    if not keys:
        raise expression.bad("anno_id", "anno_id_some", "at least one object", [])
    objects = expression.fields.get("obj_id")
    if isinstance(objects, list) and len(objects) != len(keys):
        raise expression.bad("obj_id", "lengths_equal", f"one object for each anno_id ({len(keys)})", len(objects))
    listed = [_masks(expression, index, key, frames, source) for key in keys]
    return [united(expression, f"anno_id, frame {place}", list(each)) for place, each in enumerate(zip(*listed, strict=True))]


def _masks(expression: Record, index: Members, key: str, frames: int, source: Source) -> Masks:
    if key not in index:
        raise expression.bad("anno_id", "anno_id_known", f"a key of {index.path.name}", key)
    field = f"{index.path.name}, {key}"
    found: Any = index.value(key)
    if not isinstance(found, list) or len(found) < frames:
        raise expression.bad(field, "lengths_equal", f"a mask or null for each of {frames} frames", found)
    if len(found) > frames:
        source.adjusted["masks after the last listed frame left out"] += 1
    return [checked(expression, f"{field}[{place}]", value) for place, value in enumerate(found[:frames])]


def write(samples: Iterable[Sample], path: Path) -> int:
    """A folder <video>/<expression> of <frame>.png, white where the answer is; what the official evaluation and its server take."""
    return write_binary(samples, path, lambda each: [raw_of(each, "video", "expression")[name] for name in ("video", "expression")])


MEVIS = Format(
    name="mevis",
    title="MeViS",
    home="MeViS (henghuiding)",
    licence="non-commercial research only",
    layout="a split's folder with meta_expressions.json, mask_dict.json (not in valid) and JPEGImages/<video>/<frame>.jpg,\n"
    "or meta_expressions.json itself",
    rows=rows,
    parts=parts,
    sample=sample,
    sides=(_MASKS,),
    write=write,
    tasks=("mask",),
)
