from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tpo_lab import knobs
from tpo_lab.errors import UsageError
from tpo_lab.knobs import Between, Count, NonNegative, Positive, ShareBelowOne


@dataclass(frozen=True)
class Inner:
    depth: Count = 3

    def __post_init__(self) -> None:
        knobs.check(self, "inner")


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    many: tuple[Inner, ...] = ()
    pair: tuple[ShareBelowOne, float] = (0.5, 2.0)
    rates: Mapping[str, Positive] | None = None
    mode: Literal["a", "b"] = "a"
    layers: Literal[1, 2] = 1
    on: bool = False
    weight: NonNegative = 0.0

    def __post_init__(self) -> None:
        knobs.check(self, "outer")


FULL = Outer("x", Inner(7), (Inner(1), Inner(2)), (0.25, 4.0), {"p.*": 1e-3}, "b", 2, True, 1.5)


def test_from_plain_reads_what_to_plain_wrote() -> None:
    plain = knobs.to_plain(FULL)
    assert plain["many"] == [{"depth": 1}, {"depth": 2}]
    assert plain["pair"] == [0.25, 4.0]
    assert knobs.from_plain(Outer, plain, "outer") == FULL


def test_from_plain_takes_defaults_for_what_is_missing() -> None:
    assert knobs.from_plain(Outer, {"name": "y", "inner": {}}, "outer") == Outer("y", Inner())


def test_check_turns_whole_numbers_and_lists_into_the_annotated_form() -> None:
    outer = Outer("x", Inner(), pair=[0, 3], weight=2)  # type: ignore[arg-type]
    assert (outer.pair, outer.weight) == ((0.0, 3.0), 2.0)
    assert isinstance(outer.weight, float)


def test_check_copies_mappings() -> None:
    rates = {"p": 1.0}
    outer = Outer("x", Inner(), rates=rates)
    rates["p"] = 5.0
    assert outer.rates == {"p": 1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nam": "z"}, r"outer: expected one of .*got 'nam'\. Did you mean 'name'"),
        ({"inner": {"dept": 1}}, r"outer: inner: expected one of depth, got 'dept'"),
        ({"inner": 3}, r"outer: inner: expected a table with the fields of Inner, got 3"),
        ({"many": [{"depth": 1}, {"width": 1}]}, r"outer: many\[1\]: expected one of depth, got 'width'"),
        ({"inner": {"depth": 0}}, r"inner: depth: expected a number >= 1, got 0"),
        ({"inner": {"depth": 2.5}}, r"inner: depth: expected a whole number, got 2\.5"),
        ({"inner": {"depth": True}}, r"inner: depth: expected a whole number, got True"),
        ({"name": 4}, r"outer: name: expected a text, got 4"),
        ({"on": 1}, r"outer: on: expected true or false, got 1"),
        ({"mode": "c"}, r"outer: mode: expected one of a, b, got 'c'"),
        ({"layers": True}, r"outer: layers: expected one of 1, 2, got 'True'"),
        ({"pair": [0.1]}, r"outer: pair: expected 2 values, got \(0\.1,\)"),
        ({"pair": "ab"}, r"outer: pair: expected a list, got 'ab'"),
        ({"pair": [1.0, 2.0]}, r"outer: pair\[0\]: expected a number >= 0 and < 1, got 1\.0"),
        ({"rates": {"p": 0}}, r"outer: rates\['p'\]: expected a number > 0 and finite, got 0\.0"),
        ({"rates": [1]}, r"outer: rates: expected a table of names and values, got \[1\]"),
        ({"weight": float("nan")}, r"outer: weight: expected a number >= 0 and finite, got nan"),
        ({"weight": float("inf")}, r"outer: weight: expected a number >= 0 and finite, got inf"),
        ({"weight": "1"}, r"outer: weight: expected a number, got '1'"),
    ],
)
def test_from_plain_names_the_field_and_the_value_it_refuses(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        knobs.from_plain(Outer, {**knobs.to_plain(FULL), **change}, "outer")


def test_from_plain_names_missing_fields() -> None:
    with pytest.raises(UsageError, match=r"got \['name'\]\. Missing: inner\."):
        knobs.from_plain(Outer, {"name": "z"}, "outer")


def test_between_holds_its_ends_as_told() -> None:
    assert [value in Between(0, 1) for value in (-0.1, 0, 1, 1.1)] == [False, True, True, False]
    assert [value in Between(0, 1, above=True, below=True) for value in (0, 0.5, 1)] == [False, True, False]


def test_assign_reaches_entries_whose_names_hold_dots() -> None:
    holder: dict[str, object] = {"rates": {"llm.lora.*": 1.0, "x": 2.0}, "size": 3}
    assert knobs.assign(holder, "rates.llm.lora.*", 9.0)
    assert knobs.assign(holder, "size", 4)
    assert holder == {"rates": {"llm.lora.*": 9.0, "x": 2.0}, "size": 4}
    assert not knobs.assign(holder, "rates.llm", 1.0)
    assert not knobs.assign(holder, "size.x", 1.0)
    assert sorted(knobs.paths(holder)) == ["rates", "rates.llm.lora.*", "rates.x", "size"]


@pytest.mark.parametrize(("name", "text"), [("a.json", '{"x": [1, null]'), ("a.toml", "x = = 1")])
def test_read_names_the_file_with_a_syntax_error(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=rf"{name}: expected valid {name[2:].upper()}, got"):
        knobs.read(tmp_path / name)


def test_read_refuses_other_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x: 1")
    for name in ("a.yaml", "none.json"):
        with pytest.raises(UsageError, match=rf"existing \.json or \.toml file, got '.*{name}'"):
            knobs.read(tmp_path / name)
