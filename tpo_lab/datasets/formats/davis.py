"""DAVIS 2017: objects as palette PNGs in which a pixel's value is its object; in the semi-supervised task given by their first mask.

The unsupervised task (its annotations are other ones, `Annotations_unsupervised`) gives nothing: a model proposes up to 20 objects. Samples
point at each object with a box all the same, since a sample is about one; the answers of all of them are the proposals of a sequence.
Times: images are shown at 24 a second, frame i at i / 24 s. Void pixels (255) are background.
Source: the layout and the rules of DAVIS 2017's evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.frame_folders import file_name, frame_names, pattern, shown, times_sec
from tpo_lab.datasets.formats.mask_images import labels_of, object_masks, objects_in, write_palette
from tpo_lab.datasets.formats.pointing import pointed_sample
from tpo_lab.datasets.formats.submission import raw_of
from tpo_lab.errors import UsageError
from tpo_lab.files import Record, Streamed, folders, read_text
from tpo_lab.sample import Sample
from tpo_lab.scoring.masks import VOID

FPS = 24.0
SPLITS = ("train", "val", "test-dev", "test-challenge")
VARIANTS = ("first-frame", "all-objects", "unsupervised")
_SIZE = "480p"


def rows(source: Source) -> Iterator[Streamed]:
    """One sequence, of those that ImageSets/<year>/<split>.txt lists, or of all that have annotations.

    The year is 2017, or 2019 for the tests of the unsupervised task.

    Raises:
        UsageError: there is no sequence, or the root has no list of the split that is asked for.
    """
    is_unsupervised = source.variant == VARIANTS[2]
    inside = source.path / ("Annotations_unsupervised" if is_unsupervised else "Annotations") / _SIZE
    annotations = inside if inside.is_dir() else source.path
    listed = None
    if "list" in source.side or (source.split and annotations == inside):
        year = 2019 if is_unsupervised and source.split.startswith("test") else 2017
        listed = source.beside("list", f"ImageSets/{year}/{source.split}.txt")
    names = read_text(listed).split() if listed else list(folders(annotations))
    if not names:
        raise UsageError(str(annotations), expected="a folder of PNGs for every sequence", got="none")
    for name in names:
        yield Record(str(annotations / name), {"sequence": name, "is_root": annotations == inside})


def parts(record: Record, source: Source) -> Iterator[Record]:
    """One record an object: 1 to the largest number of the first frame, as the evaluation counts; `all-objects` all that any frame has."""
    name = file_name(record, "", record.value("sequence"))
    folder = Path(record.where)
    names = frame_names(record, "", sorted(file.stem for file in folder.glob("*.png")))
    images = shown(source.root / "JPEGImages" / _SIZE / name) if record.value("is_root") else None
    files = [folder / f"{each}.png" for each in names]
    first = labels_of(record, files[0])
    objects = range(1, max(objects_in(first), default=0) + 1)
    if source.variant == VARIANTS[1]:
        objects = sorted({each for file in files for each in objects_in(labels_of(record, file))})  # type: ignore[assignment]
    if not objects:
        raise record.bad(files[0].name, "object_some", "an object beside background and void", np.unique(first).tolist())
    masks, size = object_masks(record, files, objects)
    shared = {
        "sequence": name,
        "media": {"path": pattern("JPEGImages", _SIZE, name), "fps": FPS},
        "annotated_sec": times_sec(record, "", names, images, FPS),
        # of a hidden split the first frame alone is annotated
        "answered": images is None or len(images) == 1 or len(names) > 1,
        "frames": images or names,
        "size": size,
    }
    for each, found in masks.items():
        yield Record(f"{record.where}, object {each}", {**shared, "object": each, "masks": found})


def sample(record: Record, source: Source) -> Sample:
    """One object; the box is around its mask on the first frame where it is seen."""
    fields = record.fields
    key = f"davis-{fields['sequence']}-{fields['object']}"
    raw = {"sequence": fields["sequence"], "object": fields["object"]}
    times = [place / FPS for place in range(len(fields["frames"]))]
    meta = {"raw": raw, "frames": fields["frames"], "times_sec": times, "size": fields["size"]}
    return pointed_sample(record, source, key, fields["media"], fields["masks"], fields["annotated_sec"], meta, answered=fields["answered"])


def write(samples: Iterable[Sample], path: Path) -> int:
    """A folder <sequence> of palette images <frame>.png, all objects of a sequence in one; where two meet, the smaller number stands."""
    return write_palette(samples, path, _place)


def _place(sample: Sample) -> tuple[str, int]:
    raw = raw_of(sample, "sequence", "object")
    if type(raw["object"]) is not int or not 0 < raw["object"] < VOID:
        raise UsageError(f"sample {sample.id}, meta.raw.object", expected="a number from 1 to 254", got=raw["object"])
    return raw["sequence"], raw["object"]


DAVIS = Format(
    name="davis",
    title="DAVIS 2017, semi-supervised and unsupervised",
    home="davis2017-evaluation (davisvideochallenge); the images from the challenge's page",
    licence="BSD-3 (repository of the evaluation)",
    layout="the root with Annotations/480p/<sequence>/<frame>.png, JPEGImages/480p/<sequence>/<frame>.jpg and\n"
    "ImageSets/2017/<split>.txt; or a folder of sequences of PNGs\n"
    "with --variant unsupervised: Annotations_unsupervised/480p, and ImageSets/2019/<split>.txt for the tests",
    rows=rows,
    parts=parts,
    sample=sample,
    variants=VARIANTS,
    splits=SPLITS,
    sides=("list",),
    write=write,
    tasks=("mask",),
)
