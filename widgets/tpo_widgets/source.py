"""Front-end code: the modules in `front/` joined into one inline ES module for each view, with no build step and nothing fetched.

A module may import names from its neighbours (`import { a, b } from "./other.js";`, one line) and export functions, classes and
constants; a view's own module ends with `export default`. Joined, they share one scope, so no two of them may define the same name.
Comments on lines of their own and indentation are left out, so a text in backquotes must not go over several lines.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z_]+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let)\b)", re.MULTILINE)
_DEFINED = re.compile(r"^(?:async )?(?:function\*?|class|const|let) ([A-Za-z_$][\w$]*)", re.MULTILINE)
_DEFAULT = re.compile(r"^export default ", re.MULTILINE)
# comments on lines of their own, empty lines and indentation: they would be a tenth of what every view adds to a notebook's state
_ASIDE = re.compile(r"^[ \t]*(?://.*|/\*\*[\s\S]*?\*/)?\n|^[ \t]+", re.MULTILINE)


@cache
def esm(entry: str) -> str:
    """The ES module of a view: the file `front/<entry>.js` after all that it imports, each once.

    Raises:
        ValueError: two modules define the same name.
    """
    code = "\n".join(_without_imports(name) for name in _in_order(entry))
    names = _DEFINED.findall(code)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"front/{entry}.js and its imports: expected each name to be defined once, got {', '.join(twice)} twice.")
    return _ASIDE.sub("", code)


@cache
def expression(entry: str) -> str:
    """The same as an expression whose value is what the module exports by default, for a page that has several of them."""
    return f"(() => {{\n{_DEFAULT.sub('return ', esm(entry))}\n}})()"


@cache
def css(*names: str) -> str:
    """Style sheets `front/<name>.css`, one after the other; names without a file are left out."""
    found = (files(__package__) / "front" / f"{name}.css" for name in names)
    return "\n".join(sheet.read_text(encoding="utf-8") for sheet in found if sheet.is_file())


def _text(name: str) -> str:
    return (files(__package__) / "front" / f"{name}.js").read_text(encoding="utf-8")


def _in_order(entry: str) -> list[str]:
    """Modules that `entry` needs, itself last."""
    found: list[str] = []

    def visit(name: str) -> None:
        for needed in _IMPORT.findall(_text(name)):
            visit(needed)
        if name not in found:
            found.append(name)

    visit(entry)
    return found


def _without_imports(name: str) -> str:
    return _EXPORT.sub("", _IMPORT.sub("", _text(name)))
