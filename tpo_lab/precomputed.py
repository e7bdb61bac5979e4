"""Features of clips from files that somebody else computed: one file per clip and kind, one row per step of time.

Not here: the features of the backbone's own vision tower, and who normalises what is read (the head does).
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tpo_lab import knobs
from tpo_lab.errors import UsageError
from tpo_lab.knobs import Count, Positive
from tpo_lab.sample import Media, Sample

SUFFIXES = (".pt", ".npz", ".npy")
SLACK_STEPS = 4
"""So many rows may a file be longer or shorter than its clip, or than the files of other kinds: extractors round differently."""
_KEY = "features"
_UNREADABLE = (OSError, EOFError, ValueError, TypeError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile)


@dataclass(frozen=True, kw_only=True)
class FeatureFolder:
    """A folder with the files of one kind of features.

    Args:
        folder: its path; a relative one starts, as the paths of media do, from the folder of the file that the sample was read from.
        width: of a row, e.g. 768 of InternVideo2, 512 of CLIP, 2304 of SlowFast.
    """

    folder: str
    width: Count

    def __post_init__(self) -> None:
        knobs.check(self, "features")
        if not self.folder.strip():
            raise UsageError("features: folder", expected="a path", got=self.folder)


@dataclass(frozen=True)
class ClipFeatures:
    """What the files of one clip hold.

    Attributes:
        values: as they stand in the files, kinds side by side, float32 [step, d].
        times_sec: the middle of each step, in seconds from the start of the clip.
    """

    values: Tensor
    times_sec: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class FeatureFiles:
    """Finds and reads the features of a sample's clip.

    A file is named like the media: `clip_features/a.npz` belongs to `videos/a.mp4`. Where the folder has folders in it, the longest end
    of the media's path that names a file wins: `clip_features/videos/a.npz` before `clip_features/a.npz`. A pattern of frames goes by the
    name of their folder. Of one name, .pt comes before .npz and .npz before .npy. A file holds one array [step, d], or several of which
    one is called "features".

    Row k belongs to the seconds [k, k + 1) * step_sec of the media. Where kinds differ in their number of rows, the shortest counts; rows
    whose middle lies outside the sample's part of the media are left out.

    Args:
        folders: one per kind, in the order in which they are put side by side.
        step_sec: seconds from one row to the next, of all kinds; QVHighlights has 2.

    Raises:
        UsageError: no folder, or a step of no length.

    Source: the loaders of Moment-DETR and CG-DETR (shortest kind, order of kinds).
    Differs in: they cut any surplus silently, so that features of another rate are taken for those of the clip.
    """

    folders: tuple[FeatureFolder, ...]
    step_sec: Positive

    def __post_init__(self) -> None:
        knobs.check(self, "features")
        if not self.folders:
            raise UsageError("features", expected="at least one folder", got=())

    @property
    def widths(self) -> tuple[int, ...]:
        """Of each kind; their sum is the width d of what `load` gives."""
        return tuple(kind.width for kind in self.folders)

    def complete(self, sample: Sample) -> bool:
        """Whether there is a file of every kind."""
        return sample.media.is_file and all(_found(_root(kind, sample), sample.media) is not None for kind in self.folders)

    def load(self, sample: Sample, duration_sec: float) -> ClipFeatures:
        """Read the files of a sample's clip.

        Args:
            duration_sec: of the part of the media that the sample is about.

        Raises:
            UsageError: a file is missing, cannot be read, holds something else than finite numbers [step, width], or is too long or too
                short for the clip or for the other kinds.
        """
        if not sample.media.is_file:
            raise UsageError(f"sample {sample.id}: features", expected="media that are files", got=sample.media.path)
        paths = [_path(kind, sample) for kind in self.folders]
        parts = [read_features(path, kind.width) for path, kind in zip(paths, self.folders, strict=True)]
        shortest, longest = (chosen(range(len(parts)), key=lambda place: len(parts[place])) for chosen in (min, max))
        count = len(parts[shortest])
        if len(parts[longest]) > count + SLACK_STEPS:
            expected = f"{count} rows as in {paths[shortest]}, or up to {SLACK_STEPS} more"
            raise UsageError(str(paths[longest]), expected=expected, got=len(parts[longest]), hint="All kinds need rows of the same step.")
        self._require_rows(paths[shortest], count, sample.media, duration_sec)
        times = (torch.arange(count, dtype=torch.float64) + 0.5) * self.step_sec - sample.media.start_sec
        inside = (times >= 0) & (times < duration_sec)
        if not inside.any():
            # a clip shorter than half a step, or one that lies between two middles
            inside[(times - duration_sec / 2).abs().argmin()] = True
        values = torch.cat([part[:count] for part in parts], dim=-1)[inside]
        return ClipFeatures(values, tuple(times[inside].clamp(0, duration_sec).tolist()))

    def _require_rows(self, path: Path, count: int, media: Media, duration_sec: float) -> None:
        end = (media.start_sec + duration_sec) / self.step_sec
        # with an end the clip may be a part of a longer video, whose length is not known here
        too_many = media.end_sec is None and count > end + SLACK_STEPS
        if too_many or count < end - SLACK_STEPS:
            expected = (
                f"about {end:.0f} rows, one for each {self.step_sec:g} s up to second {media.start_sec + duration_sec:g} of the video"
            )
            raise UsageError(str(path), expected=expected, got=count, hint="Check step_sec, and that the file belongs to this video.")


def read_features(path: Path, width: int) -> Tensor:
    """The rows of a .pt, .npz or .npy file, float32 [step, width]. No code in the file is run.

    Raises:
        UsageError: it cannot be read, or holds something else than finite numbers in at least one row of `width`.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True) if path.suffix == ".pt" else _numpy(path)
        values = torch.as_tensor(_chosen(held, path))
    except UsageError:
        raise
    except _UNREADABLE as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(str(path), expected=f"a {path.suffix} file with numbers", got=reason, hint="Write the file again.") from error
    if values.ndim != 2 or values.shape[1] != width or not len(values):
        hint = "The width is set beside the folder, in the head's `features`."
        raise UsageError(str(path), expected=f"at least one row, [step, {width}]", got=tuple(values.shape), hint=hint)
    if values.is_complex() or values.dtype == torch.bool:
        raise UsageError(str(path), expected="real numbers", got=values.dtype)
    values = values.detach().float()
    wrong = int((~values.isfinite()).any(-1).sum())
    if wrong:
        raise UsageError(
            str(path), expected="finite numbers", got=f"NaN or infinity in {wrong} of {len(values)} rows", hint="Extract it anew."
        )
    return values


