"""Makes the notebooks, and their table in notebooks/README.md, from their sources: `python tools/course.py` writes, `--check` only looks.

A source is `notebooks/NN_name.py` in the percent form of jupytext. Of each come two notebooks without outputs:
`notebooks/NN_name.ipynb`, in which the exercises are open, and `notebooks/solutions/NN_name.ipynb`, which runs from top to bottom.

Tags of cells: `parameters`, once. An exercise is a cell tagged `exercise`, whose code runs and answers nothing; cells of text tagged
`hint`, if any; a cell tagged `solution`; and a cell tagged `check`, which fails on a wrong answer and on none.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jupytext

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "notebooks"
REPOSITORY = "tpo-lab/tpo-lab"
"""Owner and name where the buttons of the README look for the notebooks."""
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
METADATA = {"kernelspec": KERNEL, "language_info": {"name": "python"}, "license": "Apache-2.0"}
TAGS = ("parameters", "exercise", "hint", "solution", "check")
BEGIN, END = "<!-- notebooks: written by tools/course.py -->", "<!-- end of notebooks -->"
BUTTONS = (
    (
        "Open in Colab",
        "https://colab.research.google.com/assets/colab-badge.svg",
        "https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}.ipynb",
    ),
    (
        "Open in Binder",
        "https://mybinder.org/badge_logo.svg",
        "https://mybinder.org/v2/gh/{repository}/main?labpath=notebooks/{name}.ipynb",
    ),
)
INSTALL = f"""# only where nothing is installed yet, as on a fresh machine in the cloud
from importlib.util import find_spec

if find_spec("tpo_lab") is None:
    get_ipython().run_line_magic("pip", "install -q 'tpo-lab[notebooks] @ git+https://github.com/{REPOSITORY}'")"""

Cell = dict[str, Any]


class Malformed(ValueError):
    """A source breaks a rule of the form."""


def sources() -> list[Path]:
    """The sources, in reading order."""
    return sorted(SOURCES.glob("[0-9][0-9]_*.py"))


def cells_of(source: Path) -> list[Cell]:
    """The cells of a source: kind, text and tag.

    Raises:
        Malformed: a tag that is none, more than one tag on a cell, or an exercise without its parts in order.
    """
    found = []
    for cell in jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent").cells:
        tags = cell.metadata.get("tags", [])
        if len(tags) > 1 or not set(tags) <= set(TAGS):
            raise Malformed(f"{source.name}: tags of a cell: expected one of {', '.join(TAGS)}, or none, got {tags}: {cell.source[:60]!r}")
        found.append({"kind": cell.cell_type, "text": cell.source, "tag": tags[0] if tags else ""})
    _require_whole_exercises(source, [cell["tag"] for cell in found])
    return found


def _require_whole_exercises(source: Path, tags: Sequence[str]) -> None:
    if tags.count("parameters") != 1:
        raise Malformed(f"{source.name}: expected one cell tagged parameters, got {tags.count('parameters')}")
    letters = "".join({"exercise": "e", "hint": "h", "solution": "s", "check": "c"}.get(tag, ".") for tag in tags)
    wrong = re.sub(r"eh*sc", "", letters).strip(".")
    if wrong:
        order = "exercise, any hints, solution, check"
        raise Malformed(f"{source.name}: expected cells of an exercise in the order {order}, got {[t for t in tags if t]}")


def solved(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with each exercise done."""
    return [cell for cell in cells if cell["tag"] not in ("exercise", "hint")]


