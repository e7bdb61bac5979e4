"""The facts of one sample that are not of every frame: what was asked and answered, boxes of one moment, windows, and times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tpo_lab.sample import ANSWERED_BY
from tpo_widgets.film import Film
from tpo_widgets.heads.cases import Case
from tpo_widgets.heads.overlays import Source, boxes_of, moving_of, sources_of, windows_of

MOST_SEEN = 256
"""Frames that a model saw which are marked on the timeline; of more, none."""
_SLACK_SEC = 1e-7


def facts_of(case: Case, film: Film) -> dict[str, Any]:
    """The facts of one sample, JSON-ready.

    Raises:
        UsageError: what is said of it cannot be drawn.
    """
    sources = sources_of(case)
    return {
        "id": case.sample.id,
        "question": case.question,
        "answer": case.answer,
        "size": list(film.size_wh),
        "duration": film.duration_sec,
        "times": _times(film),
        "seen": [round(time, 4) for time in case.seen_sec] if len(case.seen_sec) <= MOST_SEEN else [],
        "prompts": [_prompt(prompt, film) for prompt in case.sample.prompts],
        "sides": [_side(case, number) for number in range(len(case.records))],
        "sources": {source.name: _said(source, film, sources[0]) for source in sources},
        "heads": _heads(sources),
    }


def _times(film: Film) -> list[float] | dict[str, float]:
    """Frame times; the first and the step where they are even."""
    times = film.times_sec
    step = (times[-1] - times[0]) / max(len(times) - 1, 1)
    if all(abs(times[0] + step * place - time) < _SLACK_SEC for place, time in enumerate(times)):
        return {"first": times[0], "step": step, "count": len(times)}
    return [round(time, 6) for time in times]


def _heads(sources: Sequence[Source]) -> list[str]:
    """Heads about which something is said."""
    return list(dict.fromkeys(ANSWERED_BY.get(name, name) for source in sources for name in source.heads))


def _side(case: Case, number: int) -> dict[str, Any] | None:
    record = case.records[number]
    if record is None:
        return None
    return {
        "text": record.text,
        "expected": list(record.expected),
        "emitted": list(record.emitted),
        "probability": {head: _digits(value) for head, value in record.route_probability.items()},
        "losses": [[name, _digits(value), _digits(weight)] for name, (value, weight) in case.losses[number].items()],
    }


def _said(source: Source, film: Film, truth: Source) -> dict[str, Any]:
    """What a source says that is not of every frame."""
    moving = moving_of(source, film)
    return {
        "heads": sorted(source.heads),
        "boxes": boxes_of(source, film, truth),
        "windows": windows_of(source, truth),
        "objects": sorted({part.object for part in moving}),
        "kinds": sorted({kind for part in moving for kind in (("mask",) if part.masks else ()) + (("track",) if part.boxes else ())}),
    }


def _prompt(prompt: Any, film: Film) -> dict[str, Any]:
    shape = {"box": list(prompt.xyxy)} if prompt.type == "box" else {"points": [list(point) for point in prompt.points]}
    return {**shape, "time": round(prompt.time_sec, 6), "at": film.nearest(prompt.time_sec)}


def _digits(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
