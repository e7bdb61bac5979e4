"""SA-V: masklets, objects outlined six times a second. The train split holds run lengths, val and test a folder of PNGs per object.

Times: videos have 24 frames a second and every fourth is annotated, so row i of the train files is video frame 4 * i, shown at i / 6 s.
The images of val and test are all frames at 24 a second, numbered from 0; their annotations bear the numbers of their frames.
Source: the data set's README, and one of its example videos.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.frame_folders import file_name, frame_names, pattern, shown, times_sec
from tpo_lab.datasets.formats.mask_images import labels_of, write_binary
from tpo_lab.datasets.formats.pointing import pointed_sample
from tpo_lab.datasets.formats.run_lengths import Masks, checked, encoded
from tpo_lab.datasets.formats.submission import raw_of
from tpo_lab.errors import UsageError
from tpo_lab.files import Record, Streamed, folders, read_json, read_text, record
from tpo_lab.sample import Sample

FPS = 24.0
STEP = 4
"""Video frames from one annotated frame to the next."""
VARIANTS = ("all", "manual", "auto")
_ANNOTATIONS, _IMAGES = "Annotations_6fps", "JPEGImages_24fps"
_PER_OBJECT = (
    "masklet_id",
    "masklet_size_rel",
    "masklet_size_abs",
    "masklet_size_bucket",
    "masklet_visibility_changes",
    "masklet_first_appeared_frame",
    "masklet_frame_count",
    "masklet_edited_frame_count",
    "masklet_type",
)


def rows(source: Source) -> Iterator[Streamed]:
    """One video: a file of the train split, or a folder of folders of the others.

    Raises:
        UsageError: neither is there.
    """
    if source.path.is_dir() and (source.path / _ANNOTATIONS).is_dir():
        for name in _listed(source):
            yield Record(str(source.path / _ANNOTATIONS / name), {"video": name})
        return
    kinds = VARIANTS[1:] if source.variant in ("", VARIANTS[0]) else (source.variant,)
    endings = tuple(f"_{kind}.json" for kind in kinds)
    files = [source.path] if source.path.is_file() else sorted(each for each in source.path.rglob("*.json") if each.name.endswith(endings))
    if not files:
        raise UsageError(str(source.path), expected=f"files *{' or *'.join(endings)}, or a folder {_ANNOTATIONS}", got="none")
    for file in files:
        yield Record(str(file), {"file": file})


def _listed(source: Source) -> list[str]:
    """The videos that sav_<split>.txt names, or all."""
    listed = source.finds("list", f"sav_{source.split or '*'}.txt", "sav_*.txt")
    return read_text(listed).split() if listed else list(folders(source.path / _ANNOTATIONS))


def parts(row: Record, source: Source) -> Iterator[Record]:
    """One record an object."""
    yield from _of_file(row, source) if "file" in row.fields else _of_folder(row, source)


def _of_file(row: Record, source: Source) -> Iterator[Record]:
    file: Path = row.fields["file"]
    video = record(row.where, read_json(file))
    name, rows = file_name(video, "video_id", video.value("video_id")), video.several("masklet")
    ids = video.several("masklet_id")
    for place, masks in enumerate(rows):
        if not isinstance(masks, list) or len(masks) != len(ids):
            raise video.bad(f"masklet[{place}]", "lengths_equal", f"one mask for each masklet_id ({len(ids)})", masks)
    if not ids or not rows:
        raise video.bad("masklet", "masklet_some", "at least one object and one frame", len(rows))
    lists = {key: video.fields[key] for key in _PER_OBJECT if key in video.fields}
    for key, values in lists.items():
        if not isinstance(values, list) or len(values) != len(ids):
            raise video.bad(key, "lengths_equal", f"one value for each masklet_id ({len(ids)})", values)
    shared = {key: value for key, value in video.fields.items() if not isinstance(value, (list, dict))}
    kind = "auto" if file.name.endswith("_auto.json") else "manual"
    folder = file.parent.relative_to(source.folder).as_posix()
    fields = {
        "video": name,
        "kind": kind,
        "media": {"path": f"{'' if folder == '.' else folder + '/'}{name}.mp4"},
        "frames": [f"{place * STEP:05d}" for place in range(len(rows))],
        "times_sec": [place * STEP / FPS for place in range(len(rows))],
    }
    for place, number in enumerate(ids):
        own = {"number": number, "column": place, "rows": rows, "raw": {**shared, **{key: each[place] for key, each in lists.items()}}}
        yield Record(f"{row.where}, masklet_id[{place}]", {**fields, **own})


def _of_folder(row: Record, source: Source) -> Iterator[Record]:
    video = file_name(row, "", row.value("video"))
    root = Path(row.where)
    if not root.is_dir():
        raise row.bad("", "video_folder", "a folder of annotations for every listed video", "none")
    found = folders(root)
    if not found:
        raise row.bad("", "object_folders", "a folder for every object", "none")
    files = shown(source.root / _IMAGES / video)
    media = {"path": pattern(_IMAGES, video), "fps": FPS}
    for number, folder in found.items():
        yield Record(str(folder), {"video": video, "kind": "", "media": media, "number": number, "folder": folder, "files": files})


def sample(object_: Record, source: Source) -> Sample:
    """One object; the box is around its mask on the first frame where it is seen."""
    fields = dict(object_.fields)
    if "folder" in fields:
        masks, fields["frames"], fields["times_sec"], size = _from_images(object_)
        fields["raw"] = {"video_id": fields["video"]}
        number = fields["number"]
    else:
        place = fields["column"]
        masks = [checked(object_, f"masklet[{row}]", masks[place]) for row, masks in enumerate(fields["rows"])]
        if type(fields["number"]) is not int or fields["number"] < 0:
            raise object_.bad("", "masklet_id", "a number of 0 or more", fields["number"])
        number = f"{fields['number']:03d}"
        size = next(([each["size"][1], each["size"][0]] for each in masks if each), [0, 0])
    raw = {**fields["raw"], "video": fields["video"], "object": number}
    kind = fields["kind"]
    key = "-".join(["sav", fields["video"], *([kind] if kind else []), number])
    meta = {"raw": raw, "frames": fields["frames"], "times_sec": fields["times_sec"], "size": size}
    duration = raw.get("video_duration")
    if type(duration) is float and duration > 0:
        meta["duration_sec"] = duration
    return pointed_sample(object_, source, key, fields["media"], masks, fields["times_sec"], meta)


def _from_images(object_: Record) -> tuple[Masks, list[str], list[float], list[int]]:
    """Masks, names and times of the annotated frames, and width and height."""
    folder: Path = object_.fields["folder"]
    names = frame_names(object_, "", sorted(file.stem for file in folder.glob("*.png")))
    files = object_.fields["files"]
    times = times_sec(object_, "", names, files, FPS) if files else [_number(object_, name) / FPS for name in names]
    masks: Masks = []
    size: tuple[int, ...] | None = None
    for name in names:
        labels = labels_of(object_, folder / f"{name}.png", size)
        size = labels.shape
        masks.append(encoded(labels > 0))
    return masks, names, times, [int(side) for side in (size or ())[::-1]]


def _number(object_: Record, name: str) -> int:
    if not (name.isascii() and name.isdecimal()):
        raise object_.bad(f"{name}.png", "frame_number", "the number of a video frame", name)
    return int(name)


def write(samples: Iterable[Sample], path: Path) -> int:
    """A folder <video>/<object> of <frame>.png for every annotated frame, white where the answer is; one object an image."""
    return write_binary(samples, path, _place)


def _place(sample: Sample) -> list[Any]:
    raw = raw_of(sample, "video", "object")
    return [raw["video"], raw["object"]]


SAV = Format(
    name="sav",
    title="SA-V",
    home="sam2, sav_dataset (facebookresearch)",
    licence="CC BY 4.0",
    layout="train: a folder, or folders, of <video>_manual.json and <video>_auto.json beside <video>.mp4, or one such file;\n"
    "val, test: a folder with Annotations_6fps/<video>/<object>/<frame>.png, JPEGImages_24fps/<video>/<frame>.jpg and sav_<split>.txt",
    rows=rows,
    parts=parts,
    sample=sample,
    variants=VARIANTS,
    sides=("list",),
    write=write,
    tasks=("mask",),
)
