"""SA-V: a folder of binary PNGs per object and video; or, as in DAVIS, one of palette PNGs per video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tpo_lab.errors import UsageError
from tpo_lab.files import folders
from tpo_lab.metrics.masks import contour_accuracy, region_similarity
from tpo_lab.scoring.masks import Labels, Track, frames, inner_frames, per_track, read_labels, region_and_contour, spread
from tpo_lab.scoring.report import Request, Scored, matched

_ANNOTATIONS = ("Annotations_6fps", "Annotations")


@dataclass(frozen=True)
class _Folder:
    """PNGs of one object (`is_single`), or of a whole video."""

    name: str
    pred: Path
    true: Path
    is_single: bool
    all_frames: bool


def score_sav(request: Request) -> Scored:
    """J&F, J and F over the objects that the counted true frames have; every object weighs the same.

    An object counts from the frame on in which it is first seen, in the truth or in the prediction. Predicted frames that have no true one
    are not read; a true frame without a predicted one is refused. `official` leaves the first and the last frame of each folder out,
    `all-frames` does not. In a palette PNG 255 is an object as any other value, not void. An object of whose folder no counted true frame
    has a pixel is left out, and named in the detail.

    Source: the evaluator of SA-V, which follows vos-benchmark.
    Differs in: that evaluator stops at an object without a true pixel.
    """
    root = next((request.gt / name for name in _ANNOTATIONS if (request.gt / name).is_dir()), request.gt)
    truth, predicted = folders(root), folders(request.pred)
    names, counts = matched(list(predicted), truth, request, what="video")
    work = [each for name in names for each in _folders(name, predicted[name], truth[name], request.variant == "all-frames")]
    found = spread(_objects, work, request)
    tracks = [each for tracks in found for each in tracks]
    if not tracks:
        raise UsageError(str(root), expected="an object in a true frame that counts", got="none")
    detail = {"objects": per_track(tracks), "left_out": [each.name for each, tracks in zip(work, found, strict=True) if not tracks]}
    rules = {"frames": "all" if request.variant == "all-frames" else "without first and last", "objects": "from the first frame with them"}
    return Scored(counts, region_and_contour(tracks, of_videos=True), detail, rules)


def _folders(name: str, pred: Path, true: Path, all_frames: bool) -> list[_Folder]:
    objects = folders(true)
    if not objects:
        return [_Folder(name, pred, true, False, all_frames)]
    return [_Folder(f"{name}/{key}", pred / key, path, True, all_frames) for key, path in objects.items()]


def _objects(folder: _Folder) -> list[Track]:
    values: dict[int, list[tuple[float, float]]] = {}
    in_truth: set[int] = set()
    for name in (frames if folder.all_frames else inner_frames)(folder.true):
        true = read_labels(folder.true / name)
        pred = read_labels(folder.pred / name, true.shape)
        if folder.is_single:
            true, pred = _single(folder.true / name, true), _single(folder.pred / name, pred)
        in_truth |= _ids(true)
        for each in in_truth | values.keys() | _ids(pred):
            masks = pred == each, true == each
            values.setdefault(each, []).append((region_similarity(*masks), contour_accuracy(*masks)))
    rows = {each: np.array(values[each]) for each in sorted(in_truth)}
    return [Track(folder.name if folder.is_single else f"{folder.name}/{each}", *row.T) for each, row in rows.items()]


def _ids(labels: Labels) -> set[int]:
    counts = np.bincount(labels.ravel())
    return set(np.flatnonzero(counts).tolist()) - {0}


def _single(path: Path, labels: Labels) -> Labels:
    values = np.flatnonzero(np.bincount(labels.ravel()))
    if len(values) > 2:
        raise UsageError(str(path), expected="one object and background, since a folder is an object", got=values.tolist())
    return (labels > 0).astype(np.uint8)
