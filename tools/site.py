"""Runs the course and makes a site of it that opens from disk: `python tools/site.py --out build/notebooks`.

Every solved notebook runs in fast mode (or in full, with `--full`) and becomes a page with its pictures; formulas are MathML, links lead
from page to page, and nothing is loaded from anywhere. index.html lists the pages with what each asks and found. A notebook that failed has
a page too, with the cell that failed; then the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from tpo_lab import notebooks
from tpo_lab.errors import TPOError

FORMULA = re.compile(r"\$\$(?P<display>.+?)\$\$|(?<![\\$\w])\$(?P<inline>[^$\n]+?)\$(?![\w$])", re.DOTALL)
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
SCRIPTS = re.compile(r"<script[^>]*>(?:(?!</script>).)*</script>", re.DOTALL)
"""All that the exporter adds; outputs that need scripts of their own would need them back."""
WIDGET = "application/vnd.jupyter.widget-view+json"
STYLE = """
:root { color-scheme: light dark; --ink: #222; --faint: #d9dde3; --back: #fff; --link: #0b5cad; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --faint: #3a3f47; --back: #16181c; --link: #7db7f0; --bad: #ff8a80; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
a { color: var(--link); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; border-bottom: 1px solid var(--faint); padding: .5rem .6rem; vertical-align: top; }
td.n { text-align: right; white-space: nowrap; }
.bad { color: var(--bad); }
small { opacity: .75; }
"""


@dataclass(frozen=True)
class Page:
    """A notebook that ran: its name, the executed file, what it showed or why it failed, and wall seconds."""

    name: str
    executed: Path
    result: Mapping[str, Any]
    error: str
    seconds: float


def run(name: str, out: Path, *, fast: bool, threads: int) -> Page:
    """Run one solved notebook."""
    notebook = notebooks.find(name)
    folder = out / "runs" / name
    known = notebooks.parameters(notebook)
    values = {"out": str(folder), "fast": fast, **({"threads": threads} if threads and "threads" in known else {})}
    executed, began = folder / f"{name}.ipynb", time.monotonic()
    try:
        done = notebooks.execute(notebook, executed, values, env={"TPO_WORLDS": str(out / "runs")})
        return Page(name, executed, done.result, "", done.seconds)
    except TPOError as error:
        return Page(name, executed, {}, str(error), time.monotonic() - began)


def html(page: Page) -> str:
    """An executed notebook as one page without anything from elsewhere."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(page.executed, as_version=4)
    notebook.metadata.pop("widgets", None)
    said = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            said = first_sentence(cell.source)
            cell.source = with_mathml(cell.source.replace(".ipynb)", ".html)"))
        else:
            for output in cell.outputs:
                _stand_still(output, said)
    exporter = HTMLExporter(template_name="lab", mathjax_url="", require_js_url="", jquery_url="", widget_renderer_url="")
    exporter.anchor_link_text = ""
    text, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title(page.name)}})
    text = SCRIPTS.sub("", text)
    return text.replace("<body", f'<body style="max-width:62rem;margin:auto" data-name="{page.name}"', 1).replace(
        "<main>", '<p style="padding:0 1rem"><a href="index.html">All notebooks</a></p><main>', 1
    )


def _stand_still(output: Any, said: str) -> None:
    """What a page without a kernel shows of an output: the picture of a view, and every picture with words that a screen reader can say.

    Args:
        said: in the text before it.
    """
    data = output.get("data", {})
    if picture := data.pop("image/png", None):
        data.pop(WIDGET, None)
        source = picture if isinstance(picture, str) else "".join(picture)
        data["text/html"] = f'<img alt="{escape(said)}" src="data:image/png;base64,{"".join(source.split())}">'
    elif "image/svg+xml" in data:
        data["text/html"] = data.pop("image/svg+xml")


def first_sentence(text: str) -> str:
    """Of a markdown text, without its headings and marks."""
    plain = " ".join(line for line in text.splitlines() if not line.startswith("#"))
    words = " ".join(re.sub(r"[*`>|$]|\[([^\]]*)\]\([^)]*\)", lambda found: found[1] or "", plain).split())
    return re.split(r"(?<=[.?!:]) ", words, maxsplit=1)[0]


