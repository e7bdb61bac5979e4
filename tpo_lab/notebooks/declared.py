"""Which notebooks there are and which typed parameters they declare, read without running anything."""

from __future__ import annotations

import ast
import io
import json
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_lab.errors import UsageError, unknown_name

_TYPES: Mapping[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (float, int), "bool": (bool,)}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook: name, type ("str", "int", "float" or "bool"), default, and the comment behind it."""

    name: str
    type: str
    default: Any
    help: str


def available() -> dict[str, Path]:
    """The shipped notebooks by name, in reading order: those with every exercise done, which run from top to bottom."""
    from tpo_lab.backbones import shipped

    return {path.stem: path for path in sorted((shipped("notebooks") / "solutions").glob("*.ipynb"))}


def find(name: str) -> Path:
    """A shipped notebook by its name.

    Raises:
        UsageError: there is no such notebook.
    """
    found = available()
    if name not in found:
        raise unknown_name("notebook", name, found)
    return found[name]


def parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook, read from the cell tagged `parameters` without running anything.

    Raises:
        UsageError: there is no such cell, or one of its lines is not `name: type = value` of a type in str, int, float, bool.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    source = next(("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", ())), None)
    if source is None:
        raise UsageError(f"notebook {notebook.name}", expected="a cell tagged 'parameters'", got="none")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    for node in ast.parse(source).body:
        if not (
            isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value and ast.unparse(node.annotation) in _TYPES
        ):
            expected = f"name: type = value, the type one of {', '.join(_TYPES)}"
            raise UsageError(f"notebook {notebook.name}: parameters", expected=expected, got=ast.unparse(node))
        name = node.target.id
        found[name] = Parameter(name, ast.unparse(node.annotation), ast.literal_eval(node.value), comments.get(node.lineno, ""))
    return found


def checked(notebook: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, where each names a parameter of the notebook and has its type.

    Raises:
        UsageError: an unknown name (papermill would only log it), or a value of another type (papermill would pass it on).
    """
    known = parameters(notebook)
    for name, value in values.items():
        if name not in known:
            raise unknown_name(f"notebook {notebook.name}: parameter", name, known)
        kind = known[name].type
        if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
            raise UsageError(f"notebook {notebook.name}: {name}", expected=kind, got=value)
    return dict(values)
