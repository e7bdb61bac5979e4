"""Pickles from elsewhere: plain data is read whatever wrote it, and nothing in the file is ever run."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from tpo_lab.errors import UsageError
from tpo_lab.files.pickles import read_pickle

PLAIN = {
    "video-a": [[0.5, 3], (1, 2), (1, 2, 3, 4), ()],
    "é\n": ["a", "a", None, True, False, -1, 300, 70_000, 2**40, -(2**70), 1e300, "x" * 300, {}],
    7: {"deep": [[[{"er": []}]]]},
}


def put(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "data.pkl"
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read_from_every_protocol(tmp_path: Path, protocol: int):
    assert read_pickle(put(tmp_path, pickle.dumps(PLAIN, protocol))) == PLAIN


def test_texts_that_python_2_wrote_as_bytes_are_decoded(tmp_path: Path):
    for raw in (b"(lp0\nS'caf\\xe9'\np1\naL12L\na.", b"\x80\x02]q\x00(U\x04caf\xe9q\x01\x8a\x01\x0ce."):
        assert read_pickle(put(tmp_path, raw)) == ["café", 12]
    assert read_pickle(put(tmp_path, b"\x80\x02U\x02\xc3\xa9."), encoding="utf-8") == "é"


class Attack:
    """Unpickled the usual way, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (self.target,))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_file_that_would_run_something_is_refused_by_name(tmp_path: Path, protocol: int):
    raw = pickle.dumps([1, Attack(tmp_path / "made")], protocol)
    with pytest.raises(UsageError, match=rf"data\.pkl: expected a pickle of lists.*{os.name}\.mkdir.*Nothing in the file was run"):
        read_pickle(put(tmp_path, raw))
    assert not (tmp_path / "made").exists()
    pickle.loads(raw)
    assert (tmp_path / "made").exists(), "the attack would have worked"


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"cposix\nsystem\n(S'true'\ntR.", "posix.system"),
        (b"(S'true'\niposix\nsystem\n.", "posix.system"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "eval"),
        (b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.", "builtins.getattr"),
        (pickle.dumps({1}, 2), "__builtin__.set"),
        (pickle.dumps({1}, 4), "the step EMPTY_SET before byte"),
        (pickle.dumps(OrderedDict(a=1)), "collections.OrderedDict"),
        (pickle.dumps(np.float64(1)), "multiarray.scalar"),
        (pickle.dumps(b"raw", 4), "the step SHORT_BINBYTES before byte"),
        (b"\x82\x01.", "the step EXT1 before byte"),
        (b"]R.", "the step REDUCE before byte"),
        (b"](K\x01b.", "the step BUILD before byte"),
        (b"Pname\n.", "the step PERSID before byte"),
        (b"\xff.", "the step 255 before byte"),
    ],
)
def test_what_is_not_plain_is_refused_by_name(tmp_path: Path, raw: bytes, named: str):
    with pytest.raises(UsageError) as caught:
        read_pickle(put(tmp_path, raw))
    assert named in str(caught.value)


def test_a_file_cannot_ask_for_more_memory_than_it_has_bytes(tmp_path: Path):
    huge = struct.pack("<Q", 2**40)
    for raw in (b"\x80\x04\x96" + huge, b"\x80\x04\x8e" + huge, b"\x80\x04\x8d" + huge, b"\x80\x04\x95" + huge):
        with pytest.raises(UsageError):
            read_pickle(put(tmp_path, raw + b"."))
    # the place of a value in the machine's memory is only a name here
    assert read_pickle(put(tmp_path, b"\x80\x04]r\xff\xff\xff\xff.")) == []


def test_containers_that_hold_each_other_are_refused(tmp_path: Path):
    itself: list[object] = []
    itself.append(itself)
    doubled: list[object] = []
    for _ in range(30):
        doubled = [doubled, doubled]
    wide: list[object] = [0] * 3000
    for document in (itself, doubled, [wide] * 3000):
        with pytest.raises(UsageError, match="hold each other"):
            read_pickle(put(tmp_path, pickle.dumps(document)))
    with pytest.raises(UsageError, match="at most 50 inside each other"):
        read_pickle(put(tmp_path, b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."))


def test_files_cut_short_are_named(tmp_path: Path):
    raw = pickle.dumps(PLAIN)
    for length in range(len(raw)):
        with pytest.raises(UsageError, match=r"data\.pkl: expected a whole pickle"):
            read_pickle(put(tmp_path, raw[:length]))
    with pytest.raises(UsageError, match="expected a file, got 'a folder'"):
        read_pickle(tmp_path)
    with pytest.raises(UsageError, match="nothing of that name"):
        read_pickle(tmp_path / "absent.pkl")


def test_random_bytes_give_plain_data_or_an_error(tmp_path: Path):
    rng = random.Random(0)
    wholes = [pickle.dumps(PLAIN, protocol) for protocol in range(6)]
    for _ in range(1000):
        raw = bytearray(rng.choice(wholes))
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        try:
            found = read_pickle(put(tmp_path, bytes(raw)))
        except UsageError as error:
            assert str(error)
        else:
            pickle.dump(found, io.BytesIO())
