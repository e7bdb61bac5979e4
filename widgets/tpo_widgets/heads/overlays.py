"""What lies over the frames: boxes of one moment, windows, and masks and tracks of every frame. Checked, and numbered by object.

An object has the place of the true one that it is paired with; what a model gives beside those comes after them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tpo_lab.errors import UsageError
from tpo_lab.records import Record
from tpo_lab.sample.times import nearest_annotation
from tpo_widgets.film import Film
from tpo_widgets.heads.cases import MOST_OBJECTS, Case

RUN_OF_FRAMES = 32
"""Whose masks and boxes travel together."""
TRUTH = "truth"
_EXACT = 6
"""Decimals of a second."""
HOW = ("routed", "forced")


@dataclass(frozen=True)
class Source:
    """One that says where things are: the truth, or one checkpoint in one way.

    Attributes:
        name: "truth", or such as "0.routed": the first checkpoint, with the route that it emits itself.
        heads: what each head says, as a `Record` holds it; the truth as a sample's targets.
        record: of the checkpoint; None for the truth.
        how: "routed" or "forced"; "" for the truth.
    """

    name: str
    heads: Mapping[str, Any]
    record: Record | None = None
    how: str = ""


@dataclass(frozen=True)
class Moving:
    """A mask or a box at some times, of one object.

    Attributes:
        object: its place.
        times_sec: of the values.
        boxes: xyxy in pixels of the original frame, None where it is hidden; empty where only masks are known.
        masks: run lengths in the same way.
        scores: the probability that it can be seen; empty where nobody says.
    """

    object: int
    times_sec: tuple[float, ...]
    boxes: Sequence[Any] = ()
    masks: Sequence[Any] = ()
    scores: Sequence[float] = ()

    def hidden(self, place: int) -> bool:
        """Whether nothing is to be seen of it."""
        return (self.masks or self.boxes)[place] is None


def sources_of(case: Case) -> list[Source]:
    """The truth, and what each checkpoint says in both ways."""
    target = case.sample.targets.model_dump(mode="json", exclude_none=True)
    sides = [(side, record) for side, record in enumerate(case.records) if record is not None]
    said = [Source(f"{side}.{how}", getattr(record, how), record, how) for side, record in sides for how in HOW]
    return [Source(TRUTH, target), *said]


def boxes_of(source: Source, film: Film, truth: Source) -> list[dict[str, Any]]:
    """The boxes of the region head: of which frame, which object, and how well each meets its true one.

    A predicted box is about the frame of the true one that it is paired with. One without a partner is about the first of the true frames,
    or, where nothing is true, about the last frame of the clip (as in `tpo_lab.report.pictures.box_picture`).

    Raises:
        UsageError: no four finite numbers, or too many boxes.
    """
    true = truth.heads.get("region") or []
    if source.record is None:
        return [_box(item["xyxy"], item["time_sec"], place, None, film) for place, item in enumerate(true)]
    found = _four_numbers(f"{source.name} region boxes_xyxy", source.heads.get("region", {}).get("boxes_xyxy") or [])
    elsewhere = true[0]["time_sec"] if true else film.times_sec[-1]
    pairs = _pairs(source, "region") if found else {}
    beside = iter(range(len(true), len(true) + len(found)))
    drawn = []
    for number, xyxy in enumerate(found):
        place, iou = pairs.get(number, (None, None))
        time_sec = elsewhere if place is None else true[place]["time_sec"]
        drawn.append(_box(xyxy, time_sec, next(beside) if place is None else place, iou, film))
    return drawn


def windows_of(source: Source, truth: Source) -> list[dict[str, Any]]:
    """The windows of the temporal head in seconds, the best first: each with its object, its score, and its IoU with its true one.

    Raises:
        UsageError: no two finite numbers, or too many windows.
    """
    said = source.heads.get("temporal", {})
    found = _numbers(f"{source.name} windows_sec", said.get("windows_sec") or [], 2, "(start, end) in seconds")
    if source.record is None:
        return [{"window": window, "object": place, "score": None, "iou": None} for place, window in enumerate(found)]
    true = (truth.heads.get("temporal") or {}).get("windows_sec") or []
    scores = said.get("scores") or [None] * len(found)
    if len(scores) != len(found):
        raise UsageError(f"{source.name} temporal scores", expected=f"one for each of the {len(found)} windows", got=len(scores))
    pairs = _pairs(source, "temporal") if found else {}
    beside = iter(range(len(true), len(true) + len(found)))
    drawn = []
    for number, (window, score) in enumerate(zip(found, scores, strict=True)):
        place, iou = pairs.get(number, (None, None))
        drawn.append({"window": window, "object": next(beside) if place is None else place, "score": _finite(score), "iou": iou})
    return drawn


def moving_of(source: Source, film: Film) -> list[Moving]:
    """The masks and tracks of a source. The truth's are of one object, and may have times of their own.

    Raises:
        UsageError: masks of another size than the frame's, other numbers of values than of times, or too many objects.
    """
    if source.record is None:
        mask, track = source.heads.get("mask"), source.heads.get("track")
        true = [Moving(0, tuple(mask["times_sec"]), masks=mask["rle"])] if mask else []
        true += [Moving(0, tuple(track["times_sec"]), boxes=track["xyxy"])] if track else []
        return [_checked("target", each, film) for each in true]
    said = source.heads.get("mask") or {}
    lists = [said.get(name) or [] for name in ("track_xyxy", "masks", "scores")]
    count = max(len(lists[0]), len(lists[1]))
    _at_most(f"{source.name} masks", count)
    times = tuple(_numbers(f"{source.name} times_sec", [said.get("times_sec") or []], len(said.get("times_sec") or []), "seconds")[0])
    of_objects = [[list(each[place]) if place < len(each) else [] for each in lists] for place in range(count)]
    return [_checked(f"{source.name} object {place}", Moving(place, times, *mine), film) for place, mine in enumerate(of_objects)]


def run_of(source: Source, film: Film, run: int) -> dict[str, Any]:
    """Masks and boxes over `RUN_OF_FRAMES` frames: each once in "table", and by frame and column where they stand in it.

    A frame shows what is said of the time nearest to it, where that is no farther than half of the usual step between two of them; "at" is
    the frame that it is said of. "objects" tells each column's object.

    Raises:
        UsageError: there are no such frames.
    """
    first = run * RUN_OF_FRAMES
    frames = range(first, min(first + RUN_OF_FRAMES, len(film)))
    if run < 0 or not frames:
        raise UsageError("run", expected=f"0 to {(len(film) - 1) // RUN_OF_FRAMES}", got=run)
    table: list[dict[str, Any]] = []
    parts = moving_of(source, film)
    columns = [_column(part, film, frames, table) for part in parts]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return {"first": first, "table": table, "objects": [part.object for part in parts], "frames": rows}


def items_on(part: Moving, film: Film, frames: Sequence[int]) -> list[int]:
    """Which of the values each frame shows; -1 for none."""
    if len(part.times_sec) < 2:
        here = [film.nearest(time_sec) for time_sec in part.times_sec]
        return [0 if frame in here else -1 for frame in frames]
    nearest, near = nearest_annotation([film.times_sec[frame] for frame in frames], part.times_sec)
    return [item if counts else -1 for item, counts in zip(nearest.tolist(), near.tolist(), strict=True)]


def _column(part: Moving, film: Film, frames: range, table: list[dict[str, Any]]) -> list[int]:
    """The places in the table of what one part shows in each frame."""
    items = items_on(part, film, frames)
    place_of = {-1: -1}
    for item in items:
        if item not in place_of:
            place_of[item] = len(table)
            table.append(_entry(part, item, film))
    return [place_of[item] for item in items]


def _entry(part: Moving, item: int, film: Film) -> dict[str, Any]:
    time_sec = part.times_sec[item]
    found: dict[str, Any] = {"at": film.nearest(time_sec), "time": round(time_sec, _EXACT)}
    if part.boxes:
        found["box"] = None if part.boxes[item] is None else [round(float(edge), 3) for edge in part.boxes[item]]
    if part.masks:
        found["mask"] = part.masks[item]
    if part.scores:
        found["score"] = round(float(part.scores[item]), 4)
    return found


def _checked(where: str, part: Moving, film: Film) -> Moving:
    for name in ("boxes", "masks", "scores"):
        values = getattr(part, name)
        if len(values) not in (0, len(part.times_sec)):
            raise UsageError(f"{where}, {name}", expected=f"one for each of the {len(part.times_sec)} times", got=len(values))
    _four_numbers(f"{where}, boxes", [box for box in part.boxes if box is not None], most=None)
    width, height = film.size_wh
    for mask in part.masks:
        if mask is not None and (not isinstance(mask, Mapping) or list(mask.get("size", ())) != [height, width]):
            got = mask.get("size") if isinstance(mask, Mapping) else mask
            raise UsageError(f"{where}, masks", expected=f"run lengths of the frame's height and width, {[height, width]}", got=got)
    if any(later <= earlier for earlier, later in zip(part.times_sec, part.times_sec[1:], strict=False)):
        raise UsageError(f"{where}, times_sec", expected="rising times", got=list(part.times_sec)[:8])
    return part


def _pairs(source: Source, head: str) -> dict[int, tuple[int, float]]:
    """Predicted -> true object and their IoU."""
    from tpo_lab.probes.overlaps import matches_of

    assert source.record is not None
    found = matches_of(source.record, head, source.how)
    return {match.predicted: (match.target, round(match.iou, 4)) for match in found if match.predicted is not None}


def _box(xyxy: Sequence[float], time_sec: float, place: int, iou: float | None, film: Film) -> dict[str, Any]:
    box = [round(float(edge), 3) for edge in xyxy]
    return {"box": box, "time": round(time_sec, _EXACT), "at": film.nearest(time_sec), "object": place, "iou": iou}


def _four_numbers(where: str, boxes: Sequence[Any], most: int | None = MOST_OBJECTS) -> list[list[float]]:
    return _numbers(where, boxes, 4, "(x0, y0, x1, y1) in pixels", most)


def _numbers(where: str, rows: Sequence[Any], count: int, what: str, most: int | None = MOST_OBJECTS) -> list[list[float]]:
    if most is not None:
        _at_most(where, len(rows))
    return list(_finite_rows(where, rows, count, what))


def _finite_rows(where: str, rows: Sequence[Any], count: int, what: str) -> Iterator[list[float]]:
    for place, row in enumerate(rows):
        numbers = list(row) if isinstance(row, list | tuple) or hasattr(row, "tolist") else []
        if len(numbers) != count or not all(_finite(number) is not None for number in numbers):
            raise UsageError(f"{where}[{place}]", expected=f"finite {what}", got=row)
        yield [float(number) for number in numbers]


def _at_most(where: str, count: int) -> None:
    if count > MOST_OBJECTS:
        raise UsageError(where, expected=f"at most {MOST_OBJECTS} objects", got=count)


def _finite(number: Any) -> float | None:
    try:
        return float(number) if math.isfinite(number) else None
    except TypeError:
        return None
