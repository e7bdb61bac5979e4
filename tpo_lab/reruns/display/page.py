"""Tables of runs as one web page that needs no network: sorted by a click, failed runs marked, links to notebooks and figures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tpo_lab.reruns.display.cells import cell, is_absent, numeric_columns

if TYPE_CHECKING:
    import pandas as pd

Links = Sequence[tuple[str, str]]
"""Text and address of each link of a cell."""


@dataclass(frozen=True)
class Section:
    """One table of the page.

    Attributes:
        title: above it.
        note: a sentence below the title.
        frame: the table.
        links: column -> for each row the links that stand in its cell.
        failed: for each row whether it is marked; none are where it is empty.
    """

    title: str
    note: str
    frame: pd.DataFrame
    links: Mapping[str, Sequence[Links]] = field(default_factory=dict)
    failed: Sequence[bool] = ()


def render(title: str, summary: str, sections: Sequence[Section]) -> str:
    """The page as HTML; everything that comes from data is escaped."""
    folder = files("tpo_lab") / "reruns" / "display"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    body = "\n".join(map(_section, sections))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # an empty icon: browsers would otherwise ask for one
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{style}</style></head>\n'
        f"<body>\n<h1>{escape(title)}</h1><p>{escape(summary)}</p>\n{body}\n<script>{script}</script>\n</body></html>\n"
    )


def address(path: Path, base: Path) -> str:
    """A file as a link from a page in the folder `base`."""
    return quote(Path(os.path.relpath(path.resolve(), base.resolve())).as_posix())


def _section(section: Section) -> str:
    right = numeric_columns(section.frame)
    heads = "".join(_head(str(name), name in right) for name in section.frame.columns)
    failed = section.failed or [False] * len(section.frame)
    rows = "\n".join(
        f"<tr{' class=failed' if is_failed else ''}>{_cells(section, place, row, right)}</tr>"
        for place, (row, is_failed) in enumerate(zip(section.frame.to_dict("records"), failed, strict=True))
    )
    table = f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'
    note = f"<p>{escape(section.note)}</p>" if section.note else ""
    return f"<section><h2>{escape(section.title)}</h2>{note}{table}</section>"


def _head(name: str, is_number: bool) -> str:
    return f'<th scope="col"{" class=n" if is_number else ""}><button type="button">{escape(name)}</button></th>'


def _cells(section: Section, place: int, row: Mapping[Any, Any], right: set[str]) -> str:
    cells = []
    for name, value in row.items():
        kind = " class=n" if name in right else " class=error" if name == "error" else ""
        if name in section.links:
            shown = " ".join(f'<a href="{escape(to)}">{escape(text)}</a>' for text, to in section.links[name][place])
        else:
            shown = escape(cell(value))
        raw = "" if is_absent(value) else str(value)
        cells.append(f'<td{kind} data-value="{escape(raw)}">{shown}</td>')
    return "".join(cells)
