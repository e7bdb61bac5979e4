"""Objects followed through a video file, frame by frame, in memory that does not grow with its length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.sam2.tracker import FrameFeatures, Masks, MemoryBank, Prompt, Tracker
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
    """Makes prompts when the size of the frames is known."""

    def __call__(self, size: tuple[int, int]) -> Sequence[Prompt]:
        """Prompts for frames of this height and width; each for one object or several of the same kind, the objects in this order."""


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
        prompter: makes the prompts of frame `at`.
        at: the frame that is prompted.
        first: the earliest frame to follow to.
        last: the latest; that of the video where None.
        on_corrupt: "raise", or "drop", which leaves corrupt frames out.

    Raises:
        UsageError: a frame outside the video, one of another size, a corrupt one under "raise", or a corrupt one to be prompted.
    """
    if on_corrupt not in POLICIES:
        raise unknown_name("on_corrupt", on_corrupt, POLICIES)
    times = source.times_sec
    last = len(times) - 1 if last is None else last
    if not 0 <= first <= at <= last < len(times):
        raise UsageError("at", expected=f"0 <= first <= at <= last < {len(times)} frames", got=(first, at, last))
    bank = tracker.bank(last - first + 1)
    shape: list[tuple[int, int]] = []

    def fit(picture: Picture) -> Picture:
        size = (picture.shape[0], picture.shape[1])
        if not shape:
            shape.append(size)
        if size != shape[0]:
            raise UsageError("video", expected=f"frames of one height and width, {shape[0]} as the first", got=size)
        return _squared(picture, tracker.image_size)

    for ahead in (range(at, last + 1), range(at - 1, first - 1, -1)):
        pictures = pictures_in_order(source, ahead, fit, strict=on_corrupt == "raise")
        if ahead.step > 0:
            number, picture = next(pictures, (None, None))
            if number != at or picture is None:
                raise UsageError("at", expected="a frame that decodes, to prompt", got=f"the corrupt one at {times[at]:.3f} s")
            masks = _start(tracker, at, tracker.encode(_tensor(picture, tracker)), prompter(shape[0]), bank)
            yield _followed(at, times, masks, shape[0])
        frames = ((number, tracker.encode(_tensor(picture, tracker))) for number, picture in pictures)
        for number, masks in tracker.track(frames, bank, backward=ahead.step < 0):
            yield _followed(number, times, masks, shape[0])


def _start(tracker: Tracker, number: int, frame: FrameFeatures, prompts: Sequence[Prompt], bank: MemoryBank) -> Masks:
    """Masks of the prompted frame, which the bank then remembers, one row per object of all prompts."""
    found = [tracker.segment(frame.for_objects(len(prompt.sparse)), prompt) for prompt in prompts]
    # kinds of prompts differ in how many masks they propose: only the chosen ones stand side by side
    masks = Masks.joined([replace(each, candidates=each.logits[:, None], candidate_iou=each.iou[:, None]) for each in found])
    bank.keep(number, tracker.remember(frame.for_objects(len(masks.iou)), masks, prompted=True), prompted=True)
    return masks


def pictures_in_order(
    source: Source, order: Sequence[int], fit: Callable[[Picture], Picture], *, strict: bool, at_once: int = FRAMES_AT_ONCE
) -> Iterator[tuple[int, Picture]]:
    """Numbers and pictures of frames in any order, decoded in short runs, so that no more than `at_once` are held.

    Raises:
        UsageError: a frame that does not decode; where not `strict` it is left out.
    """
    waiting = iter(order)
    while run := list(islice(waiting, at_once)):
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
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    small = functional.interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=True)
    return small[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def _tensor(picture: Picture, tracker: Tracker) -> Tensor:
    device = tracker.sam.no_memory_embedding.device
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].to(device)


def _followed(number: int, times: np.ndarray[tuple[int], np.dtype[np.float64]], masks: Masks, size: tuple[int, int]) -> Followed:
    return Followed(number, float(times[number]), masks.logits.cpu(), masks.object_logit.cpu(), size)
