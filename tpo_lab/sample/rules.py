"""The rules of a sample beside its types: turns, prompts, markers and times that must fit each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tpo_lab.sample.schema import Sample

DURATION_SLACK_SEC = 1e-6  # end_sec - start_sec is rounded by floating point
_MARKER = re.compile(r"<([a-z][a-z0-9_-]*)>")
_MENTION = re.compile(r"<prompt:([0-9]{1,9})>")
SHOWN_CHARACTERS = 120
ANSWERED_BY = {"track": "mask"}
"""Markers that another head than their namesake answers: a track is the mask head's answer, as boxes."""


@dataclass(frozen=True)
class Problem:
    """One broken rule of one record: line (from 1), dotted field ("" = the whole record), the value there, the rule's name.

    `message` says what was expected, as a phrase.
    """

    line: int
    field: str
    value: object
    rule: str
    message: str

    def __str__(self) -> str:
        """One line for a terminal or a log."""
        where = f"line {self.line}, {self.field}" if self.field else f"line {self.line}"
        return f"{where}: expected {self.message}, got {shorten(repr(self.value))} (rule {self.rule})"


def markers(text: str) -> list[str]:
    """The head names marked in an assistant's text, in order: "It is here <region>" gives ["region"]."""
    return _MARKER.findall(text)


def heads_asked(text: str) -> list[str]:
    """The heads that an assistant's text asks, in order: "It goes there <track>" gives ["mask"]."""
    return [ANSWERED_BY.get(name, name) for name in markers(text)]


def mentions(text: str) -> list[int]:
    """The prompt indices mentioned in a user's text, in order: "Where is <prompt:0>?" gives [0]."""
    return [int(index) for index in _MENTION.findall(text)]


def shorten(text: str) -> str:
    """`text` cut to what an error message can show."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def problems_of(sample: Sample) -> list[Problem]:
    """Every broken rule of a sample whose types are right; `line` is 0."""
    return [*_turn_problems(sample), *_prompt_problems(sample), *_marker_problems(sample), *_time_problems(sample)]


def _turn_problems(sample: Sample) -> Iterator[Problem]:
    for index, turn in enumerate(sample.conversation):
        due = ("user", "assistant")[index % 2]
        if turn.role != due:
            yield Problem(0, f"conversation[{index}].role", turn.role, "roles_alternate", f"'{due}', since turns alternate from the user")


def _prompt_problems(sample: Sample) -> Iterator[Problem]:
    mentioned: set[int] = set()
    for index, turn in enumerate(sample.conversation):
        field, found = f"conversation[{index}].text", mentions(turn.text)
        if turn.text.count("<prompt:") != len(found):
            yield Problem(0, field, turn.text, "mention_form", "mentions written as <prompt:0>")
        if found and turn.role == "assistant":
            yield Problem(0, field, turn.text, "mention_role", "<prompt:i> in user turns only")
            continue
        mentioned.update(found)
        if any(prompt >= len(sample.prompts) for prompt in found):
            yield Problem(0, field, turn.text, "mention_has_prompt", f"mentions of the {len(sample.prompts)} prompts, counted from 0")
    for index in range(len(sample.prompts)):
        if index not in mentioned:
            yield Problem(0, f"prompts[{index}]", sample.prompts[index].type, "prompt_mentioned", f"a user turn with <prompt:{index}>")


def _marker_problems(sample: Sample) -> Iterator[Problem]:
    marked: Counter[str] = Counter()
    most = {"region": len(sample.targets.region or ()), "temporal": 1, "mask": 1, "track": 1}
    expected = {name for name in sample.targets.names if name != "region" or sample.targets.region}
    for index, turn in enumerate(sample.conversation):
        for name in markers(turn.text) if turn.role == "assistant" else ():
            field = f"conversation[{index}].text"
            if name not in expected:
                got = "only an empty list, which says that the object is absent" if name in sample.targets.names else "none"
                yield Problem(0, field, turn.text, "marker_has_target", f"a target named '{name}' for <{name}> (there is {got})")
            elif marked[name] == most.get(name):
                yield Problem(0, field, turn.text, "marker_count", f"<{name}> at most {most[name]} times, as its target has it")
            marked[name] += 1
    for name in sorted(expected - set(marked)):
        yield Problem(0, f"targets.{name}", name, "target_has_marker", f"<{name}> in an assistant turn")


def _time_problems(sample: Sample) -> Iterator[Problem]:
    targets = sample.targets
    region_sec = [item.time_sec for item in targets.region or ()]
    if region_sec != sorted(region_sec):
        yield Problem(0, "targets.region", region_sec, "times_ascending", "ascending time_sec")
    duration = sample.media.duration_sec
    if duration is None:
        return
    for field, time_sec in _times(sample, region_sec):
        if time_sec > duration + DURATION_SLACK_SEC:
            yield Problem(0, field, time_sec, "time_in_media", f"a time within the media's {duration:g} s")
    if targets.temporal and (saliency := targets.temporal.saliency):
        last_start_sec = (len(saliency.scores) - 1) * saliency.step_sec
        if last_start_sec >= duration + DURATION_SLACK_SEC:
            field = "targets.temporal.saliency.scores"
            yield Problem(0, field, len(saliency.scores), "time_in_media", f"clips that start within the media's {duration:g} s")


def _times(sample: Sample, region_sec: list[float]) -> Iterator[tuple[str, float]]:
    yield from ((f"prompts[{i}].time_sec", prompt.time_sec) for i, prompt in enumerate(sample.prompts))
    yield from ((f"targets.region[{i}].time_sec", time_sec) for i, time_sec in enumerate(region_sec))
    if sample.targets.temporal:
        yield from ((f"targets.temporal.windows_sec[{i}]", end) for i, (_, end) in enumerate(sample.targets.temporal.windows_sec))
    for name, target in (("mask", sample.targets.mask), ("track", sample.targets.track)):
        yield from ((f"targets.{name}.times_sec[{i}]", time_sec) for i, time_sec in enumerate(target.times_sec if target else ()))
