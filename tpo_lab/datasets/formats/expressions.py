"""What MeViS and Ref-YouTube-VOS share: meta_expressions.json, videos with frames and numbered expressions about their objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tpo_lab.datasets.formats.format import Source
from tpo_lab.datasets.formats.frame_folders import file_name, frame_names, shown, times_sec
from tpo_lab.datasets.formats.run_lengths import Masks, frame_size
from tpo_lab.datasets.formats.turns import mask_turns
from tpo_lab.files import BadRecord, Record, Streamed, stream_members
from tpo_lab.sample import Sample


def video_rows(path: Path) -> Iterator[Streamed]:
    """The videos of a meta_expressions.json: a record with `video`, its key, and `entry`."""
    for key, value in stream_members(path, ["videos"]):
        where = f"{path}, {key}"
        if isinstance(value, dict):
            yield Record(where, {"video": key, "entry": value})
        else:
            yield BadRecord(where, rule="object", expected="an object with frames and expressions", got=type(value).__name__)


def split_expressions(record: Record, images: Path, fps: float) -> Iterator[Record]:
    """One record an expression: what the video's record has but `entry`, and `frames`, `times_sec`, `name` and `expression`.

    Args:
        record: of the video.
        images: the folder of its frames, which need not be there.
        fps: images per second.

    Raises:
        BadRecord: the video's name, its frames or its expressions break a rule.
    """
    video = Record(record.where, record.value("entry"))
    file_name(record, "", record.value("video"))
    names = frame_names(video, "frames", video.value("frames"))
    times = times_sec(video, "frames", names, shown(images), fps)
    shared = {key: value for key, value in record.fields.items() if key != "entry"}
    for name, expression in video.inner("expressions").fields.items():
        own = {"frames": names, "times_sec": times, "name": name, "expression": expression}
        yield Record(f"{record.where}, expressions, {name}", {**shared, **own})


def expression_sample(record: Record, source: Source, form: str, media: str, fps: float, masks: Masks | None) -> Sample:
    """The sample of one expression; a question only where there are no masks."""
    video, name, expression = record.fields["video"], record.fields["name"], record.inner("expression")
    key = f"{form}-{video}-{file_name(record, '', name)}"
    turns = mask_turns(key, Record(record.where, expression.fields).words("exp"))
    size = None if masks is None else frame_size(masks)
    raw = {"video": video, "expression": name, **expression.fields}
    meta = {"task": "mask", "raw": raw, "frames": record.fields["frames"], "times_sec": record.fields["times_sec"]}
    return Sample.model_validate(
        {
            "id": key,
            "source": form,
            "split": source.split,
            "media": {"path": media, "fps": fps},
            "conversation": turns[:1] if masks is None else turns,
            "targets": {} if masks is None else {"mask": {"times_sec": record.fields["times_sec"], "rle": masks}},
            "meta": meta if size is None else {**meta, "size": size},
        }
    )
