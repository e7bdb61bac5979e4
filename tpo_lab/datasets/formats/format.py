"""What a format is, and how its files become samples: record by record; what breaks a rule is named, counted and left out.

A format is read in three steps, of which the middle one may be missing: `rows` opens the files and gives their records one at a time,
`parts` splits a record that holds several questions, `sample` makes one sample of one question. Each step may raise `BadRecord`; the
record is dropped then, and nothing else is. Not here: any particular format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tpo_lab.errors import UsageError
from tpo_lab.files import BadRecord, Record, Streamed
from tpo_lab.sample import Sample, explain, shorten


@dataclass(frozen=True)
class Dropped:
    """A record that was left out: where it stands (file, and line or key), the field, the value there, the rule and what it asks for."""

    where: str
    field: str
    value: object
    rule: str
    expected: str

    def __str__(self) -> str:
        """One line for a terminal or a log."""
        place = f"{self.where}, {self.field}" if self.field else self.where
        return f"{place}: expected {self.expected}, got {shorten(repr(self.value))} (rule {self.rule})"


@dataclass(frozen=True)
class Source:
    """The files that a format is read from, and what was chosen about them.

    Attributes:
        path: the annotation file, or the folder of the data set, as the format's layout says.
        media: the folder that the samples' media paths start from; None for the folder that the format's layout says.
        split: which part of the data set, written into every sample; formats that hold several splits read this one alone.
        variant: one of the format's variants; the first is the default.
        clip: cut windows at the end of their video, boxes at the edge of their frame is always done.
        side: files beside `path` by the name that the format gives them, where they are not where its layout says.
        adjusted: how many values were changed, by what was done to them.
    """

    path: Path
    media: Path | None = None
    split: str = ""
    variant: str = ""
    clip: bool = False
    side: Mapping[str, Path] = field(default_factory=dict)
    adjusted: Counter[str] = field(default_factory=Counter)

    @property
    def folder(self) -> Path:
        """The data set's folder: `path`, or the folder it lies in."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def root(self) -> Path:
        """The folder that the samples' media paths start from."""
        return self.media or self.folder

    def beside(self, name: str, *places: str) -> Path:
        """A file that the format reads as well.

        Args:
            name: what `side` calls it.
            places: where it may lie, from `folder`; the first that exists is taken. A pattern with "*" takes its first match.

        Raises:
            UsageError: it is in none of these places.
        """
        if name in self.side:
            if not self.side[name].exists():
                raise UsageError(f"--with {name}", expected="an existing file or folder", got=str(self.side[name]))
            return self.side[name]
        for place in places:
            found = next(iter(sorted(self.folder.glob(place))), None)
            if found is not None:
                return found
        hint = f"Name it with --with {name}=PATH."
        raise UsageError(str(self.folder), expected=f"beside it {' or '.join(places)}", got="no such file", hint=hint)

    def finds(self, name: str, *places: str) -> Path | None:
        """As `beside`, but None where there is no such file, and none was named."""
        if name not in self.side and not any(next(iter(self.folder.glob(place)), None) for place in places):
            return None
        return self.beside(name, *places)


Rows = Callable[[Source], Iterator[Streamed]]
Parts = Callable[[Record, Source], Iterable[Record]]
Maker = Callable[[Record, Source], Sample]
Writer = Callable[[Iterable[Sample], Path], int]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One official form of annotations.

    Attributes:
        name: as the command line calls it.
        title: the data sets that come in this form.
        home: where they are published, by name: an organisation, a repository; no address.
        licence: of the annotations, as their authors state it.
        layout: what `SRC` is and which files lie beside it, a line each.
        rows, parts, sample: see the module.
        variants: what may be read differently; the first is the default. () where there is nothing to choose.
        splits: names of splits that the format's own files tell apart; () where a file is a split.
        sides: names of the files beside `path`, as `Source.beside` knows them.
        write: predictions, as samples whose targets are the model's answers, in the form that the official evaluation takes; returns how
            many. None where the form is for annotations only.
        tasks: what its samples ask for.
    """

    name: str
    title: str
    home: str
    licence: str
    layout: str
    rows: Rows
    sample: Maker
    parts: Parts | None = None
    variants: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    sides: tuple[str, ...] = ()
    write: Writer | None = None
    tasks: tuple[str, ...] = ()


class Reading:
    """The samples of one source, one at a time; iterate once. What was dropped is counted, and told to a listener as it happens.

    Args:
        form: the format.
        source: its files.
        on_drop: hears of each record that is left out.
        on_record: hears how many records were read.

    Attributes:
        records: read so far, good and bad; a record that holds several questions counts as many.
        samples: made so far.
        dropped: left out so far, by rule.
    """

    def __init__(
        self,
        form: Format,
        source: Source,
        *,
        on_drop: Callable[[Dropped], None] | None = None,
        on_record: Callable[[int], None] | None = None,
    ) -> None:
        self.form, self.source = form, source
        self.records = self.samples = 0
        self.dropped: Counter[str] = Counter()
        self._on_drop, self._on_record = on_drop, on_record
        self._ids: set[int] = set()

    def __iter__(self) -> Iterator[Sample]:
        """The samples.

        Raises:
            UsageError: a file is missing or broken as a whole.
        """
        for row in self.form.rows(self.source):
            for part in self._parts(row):
                self.records += 1
                if self._on_record:
                    self._on_record(self.records)
                made = self._sample(part)
                if made is not None:
                    self.samples += 1
                    yield made

    @property
    def counts(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "records": self.records,
            "samples": self.samples,
            "dropped": sum(self.dropped.values()),
            "dropped_by_rule": dict(sorted(self.dropped.items())),
            "adjusted": dict(sorted(self.source.adjusted.items())),
        }

    def _parts(self, row: Streamed) -> Iterator[Streamed]:
        if isinstance(row, BadRecord) or self.form.parts is None:
            yield row
            return
        try:
            yield from self.form.parts(row, self.source)
        except UsageError as error:
            yield _named(error, row)

    def _sample(self, part: Streamed) -> Sample | None:
        """The sample of one record, or None where it was dropped."""
        try:
            made = self._made(part)
        except BadRecord as bad:
            self._drop(Dropped(bad.where, bad.field, bad.got, bad.rule, bad.expected))
            return None
        return made.at(self.source.root)

    def _made(self, part: Streamed) -> Sample:
        if isinstance(part, BadRecord):
            raise part
        try:
            made = self.form.sample(part, self.source)
        except ValidationError as error:
            first = next(iter(explain(error)))
            raise BadRecord(part.where, first.field, rule=first.rule, expected=first.message, got=first.value) from None
        except UsageError as error:
            raise _named(error, part) from None
        # eight bytes an id, so that millions of them stay small
        key = hash(made.id)
        if key in self._ids:
            raise part.bad("id", "id_unique", "an id that no record before it has", made.id)
        self._ids.add(key)
        return made

    def _drop(self, dropped: Dropped) -> None:
        self.dropped[dropped.rule] += 1
        if self._on_drop:
            self._on_drop(dropped)


def _named(error: UsageError, record: Record) -> BadRecord:
    """The error as one about a field of this record."""
    if isinstance(error, BadRecord):
        return error
    inside = error.argument.removeprefix(record.where).removeprefix(", ")
    return BadRecord(record.where, inside, rule="value", expected=error.expected, got=error.got)
