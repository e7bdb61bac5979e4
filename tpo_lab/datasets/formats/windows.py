"""Windows of annotations in seconds: checked, and cut at the end of the video where that is wanted."""

from __future__ import annotations

from tpo_lab.datasets.formats.format import Source
from tpo_lab.files import Floats, Record, windows


def spans(record: Record, field: str, source: Source, duration_sec: float | None = None) -> list[list[float]]:
    """The windows [start, end) that a field holds, each with a length, at least one; see `within`."""
    found = record.windows(field, lengths=True, some=True)
    return within(record, field, found, source, duration_sec)


def span(
    record: Record, field: str, start_sec: float, end_sec: float, source: Source, duration_sec: float | None = None
) -> list[list[float]]:
    """One window of two numbers, named `field` in errors; see `within`."""
    found = windows(record.where, [[start_sec, end_sec]], lengths=True, field=field)
    return within(record, field, found, source, duration_sec)


def within(record: Record, field: str, found: Floats, source: Source, duration_sec: float | None) -> list[list[float]]:
    """Windows [n, 2] in seconds, none before 0; with `source.clip` cut at the video's end, which counts as an adjustment.

    Raises:
        BadRecord: a window starts before 0, or, where windows are cut, after the video's end.
    """
    if (found[:, 0] < 0).any():
        raise record.bad(field, "window_in_video", "windows that start at 0 s or later", found.tolist())
    if not source.clip or duration_sec is None or not (found[:, 1] > duration_sec).any():
        return _listed(found)
    if (found[:, 0] >= duration_sec).any():
        raise record.bad(field, "window_in_video", f"windows that start within the video's {duration_sec:g} s", found.tolist())
    source.adjusted["window cut at the end of its video"] += 1
    found[:, 1] = found[:, 1].clip(max=duration_sec)
    return _listed(found)


def _listed(found: Floats) -> list[list[float]]:
    return [[float(start), float(end)] for start, end in found]
