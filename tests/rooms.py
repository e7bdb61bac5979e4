"""Who imports whom within a package of rooms, read from the sources: imports inside functions and for types included."""

from __future__ import annotations

import ast
from collections.abc import Collection


def rooms_in(source: str, package: str, rooms: Collection[str]) -> set[str]:
    """The rooms of a package that a source imports from; "" stands for the package itself and what lies in it beside its rooms."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom | ast.Import)]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    inside = [module.removeprefix(f"{package}.").split(".")[0] for module in modules if module.startswith(f"{package}.")]
    whole = {""} if package in modules else set()
    return whole | {name if name in rooms else "" for name in inside}