def with_mathml(text: str) -> str:
    """Formulas of a markdown text as MathML, which browsers draw without a script; code stays as it is."""
    return "".join(part if part.startswith("`") else FORMULA.sub(_mathml, part) for part in CODE.split(text))


def _mathml(found: re.Match[str]) -> str:
    from latex2mathml.converter import convert

    display = found["display"] is not None
    # on one line: an empty line would end the block for markdown
    return " ".join(convert((found["display"] or found["inline"]).strip(), display="block" if display else "inline").split())


def first_cell(name: str) -> str:
    """What a notebook says of itself."""
    cells = json.loads(notebooks.find(name).read_text(encoding="utf-8"))["cells"]
    return "".join(cells[0]["source"])


def title(name: str) -> str:
    """The heading of a notebook."""
    return first_cell(name).splitlines()[0].lstrip("# ")


def question(name: str) -> str:
    """What a notebook asks."""
    found = re.search(r"\*\*Question\*\*: (.+?)(?:\n\n|\Z)", first_cell(name), re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def index(pages: Sequence[Page], *, fast: bool) -> str:
    """The page that lists the others."""
    rows = "\n".join(_row(page) for page in pages)
    how = "in fast mode: small worlds and few steps, to see that every cell runs; the figures mean nothing" if fast else "in full"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>TPO Lab: the notebooks</title>
<style>{STYLE}</style></head><body>
<h1>TPO Lab: the notebooks</h1>
<p>The solved notebooks, run {how}. To do the exercises, open them with <code>make lab</code>.</p>
<table><thead><tr><th>notebook</th><th>question</th><th>found</th><th>seconds</th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


def _row(page: Page) -> str:
    found = f'<span class="bad">{escape(page.error)}</span>' if page.error else _found(page.result)
    link = f'<a href="{page.name}.html">{escape(title(page.name))}</a><br><small>{page.name}</small>'
    return f'<tr><td>{link}</td><td>{_inline(question(page.name))}</td><td>{found}</td><td class="n">{page.seconds:.0f}</td></tr>'


def _inline(text: str) -> str:
    """A line of markdown as HTML: code, bold and formulas."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return FORMULA.sub(_mathml, re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", marked))


def _found(result: Mapping[str, Any]) -> str:
    shown = [f"{escape(str(name))} {value:.3g}" for name, value in list(result.get("headline", {}).items())[:4] if _is_number(value)]
    return f"<small>{'<br>'.join(shown)}</small>"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def build(names: Sequence[str], out: Path, *, fast: bool = True, jobs: int = 2) -> list[Page]:
    """Run the notebooks and write the site; says what is done on standard error."""
    out.mkdir(parents=True, exist_ok=True)
    began, pages = time.monotonic(), []
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(run, name, out.resolve(), fast=fast, threads=1 if jobs > 1 else 0) for name in names]
        for number, job in enumerate(running, start=1):
            page = job.result()
            pages.append(page)
            say = f"{number}/{len(names)} {page.name}: {page.seconds:.0f} s {page.error}".rstrip()
            print(say, file=sys.stderr, flush=True)
            if page.executed.exists():
                (out / f"{page.name}.html").write_text(html(page), encoding="utf-8")
    (out / "index.html").write_text(index(pages, fast=fast), encoding="utf-8")
    print(f"{out / 'index.html'}, after {time.monotonic() - began:.0f} s", file=sys.stderr)
    return pages


def main() -> int:
    """Build the site of all notebooks, or of those named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebooks, such as 00_tour; all where none is named")
    parser.add_argument("--out", type=Path, default=Path("build/notebooks"), help="folder of the site (%(default)s)")
    parser.add_argument("--full", action="store_true", help="train in full, not in fast mode: an hour and more")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at a time (%(default)s)")
    asked = parser.parse_args()
    try:
        chosen = [name for name in notebooks.available() if name in {notebooks.find(each).stem for each in asked.names}]
        pages = build(chosen or list(notebooks.available()), asked.out, fast=not asked.full, jobs=asked.jobs)
    except TPOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if any(page.error for page in pages) else 0


if __name__ == "__main__":
    sys.exit(main())
