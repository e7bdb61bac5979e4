"""What LaSOT and GOT-10k share: one box a frame of a sequence, in text files, and predictions in the same form.

A lost object: the trackers' evaluations need a box in every frame, so where an answer has none the last box seen is written again, at the
start the box that was given; without any box at all the upper left pixel. Never a box without size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.datasets.formats.format import Source
from tpo_lab.datasets.formats.result_folders import answers_at
from tpo_lab.datasets.formats.turns import followed_turns, track_turns
from tpo_lab.errors import UsageError
from tpo_lab.files import Floats, Record, read_text
from tpo_lab.sample import BoxPrompt, Sample

Box = list[float]
NO_BOX = (0.0, 0.0, 1.0, 1.0)
"""The upper left pixel, xyxy."""
_CUT = "box cut at the edge of its frame"
_EMPTY = "box without size or outside of its frame taken as not visible"


def visible_boxes(xywh: Floats, absent: NDArray[np.bool_], size: Sequence[int] | None, source: Source) -> list[Box | None]:
    """Boxes as xyxy, cut at the edges of the frame; None where the object is absent, or nothing is left of its box.

    Args:
        xywh: [frame, 4] in pixels from 0; NaN where there is none.
        absent: flags [frame].
        size: width and height of the frame; None where they are not known, then only the left and upper edges cut.
        source: counts what was changed.
    """
    ends = [np.inf, np.inf] if size is None else size
    # a number near the end of the scale becomes infinite here, and is refused as a coordinate
    with np.errstate(over="ignore"):
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    found: list[Box | None] = []
    for row, is_absent in zip(xyxy, absent, strict=True):
        if is_absent:
            found.append(None)
            continue
        cut = np.clip(row, 0, [*ends, *ends])
        if not (cut[:2] < cut[2:]).all():
            source.adjusted[_EMPTY] += 1
            found.append(None)
            continue
        if (cut != row).any():
            source.adjusted[_CUT] += 1
        found.append([float(each) for each in cut])
    return found


def flags(record: Record, file: Path, frames: int) -> NDArray[np.bool_]:
    """0 or 1 for every frame [frame], in one line or a line each.

    Raises:
        BadRecord: there are more or fewer, or something else.
    """
    try:
        words = [word for word in re.split(r"[,\s]+", read_text(file).strip()) if word]
    except UsageError as error:
        raise record.bad(file.name, "flags", error.expected, error.got) from None
    if len(words) != frames:
        raise record.bad(file.name, "lengths_equal", f"{frames} flags, one a frame", len(words))
    if not {*words} <= {"0", "1"}:
        raise record.bad(file.name, "flags", "flags 0 or 1", sorted({*words})[:5])
    found: NDArray[np.bool_] = np.array(words) == "1"
    return found


def track_sample(
    record: Record,
    source: Source,
    key: str,
    media: dict[str, Any],
    boxes: Sequence[Box | None],
    meta: dict[str, Any],
    *,
    sentence: str | None = None,
    answered: bool = True,
) -> Sample:
    """The sample of one sequence.

    Args:
        record: for errors.
        source: what is read.
        key: the sample's id, which begins with the format's name.
        media: path and fps.
        boxes: of all frames, xyxy; None where the object is not visible.
        meta: beside the task; `frame_count` tells the writer how many boxes to write.
        sentence: asks by these words instead of the first box.
        answered: whether more than the first box is given.

    Raises:
        BadRecord: the first frame has no box.
    """
    if boxes[0] is None:
        raise record.bad("", "first_box", "a visible box in the first frame", None)
    turns = track_turns(key) if sentence is None else followed_turns(key, sentence)
    times = [place / media["fps"] for place in range(len(boxes))]
    return Sample.model_validate(
        {
            "id": key,
            "source": key.partition("-")[0],
            "split": source.split,
            "media": media,
            "conversation": turns if answered else turns[:1],
            "prompts": [{"type": "box", "time_sec": 0.0, "xyxy": boxes[0]}] if sentence is None else [],
            "targets": {"track": {"times_sec": times, "xyxy": boxes}} if answered else {},
            "meta": {"task": "mask", **meta},
        }
    )


def lines_of(sample: Sample, line: Callable[[Box], str]) -> str:
    """A line for every frame of the sample; see the module for lost objects.

    Raises:
        UsageError: the sample does not say how many frames there are.
    """
    count, fps = sample.meta.get("frame_count"), sample.media.fps
    if type(count) is not int or count < 1 or fps is None:
        raise UsageError(f"sample {sample.id}, meta.frame_count", expected="the number of frames, which the images tell", got=count)
    target = sample.targets.track
    times = [place / fps for place in range(count)]
    answers = [None] * count if target is None else answers_at(times, target.times_sec, target.xyxy)
    given = next((list(prompt.xyxy) for prompt in sample.prompts if isinstance(prompt, BoxPrompt)), None)
    last = given or next((list(box) for box in answers if box is not None), list(NO_BOX))
    lines = []
    for box in answers:
        last = last if box is None else list(box)
        lines.append(line(last))
    return "".join(f"{each}\n" for each in lines)
