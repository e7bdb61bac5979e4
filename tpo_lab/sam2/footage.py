"""Objects followed through a video file, frame by frame, in memory that does not grow with its length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.sam2.tracker import Masks, Prompt, Tracker
from tpo_lab.video.source import Picture, Source

POLICIES = ("raise", "drop")
FRAMES_AT_ONCE = 32
"""Frames that are decoded ahead, at the size that the tracker sees."""


@dataclass(frozen=True)
class Followed:
    """What was found in one frame of a video.

    Attributes:
        frame: its number.
        time_sec: when it comes on display, from the first frame of the file.
        logits: of the masks, at a quarter of the tracker's square [object, m, m]; whether or not the object is there.
        there: logits of the objects' being in the frame [object].
        size: height and width of the original frame.
    """

    frame: int
    time_sec: float
    logits: Tensor
    there: Tensor
    size: tuple[int, int]

    def masks(self) -> Tensor:
        """Masks of the frame's own size, bool [object, h, w], nothing where the object is not in the frame."""
        large = functional.interpolate(self.logits[:, None].float(), self.size, mode="bilinear", align_corners=False)[:, 0]
        return (large > 0) & (self.there > 0)[:, None, None]


class Prompter(Protocol):
    """Makes a prompt when the size of the frames is known."""

    def __call__(self, size: tuple[int, int]) -> Prompt:
        """The prompt for frames of this height and width."""


@torch.no_grad()
def follow_footage(
    tracker: Tracker, source: Source, prompter: Prompter, *, at: int = 0, first: int = 0, last: int | None = None, on_corrupt: str = "raise"
) -> Iterator[Followed]:
    """Follow objects from frame `at` to the last one, and then from there back to the first.

    What is yielded is all that is kept, so that a caller may stop, or be stopped, at any frame and lose nothing. A clip read backward is
    decoded in short runs.

    Args:
        tracker: not soft.
        source: an opened video or image sequence.
        prompter: makes the prompt of frame `at`.
        at: the frame that is prompted.
        first: the earliest frame to follow to.
        last: the latest; that of the video where None.
        on_corrupt: "raise", or "drop", which leaves corrupt frames out.

    Raises:
        UsageError: a frame outside the video, a corrupt one under "raise", or a corrupt one to be prompted.
    """
    if on_corrupt not in POLICIES:
        raise unknown_name("on_corrupt", on_corrupt, POLICIES)
    times = source.times_sec
    last = len(times) - 1 if last is None else last
    if not 0 <= first <= at <= last < len(times):
        raise UsageError("at", expected=f"0 <= first <= at <= last < {len(times)} frames", got=(first, at, last))
    bank = tracker.bank(last - first + 1)
    shape: list[tuple[int, int]] = []
    for ahead in (range(at, last + 1), range(at - 1, first - 1, -1)):
        pictures = _pictures(source, ahead, tracker.image_size, shape, strict=on_corrupt == "raise")
        if ahead.step > 0:
            number, picture = next(pictures, (None, None))
            if number != at or picture is None:
                raise UsageError("at", expected="a frame that decodes, to prompt", got=f"the corrupt one at {times[at]:.3f} s")
            masks = tracker.start(at, tracker.encode(_tensor(picture, tracker)), prompter(shape[0]), bank)
            yield _followed(at, times, masks, shape[0])
        frames = ((number, tracker.encode(_tensor(picture, tracker))) for number, picture in pictures)
        for number, masks in tracker.track(frames, bank, backward=ahead.step < 0):
            yield _followed(number, times, masks, shape[0])


def _pictures(
    source: Source, order: Sequence[int], side: int, shape: list[tuple[int, int]], *, strict: bool
) -> Iterator[tuple[int, Picture]]:
    """Frames in this order, brought to the tracker's square; `shape` gets height and width of the first."""

    def fit(picture: Picture) -> Picture:
        if not shape:
            shape.append((picture.shape[0], picture.shape[1]))
        return _squared(picture, side)

    waiting = iter(order)
    while run := list(islice(waiting, FRAMES_AT_ONCE)):
        found = {number: result for number, result in source.decode(run, fit) if number in set(run)}
        for number in run:
            result = found.get(number, "does not come out of the decoder")
            if not isinstance(result, str):
                yield number, result
            elif strict:
                got = f"the frame at {source.times_sec[number]:.3f} s {result}"
                raise UsageError("video", expected="frames that decode", got=got, hint='on_corrupt="drop" leaves them out.')


def _squared(picture: Picture, side: int) -> Picture:
    if picture.shape[:2] == (side, side):
        return picture
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    small = functional.interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=True)
    return small[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def _tensor(picture: Picture, tracker: Tracker) -> Tensor:
    device = tracker.sam.no_memory_embedding.device
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].to(device)


def _followed(number: int, times: np.ndarray[tuple[int], np.dtype[np.float64]], masks: Masks, size: tuple[int, int]) -> Followed:
    return Followed(number, float(times[number]), masks.logits.cpu(), masks.object_logit.cpu(), size)
