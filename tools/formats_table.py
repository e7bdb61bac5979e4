"""Writes the table of official formats into data/README.md, from the formats themselves: `python tools/formats_table.py`."""

from __future__ import annotations

from pathlib import Path

from tpo_lab.datasets.formats import FORMATS, Format

PAGE = Path(__file__).parents[1] / "data" / "README.md"
BEGIN, END = "<!-- formats: written by tools/formats_table.py -->", "<!-- end of formats -->"


def table() -> str:
    """The formats as markdown, a row each."""
    rows = ["| format | data sets | what `SRC` is | home | licence |", "|---|---|---|---|---|", *map(row, FORMATS.values())]
    return "\n".join(rows) + "\n"


def row(form: Format) -> str:
    """One format: its name with what may be chosen, and the facts."""
    chosen = [("--variant", form.variants), ("--split", form.splits), ("--with", form.sides)]
    options = "".join(f"<br>{option} {', '.join(names)}" for option, names in chosen if names)
    name = f"`{form.name}`" + (" (writes submissions)" if form.write else "")
    cells = (name + options, form.title, form.layout, form.home, form.licence)
    return "| " + " | ".join(cell.replace("\n", "<br>").replace("|", r"\|") for cell in cells) + " |"


def page(text: str) -> str:
    """The page with the table as it is now.

    Raises:
        ValueError: the page has no place for it.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE}: expected the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
