"""Imports go one way, notebooks -> tpo_widgets -> tpo_lab, and `import tpo_lab` stays light. Read from the sources."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAB = sorted((ROOT / "tpo_lab").rglob("*.py"))
WIDGETS = sorted((ROOT / "widgets" / "tpo_widgets").rglob("*.py"))

DRAWING = {"ipywidgets", "plotly", "papermill", "anywidget", "IPython", "jupyterlab"}
HEAVY = {"transformers", "peft", "accelerate", "papermill", "plotly", "ipywidgets", "anywidget", "pandas", "tpo_widgets"}


def imported(node: ast.AST) -> Iterator[str]:
    """The first component of each name an import statement asks for; relative imports stay inside their package."""
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield node.module.partition(".")[0]


def anywhere(source: str) -> set[str]:
    """Names imported anywhere in the source, inside functions too, and by `importlib.import_module("name")`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names.update(imported(node))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            argument = node.args[0]
            if called in {"import_module", "__import__"} and isinstance(argument, ast.Constant):
                names.add(str(argument.value).partition(".")[0])
    return names


def at_import_time(source: str) -> set[str]:
    """Names imported while the module loads: not those inside functions, nor those under `if TYPE_CHECKING:`."""
    names: set[str] = set()
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        names.update(imported(node))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending.extend(node.orelse)
            continue
        pending.extend(ast.iter_child_nodes(node))
    return names


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_readers_see_what_they_should():
    source = """
import os, plotly.express as px
from tpo_lab.heads import region
from . import sibling
if TYPE_CHECKING:
    import typed_only
else:
    import otherwise
try:
    import tried
except ImportError:
    import instead
class Room:
    import in_class
    def method(self):
        import inside
        importlib.import_module("by_name.part")
"""
    loaded = {"os", "plotly", "tpo_lab", "otherwise", "tried", "instead", "in_class"}
    assert at_import_time(source) == loaded
    assert anywhere(source) == loaded | {"typed_only", "inside", "by_name"}


@pytest.mark.parametrize("path", LAB, ids=name_of)
def test_library_never_imports_the_views_nor_the_tests(path: Path):
    assert anywhere(path.read_text()).isdisjoint({"tpo_widgets", "notebooks", "tests"})


@pytest.mark.parametrize("path", LAB, ids=name_of)
def test_library_loads_without_anything_that_draws(path: Path):
    assert at_import_time(path.read_text()).isdisjoint(DRAWING)


@pytest.mark.parametrize("path", WIDGETS, ids=name_of)
def test_views_never_import_from_notebooks_or_tests(path: Path):
    assert anywhere(path.read_text()).isdisjoint({"notebooks", "tests", "papermill", "nbclient"})


@pytest.mark.parametrize("module", ["tpo_lab", "tpo_lab.errors", "tpo_lab.doctor"])
def test_light_module_loads_nothing_heavy(module: str):
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    path = [str(ROOT), str(ROOT / "widgets")]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(json.loads(done.stdout))
    assert module in loaded
    assert loaded.isdisjoint(HEAVY)
    assert loaded.isdisjoint({"torch", "av"}), "even torch waits until it is used"
