"""What weight files hold, read without running any of it: safetensors, indices, and pickles of every kind."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tpo_lab.errors import UsageError
from tpo_lab.files.tensor_entry import TensorEntry
from tpo_lab.files.tensors import read_tensor_entries, weight_files

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


def listed(path: Path) -> dict[str, tuple[tuple[int, ...], str, int]]:
    return {entry.name: (entry.shape, entry.dtype, entry.bytes) for entry in read_tensor_entries(path)}


def expected(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], str, int]]:
    names = {value: name for name, value in DTYPES.items()}
    return {name: (tuple(t.shape), names[t.dtype], t.numel() * t.element_size()) for name, t in tensors.items()}


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    """One of each type, a scalar, an empty one, and a view that is no block of its storage."""
    made = {f"layer.{name}": torch.zeros(2, 3).to(dtype) for name, dtype in DTYPES.items()}
    return {**made, "scalar": torch.tensor(3.0), "empty": torch.zeros(0, 5), "step": torch.arange(12).reshape(3, 4)[:, ::2]}


def test_safetensors_are_listed_from_their_header(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    whole = {name: value.contiguous() for name, value in tensors.items()}
    save_file(whole, tmp_path / "a.safetensors", metadata={"format": "pt"})
    assert listed(tmp_path / "a.safetensors") == expected(whole)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_files_of_torch_are_listed(tmp_path: Path, tensors: dict[str, torch.Tensor], zipped: bool) -> None:
    torch.save(tensors, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert listed(tmp_path / "a.pt") == expected(tensors)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tensors_are_found_in_containers_of_a_training(tmp_path: Path, zipped: bool) -> None:
    """As trainers write them: states with versions, parameters, optimizer states, and numbers in between."""
    layer = torch.nn.Linear(3, 5)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    state = {
        "model": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameters": [layer.weight],
        "size": layer.weight.shape,
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "names": {"a", "b"},
        "step": 7,
        "rate": 0.5,
        "raw": b"\x00\xff",
        "more": collections.OrderedDict(inner=(torch.zeros(4, dtype=torch.float16), None)),
    }
    torch.save(state, tmp_path / "trained.ckpt", _use_new_zipfile_serialization=zipped)
    moments = {f"optimizer.state.{place}.{name}": shape for place, shape in enumerate([(5, 3), (5,)]) for name in ("exp_avg", "exp_avg_sq")}
    assert {entry.name: entry.shape for entry in read_tensor_entries(tmp_path / "trained.ckpt")} == {
        "model.weight": (5, 3),
        "model.bias": (5,),
        "parameters.0": (5, 3),
        "more.inner.0": (4,),
        **moments,
        **{f"optimizer.state.{place}.step": () for place in (0, 1)},
    }


def test_names_and_shapes_of_a_real_state_are_those_of_the_model(tmp_path: Path, tiny: Any) -> None:
    torch.save(tiny.state_dict(), tmp_path / "pytorch_model.bin")
    assert listed(tmp_path / "pytorch_model.bin") == expected(dict(tiny.state_dict()))


class Attack:
    """Unpickled, this makes a file."""

    def __init__(self, trace: Path, function: Callable[..., Any] = os.mkdir) -> None:
        self.trace, self.function = trace, function

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, (str(self.trace),)


class Built:
    """An object with a state, of a class that the reader does not know."""


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_program_in_a_file_of_torch_does_not_run(tmp_path: Path, zipped: bool) -> None:
    trace = tmp_path / "it ran"
    path = tmp_path / "evil.pt"
    torch.save({"weight": torch.zeros(3), "bomb": Attack(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError, match=rf"got '{os.mkdir.__module__}\.mkdir'\. Nothing in the file was run\."):
        read_tensor_entries(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the program is one that would have run"


def of_pickle(raw: bytes, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", raw)
    return path


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (pickle.dumps(Built()), "Built"),
        (pickle.dumps(eval), r"builtins\.eval"),
        (b"cos\nsystem\n(S'true'\ntR.", r"os\.system"),
        (b"(S'true'\nios\nsystem\n.", "the step INST"),
        (b"cbuiltins\ngetattr\n.", r"builtins\.getattr"),
        (b"ctorch.storage\n_load_from_bytes\n(C\x03abctR.", r"torch\.storage\._load_from_bytes"),
        (b"ctorch\nload\n.", r"torch\.load"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", r"builtins\.eval"),
        (b"\x80\x02}\x81.", "the step NEWOBJ"),
        (b"\x80\x02S'a'\n(tR.", "a call of a"),
        (b"\x80\x02ctorch\nFloatStorage\n(tR.", "a call of"),
        (b"\x80\x02\x82\x01.", "the step EXT1"),
        (b"\x80\x02Pname\n.", "the step PERSID"),
        (b"\x80\x02K\x01Q.", "a reference to 1"),
    ],
)
def test_whatever_else_a_pickle_names_is_refused(tmp_path: Path, raw: bytes, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        read_tensor_entries(of_pickle(raw, tmp_path / "odd.pt"))


def test_pickle_that_is_no_file_of_torch_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Attack(trace)))
    with pytest.raises(UsageError, match=r"\.mkdir'"):
        read_tensor_entries(tmp_path / "evil.pkl")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(UsageError, match="a pickle of something else"):
        read_tensor_entries(tmp_path / "list.pkl")
    (tmp_path / "text.bin").write_text("no weights")
    with pytest.raises(UsageError, match="bytes that begin with b'no weigh'"):
        read_tensor_entries(tmp_path / "text.bin")
    assert not trace.exists()


def test_containers_that_would_never_end_are_refused(tmp_path: Path) -> None:
    itself: list[Any] = []
    itself.append(itself)
    with pytest.raises(UsageError, match=r"one that holds itself|hold each other"):
        read_tensor_entries(of_pickle(pickle.dumps(itself), tmp_path / "a.pt"))
    laughs: list[Any] = ["ha"]
    for _ in range(40):
        laughs = [laughs] * 10
    with pytest.raises(UsageError, match="hold"):
        read_tensor_entries(of_pickle(pickle.dumps(laughs), tmp_path / "b.pt"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_traced_programs_are_refused(tmp_path: Path) -> None:
    traced = torch.jit.trace(torch.nn.Linear(2, 3), torch.zeros(1, 2))
    torch.jit.save(traced, str(tmp_path / "script.pt"))
    with pytest.raises(UsageError, match="__torch__"):
        read_tensor_entries(tmp_path / "script.pt")


def test_file_cut_off_anywhere_is_a_sentence(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    torch.save(tensors, tmp_path / "zip.pt")
    torch.save(tensors, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "a.safetensors")
    for name in ("zip.pt", "legacy.pt", "a.safetensors"):
        raw, wrong = (tmp_path / name).read_bytes(), 0
        for cut in range(0, len(raw) - 1, len(raw) // 40):
            (tmp_path / f"cut.{name}").write_bytes(raw[:cut])
            try:
                read_tensor_entries(tmp_path / f"cut.{name}")
            except UsageError:
                wrong += 1
        # numbers at the end of a legacy file are not looked at
        assert wrong >= (15 if name == "legacy.pt" else 40), name


def test_tensor_that_says_more_than_its_storage_has_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(6)}, tmp_path / "a.pt")
    records = {}
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in records if name.endswith("data.pkl"))
    for old, new, message in (
        (b"K\x06\x85", b"K\x09\x85", r"a tensor of shape \(9,\) in a storage of 6 numbers"),
        (b"K\x06t", b"K\x07t", r"w: expected 28 bytes, got 24"),
    ):
        assert old in records[name]
        with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
            for each, raw in records.items():
                archive.writestr(each, raw.replace(old, new) if each == name else raw)
        with pytest.raises(UsageError, match=message):
            read_tensor_entries(tmp_path / "b.pt")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes_end_in_a_list_or_in_a_sentence(tmp_path: Path, seed: int, changes: list[tuple[float, int]]) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2, 3), "b": [torch.ones(4)], "c": {"d": 1}}, buffer, _use_new_zipfile_serialization=False)
    raw = bytearray(buffer.getvalue())
    for place, value in changes:
        raw[int(place * (len(raw) - 1))] = value
    (tmp_path / "fuzz.pt").write_bytes(raw)
    try:
        entries = read_tensor_entries(tmp_path / "fuzz.pt")
    except UsageError:
        return
    assert all(isinstance(entry, TensorEntry) for entry in entries)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{", "a header with"),
        (b"[]", "a header with"),
        (b'{"a": {}}', "a header with 'shape'"),
        (b'{"a": {"shape": [2], "dtype": "F32", "data_offsets": [0, 4]}}', r"4 bytes for \(2,\) of F32"),
        (b'{"a": {"shape": [-2], "dtype": "F32", "data_offsets": [0, 8]}}', "an entry"),
        (b'{"a": {"shape": [2], "dtype": "F32", "data_offsets": [0, 8]}}', "expected 8 bytes of tensors, got 0"),
    ],
)
def test_wrong_header_is_a_sentence(tmp_path: Path, header: bytes, message: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UsageError, match=message):
        read_tensor_entries(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + header)
    with pytest.raises(UsageError, match="expected a safetensors file"):
        read_tensor_entries(tmp_path / "a.safetensors")


def test_type_that_only_safetensors_knows_has_the_bytes_of_the_file(tmp_path: Path) -> None:
    header = b'{"a": {"shape": [4], "dtype": "F4", "data_offsets": [0, 2]}}'
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")
    assert listed(tmp_path / "a.safetensors") == {"a": ((4,), "F4", 2)}


def sharded(folder: Path) -> Path:
    save_file({"a": torch.zeros(2), "b": torch.zeros(3)}, folder / "model-00001-of-00002.safetensors")
    save_file({"c": torch.zeros(5, dtype=torch.float16)}, folder / "model-00002-of-00002.safetensors")
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 30}, "weight_map": places}))
    return folder / "model.safetensors.index.json"


def test_index_and_its_folder_list_every_shard(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    found = read_tensor_entries(index)
    assert [(entry.name, entry.file[:11]) for entry in found] == [("a", "model-00001"), ("b", "model-00001"), ("c", "model-00002")]
    assert read_tensor_entries(tmp_path) == found
    assert sum(entry.bytes for entry in found) == 30


def test_index_that_does_not_fit_its_shards_is_a_sentence(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(UsageError, match="c: expected a tensor in model-00002"):
        read_tensor_entries(index)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    for place in (index, tmp_path):
        with pytest.raises(UsageError, match=r"expected the file model-00002-of-00002\.safetensors beside it"):
            read_tensor_entries(place)
    for content in ("{", "[]", '{"weight_map": {"a": "../a.safetensors"}}', '{"weight_map": 3}'):
        index.write_text(content)
        with pytest.raises(UsageError, match='an object with a "weight_map"'):
            read_tensor_entries(index)


def test_folder_takes_safetensors_before_pickles_and_looks_below(tmp_path: Path) -> None:
    torch.save({"old": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert [entry.name for entry in read_tensor_entries(tmp_path)] == ["old"]
    (tmp_path / "adapter").mkdir()
    save_file({"new": torch.zeros(1)}, tmp_path / "adapter" / "a.safetensors")
    assert [(entry.name, entry.file) for entry in read_tensor_entries(tmp_path)] == [("new", "adapter/a.safetensors")]
    assert weight_files(tmp_path) == [tmp_path / "adapter" / "a.safetensors"]
    (tmp_path / "other" / "model").mkdir(parents=True)
    save_file({"far": torch.zeros(1)}, tmp_path / "other" / "model" / "b.safetensors")
    assert weight_files(tmp_path) == [tmp_path / "adapter" / "a.safetensors"], "what lies deeper belongs to something else"


def test_what_holds_no_weights_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(UsageError, match=r"readme\.txt: expected a \.safetensors file, .* got '\.txt'"):
        read_tensor_entries(tmp_path / "readme.txt")
    with pytest.raises(UsageError, match="expected a folder with"):
        read_tensor_entries(tmp_path)
    with pytest.raises(UsageError, match="got 'nothing of that name'"):
        read_tensor_entries(tmp_path / "absent.pt")
