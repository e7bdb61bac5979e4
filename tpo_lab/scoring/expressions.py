"""MeViS and Ref-YouTube-VOS: a folder <video>/<expression> of binary PNGs, one a frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tpo_lab.errors import UsageError
from tpo_lab.files import Record, folders, read_json, record
from tpo_lab.rle import decode_rle
from tpo_lab.scoring.masks import Bools, Track, per_track, read_labels, read_mask, region_and_contour, spread, track
from tpo_lab.scoring.report import Request, Scored, matched

_META = "meta_expressions.json"
_MASKS = "mask_dict.json"


@dataclass(frozen=True)
class _Expression:
    """What one expression means: run lengths per object, by the name of their place; or an object of palette PNGs."""

    name: str
    frames: tuple[str, ...]
    pred: Path
    rle: Mapping[str, list[Any]]
    annotations: Path = Path()
    object_id: int = 0


def score_mevis(request: Request) -> Scored:
    """J&F, J and F of all frames; the true mask joins the objects of an expression, and every expression weighs the same.

    The ground truth holds meta_expressions.json and mask_dict.json. In a prediction every pixel that is not black counts. If missing
    predictions are allowed, the expressions of a video without a folder have J = F = 0.

    Source: the evaluation script of MeViS.
    """
    path = request.gt / _MASKS
    masks = record(str(path), read_json(path))
    truth: dict[str, _Expression] = {}
    for name, video, expression in _expressions(request.gt / _META):
        wanted = _frames(video)
        keys = [str(each) for each in _listed(expression, "anno_id")]
        rle = {f"{path}, {key}": _runs(masks, key, len(wanted)) for key in keys}
        truth[name] = _Expression(name, wanted, request.pred / name, rle)
    return _score(request, truth, _mevis_track)


def score_ref_youtube_vos(request: Request) -> Scored:
    """J&F, J and F of all frames that meta_expressions.json lists; every expression weighs the same.

    The ground truth holds meta_expressions.json and Annotations/<video>/<frame>.png, in which a pixel's value is its object; or it is the
    data set's root. Videos of the test split are left out where its meta_expressions.json is there. In a prediction, or below its folder
    `Annotations`, every pixel that is not black counts. Missing videos as in `score_mevis`.

    Source: the description of Ref-YouTube-VOS; its own evaluation runs on a server.
    """
    meta, annotations = _ref_youtube_vos_files(request.gt)
    hidden = meta.parent.parent / "test" / _META
    left_out = set(_videos(hidden)) if meta.parent.name == "valid" and hidden.is_file() else set()
    pred = request.pred / "Annotations" if (request.pred / "Annotations").is_dir() else request.pred
    truth: dict[str, _Expression] = {}
    for name, video, expression in _expressions(meta):
        key = name.split("/")[0]
        if key not in left_out:
            object_id = _object_id(expression)
            truth[name] = _Expression(name, _frames(video), pred / name, {}, annotations / key, object_id)
    return _score(request, truth, _ref_youtube_vos_track, pred)


def _score(request: Request, truth: Mapping[str, _Expression], tracked: Callable[[_Expression], Track], pred: Path | None = None) -> Scored:
    videos = folders(pred or request.pred)
    predicted = {f"{video}/{name}" for video, path in videos.items() for name in folders(path)}
    names, counts = matched(sorted(predicted), truth, request, what="expression")
    for name, each in truth.items():
        if name not in predicted and each.pred.parent.name in videos:
            hint = "Only a video without a folder can be missing."
            raise UsageError(str(each.pred), expected="a folder of masks, as its video has a folder", got="nothing", hint=hint)
    found = dict(zip(names, spread(tracked, [truth[name] for name in names], request), strict=True))
    nothing = np.zeros(1)
    tracks = [found.get(name, Track(name, nothing, nothing)) for name in truth]
    rules = {"frames": "all", "missing video": "J = F = 0"}
    return Scored(counts, region_and_contour(tracks), {"expressions": per_track(tracks)}, rules)


def _mevis_track(expression: _Expression) -> Track:
    def pairs() -> Iterator[tuple[Bools, Bools]]:
        size = None
        for place, frame in enumerate(expression.frames):
            path = expression.pred / f"{frame}.png"
            pred = read_mask(path, size)
            size = pred.shape
            true = np.zeros(size, dtype=bool)
            for where, runs in expression.rle.items():
                if runs[place]:
                    mask = decode_rle(f"{where}[{place}]", runs[place])
                    if mask.shape != size:
                        expected = "the size of the true mask, {} x {}".format(*mask.shape)
                        raise UsageError(str(path), expected=expected, got="{} x {}".format(*size))
                    true |= mask
            yield pred, true

    return track(expression.name, pairs())


def _ref_youtube_vos_track(expression: _Expression) -> Track:
    def pairs() -> Iterator[tuple[Bools, Bools]]:
        for frame in expression.frames:
            labels = read_labels(expression.annotations / f"{frame}.png")
            yield read_mask(expression.pred / f"{frame}.png", labels.shape), labels == expression.object_id

    return track(expression.name, pairs())


def _ref_youtube_vos_files(root: Path) -> tuple[Path, Path]:
    places = [(root / _META, root / "Annotations")]
    places += [(root / "meta_expressions" / split / _META, root / split / "Annotations") for split in ("valid", "train")]
    for meta, masks in places:
        if meta.is_file() and masks.is_dir():
            return meta, masks
    raise UsageError(str(root), expected=f"{_META} and a folder Annotations", got=sorted(path.name for path in root.glob("*"))[:10])


def _videos(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise UsageError(str(path.parent), expected=f"a folder with {path.name}", got="none")
    return record(f"{path}, videos", record(str(path), read_json(path)).value("videos")).fields


def _expressions(path: Path) -> Iterator[tuple[str, Record, Record]]:
    """Each expression as its name "video/expression", the record of its video, and its own."""
    for key, fields in _videos(path).items():
        video = record(f"{path}, {key}", fields)
        for name, expression in record(video.where, video.value("expressions")).fields.items():
            yield f"{key}/{name}", video, record(f"{path}, {key}, {name}", expression)


def _listed(row: Record, name: str) -> list[Any]:
    hint = "" if name in row.fields else "Where the objects are hidden, the data set's server scores."
    value = row.fields.get(name)
    if not isinstance(value, list) or not value:
        raise UsageError(f"{row.where}, {name}", expected="a list with at least one entry", got=value, hint=hint)
    return value


def _frames(video: Record) -> tuple[str, ...]:
    names = _listed(video, "frames")
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"{video.where}, frames", expected="names of frames", got=names[:5])
    return tuple(names)


def _runs(masks: Record, key: str, count: int) -> list[Any]:
    runs = masks.value(key)
    if not isinstance(runs, list) or len(runs) < count:
        got = len(runs) if isinstance(runs, list) else runs
        raise UsageError(f"{masks.where}, {key}", expected=f"a mask or null for each of {count} frames", got=got)
    return runs


def _object_id(expression: Record) -> int:
    value = expression.fields.get("obj_id")
    if not str(value).isdecimal():
        hint = "" if "obj_id" in expression.fields else "Where the objects are hidden, the data set's server scores."
        raise UsageError(f"{expression.where}, obj_id", expected="the number of an object", got=value, hint=hint)
    return int(str(value))