def unsolved(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with each exercise open, its hints and its solution folded below it."""
    first = [{"kind": "code", "text": INSTALL, "tag": ""}]
    return [*cells[:1], *first, *_folded(cells[1:])]


def _folded(cells: Sequence[Cell]) -> Iterator[Cell]:
    folds: list[str] = []
    for cell in cells:
        if cell["tag"] == "hint":
            folds.append(_fold("Hint", cell["text"]))
        elif cell["tag"] == "solution":
            folds.append(_fold("Solution", f"```python\n{cell['text']}\n```"))
            yield {"kind": "markdown", "text": "\n\n".join(folds), "tag": ""}
            folds = []
        else:
            yield cell


def _fold(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def notebook(name: str, cells: Sequence[Cell]) -> dict[str, Any]:
    """A notebook without outputs, equal for equal cells."""
    return {"cells": [_cell(name, *each) for each in enumerate(cells, start=1)], "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def _cell(name: str, number: int, cell: Cell) -> dict[str, Any]:
    identifier = f"{name[:2]}-{cell['tag'] or cell['kind']}-{number:02d}"
    made = {
        "cell_type": cell["kind"],
        "id": identifier,
        "metadata": {"tags": [cell["tag"]]} if cell["tag"] else {},
        "source": cell["text"].splitlines(keepends=True),
    }
    return made if cell["kind"] == "markdown" else {**made, "execution_count": None, "outputs": []}


def made() -> dict[Path, str]:
    """What each notebook should hold."""
    found = {}
    for source in sources():
        cells = cells_of(source)
        for folder, chosen in ((SOURCES, unsolved(cells)), (SOURCES / "solutions", solved(cells))):
            text = json.dumps(notebook(source.stem, chosen), indent=1, ensure_ascii=False) + "\n"
            found[folder / f"{source.stem}.ipynb"] = text
    page = SOURCES / "README.md"
    return {**found, page: with_table(page.read_text(encoding="utf-8"))}


def with_table(page: str) -> str:
    """The page with the table of the notebooks as it is now.

    Raises:
        Malformed: the page has no place for it.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise Malformed(f"notebooks/README.md: expected the lines {BEGIN} and {END}")
    rows = ["| notebook | question | time on two CPU cores | open it elsewhere |", "|---|---|---|---|", *map(row, sources())]
    table = "\n".join(rows)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def row(source: Path) -> str:
    """A line of the table: what the first cell of a notebook says."""
    first = cells_of(source)[0]["text"]
    title = first.splitlines()[0].lstrip("# ")
    name = f"[{source.stem}]({source.stem}.ipynb)<br>{title} ([solved](solutions/{source.stem}.ipynb))"
    time = said(source, first, "Time and hardware").partition(";")[0].rstrip(".")
    return f"| {name} | {said(source, first, 'Question')} | {time} | {' '.join(button(source.stem, *each) for each in BUTTONS)} |"


def said(source: Path, text: str, part: str) -> str:
    """What the first cell says under a bold word.

    Raises:
        Malformed: nothing.
    """
    found = re.search(rf"\*\*{part}\*\*: (.+?)(?:\n\n|\Z)", text, re.DOTALL)
    if found is None:
        raise Malformed(f"{source.name}: expected **{part}**: in the first cell, got {text[:60]!r}")
    return " ".join(found[1].split())


def button(name: str, title: str, picture: str, place: str) -> str:
    """A picture that leads to a notebook in the cloud."""
    return f"[![{title}]({picture})]({place.format(repository=REPOSITORY, name=name)})"


def stale() -> list[Path]:
    """Notebooks that differ from what their sources make, or have none; and the README, where its table does."""
    wanted = made()
    there = {SOURCES / "README.md", *SOURCES.glob("*.ipynb"), *(SOURCES / "solutions").glob("*.ipynb")}
    differs = {path for path, text in wanted.items() if path not in there or path.read_text(encoding="utf-8") != text}
    return sorted(differs | (there - wanted.keys()))


def main() -> int:
    """Write the notebooks, or name those that are out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a notebook is out of date")
    found = stale()
    if parser.parse_args().check:
        print("\n".join(f"out of date: {path.relative_to(ROOT)}" for path in found), end="\n" if found else "")
        return 1 if found else 0
    wanted = made()
    for path in found:
        if path in wanted:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
        print(f"{'written' if path in wanted else 'removed'}: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
