"""Checked access to the fields of a record, and streams that go on after a bad record."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from tpo_lab.errors import UsageError
from tpo_lab.files import BadRecord, Record, numbers, stream_csv, stream_items, stream_jsonl, stream_members

ROW = Record("f.jsonl, line 3", {"n": 1.5, "i": 2, "t": " a ", "b": True, "huge": 10**400, "w": [[0, 4], [9, 3]], "o": {"k": None}})


@pytest.mark.parametrize(
    ("call", "field", "rule"),
    [
        (lambda row: row.number("b"), "b", "number"),
        (lambda row: row.number("t"), "t", "number"),
        (lambda row: row.number("huge"), "huge", "number"),
        (lambda row: row.integer("n"), "n", "integer"),
        (lambda row: row.positive("nothing"), "", "missing"),
        (lambda row: row.words("n"), "n", "words"),
        (lambda row: row.several("o"), "o", "list"),
        (lambda row: row.windows("w"), "w[1]", "window_order"),
        (lambda row: row.windows("n"), "n", "numbers"),
        (lambda row: row.inner("w"), "", "object"),
        (lambda row: numbers(row.where, [[1, True]], 2, field="x"), "x[0]", "numbers"),
        (lambda row: numbers(row.where, [[1, 2], ["1", 2]], 2, field="x"), "x[1]", "numbers"),
        (lambda row: numbers(row.where, [[10**400, 2]], 2, field="x"), "x[0]", "numbers"),
    ],
)
def test_each_rule_is_named_with_its_field(call, field: str, rule: str):
    with pytest.raises(BadRecord) as caught:
        call(ROW)
    assert (caught.value.field, caught.value.rule) == (field, rule)
    assert caught.value.where.startswith("f.jsonl, line 3") and str(caught.value).startswith(caught.value.argument)


def test_fields_that_are_right():
    assert (ROW.number("i"), ROW.integer("i"), ROW.words("t"), ROW.text("n")) == (2.0, 2, "a", "1.5")
    assert ROW.windows("w", ordered=False).tolist() == [[0, 4], [9, 3]] and ROW.inner("o").fields == {"k": None}


def test_a_bad_record_survives_a_process_boundary():
    error = pickle.loads(pickle.dumps(BadRecord("f, line 1", "a[0]", rule="words", expected="a text", got=3)))
    assert (error.field, error.rule, error.where) == ("a[0]", "words", "f, line 1")


def test_jsonl_goes_on_after_each_kind_of_bad_line(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": \n[1]\n\xff\xfe\n{"a": NaN}\n' + b"[" * 100_000 + b'\n{"a": 2}\r\n')
    found = list(stream_jsonl(path))
    assert [each.fields if isinstance(each, Record) else each.rule for each in found] == [
        {"a": 1}, "json", "object", "utf8", "json", "json", {"a": 2},
    ]  # fmt: skip
    assert [each.where for each in found][-1] == f"{path}, line 8"


def test_items_and_members_of_a_document(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('{"videos": {"a": {"x": 1}, "b": 2, "a": {"x": 3}}, "rows": [{"y": 1}, 5, {"y": 2.5}], "none": []}')
    assert list(stream_members(path, ("videos",))) == [("a", {"x": 1}), ("b", 2), ("a", {"x": 3})]
    rows = list(stream_items(path, ("rows",)))
    assert [each.fields if isinstance(each, Record) else each.rule for each in rows] == [{"y": 1}, "object", {"y": 2.5}]
    assert rows[1].where == f"{path}, rows, [1]"
    assert list(stream_items(path, ("none",))) == []


@pytest.mark.parametrize(("text", "under"), [('[{"a": 1}, {"a"', ()), ('{"rows": [{"a": 1}, {"b": 2}', ("rows",))])
def test_a_document_cut_short_gives_what_it_holds_and_then_an_error(tmp_path: Path, text: str, under: tuple[str, ...]):
    path = tmp_path / "a.json"
    path.write_text(text)
    rows = stream_items(path, under)
    assert next(rows).fields == {"a": 1}
    with pytest.raises(UsageError, match="a whole JSON document"):
        list(rows)


@pytest.mark.parametrize("text", ["{}", '{"rows": {"a": 1}}', "3", ""])
def test_a_missing_list_is_an_error(tmp_path: Path, text: str):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UsageError):
        list(stream_items(path, ("rows",)))


def test_csv_rows_of_another_length_are_named(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n3\n4,5,6\n"x\ny",7\n')
    found = list(stream_csv(path, ("a", "b")))
    assert [each.fields if isinstance(each, Record) else each.rule for each in found] == [
        {"a": "1", "b": "2"},
        "columns",
        "columns",
        {"a": "x\ny", "b": "7"},
    ]
    with pytest.raises(UsageError, match="the columns c"):
        list(stream_csv(path, ("c",)))


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path):
    for path, got in ((tmp_path, "a folder"), (tmp_path / "none", "nothing of that name")):
        for stream in (stream_jsonl, stream_items, stream_members, stream_csv):
            with pytest.raises(UsageError, match=got):
                list(stream(path))


@pytest.mark.parametrize("text", ["[" * 200_000, '[{"a": 1}, ' + "[" * 200_000, "[" * 3000 + "]" * 3000])
def test_a_document_nested_too_deep_is_refused_in_little_memory(tmp_path: Path, text: str):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UsageError):
        list(stream_items(path))


def test_many_brackets_in_texts_are_no_depth(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"a": "[" * 100_000}, {"b": "{[" * 1000}]))
    assert [set(each.fields) for each in stream_items(path)] == [{"a"}, {"b"}]
