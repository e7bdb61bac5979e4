"""What a HeadView shows: per sample a page of facts, and frames, masks, boxes and scores that are fetched when they are needed."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import TPOError, UsageError, unknown_name
from tpo_widgets.content import Moment, Resource
from tpo_widgets.film import Film
from tpo_widgets.heads.cases import Case, cases_of
from tpo_widgets.heads.facts import facts_of
from tpo_widgets.heads.overlays import HOW, RUN_OF_FRAMES, Source, moving_of, run_of, sources_of
from tpo_widgets.heads.scores import scores_of

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_FILMS = 3
"""That are kept open."""
MOST_INLINE_BYTES = 20_000
MOST_ON_PAGE = 256
"""Frames of one sample that a page without a kernel holds."""
_LABEL = 60


@dataclass(frozen=True)
class HeadContent:
    """What the front end of a `HeadView` draws.

    Attributes:
        cases: one for each sample.
        sides: names of the checkpoints.
        how: which of a checkpoint's answers the picture shows.
        first: place of the sample that is drawn first.
    """

    cases: tuple[Case, ...]
    sides: tuple[str, ...] = ()
    how: str = "routed"
    first: int = 0
    _films: OrderedDict[int, Film] = field(default_factory=OrderedDict, repr=False)

    @classmethod
    def of(
        cls,
        shown: Any,
        answers: Any = None,
        *,
        compare: Any = None,
        names: Sequence[str] = ("before", "after"),
        how: str = "routed",
        frames: Any = None,
        times_sec: Any = None,
        first: str = "",
    ) -> HeadContent:
        """The content of all that a view may be given; see `HeadView`.

        Args:
            first: id of the sample that is drawn first.

        Raises:
            UsageError: something that cannot be shown; with several samples a clip that cannot be read is said in its place.
        """
        if how not in HOW:
            raise unknown_name("how", str(how), HOW)
        cases = cases_of(shown, answers, compare=compare, frames=frames, times_sec=times_sec)
        sides = len(cases[0].records)
        given = tuple(str(name) for name in names) if not isinstance(names, str) else (names,)
        if sides == 2 and (len(given) != 2 or given[0] == given[1]):
            raise UsageError("names", expected="two that differ", got=list(given))
        content = cls(cases, given if sides == 2 else ("model",) * sides, how)
        content = replace(content, first=content.place_of(first))
        assert content.document  # made here, so that what is wrong with it is said here
        return content

    @cached_property
    def document(self) -> dict[str, Any]:
        """The samples' names, and the facts of the first where they are short."""
        try:
            inline: dict[str, Any] | None = self.case(self.first)
        except TPOError:
            if len(self.cases) == 1:
                raise
            inline = None
        if inline is not None and len(json.dumps(inline)) > MOST_INLINE_BYTES:
            inline = None
        samples = [[name, _cut(case.question)] for name, case in zip(self.ids, self.cases, strict=True)]
        return {"samples": samples, "names": list(self.sides), "run": RUN_OF_FRAMES, "place": self.first, "case": inline}

    @cached_property
    def ids(self) -> list[str]:
        """Of the samples; a second one of the same id gets a number."""
        found: list[str] = []
        for case in self.cases:
            name, number = case.sample.id, 2
            while name in found:
                name, number = f"{case.sample.id} ({number})", number + 1
            found.append(name)
        return found

    def resource(self, name: str) -> Resource:
        """A sample's facts ("case/0"), one of its frames ("frame/0/12"), a source's masks and boxes ("run/0/truth/3") or scores
        ("scores/0/1.forced").

        Raises:
            UsageError: another name.
            TPOError: what it names cannot be read.
        """
        kind, *rest = name.split("/")
        place = _whole(rest[0]) if rest else -1
        if 0 <= place < len(self.cases):
            if kind == "case" and len(rest) == 1:
                return _json(self.case(place))
            if kind == "frame" and len(rest) == 2:
                return Resource(self.film(place).jpeg(_whole(rest[1])))
            if kind == "scores" and len(rest) == 2:
                return _json(scores_of(self.source(place, rest[1]), self.film(place)))
            if kind == "run" and len(rest) == 3:
                return _json(run_of(self.source(place, rest[1]), self.film(place), _whole(rest[2])))
        raise UsageError("resource", expected="case/0, frame/0/12, scores/0/truth or run/0/0.routed/3", got=name)

    def names(self) -> Iterator[str]:
        """The facts of all samples, then what each needs, frames from coarse to fine."""
        yield from (f"case/{place}" for place in range(len(self.cases)))
        for place in range(len(self.cases)):
            try:
                frames = len(self.film(place))
                sources = [source for source in sources_of(self.cases[place]) if source.heads]
            except TPOError:
                continue
            yield from (f"scores/{place}/{source.name}" for source in sources)
            moving = [source for source in sources if moving_of(source, self.film(place))]
            yield from (f"run/{place}/{source.name}/{run}" for source in moving for run in range((frames - 1) // RUN_OF_FRAMES + 1))
            yield from (f"frame/{place}/{number}" for number in coarse_to_fine(frames, MOST_ON_PAGE))

    def picture(self, moment: Moment, *, dark: bool, width: int) -> Image:
        """Question, answers, frames around a moment with what lies over them, and the timeline."""
        from tpo_widgets.heads.picture import head_picture

        place = self.place_of(moment.sample)
        return head_picture(self.cases[place], self.film(place), self.sides, self.how, moment, dark=dark, width=width)

    def turned(self, how: str) -> HeadContent:
        """The same with the other answers in its picture."""
        return replace(self, how=how)

    def place_of(self, sample: str) -> int:
        """A sample's place by its id; the first for an unknown one."""
        return self.ids.index(sample) if sample in self.ids else 0

    def film(self, place: int) -> Film:
        """A sample's frames; films of others are closed as far as need be."""
        if place not in self._films:
            self._films[place] = self.cases[place].film()
        self._films.move_to_end(place)
        while len(self._films) > MOST_FILMS:
            self._films.popitem(last=False)
        return self._films[place]

    def source(self, place: int, name: str) -> Source:
        """A source of a sample by its name.

        Raises:
            UsageError: there is none.
        """
        found = {source.name: source for source in sources_of(self.cases[place])}
        if name not in found:
            raise unknown_name("source", name, found)
        return found[name]

    def case(self, place: int) -> dict[str, Any]:
        """The facts of one sample.

        Raises:
            UsageError: its clip cannot be read, or what is said of it cannot be drawn.
        """
        return facts_of(self.cases[place], self.film(place))


def coarse_to_fine(count: int, most: int) -> list[int]:
    """Every number below `count` once, multiples of high powers of two first, so that any beginning of the list is spread evenly."""
    step = 1 << max(count - 1, 0).bit_length()
    found: list[int] = []
    while step and len(found) < most:
        found += [number for number in range(0, count, step) if not found or number % (2 * step)]
        step //= 2
    return found[:most]


def _cut(words: str) -> str:
    return words if len(words) <= _LABEL else words[: _LABEL - 1] + "…"


def _json(value: Any) -> Resource:
    return Resource(json.dumps(value, allow_nan=False, separators=(",", ":")).encode())


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() else -1
