"""DAVIS 2017: a folder of palette PNGs per sequence, in which a pixel's value is its object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError
from tpo_lab.files import folders, read_text
from tpo_lab.metrics.masks import contour_accuracy, frame_statistics, proposal_objects, region_similarity
from tpo_lab.scoring.masks import VOID, Labels, Track, frames, inner_frames, over_videos, per_track, read_labels, region_and_contour, spread
from tpo_lab.scoring.report import Measure, Request, Scored, matched

Floats = NDArray[np.float64]

DAVIS_TASKS = ("semi-supervised", "unsupervised")
_SEMI_SUPERVISED = DAVIS_TASKS[0]
_MOST_PROPOSALS = 20


@dataclass(frozen=True)
class _Sequence:
    name: str
    pred: Path
    true: Path


def score_davis(request: Request) -> Scored:
    """J&F, and J and F with recall and decay, of the objects of the first true frame; every object weighs the same.

    - `semi-supervised`: the first and the last frame do not count, void pixels are background, an object without predicted pixels is
      empty, and a predicted id above the number of objects is refused.
    - `unsupervised`: all frames, void pixels count nowhere, up to 20 proposals, each object with one of them by the best assignment.

    The ground truth is a folder of sequences, or the data set's root; then, and inside it, `ImageSets/2017/val.txt` says which sequences.

    Source: DAVIS 2017 evaluation. Differs in: images of the frames are not asked for, so every true PNG is a frame.
    """
    truth, predicted = _truth(request), folders(request.pred)
    names, counts = matched(list(predicted), truth, request, what="sequence")
    semi = request.variant == _SEMI_SUPERVISED
    work = [_Sequence(name, predicted[name], truth[name]) for name in names]
    tracks = [each for found in spread(_semi_supervised if semi else _unsupervised, work, request) for each in found]
    if not tracks:
        raise UsageError(str(request.gt), expected="an object in the first frame of a sequence", got="none", hint="255 stands for void.")
    measures = region_and_contour(tracks, of_videos=True)
    for letter, values in (("J", [each.region for each in tracks]), ("F", [each.contour for each in tracks])):
        _, recall, decay = np.array([frame_statistics(each) for each in values]).T
        measures[f"{letter}-Recall"] = over_videos(tracks, recall)
        # an undefined mean has no interval either
        measures[f"{letter}-Decay"] = over_videos(tracks, decay) if np.isfinite(decay).all() else Measure([np.nan])
    rules = {
        "frames": "without first and last" if semi else "all",
        "void": "background" if semi else "ignored",
        "objects": "of the first frame",
    }
    return Scored(counts, measures, {"objects": per_track(tracks)}, rules)


def _truth(request: Request) -> dict[str, Path]:
    kind = "Annotations" if request.variant == _SEMI_SUPERVISED else "Annotations_unsupervised"
    inside = request.gt / kind / "480p"
    root = request.gt if inside.is_dir() else request.gt.parent.parent
    found = folders(inside if inside.is_dir() else request.gt)
    listed = root / "ImageSets" / "2017" / "val.txt"
    if listed.is_file():
        names = read_text(listed).split()
        found = {name: found[name] for name in names if name in found} or found
    if not found:
        raise UsageError(str(request.gt), expected="a folder of PNGs per sequence", got="none")
    return found


def _semi_supervised(sequence: _Sequence) -> list[Track]:
    names = inner_frames(sequence.true)
    first = _objects_only(read_labels(sequence.true / frames(sequence.true)[0]))
    objects = int(first.max())
    values = np.zeros((2, objects, len(names)))
    for place, name in enumerate(names):
        true = _objects_only(read_labels(sequence.true / name, first.shape))
        pred = _predicted(sequence.pred / name, first.shape, objects, "the number of objects in the first true frame")
        for each in range(objects):
            masks = pred == each + 1, true == each + 1
            values[:, each, place] = region_similarity(*masks), contour_accuracy(*masks)
    return _tracks(sequence.name, *values)


def _unsupervised(sequence: _Sequence) -> list[Track]:
    names = frames(sequence.true)
    first = _objects_only(read_labels(sequence.true / names[0]))
    meaning = "the largest number of proposals"
    predicted = [_predicted(sequence.pred / name, first.shape, _MOST_PROPOSALS, meaning) for name in names]
    used, objects = max(int(pred.max()) for pred in predicted), int(first.max())
    # a proposal without a pixel makes up for each object above their number
    values = np.zeros((2, max(used, objects), objects, len(names)))
    for place, (name, pred) in enumerate(zip(names, predicted, strict=True)):
        labels = read_labels(sequence.true / name, first.shape)
        for proposal, each in np.ndindex(values.shape[1:3]):
            masks = pred == proposal + 1, labels == each + 1, labels == VOID
            values[:, proposal, each, place] = region_similarity(*masks), contour_accuracy(*masks)
    return _tracks(sequence.name, *proposal_objects(*values))


def _tracks(sequence: str, region: Floats, contour: Floats) -> list[Track]:
    return [Track(f"{sequence}/{place}", j, f) for place, (j, f) in enumerate(zip(region, contour, strict=True), start=1)]


def _predicted(path: Path, size: tuple[int, ...], most: int, meaning: str) -> Labels:
    pred = read_labels(path, size)
    if int(pred.max()) > most:
        raise UsageError(str(path), expected=f"object ids up to {most}, {meaning}", got=int(pred.max()))
    return pred


def _objects_only(labels: Labels) -> Labels:
    return np.where(labels == VOID, 0, labels)
