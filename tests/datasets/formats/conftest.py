"""What the tests of all formats share: reading a source into samples and drops, and breaking records at random."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tpo_lab.datasets.formats import Dropped, Reading, Source, format_named
from tpo_lab.errors import UsageError
from tpo_lab.sample import Sample, read, write

TINY = Path(__file__).parents[3] / "data" / "formats"
"""A few records in every format, made by us."""

Read = tuple[list[Sample], list[Dropped], Reading]


@pytest.fixture(scope="session")
def tiny() -> Path:
    return TINY


@pytest.fixture(scope="session")
def take() -> Callable[..., Read]:
    """Reads a source: `samples, dropped, reading = take("tacos", path, split="val")`."""

    def taken(form: str, path: Path, **chosen: Any) -> Read:
        dropped: list[Dropped] = []
        reading = Reading(format_named(form), Source(path, **chosen), on_drop=dropped.append)
        samples = list(reading)
        assert reading.samples == len(samples) and sum(reading.dropped.values()) == len(dropped)
        assert reading.records == len(samples) + len(dropped), "every record is a sample or is counted as dropped"
        return samples, dropped, reading

    return taken


@pytest.fixture
def same_from_file(tmp_path: Path) -> Callable[[list[Sample]], None]:
    """Asserts that samples written as JSONL are read back equal, and pass validation."""

    def check(samples: list[Sample]) -> None:
        assert samples
        file = tmp_path / "written" / "samples.jsonl"
        write(file, samples)
        back = read(file)
        assert [each.model_dump(exclude={"media"}) for each in back] == [each.model_dump(exclude={"media"}) for each in samples]
        for one, other in zip(back, samples, strict=True):
            assert (one.media_path.resolve() if one.media.is_file else one.media.path) == (
                other.media_path.resolve() if other.media.is_file else other.media.path
            )
            assert (one.media.start_sec, one.media.end_sec) == (other.media.start_sec, other.media.end_sec)

    return check


WRONG = (
    None,
    True,
    -1,
    10**12,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "  ",
    "NaN",
    [],
    {},
    [[]],
    [None],
    [[1, 2, 3]],
    {"a": 1},
    "\ud800",
    "<region>",
)
"""Values that no field expects, or that few do."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside a JSON document, the document itself first."""
    yield path
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from places(inner, (*path, place))


def broken(document: Any, rng: random.Random) -> Any:
    """The document with one to three things wrong: a key missing, a value of another kind, a list reversed, doubled or cut short."""
    document = copy.deepcopy(document)
    for _ in range(rng.randint(1, 3)):
        ways = [way for way in places(document) if way]
        if not ways:
            return document
        way = rng.choice(ways)
        holder = document
        for step in way[:-1]:
            holder = holder[step]
        kind = rng.randrange(5)
        value = holder[way[-1]]
        if kind == 0:
            del holder[way[-1]]
        elif kind == 1 and isinstance(value, list):
            holder[way[-1]] = value[::-1]
        elif kind == 2 and isinstance(value, list):
            holder[way[-1]] = value[:-1]
        elif kind == 3 and isinstance(value, (int, float)) and not isinstance(value, bool):
            holder[way[-1]] = rng.choice([-value, value * 1000, value + 0.5, str(value)])
        else:
            holder[way[-1]] = copy.deepcopy(rng.choice(WRONG))
    return document


def encoded(document: Any, rng: random.Random) -> bytes:
    """A JSON document as bytes; now and then cut short, or in an encoding that is not UTF-8."""
    text = json.dumps(document)
    raw = text.encode()
    kind = rng.randrange(12)
    if kind == 0:
        return raw[: rng.randrange(len(raw) + 1)]
    if kind == 1:
        return json.dumps(document, ensure_ascii=False).encode("utf-16", "surrogatepass")
    if kind == 2:
        return b"\xef\xbb\xbf" + raw
    return raw


@pytest.fixture
def withstands(take: Callable[..., Read]) -> Callable[..., None]:
    """Asserts that a document, broken at random many times, gives samples, drops and `UsageError`s, and nothing else."""

    def check(
        form: str,
        put: Callable[[bytes], Path],
        document: Any,
        *,
        good: Sequence[str] = (),
        rounds: int = 1000,
        seed: int = 0,
        **chosen: Any,
    ) -> None:
        """`put` writes the broken document among whole ones and returns the source; the samples `good` must never change by it."""
        rng = random.Random(seed)
        whole = {sample.id: sample for sample in take(form, put(json.dumps(document).encode()), **chosen)[0]}
        assert set(good) < set(whole), "the document that will be broken gives a sample of its own"
        read_anyway = 0
        for _ in range(rounds):
            source = put(encoded(broken(document, rng), rng))
            try:
                samples, dropped, _reading = take(form, source, **chosen)
            except UsageError as error:
                assert error.expected and str(error)
                continue
            read_anyway += 1
            assert all(each.rule and each.where and str(each) for each in dropped)
            found = {sample.id: sample for sample in samples}
            assert all(found.get(name) == whole[name] for name in good)
        assert read_anyway > rounds / 10, "most of what is broken is one record, not the file"

    return check
