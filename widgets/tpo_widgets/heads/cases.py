"""What a HeadView is given, brought to one form: a case for each sample, with a record of what each checkpoint made of it.

Not here: what is drawn of it (`overlays`, `scores`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import UsageError
from tpo_lab.records import Record
from tpo_lab.sample import Sample, heads_asked
from tpo_widgets.film import Film, film_of, film_of_frames

if TYPE_CHECKING:
    from tpo_lab.probes.trace import Trace

MOST_SAMPLES = 400
"""In one view; their names travel with its state."""
MOST_OBJECTS = 50
"""Of one head in one answer."""
_SOURCES = "a trace, a sample and its answer, or samples and their records"


@dataclass(frozen=True)
class Case:
    """One sample and what was made of it.

    Attributes:
        sample: with the truth.
        records: what each checkpoint made of it; None where one was not asked, and nothing at all where only the truth is shown.
        losses: of each checkpoint, by term the mean and the weight; empty where nobody measured them.
        seen_sec: times of the frames that the model saw, as far as that is known.
        film: reads its frames.
    """

    sample: Sample
    records: tuple[Record | None, ...]
    film: Callable[[], Film]
    losses: tuple[Mapping[str, tuple[float, float]], ...] = ()
    seen_sec: tuple[float, ...] = field(default=())

    @property
    def question(self) -> str:
        """The last one."""
        return next((turn.text for turn in reversed(self.sample.conversation) if turn.role == "user"), "")

    @property
    def answer(self) -> str:
        """The true one; "" where there is none."""
        last = self.sample.conversation[-1]
        return last.text if last.role == "assistant" else ""


def cases_of(shown: Any, answers: Any = None, *, compare: Any = None, frames: Any = None, times_sec: Any = None) -> tuple[Case, ...]:
    """The cases of all that a view may be given; see `HeadView`.

    Raises:
        UsageError: none of these, no samples or too many, answers of other samples, or frames for several samples.
    """
    if times_sec is not None and frames is None:
        raise UsageError("times_sec", expected="them together with frames", got="frames=None")
    traced = _traced(shown)
    if traced is not None and answers is not None:
        raise UsageError("answers", expected="none, since a trace holds its own", got=type(answers).__name__)
    samples = traced[0] if traced is not None else _samples(shown)
    if not 0 < len(samples) <= MOST_SAMPLES:
        raise UsageError("samples", expected=f"1 to {MOST_SAMPLES}", got=len(samples), hint="Choose some of them.")
    if frames is not None and len(samples) > 1:
        raise UsageError("frames", expected="one sample, whose frames they are", got=f"{len(samples)} samples")
    sides = [] if traced is None and answers is None else [traced or _answered(samples, answers)]
    sides += [] if compare is None else [_other(samples, compare)]
    return tuple(
        Case(
            sample=sample,
            records=tuple(side[1][place] for side in sides),
            film=_film(sample, frames, times_sec),
            losses=tuple(side[2][place] for side in sides),
            seen_sec=next((side[3][place] for side in sides if side[3][place]), ()),
        )
        for place, sample in enumerate(samples)
    )


_Side = tuple[Sequence[Sample], Sequence["Record | None"], Sequence[Mapping[str, tuple[float, float]]], Sequence[tuple[float, ...]]]
"""Samples, and of each its record, losses, and the times of the frames that the model saw."""


def record_of(sample: Sample, answer: Any) -> Record:
    """The record of one sample and of what a model answered.

    Args:
        sample: with its true answer or without.
        answer: an `Answer`, what its `to_dict()` gives, its `structured` alone, or a `Record`.

    Raises:
        UsageError: none of these.
    """
    if isinstance(answer, Record):
        return answer
    given = answer.to_dict() if hasattr(answer, "to_dict") else answer
    if not isinstance(given, Mapping):
        raise UsageError("answer", expected="an Answer, its to_dict() or structured, or a Record", got=type(answer).__name__)
    whole = given if "structured" in given else {"structured": given}
    structured = whole["structured"]
    if not isinstance(structured, Mapping) or not all(isinstance(each, Mapping) for each in structured.values()):
        raise UsageError("answer", expected="what each head answers, by head", got=given)
    routes = getattr(answer, "routes", None)
    text = str(whole.get("text", ""))
    true = sample.conversation[-1].text if sample.conversation[-1].role == "assistant" else ""
    return Record(
        id=sample.id,
        kind=str(sample.meta.get("kind", "")),
        question=next((turn.text for turn in reversed(sample.conversation) if turn.role == "user"), ""),
        expected_text=true,
        text=text,
        expected=tuple(heads_asked(true)),
        emitted=tuple(routes if routes is not None else heads_asked(text) or structured),
        routed=dict(structured),
        forced={},
        target=sample.targets.model_dump(mode="json", exclude_none=True),
        media=sample.media.path,
        route_probability=dict(whole.get("route_probability") or {}),
    )


def _traced(given: Any) -> _Side | None:
    """What a trace holds; None for what is no trace."""
    from tpo_lab.probes.trace import Trace

    if not isinstance(given, Trace):
        return None
    return _side_of(given)


def _side_of(trace: Trace) -> _Side:
    losses = [{name: (term.value, term.weight) for name, term in sample.losses.items()} for sample in trace.samples]
    samples = trace.samples
    return [each.sample for each in samples], [each.record for each in samples], losses, [tuple(each.times_sec) for each in samples]


def _samples(given: Any) -> Sequence[Sample]:
    several = isinstance(given, Sequence) and not isinstance(given, str | bytes)
    found = [given] if isinstance(given, Sample) else list(given) if several else None
    if found is None or not all(isinstance(sample, Sample) for sample in found):
        raise UsageError("shown", expected=_SOURCES, got=type(given).__name__)
    return found


def _answered(samples: Sequence[Sample], answers: Any) -> _Side:
    """The records that belong to samples, by their ids; one that a model was not asked has none."""
    given = getattr(answers, "records", answers)
    several = isinstance(given, Sequence) and not isinstance(given, str | bytes)
    if len(samples) == 1 and not several:
        found: list[Record | None] = [record_of(samples[0], given)]
    elif not several:
        raise UsageError("answers", expected=f"one for each of the {len(samples)} samples", got=type(given).__name__)
    elif all(isinstance(each, Record) for each in given):
        found = _by_id(samples, given)
    elif len(given) == len(samples):
        found = [record_of(sample, each) for sample, each in zip(samples, given, strict=True)]
    else:
        raise UsageError("answers", expected=f"one for each of the {len(samples)} samples", got=len(given))
    return samples, found, [{} for _ in samples], [() for _ in samples]


def _by_id(samples: Sequence[Sample], records: Sequence[Record]) -> list[Record | None]:
    if [sample.id for sample in samples] == [record.id for record in records]:
        return list(records)
    found = {record.id: record for record in records}
    if not any(sample.id in found for sample in samples):
        got = [record.id for record in records[:3]]
        raise UsageError("records", expected=f"records of the samples, such as {samples[0].id!r}", got=got)
    return [found.get(sample.id) for sample in samples]


def _other(samples: Sequence[Sample], compare: Any) -> _Side:
    """What another checkpoint made of the same samples."""
    traced = _traced(compare)
    if traced is None:
        return _answered(samples, compare)
    place_of = {sample.id: place for place, sample in enumerate(traced[0])}
    absent = [sample.id for sample in samples if sample.id not in place_of]
    if absent:
        raise UsageError("compare", expected="a trace of the same samples", got=f"none of {absent[0]!r}")
    places = [place_of[sample.id] for sample in samples]
    return samples, [traced[1][at] for at in places], [traced[2][at] for at in places], [traced[3][at] for at in places]


def _film(sample: Sample, frames: Any, times_sec: Any) -> Callable[[], Film]:
    if frames is None:
        return lambda: film_of(sample)
    duration = sample.media.duration_sec
    if times_sec is None and duration is not None and len(frames):
        times_sec = [duration * place / len(frames) for place in range(len(frames))]
    made = film_of_frames(frames, times_sec)
    made.duration_sec = max(made.duration_sec, duration or 0.0)
    return lambda: made
