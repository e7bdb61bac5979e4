"""What the benchmarks of masks share: PNG masks with their sizes checked, work spread over processes, and J&F over objects."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError
from tpo_lab.metrics.masks import contour_accuracy, region_similarity
from tpo_lab.scoring.report import Measure, Request

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Labels = NDArray[np.integer[Any]]
Item = TypeVar("Item")
Result = TypeVar("Result")

VOID = 255
"""The value of pixels that the annotators left open."""


@dataclass(frozen=True)
class Track:
    """J and F [frame] of one object, or of one expression."""

    name: str
    region: Floats
    contour: Floats


def track(name: str, pairs: Iterator[tuple[Bools, Bools]]) -> Track:
    """The track of a sequence of predicted and true masks."""
    rows = np.array([(region_similarity(pred, true), contour_accuracy(pred, true)) for pred, true in pairs]).reshape(-1, 2)
    return Track(name, rows[:, 0], rows[:, 1])


def region_and_contour(tracks: Sequence[Track], *, of_videos: bool = False) -> dict[str, Measure]:
    """J&F, J and F: the mean over tracks of the mean over frames.

    Args:
        tracks: of objects or expressions.
        of_videos: whether tracks are "video/object", so that intervals draw videos with all their objects; else they draw tracks.
    """
    j, f = (np.array([each.mean() for each in values]) for values in zip(*((one.region, one.contour) for one in tracks), strict=True))
    named = {"J&F": (j + f) / 2, "J": j, "F": f}
    return {name: over_videos(tracks, values) if of_videos else Measure(values) for name, values in named.items()}


def over_videos(tracks: Sequence[Track], values: Floats) -> Measure:
    """The mean of one value per track, in rows (sum, count) of a video each, so that intervals draw videos."""
    videos, place = np.unique([each.name.split("/")[0] for each in tracks], return_inverse=True)
    rows = np.stack([np.bincount(place, weights, len(videos)) for weights in (values, np.ones(len(values)))], axis=1)
    return Measure(rows, statistic=lambda drawn: float(drawn[:, 0].sum() / drawn[:, 1].sum()))


def per_track(tracks: Sequence[Track]) -> dict[str, dict[str, float]]:
    """J and F of each track in percent, for the detail of a report."""
    return {one.name: {"J": 100 * float(one.region.mean()), "F": 100 * float(one.contour.mean())} for one in tracks}


def read_labels(path: Path, size: tuple[int, ...] | None = None) -> Labels:
    """Object ids [h, w] of a palette or grey PNG.

    Args:
        path: the file.
        size: height and width that it must have.

    Raises:
        UsageError: no file, no such image, or another size.
    """
    labels: Labels = np.asarray(_opened(path))
    if labels.ndim != 2 or labels.dtype.kind not in "bui":
        raise UsageError(str(path), expected="a palette or grey image whose values are object ids", got=f"values {labels.shape}")
    _check_size(path, labels.shape, size)
    return labels.astype(np.uint8) if labels.dtype.kind == "b" else labels


def read_mask(path: Path, size: tuple[int, ...] | None = None) -> Bools:
    """A mask [h, w]: pixels of an image whose colour, made grey, is not black.

    Args:
        path: as in `read_labels`.
        size: as in `read_labels`.

    Raises:
        UsageError: as `read_labels`.
    """
    image = _opened(path)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise UsageError(str(path), expected="an image of eight bits a channel, or fewer", got=image.mode)
    mask: Bools = np.asarray(image.convert("L"), dtype=np.uint8) > 0
    _check_size(path, mask.shape, size)
    return mask


def _opened(path: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise UsageError(str(path), expected="the image of this frame", got="nothing")
    try:
        image = Image.open(path)
        image.load()
    # PIL reports a broken PNG in each of these ways
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(str(path), expected="a PNG image", got=str(error)) from None
    return image


def _check_size(path: Path, found: tuple[int, ...], size: tuple[int, ...] | None) -> None:
    if size is not None and found != size:
        raise UsageError(str(path), expected="the size of the true mask, {} x {}".format(*size), got="{} x {}".format(*found))


def frames(folder: Path) -> list[str]:
    """The names of the PNG files of a folder, in order.

    Raises:
        UsageError: there is none.
    """
    names = sorted(path.name for path in folder.glob("*.png"))
    if not names:
        raise UsageError(str(folder), expected="PNG files, one a frame", got="none")
    return names


def inner_frames(folder: Path) -> list[str]:
    """The frames without the first, which is given to a tracker, and the last.

    Raises:
        UsageError: nothing is left.
    """
    names = frames(folder)
    if len(names) < 3:
        raise UsageError(str(folder), expected="at least 3 frames, of which the first and the last do not count", got=len(names))
    return names[1:-1]


def spread(function: Callable[[Item], Result], items: Sequence[Item], request: Request) -> list[Result]:
    """`function` of each item, in order, in `request.workers` processes; `request.progress` hears of each."""
    found = []
    for result in _results(function, items, min(request.workers, len(items))):
        found.append(result)
        if request.progress is not None:
            request.progress(len(found), len(items))
    return found


def _results(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    if workers <= 1:
        yield from map(function, items)
        return
    spawn = multiprocessing.get_context("spawn")  # the caller may have threads, which a forked process would not survive
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_leave_interrupts_to_the_parent) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
