"""LaSOT and GOT-10k: a folder of predicted boxes per sequence, against the folder of annotations."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError
from tpo_lab.files import entries, folders, read_table, read_text
from tpo_lab.metrics.tracking import TrackCurves, got10k_ious, got10k_scores, lasot_curves, lasot_scores, stacked_lasot_scores
from tpo_lab.scoring.masks import spread
from tpo_lab.scoring.report import Measure, Request, Scored, matched

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], float]

_LISTS = frozenset({"testing_set", "training_set"})


@dataclass(frozen=True)
class _Sequence:
    """The files of one sequence: predicted boxes, of one run or several, and true ones; and where the ground truth begins."""

    runs: tuple[Path, ...]
    true: Path
    root: Path
    variant: str = ""


def score_lasot(request: Request) -> Scored:
    """Scores <sequence>.txt files. The ground truth is the toolkit's `annos` folder, or the data set's root.

    Where a `testing_set.txt` stands in the ground truth or beside it, only its sequences are asked for, as far as they have annotations.
    """
    truth, predicted = _lasot_truth(request.gt), _text_files(request.pred)
    names, counts = matched(sorted(predicted), sorted(truth), request, what="sequence")
    work = [_Sequence((predicted[name],), truth[name], request.gt, request.variant) for name in names]
    curves = spread(_lasot_video, work, request)
    rows = np.array([np.concatenate([each.success, each.precision, each.norm_precision]) for each in curves])
    per_video = {name: lasot_scores([each], variant=request.variant) for name, each in zip(names, curves, strict=True)}
    measures = {name: Measure(rows, statistic=_statistic(name, request.variant)) for name in per_video[names[0]]}
    detail = {"videos": {name: {key: 100 * value for key, value in scores.items()} for name, scores in per_video.items()}}
    return Scored(counts, measures, detail)


def score_got10k(request: Request) -> Scored:
    """Scores <sequence>/<sequence>_001.txt (several runs are joined) or <sequence>.txt, on the frames that the cover labels count.

    Raises:
        UsageError: the ground truth is the hidden one, of which only the first box is public.
    """
    truth = {path.parent.name: path for path in sorted(request.gt.glob("*/groundtruth.txt"))}
    if not truth:
        raise UsageError(str(request.gt), expected="folders with groundtruth.txt", got="none")
    runs = _runs(request.pred)
    names, counts = matched(sorted(runs), sorted(truth), request, what="sequence")
    per_video = spread(_got10k_video, [_Sequence(tuple(runs[name]), truth[name], request.gt) for name in names], request)
    # rows of one video: counted frames, and sums over them, so that frames and not videos weigh the same
    rows = np.array([[len(ious), ious.sum(), (ious > 0.5).sum(), (ious > 0.75).sum()] for ious in per_video])
    whole = got10k_scores(np.concatenate(per_video))
    measures = {name: Measure(rows, statistic=_ratio(place)) for place, name in enumerate(whole, start=1)}
    detail = {
        "videos": {name: {"AO": 100 * float(ious.mean()) if len(ious) else None} for name, ious in zip(names, per_video, strict=True)}
    }
    return Scored(counts, measures, detail)


def _statistic(name: str, variant: str) -> Statistic:
    def of(rows: Floats) -> float:
        curves = TrackCurves(rows[:, :21], rows[:, 21:72], rows[:, 72:])
        return stacked_lasot_scores(curves, variant=variant)[name]

    return of


def _ratio(column: int) -> Statistic:
    return lambda rows: float(rows[:, column].sum() / rows[:, 0].sum())


def _lasot_truth(root: Path) -> dict[str, Path]:
    # a sequence, a folder of sequences, or one of classes; deeper lie only images, whose names take long to list
    levels = (sorted(root.glob(f"{above}groundtruth.txt")) for above in ("", "*/", "*/*/"))
    found = {path.parent.name: path for path in next(filter(None, levels), [])} or _text_files(root)
    for listed in (root / "testing_set.txt", root.parent / "testing_set.txt"):
        if listed.is_file():
            names = set(read_text(listed).split())
            found = {name: path for name, path in found.items() if name in names}
            break
    if not found:
        raise UsageError(str(root), expected="<sequence>.txt files, or folders with groundtruth.txt", got="none")
    return found


def _absent(root: Path, annotation: Path, frames: int) -> NDArray[np.bool_]:
    """Flags [frame]: absent/<sequence>.txt of the toolkit, or full occlusion or out of view of the data set."""
    if annotation.name == "groundtruth.txt":
        flags = [_flags(annotation.parent / name, frames) for name in ("full_occlusion.txt", "out_of_view.txt")]
        return flags[0] | flags[1]
    return _flags(root / "absent" / annotation.name, frames)


def _flags(path: Path, frames: int) -> NDArray[np.bool_]:
    words = [word for word in re.split(r"[,\s]+", read_text(path).strip()) if word]
    if len(words) != frames or not set(words) <= {"0", "1"}:
        raise UsageError(str(path), expected=f"{frames} flags 0 or 1", got=f"{len(words)} values")
    flags: NDArray[np.bool_] = np.array(words) == "1"
    return flags


def _lasot_video(sequence: _Sequence) -> TrackCurves:
    (path,) = sequence.runs
    boxes, true = read_table(path, 4, nan=True), read_table(sequence.true, 4, nan=True)
    # one evaluator takes no notice of absence, so that its flags may be missing
    ignored = sequence.variant == "got10k"
    absent = np.zeros(len(true), dtype=bool) if ignored else _absent(sequence.root, sequence.true, len(true))
    try:
        return lasot_curves(boxes, true, absent, variant=sequence.variant)
    except UsageError as error:
        raise UsageError(f"{path}, {error.argument}", expected=error.expected, got=error.got) from None


def _got10k_video(sequence: _Sequence) -> Floats:
    """IoU of the counted frames, of one run after the other."""
    truth = sequence.true
    true = read_table(truth, 4)
    if len(true) == 1:
        raise UsageError(str(truth), expected="a box per frame", got=1, hint="The test set's boxes are hidden; its server scores them.")
    cover = read_table(truth.parent / "cover.label", 1)[:, 0]
    meta = read_text(truth.parent / "meta_info.ini")
    size = re.search(r"resolution\s*[:=]\s*\(?\s*([\d.]+)\s*,\s*([\d.]+)", meta)
    if size is None:
        raise UsageError(str(truth.parent / "meta_info.ini"), expected="resolution: (W, H)", got=meta[:80])
    found = []
    for path in sequence.runs:
        boxes = read_table(path, 4)
        if len(boxes) != len(true):
            raise UsageError(str(path), expected=f"one box per frame ({len(true)})", got=len(boxes))
        found.append(got10k_ious(boxes, true, cover, (float(size.group(1)), float(size.group(2)))))
    return np.concatenate(found)


def _runs(root: Path) -> dict[str, list[Path]]:
    nested = {name: sorted(path.glob(f"{name}_[0-9][0-9][0-9].txt")) for name, path in folders(root).items()}
    return {name: paths for name, paths in nested.items() if paths} or {name: [path] for name, path in _text_files(root).items()}


def _text_files(root: Path) -> dict[str, Path]:
    """The files <sequence>.txt; <sequence>_time.txt and the like, which trackers write beside them, are left out."""
    found = {path.stem: path for path in entries(root) if path.suffix == ".txt" and path.stem not in _LISTS}
    return {name: path for name, path in found.items() if not any(name[: mark.start()] in found for mark in re.finditer("_", name))}