def _numpy(path: Path) -> Any:
    held = np.load(path, allow_pickle=False)
    if isinstance(held, np.ndarray):
        return held
    with held:
        return {name: held[name] for name in held.files}


def _chosen(held: Any, path: Path) -> Any:
    """The array of a file: the only one, or the one called "features"."""
    if isinstance(held, Mapping):
        if _KEY not in held and len(held) != 1:
            raise UsageError(str(path), expected=f'one array, or one called "{_KEY}"', got=sorted(map(str, held)))
        held = held[_KEY] if _KEY in held else next(iter(held.values()))
    if not isinstance(held, (Tensor, np.ndarray)):
        raise UsageError(str(path), expected="an array [step, width]", got=type(held).__name__)
    return held


def _root(kind: FeatureFolder, sample: Sample) -> Path:
    return (sample.root or Path()) / kind.folder


def _path(kind: FeatureFolder, sample: Sample) -> Path:
    root = _root(kind, sample)
    found = _found(root, sample.media)
    if found is None:
        name = list(_names(sample.media))[-1]
        hint = "Relative folders start from the folder of the samples' file." if not root.is_dir() else ""
        got = "no such file" if root.is_dir() else "no such folder"
        raise UsageError(f"sample {sample.id}: features", expected=f"{root / name}{'|'.join(SUFFIXES)}", got=got, hint=hint)
    return found


def _found(root: Path, media: Media) -> Path | None:
    candidates = (root / f"{name}{suffix}" for name in _names(media) for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _names(media: Media) -> Iterator[PurePath]:
    """What a file may be called, without its suffix: ends of the media's path, the longest first."""
    path = PurePath(media.path)
    path = path.parent if any(sign in path.name for sign in "*?") else path.parent / path.stem
    parts = [part for part in path.parts if part != path.anchor and part != ".."]
    yield from (PurePath(*parts[start:]) for start in range(len(parts)))
