"""What SA-V and DAVIS share: an object pointed at by a box on the first frame where it is seen, and its masks through the video."""

from __future__ import annotations

from typing import Any

from tpo_lab.datasets.formats.format import Source
from tpo_lab.datasets.formats.run_lengths import Masks, first_seen
from tpo_lab.datasets.formats.turns import pointed_turns
from tpo_lab.files import Record
from tpo_lab.sample import Sample


def pointed_sample(
    record: Record,
    source: Source,
    key: str,
    media: dict[str, Any],
    masks: Masks,
    times_sec: list[float],
    meta: dict[str, Any],
    *,
    answered: bool = True,
) -> Sample:
    """The sample of one object.

    Args:
        record: of the object, for errors.
        source: what is read.
        key: the sample's id, which begins with the format's name.
        media: path, and fps where it is a pattern.
        masks: in every annotated frame; None where the object is not visible.
        times_sec: of these frames.
        meta: beside the task.
        answered: whether the masks are given, beside the one that is pointed at.

    Raises:
        BadRecord: the object is never seen, or the mask that is pointed at cannot be decoded.
    """
    first, box = first_seen(record, "masks", masks)
    turns = pointed_turns(key)
    return Sample.model_validate(
        {
            "id": key,
            "source": key.partition("-")[0],
            "split": source.split,
            "media": media,
            "conversation": turns if answered else turns[:1],
            "prompts": [{"type": "box", "time_sec": times_sec[first], "xyxy": box}],
            "targets": {"mask": {"times_sec": times_sec, "rle": masks}} if answered else {},
            "meta": {"task": "mask", **meta},
        }
    )
