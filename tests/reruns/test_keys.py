"""Keys: equal for what is the same run, different for each single change that its result may depend on."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_lab.reruns.plan import keys
from tpo_lab.reruns.plan.keys import Contents, code_version, key_of
from tpo_lab.reruns.plan.planner import Planner
from tpo_lab.reruns.plan.sweep import Sweep

Write = Callable[..., Path]
VALUES = {"count": 3, "rate": 0.5, "mode": "x", "fast": True}
PLAIN = st.one_of(st.booleans(), st.integers(-3, 3), st.floats(-2, 2), st.text(max_size=3))


@pytest.fixture
def notebook(write_notebook: Write) -> Path:
    return write_notebook("n.ipynb", "import os\n", "print(count)")


def test_a_key_is_sixteen_hex_digits_and_the_same_in_another_process(notebook: Path, monkeypatch: pytest.MonkeyPatch):
    # the code is left out, so that the test holds while somebody edits it
    monkeypatch.setattr(keys, "code_version", lambda: "c")
    key = key_of(notebook, VALUES)
    assert len(key) == 16 and int(key, 16) >= 0
    code = "from pathlib import Path; from tpo_lab.reruns.plan import keys; keys.code_version = lambda: 'c'; "
    code += f"print(keys.key_of(Path({str(notebook)!r}), {VALUES!r}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.strip() == key


@given(values=st.dictionaries(st.text(max_size=3), PLAIN, max_size=4), data=st.randoms())
def test_the_order_of_names_does_not_count(values: dict[str, Any], data: random.Random):
    names = list(values)
    data.shuffle(names)
    contents = FixedContents()
    assert key_of(Path("n"), values, contents=contents) == key_of(Path("n"), {name: values[name] for name in names}, contents=contents)


@given(one=st.dictionaries(st.text(max_size=2), PLAIN, max_size=3), two=st.dictionaries(st.text(max_size=2), PLAIN, max_size=3))
def test_keys_are_equal_only_for_equal_values_types_included(one: dict[str, Any], two: dict[str, Any]):
    contents = FixedContents()
    equal = sorted((name, repr(value)) for name, value in one.items()) == sorted((name, repr(value)) for name, value in two.items())
    assert (key_of(Path("n"), one, contents=contents) == key_of(Path("n"), two, contents=contents)) is equal


class FixedContents(Contents):
    def notebook(self, path: Path) -> str:
        return "same"


def test_the_order_of_the_sweep_file_does_not_count(write_notebook: Write, write_sweep: Write):
    write_notebook("n.ipynb", "1")
    text = ["notebook: n.ipynb", "parameters: {fast: true, mode: x}", "grid: {count: [1, 2], rate: [1, 2]}", "seeds: [0, 1]"]
    turned = ["seeds: [1, 0]", "grid: {rate: [2, 1.0], count: [2, 1]}", "parameters: {mode: 'x', fast: True}", "notebook: ./n.ipynb"]
    first, second = (Planner(Sweep.read(write_sweep("\n".join(lines)))).jobs() for lines in (text, turned))
    assert {job.key for job in first} == {job.key for job in second} and len(first) == 8
    by_key = {job.key: job for job in second}
    assert all(by_key[job.key].values == job.values for job in first)


class TestNotebook:
    def key(self, path: Path, notebook: dict[str, Any]) -> str:
        path.write_text(json.dumps(notebook))
        return key_of(path, VALUES)

    def test_outputs_counts_identifiers_and_metadata_do_not_count(self, notebook: Path):
        plain = json.loads(notebook.read_text())
        run = deepcopy(plain)
        for number, cell in enumerate(run["cells"]):
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "hello"}]
            cell["execution_count"], cell["id"] = number + 1, f"other{number}"
            cell["metadata"]["scrolled"] = True
        run["metadata"]["language_info"] = {"version": "3.12"}
        assert self.key(notebook, run) == self.key(notebook, plain)

    def test_source_as_lines_or_as_text_is_the_same(self, notebook: Path):
        plain = json.loads(notebook.read_text())
        lines = deepcopy(plain)
        for cell in lines["cells"]:
            cell["source"] = cell["source"].splitlines(keepends=True)
        assert self.key(notebook, lines) == self.key(notebook, plain)

    def test_each_single_change_of_a_cell_counts(self, notebook: Path):
        plain = json.loads(notebook.read_text())
        changed = [deepcopy(plain) for _ in range(7)]
        changed[0]["cells"][2]["source"] = "print(count) "
        changed[1]["cells"][0]["source"] = changed[1]["cells"][0]["source"].replace("2", "3")
        changed[2]["cells"][1], changed[2]["cells"][2] = changed[2]["cells"][2], changed[2]["cells"][1]
        changed[3]["cells"][1]["metadata"]["tags"] = ["raises-exception"]
        changed[4]["cells"][1]["cell_type"] = "markdown"
        del changed[5]["cells"][2]
        changed[6]["cells"][1]["source"], changed[6]["cells"][2]["source"] = "import os", "\nprint(count)"
        assert len({self.key(notebook, each) for each in [plain, *changed]}) == 8

    def test_the_name_and_the_folder_do_not_count(self, notebook: Path, tmp_path: Path):
        (tmp_path / "below").mkdir()
        moved = tmp_path / "below" / "other.ipynb"
        moved.write_text(notebook.read_text())
        assert key_of(moved, VALUES) == key_of(notebook, VALUES)


class TestInputs:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "set"
        (folder / "clips").mkdir(parents=True)
        (folder / "train.jsonl").write_text("one")
        (folder / "clips" / "a").write_bytes(b"\x00\xff")
        return folder

    def test_the_same_content_elsewhere_is_the_same(self, folder: Path, tmp_path: Path):
        copy = tmp_path / "copy"
        (copy / "clips").mkdir(parents=True)
        (copy / "clips" / "a").write_bytes(b"\x00\xff")
        (copy / "train.jsonl").write_text("one")
        os.utime(copy / "train.jsonl", (1, 1))
        assert Contents().input(copy) == Contents().input(folder)

    def test_each_single_change_of_a_folder_counts(self, folder: Path):
        seen = [Contents().input(folder)]
        for change in (
            lambda: (folder / "train.jsonl").write_text("two"),
            lambda: (folder / "clips" / "b").write_text(""),
            lambda: (folder / "clips" / "b").rename(folder / "b"),
            lambda: (folder / "clips" / "a").unlink(),
            lambda: (folder / "link").symlink_to("nowhere"),
        ):
            change()
            seen.append(Contents().input(folder))
        assert len(set(seen)) == 6

    def test_linked_folders_are_read_and_circles_end(self, folder: Path, tmp_path: Path):
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "x").write_text("1")
        (folder / "linked").symlink_to(outside)
        (outside / "back").symlink_to(folder)
        before = Contents().input(folder)
        (outside / "x").write_text("2")
        assert Contents().input(folder) != before

    def test_large_files_count_by_size_and_time_of_change(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(keys, "EXACT_BYTES", 2)
        os.utime(folder / "train.jsonl", (1, 1))
        before = Contents().input(folder)
        (folder / "train.jsonl").write_text("two")
        os.utime(folder / "train.jsonl", (1, 1))
        assert Contents().input(folder) == before
        os.utime(folder / "train.jsonl", (1, 2))
        assert Contents().input(folder) != before

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
    def test_a_pipe_is_not_waited_for(self, folder: Path):
        os.mkfifo(folder / "pipe")
        assert Contents().input(folder)

    def test_a_file_is_read_once_for_all_jobs(self, folder: Path):
        contents = Contents()
        before = contents.input(folder)
        (folder / "train.jsonl").write_text("two")
        assert contents.input(folder) == before != Contents().input(folder)

    def test_inputs_takes_and_the_job_before_count(self, notebook: Path, folder: Path):
        made = [
            key_of(notebook, VALUES),
            key_of(notebook, VALUES, inputs={"set": folder}),
            key_of(notebook, VALUES, inputs={"other": folder}),
            key_of(notebook, VALUES, before="0" * 16),
            key_of(notebook, VALUES, before="1" * 16),
            key_of(notebook, VALUES, before="1" * 16, takes={"mode": "a"}),
            key_of(notebook, VALUES, before="1" * 16, takes={"mode": "b"}),
        ]
        assert len(set(made)) == 7


class TestCode:
    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A copy of a package of two files that the keys take for TPO Lab."""
        package = tmp_path / "package"
        (package / "reruns" / "plan").mkdir(parents=True)
        (package / "a.py").write_text("1")
        (package / "recipes.yaml").write_text("x: 1")
        monkeypatch.setattr(keys, "__file__", str(package / "reruns" / "plan" / "keys.py"))
        return package

    def version(self) -> str:
        return code_version.__wrapped__()

    def test_every_source_counts_and_nothing_else(self, package: Path):
        seen = [self.version()]
        for name, text in (("a.py", "2"), ("recipes.yaml", "x: 2"), ("reruns/new.py", ""), ("shape.json", "{}")):
            (package / name).write_text(text)
            seen.append(self.version())
        (package / "notes.md").write_text("1")
        (package / "__pycache__").mkdir()
        (package / "__pycache__" / "a.py").write_text("1")
        seen.append(self.version())
        assert len(set(seen)) == 5 and seen[-1] == seen[-2]

    def test_a_wheel_and_a_checkout_of_the_same_code_agree(self, package: Path):
        before = self.version()
        for name in ("_notebooks/20.py", "_data/nano/nano.json"):
            (package / name).parent.mkdir(parents=True)
            (package / name).write_text("{}")
        assert self.version() == before

    def test_the_code_is_part_of_a_key_and_read_once(self, notebook: Path, monkeypatch: pytest.MonkeyPatch):
        before = key_of(notebook, VALUES)
        assert code_version() is code_version()
        monkeypatch.setattr(keys, "code_version", lambda: "other")
        assert key_of(notebook, VALUES) != before
