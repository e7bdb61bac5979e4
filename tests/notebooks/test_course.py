"""The course as files: sources, what is made of them, and the form of every notebook."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tpo_lab import notebooks

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "notebooks"
NAMES = sorted(path.stem for path in SOURCES.glob("[0-9][0-9]_*.py"))
COURSE = [
    "00_tour",
    "10_tokens_and_routing",
    "11_prompts",
    "20_region_head",
    "21_temporal_head",
    "22_mask_head",
    "30_losses",
    "40_joint_training",
    "50_debugging",
    "51_views",
    "60_your_own_data",
    "61_your_own_head",
    "70_real_model",
    "80_reruns",
    "90_how_nano_was_made",
]
COMMON = ["data", "checkpoint", "out", "seed", "recipe_name", "steps", "eval_samples", "threads", "fast"]
STAGES = ["10_tokens_and_routing", "20_region_head", "21_temporal_head", "22_mask_head", "40_joint_training"]
IMPORTS = {"tpo_lab", "tpo_widgets", "torch", "pandas", "collections", "math", "pathlib", "dataclasses"}


def generator() -> ModuleType:
    """tools/course.py as a module."""
    spec = importlib.util.spec_from_file_location("course", ROOT / "tools" / "course.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def course() -> ModuleType:
    pytest.importorskip("jupytext", reason="jupytext is not installed")
    return generator()


def read(name: str, folder: Path = SOURCES) -> dict[str, Any]:
    return json.loads((folder / f"{name}.ipynb").read_text(encoding="utf-8"))


def cells(name: str, kind: str, folder: Path = SOURCES / "solutions") -> list[str]:
    return ["".join(cell["source"]) for cell in read(name, folder)["cells"] if cell["cell_type"] == kind]


def walked(name: str) -> list[ast.AST]:
    return [node for source in cells(name, "code") for node in ast.walk(ast.parse(source))]


def tag(cell: dict[str, Any]) -> str:
    return next(iter(cell["metadata"].get("tags", ())), "")


def test_the_course_is_whole():
    assert NAMES == COURSE
    assert list(notebooks.available()) == COURSE


def test_no_notebook_differs_from_its_source(course: ModuleType):
    assert not course.stale(), "run python tools/course.py"


class TestGenerator:
    SOURCE = """# %% [markdown]
# # A title
#
# **Question**: what is one
# and one?
#
# **Time and hardware**: a second; no GPU.

# %% tags=["parameters"]
fast: bool = False  # few steps

# %% tags=["exercise"]
two = ...

# %% [markdown] tags=["hint"]
# One and one.

# %% tags=["solution"]
two = 1 + 1

