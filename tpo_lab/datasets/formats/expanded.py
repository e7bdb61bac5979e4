"""An image as a still video, in which its box is tracked: how images supplement the video data of the mask task.

Source: TPO, training data of stage 2 (images of AS-V2 as videos).
"""

from __future__ import annotations

import math
from pathlib import PurePosixPath

from tpo_lab.datasets.formats.turns import track_turns
from tpo_lab.errors import UsageError
from tpo_lab.sample import Sample
from tpo_lab.video.images import IMAGE_SUFFIXES


def as_video(sample: Sample, count: int, step_sec: float = 1.0) -> Sample:
    """The image shown for count * step_sec seconds, and the question to follow what its one region box is around.

    Args:
        sample: about an image, with exactly one box as its region target.
        count: how many times the box stands in the track: at 0, step_sec, 2 * step_sec, ...
        step_sec: seconds from one to the next.

    Raises:
        UsageError: the sample is about no image or has no such box, or there is nothing to show.
    """
    if type(count) is not int or count < 1:
        raise UsageError("count", expected="a whole number from 1 on", got=count)
    if not (math.isfinite(step_sec) and step_sec > 0):
        raise UsageError("step_sec", expected="seconds above 0", got=step_sec)
    path = sample.media.path
    if not sample.media.is_file or "*" in path or PurePosixPath(path).suffix.lower() not in IMAGE_SUFFIXES:
        raise UsageError(f"sample {sample.id}, media.path", expected="an image file", got=path)
    boxes = [each.xyxy for each in sample.targets.region or ()]
    if len(boxes) != 1:
        raise UsageError(f"sample {sample.id}, targets.region", expected="exactly one box", got=len(boxes))
    name, end_sec = f"{sample.id}-video", count * step_sec
    made = Sample.model_validate(
        {
            "id": name,
            "source": sample.source,
            "split": sample.split,
            "media": {"path": path, "end_sec": end_sec, "fps": _shown_for(end_sec)},
            "conversation": track_turns(name),
            "prompts": [{"type": "box", "xyxy": boxes[0]}],
            "targets": {"track": {"times_sec": [place * step_sec for place in range(count)], "xyxy": boxes * count}},
            "meta": {**sample.meta, "task": "mask"},
        }
    )
    return made if sample.root is None else made.at(sample.root)


def _shown_for(duration_sec: float) -> float:
    """Images a second, so that one image is shown for no less than the duration, for all that floating point rounds."""
    rate = 1 / duration_sec
    return rate if 1 / rate >= duration_sec else math.nextafter(rate, 0)
