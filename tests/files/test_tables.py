"""Tables of numbers: read all at once where nothing is amiss, and line by line where something is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_lab.errors import UsageError
from tpo_lab.files import read_table, reading

number = st.floats(allow_nan=False, allow_infinity=False, width=64)
between = st.sampled_from([",", "\t", " ", ", ", " , "])


@given(
    rows=st.lists(st.tuples(number, number, number), min_size=1, max_size=6),
    marks=between,
    end=st.sampled_from(["\n", ",\n", "\r\n", "\n\n"]),
)
def test_a_table_is_read_as_its_lines_are(tmp_path_factory: pytest.TempPathFactory, rows, marks: str, end: str):
    path = tmp_path_factory.mktemp("table") / "t.txt"
    path.write_bytes("".join(marks.join(map(repr, row)) + end for row in rows).encode())
    found = read_table(path, 3)
    assert found.shape == (len(rows), 3) and (found == np.array(rows)).all()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reading, "_parsed_table", lambda lines: None)
        assert (read_table(path, 3) == found).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2,3\n1,2\n", r"t.txt, line 2: expected 3 finite numbers, got '1,2'"),
        ("1,2\n1,2\n", r"t.txt, line 1: expected 3 finite numbers, got '1,2'"),
        ("1,2,3\n1,2,3,4\n", r"t.txt, line 2: expected 3 finite numbers, got '1,2,3,4'"),
        ("1,2,3\n\n1,x,3\n", r"t.txt, line 3: expected 3 numbers, got '1,x,3'"),
        ("1,2,3\n1,2,nan\n", r"t.txt, line 2: expected 3 finite numbers, got '1,2,nan'"),
        ("1,2,inf\n", r"t.txt, line 1: expected 3 finite numbers, got '1,2,inf'"),
        ("# 1,2,3\n", r"t.txt, line 1: expected 3 numbers, got '# 1,2,3'"),
        ("\n \n", r"t.txt: expected at least one line, got 0"),
        ("", r"t.txt: expected at least one line, got 0"),
    ],
)
def test_what_is_no_table_is_named_by_its_line(tmp_path: Path, content: str, message: str):
    path = tmp_path / "t.txt"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_table(path, 3)


def test_nan_is_read_where_it_is_allowed_and_inf_is_not(tmp_path: Path):
    path = tmp_path / "t.txt"
    path.write_text("1,NaN\n3,4\n")
    assert np.isnan(read_table(path, 2, nan=True)).tolist() == [[False, True], [False, False]]
    path.write_text("1,NaN\n3,-inf\n")
    with pytest.raises(UsageError, match=r"line 2: expected 2 numbers, got '3,-inf'"):
        read_table(path, 2, nan=True)


def test_deep_json_is_refused(tmp_path: Path):
    path = tmp_path / "t.json"
    path.write_text("[" * 100_000)
    with pytest.raises(UsageError, match=r"t.json: expected JSON, got 'lists or objects nested too deep'"):
        reading.read_json(path)
    with pytest.raises(UsageError, match=r"t.json, line 1: expected a JSON object, got 'lists or objects nested too deep'"):
        reading.read_jsonl(path)