# %% tags=["check"]
assert two == 2, "one and one"
"""

    def made(self, course: ModuleType, tmp_path: Path, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
        source = tmp_path / "77_sums.py"
        source.write_text(text, encoding="utf-8")
        found = course.cells_of(source)
        return course.notebook("77_sums", course.unsolved(found)), course.notebook("77_sums", course.solved(found))

    def test_an_exercise_is_open_in_one_and_done_in_the_other(self, course: ModuleType, tmp_path: Path):
        unsolved, solved = self.made(course, tmp_path, self.SOURCE)
        texts = ["".join(cell["source"]) for cell in unsolved["cells"]]
        assert [tag(cell) for cell in unsolved["cells"]] == ["", "", "parameters", "exercise", "", "check"]
        assert texts[3] == "two = ..."
        assert texts[4].startswith("<details><summary>Hint</summary>") and "One and one." in texts[4]
        assert "```python\ntwo = 1 + 1\n```" in texts[4]
        assert [tag(cell) for cell in solved["cells"]] == ["", "parameters", "solution", "check"]
        assert "hint" not in json.dumps(solved).lower() and "..." not in json.dumps(solved)

    def test_cells_have_names_that_stay(self, course: ModuleType, tmp_path: Path):
        once, again = self.made(course, tmp_path, self.SOURCE), self.made(course, tmp_path, self.SOURCE)
        assert once == again
        names = [cell["id"] for cell in once[0]["cells"]]
        assert len(set(names)) == len(names) and names[2] == "77-parameters-03"

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ('# %% tags=["check"]', "# %%", "the order exercise, any hints, solution, check"),
            ('# %% tags=["solution"]', '# %% tags=["check"]', "the order exercise"),
            ('tags=["exercise"]', 'tags=["exercize"]', "expected one of parameters, exercise, hint, solution, check"),
            ('tags=["parameters"]', "", "expected one cell tagged parameters, got 0"),
            ('tags=["check"]', 'tags=["check", "hint"]', "tags of a cell"),
        ],
    )
    def test_malformed_sources_are_refused(self, course: ModuleType, tmp_path: Path, old: str, new: str, message: str):
        assert old in self.SOURCE
        with pytest.raises(course.Malformed, match=message):
            self.made(course, tmp_path, self.SOURCE.replace(old, new))

    def test_a_change_of_the_source_is_noticed_and_written(self, course: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        (tmp_path / "solutions").mkdir()
        page = tmp_path / "README.md"
        page.write_text(f"before\n{course.BEGIN}\nold\n{course.END}\nafter\n", encoding="utf-8")
        (tmp_path / "77_sums.py").write_text(self.SOURCE, encoding="utf-8")
        monkeypatch.setattr(course, "ROOT", tmp_path)
        monkeypatch.setattr(course, "SOURCES", tmp_path)
        monkeypatch.setattr("sys.argv", ["course.py"])
        assert course.main() == 0 and not course.stale()
        before, table, after = page.read_text(encoding="utf-8").partition("| [77_sums](77_sums.ipynb)<br>A title ([solved]")
        assert before.startswith("before\n") and after.endswith("after\n") and "old" not in before
        assert table and "| what is one and one? | a second | [![Open in Colab]" in after
        open_ = tmp_path / "77_sums.ipynb"
        open_.write_text(open_.read_text(encoding="utf-8").replace("# A title", "# Another"), encoding="utf-8")
        (tmp_path / "solutions" / "78_gone.ipynb").write_text("{}", encoding="utf-8")
        assert course.stale() == [open_, tmp_path / "solutions" / "78_gone.ipynb"]
        monkeypatch.setattr("sys.argv", ["course.py", "--check"])
        assert course.main() == 1 and "# Another" in open_.read_text(encoding="utf-8")
        monkeypatch.setattr("sys.argv", ["course.py"])
        assert course.main() == 0 and not course.stale()


@pytest.mark.parametrize("name", NAMES)
class TestForm:
    @pytest.mark.parametrize("folder", ["", "solutions"])
    def test_it_is_stored_without_outputs_and_opens_in_any_jupyter(self, name: str, folder: str):
        notebook = read(name, SOURCES / folder)
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
        assert notebook["metadata"]["kernelspec"]["name"] == "python3"
        assert notebook["metadata"]["license"] == "Apache-2.0"
        identifiers = [cell["id"] for cell in notebook["cells"]]
        assert len(set(identifiers)) == len(identifiers) and all(identifiers)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                assert cell["outputs"] == [] and cell["execution_count"] is None, cell["id"]

    def test_every_parameter_has_a_type_a_default_and_a_word_of_help(self, name: str):
        found = notebooks.parameters(notebooks.find(name))
        common = [parameter for parameter in found if parameter in COMMON]
        assert common == [parameter for parameter in COMMON if parameter in found], "the common ones stand in one order"
        assert {"out", "fast"} <= set(found) and found["fast"].default is False and found["out"].default == f"../runs/{name}"
        assert name not in STAGES or common == COMMON
        assert all(parameter.help for parameter in found.values())

    def test_papermill_reads_the_same_parameters(self, name: str):
        papermill = pytest.importorskip("papermill", reason="papermill is not installed")
        for path in (SOURCES / f"{name}.ipynb", notebooks.find(name)):
            seen = papermill.inspect_notebook(str(path))
            ours = notebooks.parameters(path)
            assert {n: (p["inferred_type_name"], p["help"]) for n, p in seen.items()} == {n: (p.type, p.help) for n, p in ours.items()}

    def test_cells_are_small_and_define_nothing_but_what_an_exercise_asks_for(self, name: str):
        made = read(name, SOURCES / "solutions")["cells"]
        code = [cell for cell in made if cell["cell_type"] == "code"]
        assert statistics.median(len(cell["source"]) for cell in code) <= 5
        for cell in code:
            nodes = ast.walk(ast.parse("".join(cell["source"])))
            defined = [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))]
            assert not defined or tag(cell) == "solution", cell["id"]

    def test_it_imports_the_library_and_nothing_that_points_back(self, name: str):
        nodes = walked(name)
        roots = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        roots |= {str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
        assert "tpo_lab" in roots and roots <= IMPORTS

    def test_ideas_are_checked_with_a_reason(self, name: str):
        checks = [node for node in walked(name) if isinstance(node, ast.Assert)]
        assert len(checks) >= 5 and all(node.msg is not None for node in checks)

    def test_it_says_what_it_asks_and_what_to_expect(self, name: str):
        words = cells(name, "markdown")
        assert words[0].startswith("# ") and all(f"**{part}**:" in words[0] for part in ("Question", "Time and hardware", "Before"))
        assert sum("**Predict**" in text for text in words) >= 2
        assert "emit(" in cells(name, "code")[-1]

    def test_it_has_exercises_with_a_time_and_ends_with_a_summary_and_two_more(self, name: str):
        words = cells(name, "markdown")
        tasks = [text for text in words if "### Exercise" in text]
        tags = [tag(cell) for cell in read(name)["cells"]]
        assert 2 <= len(tasks) == tags.count("exercise") and all("*You should spend up to" in text for text in tasks)
        assert [f"### Exercise {number}" in text for number, text in enumerate(tasks, start=1)] == [True] * len(tasks)
        assert read(name)["cells"][-1]["cell_type"] == "markdown"
        assert "## Summary" in words[-1] and "**Exercises**" in words[-1] and "\n2. " in words[-1] and "\n3. " not in words[-1]
        assert "| --- |" in words[-1].replace("|---|", "| --- |")

    def test_text_stands_before_what_is_run(self, name: str):
        kinds = [cell["cell_type"] for cell in read(name, SOURCES / "solutions")["cells"]]
        longest = max(len(run) for run in "".join("c" if kind == "code" else " " for kind in kinds).split())
        assert longest <= 6, "text before the code cells"

    def test_it_names_no_place_of_one_machine(self, name: str):
        text = (SOURCES / f"{name}.py").read_text(encoding="utf-8")
        assert not any(place in text for place in ("/home/", "/tmp/", "/work/", "C:\\"))


def test_each_notebook_leads_to_the_next():
    for name, following in itertools.pairwise(COURSE):
        assert f"]({following}.ipynb)" in cells(name, "markdown")[-1], f"{name} names {following} as the next"
