"""Masks as PNGs, one a frame: an object is a value of a palette image, or an image of its own."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.datasets.formats.frame_folders import image_size
from tpo_lab.datasets.formats.result_folders import answers_at, new_folder, relative
from tpo_lab.datasets.formats.run_lengths import Bools, Masks, encoded
from tpo_lab.errors import UsageError
from tpo_lab.files import Record
from tpo_lab.rle import decode_rle
from tpo_lab.sample import Sample
from tpo_lab.scoring.masks import VOID, read_labels

Labels = NDArray[np.integer[Any]]


def labels_of(record: Record, file: Path, size: tuple[int, ...] | None = None) -> Labels:
    """Object ids [h, w] of a palette or grey PNG.

    Raises:
        BadRecord: there is no such image, or it is of another size.
    """
    try:
        return read_labels(file, size)
    except UsageError as error:
        raise record.bad(file.name, "mask_image", error.expected, error.got) from None
    # what PIL lets through of a chunk that is cut short
    except (struct.error, zlib.error, IndexError, EOFError) as error:
        raise record.bad(file.name, "mask_image", "a PNG image", str(error)) from None


def object_masks(record: Record, files: Sequence[Path], objects: Iterable[int]) -> tuple[dict[int, Masks], list[int]]:
    """The masks of some objects of a video in every frame, and the frame's width and height; one image is open at a time.

    Raises:
        BadRecord: as `labels_of`; the first image says which size all have.
    """
    found: dict[int, Masks] = {each: [] for each in objects}
    size: tuple[int, ...] | None = None
    for file in files:
        labels = labels_of(record, file, size)
        size = labels.shape
        for each, masks in found.items():
            masks.append(encoded(labels == each))
    return found, [int(side) for side in (size or ())[::-1]]


def objects_in(labels: Labels) -> list[int]:
    """The ids in an image, in order, without background and void."""
    return [int(each) for each in np.unique(labels) if each not in (0, VOID)]


def write_binary(samples: Iterable[Sample], path: Path, place: Callable[[Sample], Sequence[str]]) -> int:
    """Writes <place>/<frame>.png for every frame of each sample, white where its mask is; a frame without an answer is black.

    Raises:
        UsageError: the folder is not new, or a sample does not name its frames.
    """
    count = 0
    with new_folder(path) as root:
        for sample in samples:
            folder = relative(root, sample, place(sample))
            folder.mkdir(parents=True, exist_ok=True)
            for name, mask in _predicted(sample).items():
                _save(folder / f"{name}.png", np.where(mask, 255, 0).astype(np.uint8))
            count += 1
    return count


def write_palette(samples: Iterable[Sample], path: Path, place: Callable[[Sample], tuple[str, int]]) -> int:
    """Writes <folder>/<frame>.png, palette images that join the objects of a video; where two meet, the smaller number stands.

    Args:
        samples: one an object, in any order.
        path: a new folder.
        place: the folder of a sample, and the number of its object.

    Raises:
        UsageError: as `write_binary`.
    """
    count = 0
    with new_folder(path) as root:
        for sample in samples:
            name, number = place(sample)
            folder = relative(root, sample, [name])
            folder.mkdir(parents=True, exist_ok=True)
            for frame, mask in _predicted(sample).items():
                _paint(folder / f"{frame}.png", mask, number)
            count += 1
    return count


def _paint(file: Path, mask: Bools, number: int) -> None:
    labels: Labels = read_labels(file, mask.shape) if file.exists() else np.zeros(mask.shape, dtype=np.uint8)
    free = (labels == 0) | (labels > number)
    _save(file, np.where(mask & free, number, labels).astype(np.uint8), palette=True)


def _save(file: Path, values: NDArray[np.uint8], *, palette: bool = False) -> None:
    from PIL import Image

    image = Image.fromarray(values)
    if palette:
        image.putpalette([_shade(value, channel) for value in range(256) for channel in range(3)])
    image.save(file)


def _shade(value: int, channel: int) -> int:
    """The colour of an object: bit 3 * k + channel of its number is bit 7 - k of the channel, so that small numbers differ most."""
    return sum(((value >> (3 * place + channel)) & 1) << (7 - place) for place in range(8))


def _predicted(sample: Sample) -> Mapping[str, Bools]:
    """The answer's mask [h, w] at every frame of the sample, by the frame's name."""
    names: Any = sample.meta.get("frames")
    times: Any = sample.meta.get("times_sec")
    if not isinstance(names, list) or not isinstance(times, list) or len(names) != len(times):
        expected = "names and times of the frames, which `tpo-lab data convert` keeps"
        raise UsageError(f"sample {sample.id}, meta.frames", expected=expected, got=names)
    target = sample.targets.mask
    values = [None] * len(names) if target is None else answers_at(times, target.times_sec, target.rle)
    width, height = _size(sample)
    nothing = np.zeros((height, width), dtype=bool)
    masks = {}
    for name, rle in zip(map(str, names), values, strict=True):
        mask = nothing if rle is None else decode_rle(f"sample {sample.id}, targets.mask", rle.model_dump())
        if mask.shape != nothing.shape:
            expected = f"masks of the frame's size, {height} x {width}"
            raise UsageError(f"sample {sample.id}, targets.mask", expected=expected, got=" x ".join(map(str, mask.shape)))
        masks[name] = mask
    return masks


def _size(sample: Sample) -> tuple[int, int]:
    """Width and height: as the annotation or the answer has them, or of the first image."""
    size: Any = sample.meta.get("size")
    if size is None and sample.targets.mask is not None:
        size = next(([rle.size[1], rle.size[0]] for rle in sample.targets.mask.rle if rle is not None), None)
    if size is None and sample.media.is_file:
        images = sorted(sample.media_path.parent.glob("*.jpg")) if sample.media_path.name == "*.jpg" else []
        size = image_size(images[0]) if images else None
    if size is None:
        raise UsageError(f"sample {sample.id}, meta.size", expected="the frame's width and height, a mask, or the images", got="none")
    return int(size[0]), int(size[1])
