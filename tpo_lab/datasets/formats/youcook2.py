"""YouCook2: recipes as videos, their steps as sentences with segments in whole seconds; all splits in one document.

Source: youcookii_annotations_trainval.json. What TimeIT makes of it is in `timeit`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tpo_lab.datasets.formats.format import Format, Source
from tpo_lab.datasets.formats.moments import by_video, moment, one_span
from tpo_lab.files import BadRecord, Record, Streamed
from tpo_lab.sample import Sample

NAME = "youcook2"
SPLITS = ("training", "validation")


def rows(source: Source) -> Iterator[Streamed]:
    """One video of the split, or of all."""
    for row in by_video(source.path, ("database",), name="video"):
        if isinstance(row, BadRecord) or not source.split or row.fields.get("subset") not in SPLITS or row.fields["subset"] == source.split:
            yield row


def parts(record: Record, source: Source) -> Iterator[Record]:
    """One step, one record."""
    shared = {name: record.value(name) for name in ("video", "duration", "subset", "recipe_type")}
    for place, step in enumerate(record.several("annotations")):
        yield Record(f"{record.where}, annotations[{place}]", {**shared, "place": place, "annotation": step})


def sample(record: Record, source: Source) -> Sample:
    """One step with its segment."""
    video, subset, recipe, duration = record.words("video"), record.words("subset"), record.text("recipe_type"), record.seconds("duration")
    if subset not in SPLITS:
        raise record.bad("subset", "subset", " or ".join(SPLITS), subset)
    step = record.inner("annotation")
    return moment(
        NAME,
        f"{video}-{record.integer('place')}",
        record,
        source,
        media={"path": f"{subset}/{recipe}/{video}.mp4"},
        query=step.words("sentence"),
        windows_sec=one_span(step, "segment", source, duration),
        duration_sec=duration,
        split=subset,
    )


YOUCOOK2 = Format(
    name=NAME,
    title="YouCook2",
    home="YouCook2 (University of Michigan), annotations",
    licence="not stated",
    layout="youcookii_annotations_trainval.json, beside the videos {subset}/{recipe_type}/{id}.mp4",
    rows=rows,
    parts=parts,
    sample=sample,
    splits=SPLITS,
    tasks=("temporal",),
)
