"""From official files to samples and back, as jobs: what is dropped goes to a file, too many drops fail, nothing is left half done."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tpo_lab.datasets.against_media import OpenedMedia, id_lines
from tpo_lab.datasets.formats import Dropped, Format, Reading, Source
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.sample import Sample, has_media, iter_samples, scan, write

EXAMPLES = 100
"""Of dropped records, kept in memory for the result."""


@dataclass(frozen=True)
class Limit:
    """How many records may be dropped before a job counts as failed: a number, or a share of all records.

    Attributes:
        text: as the user wrote it: "0", "25", "1%"; "" for any number.
    """

    text: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"|\d+|\d+(\.\d+)?%", self.text):
            raise UsageError("--max-dropped", expected="a number of records, or a share such as 1%", got=self.text)

    def exceeded(self, dropped: int, records: int) -> bool:
        """Whether more were dropped than that."""
        if not self.text:
            return False
        if self.text.endswith("%"):
            return dropped > records * float(self.text[:-1]) / 100
        return dropped > int(self.text)


class TooManyDropped(TPOError):
    """More records were dropped than the job allows; nothing was written but the file of dropped records."""


class DropFile:
    """Writes dropped records as JSON lines, as they come; keeps the first of them. Without a drop there is no file, and an old one goes.

    Args:
        path: the file; None writes none.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.count = 0
        self.first: list[Dropped] = []
        self.by_rule: Counter[str] = Counter()
        self._file: Any = None

    def __enter__(self) -> DropFile:
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, dropped: Dropped) -> None:
        """One more."""
        self.count += 1
        self.by_rule[dropped.rule] += 1
        if len(self.first) < EXAMPLES:
            self.first.append(dropped)
        if self.path is not None:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("w", encoding="utf-8", newline="\n")
            self._file.write(json.dumps(asdict(dropped), default=str).encode("utf-8", "replace").decode() + "\n")


def converted(
    form: Format,
    source: Source,
    out: Path,
    *,
    dropped: Path | None = None,
    limit: Limit = Limit(),
    keep_raw: bool = True,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, Any], list[Dropped]]:
    """Writes the samples of official files as JSONL.

    Args:
        form: the format of the files.
        source: the files.
        out: the JSONL file; on any failure it is left as it was.
        dropped: where records that broke a rule are listed, a JSON object a line; None for nowhere.
        limit: how many of those are tolerated.
        keep_raw: whether samples keep their raw record in `meta.raw`, without which they cannot be submitted.
        progress: hears how many records were read.

    Returns:
        The counts of the reading, and the first records that were dropped.

    Raises:
        UsageError: a file is missing or broken as a whole, or there is no sample in it.
        TooManyDropped: more records were dropped than `limit` allows.
    """
    with DropFile(dropped) as drops:
        reading = Reading(form, source, on_drop=drops.add, on_record=progress)

        def checked() -> Iterator[Sample]:
            for sample in reading:
                yield sample if keep_raw else _without_raw(sample)
            _require_few(reading, limit, dropped)
            if not reading.samples:
                got = f"{reading.records} records, all dropped; the first: {drops.first[0]}" if drops.first else "none"
                raise UsageError(str(source.path), expected=f"at least one record that {form.name} can be read from", got=got)

        write(out, checked())
        return reading.counts, drops.first


@dataclass(frozen=True)
class Checked:
    """How many records were read, and how many of them break a rule."""

    read: int
    bad: int


def check_source(
    form: Format, source: Source, drops: DropFile, *, media: bool = False, progress: Callable[[int], None] | None = None
) -> Checked:
    """Reads official files and writes nothing; `media` also opens the media of each sample (`against_media`)."""
    reading = Reading(form, source, on_drop=drops.add, on_record=progress)
    opened = OpenedMedia()
    bad = 0
    for sample in reading:
        found = _of_media(sample, opened, source.root) if media else []
        bad += bool(found)
        for each in found:
            drops.add(each)
    return Checked(reading.records, sum(reading.dropped.values()) + bad)


def _of_media(sample: Sample, opened: OpenedMedia, root: Path) -> list[Dropped]:
    where = f"sample {sample.id}"
    if not has_media(sample):
        return [Dropped(where, "media.path", sample.media.path, "media_exists", f"an existing file under {root}")]
    return [Dropped(where, each.field, each.value, each.rule, each.message) for each in opened.problems(sample)]


def check_samples(path: Path, drops: DropFile, *, media: bool = False, progress: Callable[[int], None] | None = None) -> Checked:
    """The same for a JSONL file of samples; a record may break several rules."""
    opened, line_of = OpenedMedia(), id_lines(path) if media else {}
    read = bad = 0
    for read, sample in enumerate(scan(path, check_media=media), start=1):
        if progress:
            progress(read)
        found = sample
        if isinstance(found, Sample):
            found = opened.problems(found, line_of[found.id]) if media else []
        bad += bool(found)
        for problem in found:
            drops.add(Dropped(f"{path}, line {problem.line}", problem.field, problem.value, problem.rule, problem.message))
    return Checked(read, bad)


def submitted(form: Format, samples: Path, out: Path, *, progress: Callable[[int], None] | None = None) -> int:
    """Writes samples whose targets are a model's answers in the form that the official evaluation takes; returns how many.

    Args:
        form: the format to write.
        samples: a JSONL file.
        out: the submission.
        progress: hears how many samples were read.

    Raises:
        UsageError: the format has no such form, or a sample was not made of one of its records.
    """
    if form.write is None:
        raise UsageError("--back", expected="a format whose predictions are submitted", got=form.name)

    def heard() -> Iterator[Sample]:
        for count, sample in enumerate(iter_samples(samples), start=1):
            if progress:
                progress(count)
            yield sample

    return form.write(heard(), out)


def _require_few(reading: Reading, limit: Limit, dropped: Path | None) -> None:
    """Raises `TooManyDropped` where the limit is exceeded."""
    count = sum(reading.dropped.values())
    if limit.exceeded(count, reading.records):
        rules = ", ".join(f"{rule} {number}" for rule, number in reading.dropped.most_common())
        listed = f" They are listed in {dropped}." if dropped is not None else " --dropped FILE lists them."
        raise TooManyDropped(f"{count} of {reading.records} records were dropped, more than --max-dropped {limit.text}: {rules}.{listed}")


def _without_raw(sample: Sample) -> Sample:
    kept = {name: value for name, value in sample.meta.items() if name != "raw"}
    lean = sample.model_copy(update={"meta": kept})
    return lean if sample.root is None else lean.at(sample.root)
